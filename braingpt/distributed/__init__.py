"""Training on several processes: the world of ranks, and tensors sharded over the ranks."""
