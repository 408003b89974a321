"""Models that leave for other programs."""
