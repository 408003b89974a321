"""Heads: from the last hidden state to logits and to the loss."""
