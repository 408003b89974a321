"""Pages that stand alone: one HTML file with its plots inside, nothing loaded, no scripts."""
