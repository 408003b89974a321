"""torch.compile, where it is asked for: is there a compiler, and one clear line where it does not get
through.

Training compiles the forward pass of each kind of block (`LanguageModel.compile_blocks`), generation its step
(`compile_steps`): a deep model takes no longer to compile than a shallow one, and head and loss, a few large
products, gain nothing by it.
"""

import logging
import os
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import torch

from braingpt.errors import Failure, UserError


def compile_training(
    model: Any, forward: Callable[..., Any], device: torch.device, backend: str = "inductor"
) -> Callable[..., Any]:
    """`forward` with the model's blocks compiled.

    Raises UserError where no compiler can be found, `forward` Failure where it does not get through.
    """
    check_compiler(device, "train")
    model.compile_blocks(backend)
    return _guarded(forward, "train")


def compile_steps(model: Any, device: torch.device, backend: str = "inductor") -> None:
    """Compile the model's steps of generation. Raises as `compiled`, Failure at the first step."""
    check_compiler(device, "generate")
    model.compile_steps(backend)
    model.step = _guarded(model.step, "generate")


def compiled_piece(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """A part of the model, compiled.

    Inductor's own checks of every input's shape, a tenth of a block's step, repeat what torch.compile has
    checked.
    """
    return torch.compile(
        function, backend=backend, options={"size_asserts": False} if backend == "inductor" else None
    )


def check_compiler(device: torch.device, job: str, what: str = "--compile") -> None:
    """UserError where torch.compile would find no compiler; otherwise it is told to keep its warnings to
    itself.
    """
    compilers = (
        [os.environ["CXX"]]
        if os.environ.get("CXX")
        else ["g++", "clang++"]
        if device.type == "cpu"
        else ["gcc", "clang", "cc"]
    )
    if not any(shutil.which(name) for name in compilers):
        raise UserError(
            f"{what} needs a C++ compiler ({' or '.join(compilers)}); install one, or {job} without {what}"
        )
    # graph breaks cost speed, not correctness: nothing to tell a user
    torch._logging.set_logs(dynamo=logging.ERROR)
    warnings.filterwarnings("ignore", module="torch._dynamo")
    # float32 is meant where it is left
    warnings.filterwarnings("ignore", message="TensorFloat32", module="torch._inductor")


def _guarded(function: Callable[..., Any], job: str) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            first = str(error).strip().splitlines()[0]
            raise Failure(
                f"torch.compile cannot compile this model here ({first}); {job} without --compile"
            ) from error

    return guarded
