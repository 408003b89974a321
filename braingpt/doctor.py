"""A look at the installation, one finding a line.

Nothing here fails: what breaks while being looked at becomes a finding itself.

"problem": something braingpt needs does not work. "note": something optional is not there, or nothing has
been made yet.
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
# module: (distribution, what it serves, how to get it)
OPTIONAL = {
    "mamba_ssm": ("mamba-ssm", "Mamba-2 on GPUs", "pip install 'braingpt[mamba]' beside a CUDA compiler"),
    "fla": ("flash-linear-attention", "linear mixers on GPUs", "pip install 'braingpt[fla]'"),
    "lm_eval": ("lm-eval", "few-shot tasks", "pip install 'braingpt[eval]'"),
    "wandb": ("wandb", "logging", "pip install 'braingpt[log]'"),
    "tensorboard": ("tensorboard", "logging", "pip install 'braingpt[log]'"),
}
# bytes of disk
LEAST_FREE = 1e9


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    state: State
    topic: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def examine(folder: Path = Path()) -> list[Finding]:
    """All findings; data and runs are looked for in `folder`."""
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
    findings = []
    for topic, check in checks:
        try:
            findings += check()
        except Exception as error:
            findings.append(Finding("problem", topic, f"looking at it failed: {one_line(error)}"))
    return findings


def _python() -> Iterator[Finding]:
    from braingpt import __version__

    yield Finding(
        "ok",
        "python",
        f"{platform.python_version()}, {platform.system()} {platform.machine()}, braingpt {__version__}",
    )


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
    # the names torch.compile looks for on a CPU; on a GPU Triton brings its own but wants a C compiler for
    # its launcher
    found = next(
        (path for name in (os.environ.get("CXX"), "g++", "clang++") if name and (path := shutil.which(name))),
        None,
    )
    if found:
        yield Finding("ok", "compiler", f"{found}: --compile can work")
    else:
        yield Finding("note", "compiler", "no g++ or clang++: --compile will not work; everything else does")
    state, text = importable("triton")
    yield Finding(state, "triton", text if state == "ok" else f"{text}; the torch references run instead")


def importable(module: str, distribution: str | None = None) -> tuple[State, str]:
    """("ok", version), or ("note", why it cannot be imported).

    A broken build may raise anything, print, or end the program.
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
        yield Finding(
            state, distribution, f"{text} ({purpose})" if state == "ok" else f"{text} ({purpose}); {how}"
        )


def _tokenizer() -> Iterator[Finding]:
    from braingpt.tokenizer import Tokenizer

    tokenizer = Tokenizer.default()
    sample = "한국어와 English 사이"
    if tokenizer.decode(tokenizer.encode(sample)) != sample:
        yield Finding(
            "problem", "tokenizer", "text does not come back from it unchanged; install braingpt again"
        )
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
        yield Finding(
            "problem",
            "disk",
            f"cannot write in {place}: {error.strerror}; data and runs go to the folder you are in",
        )
        return
    state: State = "ok" if free >= LEAST_FREE else "problem"
    yield Finding(
        state,
        "disk",
        f"{free / 1e9:.1f} GB free in {place}" + ("" if state == "ok" else "; too little to train with"),
    )


def _data(folder: Path) -> Iterator[Finding]:
    from braingpt.data.shards.manifest import read_manifest

    prepared = sorted(path.parent for path in (folder / "data").glob("*/manifest.json"))
    if not prepared:
        yield Finding(
            "note", "data", "nothing prepared under data/; `braingpt data prepare sample` is the quickest"
        )
    for place in prepared:
        try:
            manifest = read_manifest(place)
            yield Finding(
                "ok",
                "data",
                f"{place}: {manifest.total('train'):,} training tokens, {' '.join(manifest.languages())}",
            )
        except Exception as error:
            yield Finding("problem", "data", f"{place}: {' '.join(str(error).split())}")


def _runs(folder: Path) -> Iterator[Finding]:
    from braingpt.checkpoint.checkpoint import read_state
    from braingpt.checkpoint.listing import newest

    found = False
    for run in sorted((folder / "runs").glob("*")):
        place = newest(run) if run.is_dir() else None
        if place is None:
            continue
        found = True
        try:
            yield Finding("ok", "run", f"{run}: step {read_state(place)['step']:,}")
        except Exception as error:
            yield Finding("problem", "run", f"{place}: {one_line(error)}")
    if not found:
        yield Finding("note", "runs", "none under runs/ yet; `braingpt quickstart` makes a first one")
