"""torch.compile for training and generation, and one clear line for the user where it fails.

Training compiles the forward pass of each kind of block (`LanguageModel.compile_blocks`). Generation has a
step in C++ (`kernels/step`), or compiles the step of each kind of block (`LanguageModel.compile_steps`).
So a deep model takes no longer to compile than a shallow one.
The head and the loss are a few large products and gain nothing from compiling.
"""

import logging
import os
import shutil
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

import torch

from braingpt.errors import Failure, UserError

P = ParamSpec("P")
R = TypeVar("R")
# Graphs of a block's step, over kinds of blocks and growing caches; torch's own limit is 8.
COMPILED_GRAPHS = 32


class Compilable(Protocol):
    """A model that knows which of its parts to compile."""

    # One token more of each row: to logits, and to a distribution.
    step: Callable[..., Any]
    next_tokens: Callable[..., Any]

    def compile_blocks(self, backend: str) -> None:
        """Compile what training calls."""

    def compile_steps(self, backend: str | None) -> None:
        """Compile what generation calls; None leaves the way to the model."""


def compile_training(
    model: Compilable, forward: Callable[P, R], device: torch.device, backend: str = "inductor"
) -> Callable[P, R]:
    """Compile the model's blocks for training.

    Args:
        model: The model, compiled in place.
        forward: What training calls: the model, or a wrapper of it such as DistributedDataParallel.
        device: Where the model is.
        backend: A backend of torch.compile.

    Returns:
        `forward`, which raises Failure where torch.compile fails.

    Raises:
        UserError: There is no C++ compiler.
    """
    check_compiler(device, "train")
    model.compile_blocks(backend)
    return _fail_in_one_line(forward, "train")


def compile_steps(model: Compilable, device: torch.device, backend: str | None = None) -> None:
    """Compile the model's steps of generation in place, by default in the way that the model prefers.

    Raises UserError where there is no C++ compiler; the first step raises Failure where torch.compile fails.
    """
    check_compiler(device, "generate")
    model.compile_steps(backend)
    model.step = _fail_in_one_line(model.step, "generate")
    model.next_tokens = _fail_in_one_line(model.next_tokens, "generate")


def compile_function(function: Callable[P, R], backend: str) -> Callable[P, R]:
    """Compile a function of the model.

    Args:
        function: The function.
        backend: A backend of torch.compile.

    Returns:
        The compiled function, with the same arguments.
    """
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, COMPILED_GRAPHS)
    # Inductor's own checks of every input's shape repeat what torch.compile has checked, and take a tenth of
    # a block's step.
    options: dict[str, str | int | bool | Callable[..., Any]] | None = None
    if backend == "inductor":
        options = {"size_asserts": False}
    return torch.compile(function, backend=backend, options=options)


def check_compiler(device: torch.device, job: str, what: str = "--compile") -> None:
    """Check that torch.compile will find a compiler, and silence its warnings.

    Args:
        device: Where compiled code will run.
        job: What the user can do without compiling, for the message: "train", "generate".
        what: The option that needs the compiler, for the message.

    Raises:
        UserError: There is no compiler.
    """
    if os.environ.get("CXX"):
        compilers = [os.environ["CXX"]]
    else:
        compilers = ["g++", "clang++"] if device.type == "cpu" else ["gcc", "clang", "cc"]
    if not any(shutil.which(name) for name in compilers):
        raise UserError(
            f"{what} needs a C++ compiler ({' or '.join(compilers)}); install one, or {job} without {what}"
        )
    # Graph breaks cost speed and not correctness, so a user need not read of them.
    torch._logging.set_logs(dynamo=logging.ERROR)  # pyright: ignore[reportPrivateImportUsage]
    warnings.filterwarnings("ignore", module="torch._dynamo")
    # A product that is still in float32 is so on purpose.
    warnings.filterwarnings("ignore", message="TensorFloat32", module="torch._inductor")


def _fail_in_one_line(function: Callable[P, R], job: str) -> Callable[P, R]:
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            from torch._dynamo.exc import TorchDynamoException

            if not isinstance(error, TorchDynamoException):
                raise
            first_line = str(error).strip().splitlines()[0]
            raise Failure(
                f"torch.compile cannot compile this model here ({first_line}); {job} without --compile"
            ) from error

    return guarded
