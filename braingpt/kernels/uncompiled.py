"""What torch.compile leaves alone, said without importing the compiler.

`torch.compiler.disable` and `torch.compiler.assume_constant_result` import torch._dynamo, which takes two
seconds, in every command and every worker, though few of them compile anything.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """As `torch.compiler.disable`; the compiler is imported by the first call.

    torch keeps its own functions out of the graphs in this way.
    """
    return torch._disable_dynamo(function)  # pyright: ignore[reportPrivateImportUsage]


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """As `torch.compiler.assume_constant_result`, which sets this mark."""
    function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return function
