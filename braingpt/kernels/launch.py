"""The one point at which our Triton kernels start, so that what they read and write can be counted: torch's
dispatcher sees tensors of operators only.

A kernel moves each tensor it is handed once: what programs share, the cache gives them again. Where that is
not so (weights of which only some are read, a state that is read and written) the call says by how many
bytes. The numbers are those of Triton's interpreter, address by address (tests/kernels/test_launch.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

_counters: list[Callable[[int], None]] = []


def launch(
    kernel: Any, grid: tuple[int, ...], *args: Any, beyond: Callable[[], int] = lambda: 0, **meta: Any
) -> None:
    """Start `kernel` over `grid`.

    `beyond`: bytes it moves beyond each tensor once; asked only while somebody counts, since it may wait for
    the GPU.
    """
    kernel[grid](*args, **meta)
    if _counters:
        # counting is no part of what is counted
        with _disable_current_modes():
            moved = sum(held(arg) for arg in args if isinstance(arg, Tensor)) + beyond()
        for counter in _counters:
            counter(moved)


@contextmanager
def counting(counter: Callable[[int], None]) -> Iterator[None]:
    """Inside the `with`, `counter` is given the bytes of every launch."""
    _counters.append(counter)
    try:
        yield
    finally:
        _counters.remove(counter)


def held(tensor: Tensor) -> int:
    """Bytes of the numbers a tensor really has: what an expanded one repeats stands in memory once; a
    compressed one has its parts.
    """
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(held(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or not size else 1
    return count * tensor.element_size()
