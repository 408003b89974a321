"""Attention over the keys of largest score: reference, CPU blocks, Triton kernels."""
