"""Checkpoints: format, saving, loading, listing."""
