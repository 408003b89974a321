"""One file per operation: the reference in plain torch, and its fast paths. Imports nothing of ours."""
