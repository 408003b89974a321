"""Which implementation of an operation runs, and why: one rule, visible in `braingpt doctor`.

Each operation names its paths from fastest to reference. The first that can run here, and takes the tensor at
hand, runs. `BRAINGPT_KERNELS=torch` forces all references, `BRAINGPT_KERNELS=scan=fla` (several parted by
commas) a path by name, to compare them.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Backend(NamedTuple):
    """One way to compute an operation."""

    name: str
    # why it cannot run on this machine (None: it can)
    unavailable_reason: Callable[[], str | None]
    # whether it is for tensors of this device and type
    supports: Callable[[Tensor], bool] = lambda _: True


_OPERATIONS: dict[str, list[Backend]] = {}


def anywhere() -> None:
    """The `unavailable_reason` of a backend that needs nothing."""


def forced_by_env(operation: str) -> str | None:
    """The path of the operation that BRAINGPT_KERNELS asks for, if it does.

    Raises ValueError if there is none of that name.
    """
    wanted = os.environ.get("BRAINGPT_KERNELS", "")
    names = [path.name for path in _OPERATIONS[operation]]
    if wanted == "torch":
        return names[-1]
    name = dict(part.partition("=")[::2] for part in wanted.split(",")).get(operation)
    if name is not None and name not in names:
        raise ValueError(
            f"BRAINGPT_KERNELS asks for {operation}={name}; the paths of {operation} are {', '.join(names)}"
        )
    return name


def register(operation: str, *paths: tuple) -> None:
    """Name the paths of an operation (as `Backend`), fastest first, the reference last."""
    _OPERATIONS[operation] = [Backend(*path) for path in paths]


def select(operation: str, tensor: Tensor | None = None) -> str:
    """Name of the path that runs for this tensor; without one, of the best that this machine has."""
    if (name := forced_by_env(operation)) is not None:
        return name
    here = _runnable(operation)
    return next(
        path.name
        for path in _OPERATIONS[operation]
        if path.name in here and (tensor is None or path.supports(tensor))
    )


# looking for libraries is nothing torch.compile could trace
@torch.compiler.assume_constant_result
def _runnable(operation: str) -> tuple[str, ...]:
    """Names of the operation's paths that this machine can run."""
    return tuple(path.name for path in _OPERATIONS[operation] if path.unavailable_reason() is None)


def wrong_choice() -> str | None:
    """What BRAINGPT_KERNELS asks for and is not there, in words; None where all is well."""
    _register_all()
    wanted = os.environ.get("BRAINGPT_KERNELS", "")
    for part in wanted.split(",") if wanted not in ("", "torch") else ():
        operation, _, name = part.partition("=")
        if operation not in _OPERATIONS:
            return f"BRAINGPT_KERNELS asks for '{part}'; it is torch, or OPERATION=PATH with an operation of {', '.join(sorted(_OPERATIONS))}"
        paths = [path.name for path in _OPERATIONS[operation]]
        if name not in paths:
            return f"BRAINGPT_KERNELS asks for {operation}={name}; the paths of {operation} are {', '.join(paths)}"
    return None


def _register_all() -> None:
    from braingpt.kernels.scan import scan  # noqa: F401  (each registers its operation)


def report() -> list[dict[str, Any]]:
    """For each operation the path that runs here, and the others with the reason why they do not."""
    _register_all()
    rows = []
    for operation, paths in sorted(_OPERATIONS.items()):
        runs = select(operation)
        ahead = (
            f"BRAINGPT_KERNELS={os.environ['BRAINGPT_KERNELS']} is set"
            if forced_by_env(operation)
            else f"{runs} comes first"
        )
        others = {path.name: path.unavailable_reason() or ahead for path in paths if path.name != runs}
        rows.append({"operation": operation, "runs": runs, "others": others})
    return rows
