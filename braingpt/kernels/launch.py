"""The one place where our Triton kernels start, so that the bytes they move can be counted.

torch's dispatcher only sees the tensors of operators.
A kernel moves each of its tensors once, because the cache serves what programs share.
Where that is not so (weights of which only some are read, a state that is read and written) the call says by
how many bytes.
These counts are those of Triton's interpreter, address by address (`tests/kernels/test_launch.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes


@runtime_checkable
class TensorWithParts(Protocol):
    """A tensor subclass that wraps others, such as torch's tensors for sparse tensor cores."""

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """Names of the attributes that hold the parts, and what else is needed to rebuild the tensor."""
        ...


_counters: list[Callable[[int], None]] = []


def launch(
    kernel: Any, grid: tuple[int, ...], *args: Any, extra_bytes: Callable[[], int] = lambda: 0, **meta: Any
) -> None:
    """Start a Triton kernel.

    Args:
        kernel: A function decorated with `triton.jit`.
        grid: Programs along each axis.
        *args: The kernel's tensors and numbers.
        extra_bytes: Bytes moved beyond each tensor once; called only while counting, as it may wait for the
            GPU.
        **meta: The kernel's constants and launch options.
    """
    kernel[grid](*args, **meta)
    report_bytes(lambda: sum(stored_bytes(arg) for arg in args if isinstance(arg, Tensor)) + extra_bytes())


def report_bytes(moved: Callable[[], int]) -> None:
    """Report the bytes that work outside torch's dispatcher moved; `moved` is called only while counting."""
    if _counters:
        # Counting must not be counted itself.
        with _disable_current_modes():
            count = moved()
        for counter in _counters:
            counter(count)


@contextmanager
def count_launches(counter: Callable[[int], None]) -> Iterator[None]:
    """Inside the `with`, `counter` gets the bytes that each launch moves."""
    _counters.append(counter)
    try:
        yield
    finally:
        _counters.remove(counter)


def stored_bytes(tensor: Tensor) -> int:
    """Bytes a tensor takes in memory.

    What an expanded tensor repeats counts once, and a compressed tensor counts its parts.
    """
    if isinstance(tensor, TensorWithParts):
        return sum(stored_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or not size else 1
    return count * tensor.element_size()
