"""Shards to batches: the mixture of languages, and the rows of each step."""
