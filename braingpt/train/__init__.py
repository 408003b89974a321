"""Training: the loop, growth, resuming, validation, plans and run folders."""
