"""Which tokens a layer computes: selection, adaptive depth, early exit."""
