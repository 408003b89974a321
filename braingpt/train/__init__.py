"""Training: the loop, its learner, stability, growth, resuming, plans and run folders."""
