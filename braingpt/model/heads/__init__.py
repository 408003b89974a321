"""Heads: from hidden states to the next token. Each is the embedding as well."""
