"""Every operation that has a choice of backends; importing this module registers them all.

`report` is what `braingpt doctor` prints about kernels, and `wrong_choice` checks BRAINGPT_KERNELS.
"""

import os
from typing import TypedDict

# Each module registers its operation when it is imported.
from braingpt.kernels import cross_entropy, delta_rule, dispatch, int8, pointwise, two_four  # noqa: F401
from braingpt.kernels import word_softmax as _word_softmax  # noqa: F401
from braingpt.kernels.columns import columns  # noqa: F401
from braingpt.kernels.competition import competition  # noqa: F401
from braingpt.kernels.scan import scan  # noqa: F401
from braingpt.kernels.sparse_attention import sparse_attention  # noqa: F401
from braingpt.kernels.step import library  # noqa: F401


class OperationReport(TypedDict):
    """Which backend of an operation runs, and for each other backend why it does not."""

    operation: str
    runs: str
    others: dict[str, str]


def report() -> list[OperationReport]:
    """For each operation the backend that runs on this machine and why the others do not."""
    rows: list[OperationReport] = []
    for operation in dispatch.operations():
        runs = dispatch.select(operation)
        precedence = (
            f"BRAINGPT_KERNELS={os.environ['BRAINGPT_KERNELS']} is set"
            if dispatch.forced_by_env(operation)
            else f"{runs} comes first"
        )
        others = {
            backend.name: backend.unavailable_reason() or precedence
            for backend in dispatch.backends(operation)
            if backend.name != runs
        }
        rows.append({"operation": operation, "runs": runs, "others": others})
    return rows


def wrong_choice() -> str | None:
    """The mistake in BRAINGPT_KERNELS, in one line for the user; None where there is none."""
    setting = os.environ.get("BRAINGPT_KERNELS", "")
    for choice in setting.split(",") if setting not in ("", "torch") else ():
        operation, _, name = choice.partition("=")
        if operation not in dispatch.operations():
            known = ", ".join(dispatch.operations())
            return (
                f"BRAINGPT_KERNELS asks for '{choice}'; it is torch, or OPERATION=BACKEND "
                f"with an operation of {known}"
            )
        if name not in [backend.name for backend in dispatch.backends(operation)]:
            return dispatch.unknown_backend(operation, name)
    return None
