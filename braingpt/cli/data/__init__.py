"""`braingpt data ...`."""
