"""Generating from a model: decoding, sampling, text, chat."""
