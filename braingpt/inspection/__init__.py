"""What is really sparse: per layer, counted on real text."""
