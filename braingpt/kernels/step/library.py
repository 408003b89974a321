"""Compiles the step once with the user's C++ compiler, and calls it.

The library is kept in the user's cache folder under a name made of everything it depends on: the sources, the
compiler with its version, and the processor. So a second process loads it at once, and another machine that
shares the folder compiles its own. A damaged file is compiled again.

The structs mirror those of `model.h`, where their fields are explained.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import time
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_double, c_int64, c_void_p
from pathlib import Path

from braingpt.kernels import dispatch
from braingpt.kernels.dispatch import Backend
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.file_lock import file_lock

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
# The second is for compilers that do not know the processor they run on.
FLAGS = ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-std=c++17", "-fPIC", "-shared", "-pthread"]
TUNED = ["-march=native", "-mcpu=native"]
ATTENTION, SELECTIVE, MAMBA, MEMORY, NONE = range(5)


class Matrix(Structure):
    """A weight."""

    _fields_ = [("values", c_void_p), ("scales", c_void_p), ("rows", c_int64), ("inputs", c_int64)]


class Layer(Structure):
    """A block: its mixer and its MLP."""

    _fields_ = [
        *((name, c_int64) for name in ("mixer", "heads", "kv_heads", "channels", "state", "taps")),
        *((name, Matrix) for name in ("into", "out", "lexical_key", "lexical_value")),
        *(
            (name, c_void_p)
            for name in ("conv", "decay_log", "bias", "skip", "scale", "selector", "threshold")
        ),
        *((name, c_int64) for name in ("columns", "width", "active", "rounds", "interneurons")),
        *((name, Matrix) for name in ("router", "up", "down", "shared_up", "shared_down")),
        *((name, c_void_p) for name in ("inhibition", "balance")),
    ]


class Exit(Structure):
    """A place where tokens may halt."""

    _fields_ = [("layer", c_int64), ("selector", c_void_p), ("threshold", c_void_p)]


class Lexical(Structure):
    """The lexical memory."""

    _fields_ = [("past", c_int64), ("lookups", c_int64), ("table", Matrix), ("factors", c_void_p)]


class Model(Structure):
    """All of a model but its state."""

    _fields_ = [
        *((name, c_int64) for name in ("layers", "exits", "hidden")),
        ("rope_base", c_double),
        ("embedding", Matrix),
        ("lexical", Lexical),
        ("layer", POINTER(Layer)),
        ("exit", POINTER(Exit)),
    ]


class ClassHead(Structure):
    """A head with classes."""

    _fields_ = [
        ("classes", Matrix),
        *((name, c_void_p) for name in ("bias", "token")),
        *((name, c_int64) for name in ("width", "vocab")),
    ]


class Rule(Structure):
    """How a token is chosen."""

    _fields_ = [
        ("temperature", c_double),
        ("top_k", c_int64),
        *((name, c_double) for name in ("top_p", "min_p", "penalty")),
        *((name, c_void_p) for name in ("seen", "banned")),
    ]


# Gives a fresh number in [0, 1).
UNIFORM = CFUNCTYPE(c_double)
# What `Step.choose` returns where the search gave up.
UNDECIDED = -2


class State(Structure):
    """The state of a layer."""

    _fields_ = [("first", c_void_p), ("second", c_void_p), ("length", c_int64), ("capacity", c_int64)]


class Step:
    """A model's step. The caller keeps the tensors alive that `model` points to."""

    def __init__(self, model: Model, threads: int) -> None:
        self._library = _load()
        self._step = self._library.braingpt_step_new(byref(model), threads)

    def __del__(self) -> None:
        if hasattr(self, "_step"):
            self._library.braingpt_step_free(self._step)

    def read(
        self, token: int, row: int, position: int, states: "ctypes.Array[State]", past: int, stream: int
    ) -> int:
        """Read one token and advance the states.

        Args:
            token: The token.
            row: Its row of the embedding.
            position: Tokens read before it.
            states: One a layer; stores of keys have space for one more.
            past: Address of the tokens that the lexical memory keeps, 0 where there is none.
            stream: Address of float32 numbers for the residual stream after the last layer.

        Returns:
            The layers that the token passed.
        """
        return self._library.braingpt_step_read(self._step, token, row, position, states, past, stream)

    def predict(self, weight: Matrix, stream: int, output: int) -> None:
        """Normalise a residual stream and multiply it with a weight.

        Args:
            weight: The weight.
            stream: Address of the residual stream.
            output: Address of a float32 number for each row of the weight.
        """
        self._library.braingpt_step_predict(self._step, byref(weight), stream, output)

    def choose(self, head: ClassHead, rule: Rule, stream: int, uniform: "ctypes._CFunctionType") -> int:
        """Choose the token after a residual stream.

        Args:
            head: The head, whose words are rows of the model's embedding.
            rule: How the token is chosen.
            stream: Address of the residual stream.
            uniform: An `UNIFORM`.

        Returns:
            The token, -1 where probabilities are not numbers, or -2 where the search gave up.
        """
        return self._library.braingpt_step_choose(self._step, byref(head), byref(rule), stream, uniform)


