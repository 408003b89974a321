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
from braingpt.utils.library_logs import without_log_lines

State = Literal["ok", "note", "problem"]
# Optional packages, by module: distribution, purpose, the extra that installs it.
OPTIONAL = {
    "mamba_ssm": ("mamba-ssm", "Mamba-2 on GPUs; beside a CUDA compiler", "mamba"),
    "fla": ("flash-linear-attention", "linear mixers on GPUs", "fla"),
    "lm_eval": ("lm-eval", "few-shot tasks", "eval"),
    "tokenizers": ("tokenizers", "adding a language", "languages"),
    "datatrove": ("datatrove", "preparing data on many machines", "cluster"),
    "transformers": ("transformers", "peers of bench", "peers"),
    "litgpt": ("litgpt", "a peer of bench; not beside the extras peers and cluster", "litgpt"),
    "torchao": ("torchao", "optimizer with moments in 8 bits", "lowbit"),
    "wandb": ("wandb", "logging", "log"),
    "tensorboard": ("tensorboard", "logging", "log"),
}
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
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
        ("requirements", _requirements),
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


def _install() -> str:
    """How this environment installs packages; those that uv makes have no pip."""
    return "pip install" if importlib.util.find_spec("pip") else "uv pip install"


def _requirements() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    try:
        needed = importlib.metadata.requires("braingpt") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("note", "requirements", f"braingpt is not installed; {_install()} -e . in its folder")
        return
    wrong = False
    requirements = [Requirement(line) for line in needed]
    mine = [need for need in requirements if need.marker is None or need.marker.evaluate({"extra": ""})]
    for need in mine:
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        if version is not None and need.specifier.contains(version, prereleases=True):
            continue
        wrong = True
        found = "not installed" if version is None else f"{version} is outside {need.specifier}"
        yield Finding("problem", need.name, f"{found}; {_install()} '{need.name}{need.specifier}'")
    if not wrong:
        yield Finding("ok", "requirements", f"all {len(mine)} packages, each within its bounds")


def _torch() -> Iterator[Finding]:
    import torch

    version = torch.version
    build = (
        f"CUDA {version.cuda}"
        if version.cuda
        else f"ROCm {version.hip}"
        if getattr(version, "hip", None)
        else "CPU"
    )
    yield Finding("ok", "torch", f"{torch.__version__}, {build} build, {torch.get_num_threads()} threads")


def _device() -> Iterator[Finding]:
    import torch

    from braingpt.bench.machine import cpu_name, memory_bytes

    memory = memory_bytes()
    size = f", {memory / 1e9:.1f} GB memory" if memory else ""
    yield Finding("ok", "cpu", f"{cpu_name()}, {os.cpu_count()} cores{size}")
    if not torch.cuda.is_available():
        yield Finding("note", "gpu", f"none usable ({_no_gpu()}); everything runs on the CPU")
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        sparse = "2:4 sparse tensor cores" if gpu.major >= 8 else "no 2:4 sparse tensor cores"
        facts = f"{gpu.total_memory / 1e9:.1f} GB, compute capability {gpu.major}.{gpu.minor}, {sparse}"
        yield Finding("ok", "gpu", f"{gpu.name}, {facts}, CUDA {torch.version.cuda}")


def _no_gpu() -> str:
    """Why torch uses no GPU, and the command for another build of torch where one fits better."""
    import torch

    has_driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if torch.version.cuda is None:
        reason = "torch was built without CUDA"
        return f"{reason}; with CUDA: {_other_torch(torch.__version__, cuda=True)}" if has_driver else reason
    if has_driver:
        return "torch does not work with the NVIDIA driver; a newer driver, or another build from pytorch.org"
    return f"no NVIDIA driver; a smaller torch: {_other_torch(torch.__version__, cuda=False)}"


def _other_torch(version: str, cuda: bool) -> str:
    """The command that replaces torch by a build of the same version with or without CUDA."""
    if _install() != "pip install":
        return f"uv pip install --torch-backend={'auto' if cuda else 'cpu'} --reinstall-package torch torch"
    # A version such as 2.13.0+cpu names its build.
    wanted = f"torch=={version.split('+')[0]}"
    return (
        f"pip install --force-reinstall {wanted if cuda else f'--no-deps {wanted} --index-url {CPU_INDEX}'}"
    )


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
        with contextlib.redirect_stdout(sys.stderr), without_log_lines():
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
    for module, (distribution, purpose, extra) in OPTIONAL.items():
        state, text = importable(module, distribution)
        hint = "" if state == "ok" else f"; {_install()} 'braingpt[{extra}]'"
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
