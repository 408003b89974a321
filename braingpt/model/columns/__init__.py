"""Cortical columns: the sparse and the silenced MLP, their competition, 2:4 weights."""
