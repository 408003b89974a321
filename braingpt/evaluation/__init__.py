"""Perplexity and bits per byte, by language."""
