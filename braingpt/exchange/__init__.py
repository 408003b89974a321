"""Exchange with other programs: exporting models."""
