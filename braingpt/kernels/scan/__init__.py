"""The state-space scan of Mamba-2."""
