"""Which implementation of an operation runs, and why: one rule, visible in `braingpt doctor`.

Each operation names its paths from fastest to reference. The first whose condition holds runs;
`BRAINGPT_KERNELS=torch` forces the reference.
"""

import os
from collections.abc import Callable
from typing import Any

Path = tuple[str, Callable[[], str | None]]  # name, and why it cannot run here (None: it can)

_OPERATIONS: dict[str, list[Path]] = {}


def forced_reference() -> bool:
    """Whether BRAINGPT_KERNELS=torch asks for the plain torch references."""
    return os.environ.get("BRAINGPT_KERNELS") == "torch"


def register(operation: str, *paths: Path) -> None:
    """Name the paths of an operation, fastest first, the reference last."""
    _OPERATIONS[operation] = list(paths)


def chosen(operation: str) -> str:
    """Name of the path that runs here."""
    paths = _OPERATIONS[operation]
    if forced_reference():
        return paths[-1][0]
    return next(name for name, why_not in paths if why_not() is None)


def report() -> list[dict[str, Any]]:
    """For each operation the path that runs here, and the others with the reason why they do not."""
    from braingpt.kernels import cross_entropy, delta, grouped, scan  # noqa: F401  (each registers its operation)

    rows = []
    for operation, paths in sorted(_OPERATIONS.items()):
        runs = chosen(operation)
        ahead = "BRAINGPT_KERNELS=torch is set" if forced_reference() else f"{runs} comes first"
        others = {name: why_not() or ahead for name, why_not in paths if name != runs}
        rows.append({"operation": operation, "runs": runs, "others": others})
    return rows
