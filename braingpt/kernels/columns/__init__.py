"""Columns computed only where they win: torch path and Triton kernels."""
