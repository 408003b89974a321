"""Attention over the keys of largest score."""
