"""Reads the array files of the quality rules (.npz, .npy): a file that its rule cannot use is one line.

An archive has a checksum of each array. The shapes and types of the arrays are checked by the rules, each
through `check`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from braingpt.errors import UserError, one_line


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a damaged or foreign file raises into a UserError that names the file.

    Args:
        path: The file.
        what: What the file should be, as in "is not WHAT".
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # numpy, zipfile and zlib raise more than ten types for what is no array file.
        raise UserError(f"{path} is not {what} ({one_line(error)}); make it again, or name another") from None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an archive by their names; call it inside `reading`."""
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def check(name: str, array: np.ndarray, shape: tuple[int | None, ...], kinds: str) -> np.ndarray:
    """The array, whose shape and type are as they should be.

    Args:
        name: Its name in the file.
        array: The array.
        shape: Length of each dimension; None for any.
        kinds: Allowed kinds of numpy's dtypes, such as "fu".

    Returns:
        The array.

    Raises:
        ValueError: It has another shape or type, or a value that is no number.
    """
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in kinds:
        raise ValueError(f"'{name}' is {array.dtype} {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"'{name}' holds values that are no numbers")
    return array