def cache_folder() -> Path:
    """Where compiled libraries are kept: BRAINGPT_CACHE, or `braingpt` in the user's cache folder.

    Raises:
        ValueError: The user has no home folder.
    """
    if chosen := os.environ.get("BRAINGPT_CACHE"):
        return Path(chosen)
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "braingpt"
    try:
        return Path.home() / ".cache" / "braingpt"
    except RuntimeError:
        # A container may run under a user that its system does not know.
        raise ValueError("there is no home folder; set BRAINGPT_CACHE to a folder of your own") from None


def compiled_library() -> Path:
    """The library for this machine, compiled where the cache has none.

    Raises:
        ValueError: There is no compiler, it cannot compile the sources, or others may write to the cache.
        OSError: The cache cannot be written.
    """
    compiler = _compiler()
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(folder)
    path = folder / f"step-{_key(compiler)}.so"
    if _is_whole(path):
        return path
    with file_lock(path):
        if not _is_whole(path):
            began = time.perf_counter()
            content = _compile(compiler)
            # The new file is complete before its hash says so.
            write_atomically(path, content)
            write_atomically(_hash_file(path), hashlib.sha256(content).hexdigest())
            log.info("compiled the step in %.1f s: %s", time.perf_counter() - began, path)
    return path


def _check_owner(folder: Path) -> None:
    """Raise ValueError where somebody else could have put a library into the folder: loading one runs it."""
    status = folder.stat()
    if not hasattr(os, "geteuid"):
        return
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise ValueError(
            f"other users may write to {folder}; set BRAINGPT_CACHE to a folder that is yours alone"
        )


def _compiler() -> str:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise ValueError(f"needs a C++ compiler ({' or '.join(names)})")
    return found


def _key(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    parts = [path.read_bytes() for path in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")])]
    parts += [compiler.encode(), version, " ".join(FLAGS + TUNED).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    return platform.machine() + "".join(
        line for line in lines if line.startswith(("model", "flags", "Features", "CPU part"))
    )


def _hash_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_whole(path: Path) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == _hash_file(path).read_text()
    except OSError:
        return False


def _compile(compiler: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        output, error = Path(folder) / "step.so", ""
        for tuned in [[name] for name in TUNED] + [[]]:
            command = [compiler, *FLAGS, *tuned, str(SOURCES / "step.cpp"), "-o", str(output)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode == 0:
                return output.read_bytes()
            error = error or done.stderr.strip().partition("\n")[0]
    raise ValueError(f"{compiler} failed: {error}")


@functools.cache
def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(compiled_library()))
    library.braingpt_step_sizes.restype = c_int64
    ours = [ctypes.sizeof(struct) for struct in (Layer, Model, State, Exit)]
    assert library.braingpt_step_sizes() == ours[0] << 32 | ours[1] << 16 | ours[2] << 8 | ours[3]
    library.braingpt_step_new.argtypes = [POINTER(Model), c_int64]
    library.braingpt_step_new.restype = c_void_p
    library.braingpt_step_free.argtypes = [c_void_p]
    library.braingpt_step_free.restype = None
    library.braingpt_step_read.argtypes = [
        *(c_void_p, c_int64, c_int64, c_int64),
        *(POINTER(State), c_void_p, c_void_p),
    ]
    library.braingpt_step_read.restype = c_int64
    library.braingpt_step_predict.argtypes = [c_void_p, POINTER(Matrix), c_void_p, c_void_p]
    library.braingpt_step_predict.restype = None
    library.braingpt_step_choose.argtypes = [c_void_p, POINTER(ClassHead), POINTER(Rule), c_void_p, UNIFORM]
    library.braingpt_step_choose.restype = c_int64
    return library


@functools.cache
def _unavailable_reason() -> str | None:
    try:
        _load()
    except (ValueError, OSError) as error:
        return str(error)
    return None


dispatch.register("step", Backend("native", _unavailable_reason, lambda x: not x.is_cuda), Backend("torch"))
