"""The state-space scan of Mamba-2: definition, chunked CPU path, GPU backends."""
