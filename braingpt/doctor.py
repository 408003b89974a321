"""Checks the installation, one finding a line.

No check raises: an error during a check becomes a finding.
A "problem" is a part that braingpt needs and that does not work.
A "note" is an optional part that is missing, or data and runs that do not exist yet.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from braingpt.errors import one_line

State = Literal["ok", "note", "problem"]
# Optional packages, by module: distribution, purpose, how to install.
OPTIONAL = {
    "mamba_ssm": ("mamba-ssm", "Mamba-2 on GPUs", "pip install 'braingpt[mamba]' beside a CUDA compiler"),
    "fla": ("flash-linear-attention", "linear mixers on GPUs", "pip install 'braingpt[fla]'"),
    "lm_eval": ("lm-eval", "few-shot tasks", "pip install 'braingpt[eval]'"),
    "wandb": ("wandb", "logging", "pip install 'braingpt[log]'"),
    "tensorboard": ("tensorboard", "logging", "pip install 'braingpt[log]'"),
}
# Bytes of free disk below which training has no room.
MIN_FREE_BYTES = 1e9


@dataclass(frozen=True)
class Finding:
    """One line of the report: its state, what was checked, and what was found."""

    state: State
    topic: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """The finding as an object for JSON."""
        return asdict(self)


def examine(folder: Path = Path()) -> list[Finding]:
    """Run all checks.

    Args:
        folder: Where prepared data (`data/`) and runs (`runs/`) are.

    Returns:
        All findings, in the order of the checks.
    """
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", _python),
        ("torch", _torch),
        ("device", _device),
        ("compiler", _compiler),
        ("kernels", _kernels),
        ("packages", _packages),
        ("tokenizer", _tokenizer),
        ("disk", lambda: _disk(folder)),
        ("data", lambda: _data(folder)),
        ("runs", lambda: _runs(folder)),
    ]
    findings: list[Finding] = []
    for topic, check in checks:
        try:
            findings += check()
        except Exception as error:
            findings.append(Finding("problem", topic, f"the check failed: {one_line(error)}"))
    return findings


def _python() -> Iterator[Finding]:
    from braingpt import __version__

    system = f"{platform.system()} {platform.machine()}"
    yield Finding("ok", "python", f"{platform.python_version()}, {system}, braingpt {__version__}")


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _device() -> Iterator[Finding]:
    import torch

    from braingpt.bench.machine import cpu_name, memory_bytes

    memory = memory_bytes()
    size = f", {memory / 1e9:.1f} GB memory" if memory else ""
    yield Finding("ok", "cpu", f"{cpu_name()}, {os.cpu_count()} cores{size}")
    if not torch.cuda.is_available():
        reason = (
            "torch was built without CUDA"
            if torch.version.cuda is None
            else "torch sees no NVIDIA GPU or its driver"
        )
        yield Finding("note", "gpu", f"none usable ({reason}); everything runs on the CPU")
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        sparse = "2:4 sparse tensor cores" if gpu.major >= 8 else "no 2:4 sparse tensor cores"
        facts = f"{gpu.total_memory / 1e9:.1f} GB, compute capability {gpu.major}.{gpu.minor}, {sparse}"
        yield Finding("ok", "gpu", f"{gpu.name}, {facts}, CUDA {torch.version.cuda}")


def _compiler() -> Iterator[Finding]:
    # The names torch.compile looks for on a CPU. On a GPU Triton brings its own compiler, but needs a C
    # compiler for its launcher.
    names = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    paths = [path for path in map(shutil.which, names) if path]
    if paths:
        yield Finding("ok", "compiler", f"{paths[0]}: --compile can work")
    else:
        yield Finding("note", "compiler", "no g++ or clang++: --compile will not work; everything else does")
    state, text = importable("triton")
    yield Finding(state, "triton", text if state == "ok" else f"{text}; the torch references run instead")


def importable(module: str, distribution: str | None = None) -> tuple[State, str]:
    """Import a module.

    A broken build may raise anything, print, or call `sys.exit`; none of that escapes.

    Args:
        module: What to import.
        distribution: What pip calls the package, where the names differ.

    Returns:
        "ok" and the version, or "note" and why the module cannot be imported.
    """
    try:
        if importlib.util.find_spec(module) is None:
            return "note", "not installed"
        with contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(module)
    except (Exception, SystemExit) as error:
        return "note", f"installed but broken: {one_line(error)}"
    try:
        return "ok", importlib.metadata.version(distribution or module)
    except importlib.metadata.PackageNotFoundError:
        return "ok", "importable"


def _kernels() -> Iterator[Finding]:
    from braingpt.kernels.registry import report

    for row in report():
        others = "; ".join(f"{name}: {reason}" for name, reason in row["others"].items())
        yield Finding("ok", f"kernel {row['operation']}", row["runs"] + (f" ({others})" if others else ""))


def _packages() -> Iterator[Finding]:
    for module, (distribution, purpose, how) in OPTIONAL.items():
        state, text = importable(module, distribution)
        hint = "" if state == "ok" else f"; {how}"
        yield Finding(state, distribution, f"{text} ({purpose}){hint}")


def _tokenizer() -> Iterator[Finding]:
    from braingpt.tokenizer import Tokenizer

    tokenizer = Tokenizer.default()
    sample = "한국어와 English 사이"
    if tokenizer.decode(tokenizer.encode(sample)) != sample:
        yield Finding("problem", "tokenizer", "it changes text; install braingpt again")
        return
    facts = f"{tokenizer.vocab_size:,} tokens, fingerprint {tokenizer.fingerprint[:12]}"
    yield Finding("ok", "tokenizer", f"{facts}, languages {' '.join(tokenizer.markers)}")


def _disk(folder: Path) -> Iterator[Finding]:
    place = folder.resolve()
    free = shutil.disk_usage(place).free
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            pass
    except OSError as error:
        problem = f"cannot write in {place}: {error.strerror}; data and runs go to the current folder"
        yield Finding("problem", "disk", problem)
        return
    text = f"{free / 1e9:.1f} GB free in {place}"
    if free >= MIN_FREE_BYTES:
        yield Finding("ok", "disk", text)
    else:
        yield Finding("problem", "disk", f"{text}; too little to train")


def _data(folder: Path) -> Iterator[Finding]:
    from braingpt.data.shards.manifest import read_manifest

    prepared = sorted(path.parent for path in (folder / "data").glob("*/manifest.json"))
    if not prepared:
        hint = "nothing prepared under data/; `braingpt data prepare sample` is the quickest start"
        yield Finding("note", "data", hint)
    for place in prepared:
        try:
            manifest = read_manifest(place)
            facts = f"{manifest.total('train'):,} training tokens, {' '.join(manifest.languages())}"
            yield Finding("ok", "data", f"{place}: {facts}")
        except Exception as error:
            yield Finding("problem", "data", f"{place}: {' '.join(str(error).split())}")


def _runs(folder: Path) -> Iterator[Finding]:
    from braingpt.checkpoint.checkpoint import read_state
    from braingpt.checkpoint.listing import newest

    has_runs = False
    for run in sorted((folder / "runs").glob("*")):
        place = newest(run) if run.is_dir() else None
        if place is None:
            continue
        has_runs = True
        try:
            yield Finding("ok", "run", f"{run}: step {read_state(place)['step']:,}")
        except Exception as error:
            # A run that trains deletes old checkpoints.
            if place.exists():
                yield Finding("problem", "run", f"{place}: {one_line(error)}")
    if not has_runs:
        yield Finding("note", "runs", "none under runs/ yet; `braingpt quickstart` trains a first model")
