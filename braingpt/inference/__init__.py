"""Loading a run and generating from it."""
