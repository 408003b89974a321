"""Random inputs in float64, and the comparison of two ways to compute the same."""

import torch


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same_gradients(first, second, inputs) -> None:
    """Both results, and their gradients under one random upstream, agree."""
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-10)
    upstream = normal(99, *first.shape)
    grads = [
        torch.autograd.grad(out, inputs, upstream, retain_graph=True, allow_unused=True)
        for out in (first, second)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
