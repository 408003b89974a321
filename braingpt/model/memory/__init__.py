"""Memories inside the network."""
