"""Helpers that know nothing of language models: atomic writes, and numbers as text."""
