"""The competition of columns: router, lateral inhibition, top-k."""
