"""Chooses a backend for each operation and says why: one rule, shown by `braingpt doctor`.

Each operation registers its backends from the fastest to the reference.
The first backend that is available on this machine and supports the tensor runs.
`BRAINGPT_KERNELS=torch` forces every reference.
`BRAINGPT_KERNELS=scan=fla` (several separated by commas) forces one backend by name, for comparisons.

Triton, flash-linear-attention and mamba-ssm may be missing or built for another torch.
So `OptionalFunction` is the one way to functions that need them, our own Triton modules included.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from braingpt.kernels.uncompiled import constant

# Our Triton kernels need instructions that the Ampere generation introduced.
TRITON_CAPABILITY = (8, 0)


def always_available() -> None:
    """The `unavailable_reason` of a backend that runs on every machine."""


class Backend(NamedTuple):
    """One way to compute an operation."""

    name: str
    # Why the backend cannot run on this machine; None where it can.
    unavailable_reason: Callable[[], str | None] = always_available
    # Whether the backend is meant for tensors of this device and type.
    supports: Callable[[Tensor], bool] = lambda _: True


_BACKENDS: dict[str, tuple[Backend, ...]] = {}


def register(operation: str, *backends: Backend) -> None:
    """Register the backends of an operation.

    Args:
        operation: Name of the operation, as `braingpt doctor` and BRAINGPT_KERNELS use it.
        *backends: The backends, fastest first, the reference last.
    """
    _BACKENDS[operation] = backends


def operations() -> list[str]:
    """Names of the operations registered so far; `kernels.registry` imports them all."""
    return sorted(_BACKENDS)


def backends(operation: str) -> tuple[Backend, ...]:
    """The backends of an operation, fastest first."""
    return _BACKENDS[operation]


def select(operation: str, tensor: Tensor | None = None) -> str:
    """The backend that runs.

    Args:
        operation: Name under which the operation is registered.
        tensor: A tensor the operation would compute with; None asks for the machine's best backend.

    Returns:
        The backend's name.

    Raises:
        ValueError: BRAINGPT_KERNELS names a backend that the operation does not have.
    """
    if (name := forced_by_env(operation)) is not None:
        return name
    available = _available(operation)
    return next(
        backend.name
        for backend in _BACKENDS[operation]
        if backend.name in available and (tensor is None or backend.supports(tensor))
    )


def forced_by_env(operation: str) -> str | None:
    """The backend that BRAINGPT_KERNELS forces for the operation, or None.

    Raises:
        ValueError: The operation has no backend of that name.
    """
    setting = os.environ.get("BRAINGPT_KERNELS", "")
    names = [backend.name for backend in _BACKENDS[operation]]
    if setting == "torch":
        return names[-1]
    choices = {chosen: name for chosen, _, name in (part.partition("=") for part in setting.split(","))}
    name = choices.get(operation)
    if name is not None and name not in names:
        raise ValueError(unknown_backend(operation, name))
    return name


def unknown_backend(operation: str, name: str) -> str:
    """The message about a BRAINGPT_KERNELS that names no backend of the operation."""
    names = ", ".join(backend.name for backend in _BACKENDS[operation])
    return f"BRAINGPT_KERNELS asks for {operation}={name}; the backends of {operation} are {names}"


# torch.compile cannot trace the search for libraries.
@constant
def _available(operation: str) -> tuple[str, ...]:
    """Names of the operation's backends that this machine can run."""
    return tuple(backend.name for backend in _BACKENDS[operation] if backend.unavailable_reason() is None)


class OptionalFunction:
    """A function of a module that may be missing, imported when it is first needed.

    Args:
        module: The module to import.
        name: The function's name in the module.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.function: Callable[..., Any] | None = None
        # Why the import failed, "" where it did not, None before it is tried.
        self.error: str | None = None
        self._key = f"{module}.{name} {len(_OPTIONAL)}"
        _OPTIONAL[self._key] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; raises ValueError where its module cannot be imported."""
        if error := _load(self._key):
            raise ValueError(f"{self.module}: {error}")
        assert self.function is not None
        return self.function(*args, **kwargs)

    def load_error(self) -> str | None:
        """Why the function cannot be imported, or None."""
        return _load(self._key) or None

    def library_unavailable_reason(self) -> str | None:
        """Why the function of a library for GPUs cannot run here, or None."""
        return self.load_error() or (None if torch.cuda.is_available() else "needs a GPU")

    def triton_unavailable_reason(self) -> str | None:
        """Why the function of one of our own Triton modules cannot run here, or None."""
        return ampere_unavailable_reason() or self.load_error()


_OPTIONAL: dict[str, OptionalFunction] = {}


# torch.compile cannot trace an import, so it takes the result as a constant.
@constant
def _load(key: str) -> str:
    """Import an optional function once, and say why that failed ("" where it did not)."""
    optional = _OPTIONAL[key]
    if optional.error is None:
        optional.error = _import(optional)
    return optional.error


def _import(optional: OptionalFunction) -> str:
    # Importing a broken build may raise anything.
    try:
        optional.function = getattr(importlib.import_module(optional.module), optional.name)
    except ModuleNotFoundError as error:
        if error.name == optional.module.partition(".")[0]:
            return "not installed"
        if optional.module.startswith("braingpt."):
            return f"{error.name} is not installed"
        return f"installed but broken: {error}"
    except (Exception, SystemExit) as error:
        first_line = str(error).strip().partition("\n")[0][:160]
        return f"installed but broken: {type(error).__name__}: {first_line}"
    return ""


def runs_on_gpu(tensor: Tensor) -> bool:
    """Whether GPU backends serve the tensor: on a GPU, and not float64, which only references compute in."""
    return tensor.is_cuda and tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)


def ampere_unavailable_reason() -> str | None:
    """Why nothing that needs a GPU of the Ampere generation or a later one can run here, or None."""
    if not torch.cuda.is_available():
        return "needs a GPU"
    if torch.cuda.get_device_capability() < TRITON_CAPABILITY:
        return "needs a GPU of compute capability 8.0 or later"
    return None
