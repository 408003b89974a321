"""Each operation on its own: against its reference, its dense counterpart, and the limits of the machine.

    # The settings come in; a line of JSON for every row goes out.
    python -m braingpt.bench.kernels.runner < request.json

Rows are measured in a process of their own, one after the other. A row that fails reports why, and the next
row is measured. Where the failure ended the process or broke the GPU's context, a fresh process continues.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

import torch

from braingpt.bench.clock import ColdClock, Work, time_in_turns
from braingpt.bench.kernels.operations import OPERATIONS
from braingpt.bench.kernels.shapes import Shapes
from braingpt.bench.limits import limits
from braingpt.bench.machine import machine
from braingpt.device.cpu import configure_cpu
from braingpt.device.device import is_out_of_memory, pick_device
from braingpt.device.free_memory import available_memory
from braingpt.errors import UserError, did_you_mean, one_line
from braingpt.model.config import V1Config, V2Config
from braingpt.recipes import load_recipe, shipped
from braingpt.utils.child import module_command
from braingpt.utils.formatting import byte_size

CPU_BATCH, GPU_BATCH = 1, 16
# Numbers, a token and unit of width, that an operation holds at once forward and backward, at least.
LEAST_NUMBERS = 4
DTYPES = ("float32", "bfloat16")
# Exit code of a worker whose GPU context is broken: the remaining rows need a fresh worker.
BROKEN_CONTEXT = 3


@dataclass(frozen=True)
class KernelSettings:
    """The settings of a benchmark of operations, in the shapes of the `size` recipes."""

    operations: tuple[str, ...]
    size: str
    batch: int
    context: int
    device: str
    dtype: str
    threads: int
    rounds: int = 5


def resolve_kernel_settings(
    operations: Sequence[str] = (),
    size: str = "small",
    *,
    batch: int | None = None,
    context: int = 1024,
    device: str | None = None,
    dtype: str = "auto",
    threads: int | None = None,
    rounds: int = 5,
) -> KernelSettings:
    """Complete and check settings.

    Args:
        operations: Names of `OPERATIONS`; empty: all.
        size: Size of the recipes whose shapes are used.
        batch: Windows; None: 1 on a CPU, 16 on a GPU.
        context: Tokens a window.
        device: Device; None: the best one available.
        dtype: Number type of products; "auto": bfloat16 on a GPU that has it, else float32.
        threads: Threads of a CPU; None: torch's.
        rounds: Rounds in which the calls take turns.

    Raises:
        UserError: A name is unknown, or the tokens do not fit into memory.
    """
    if wrong := next((name for name in operations if name not in OPERATIONS), None):
        raise UserError(f"unknown operation '{wrong}'{did_you_mean(wrong, OPERATIONS)}")
    if missing := next((name for name in ("v1", "v2") if f"{size}-{name}" not in shipped()), None):
        sizes = {name.rpartition("-")[0] for name in shipped() if name.endswith("-v2")}
        raise UserError(f"there is no recipe {size}-{missing}{did_you_mean(size, sizes)}")
    if dtype not in ("auto", *DTYPES):
        raise UserError(f"unknown dtype '{dtype}'{did_you_mean(dtype, ('auto', *DTYPES))}")
    place = pick_device(device)
    native = place.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = ("bfloat16" if native else "float32") if dtype == "auto" else dtype
    batch = batch or (GPU_BATCH if place.type == "cuda" else CPU_BATCH)
    threads = threads or torch.get_num_threads()
    needed = LEAST_NUMBERS * 4 * batch * context * load_recipe(f"{size}-v2").model.hidden
    room = available_memory(place)
    if needed > room.bytes:
        raise UserError(
            f"{batch:,} x {context:,} tokens need at least {byte_size(needed)} of memory, "
            f"{byte_size(room.bytes)} are available ({room.source}); use a smaller --batch or --context"
        )
    return KernelSettings(
        tuple(operations) or tuple(OPERATIONS), size, batch, context, str(place), dtype, threads, rounds
    )


def run_kernels(
    settings: KernelSettings, progress: Callable[[float, str], None] = lambda share, what: None
) -> dict[str, Any]:
    """Measure the operations.

    Args:
        settings: From `resolve_kernel_settings`.
        progress: Receives the share done and the operation.

    Returns:
        {"kind", "settings", "machine", "limits", "rows"}; a row holds figures, or {"error": why there are
        none}.

    Raises:
        UserError: The device cannot be used.
    """
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    left = list(settings.operations)
    while left:
        progress(1 - len(left) / len(settings.operations), left[0])
        with tempfile.TemporaryFile("w+") as complaints:
            process = _process(settings, left, complaints)
            for line in process.stdout or ():
                record = _record(line)
                if "limits" in record:
                    found = record
                elif left and record.get("operation") == left[0]:
                    rows.append(record)
                    left.pop(0)
                    if left:
                        progress(1 - len(left) / len(settings.operations), left[0])
            complaints.seek(0)
            last = (complaints.read().strip().splitlines() or [""])[-1]
        if process.wait() == 2:
            raise UserError(last)
        # The row ended the process.
        if left and process.returncode != BROKEN_CONTEXT:
            reason = f"the process ended with {process.returncode}{': ' if last else ''}{last}"
            rows.append({"operation": left.pop(0), "error": reason})
    return {"kind": "kernels", "settings": asdict(settings), **found, "rows": rows}


def _process(
    settings: KernelSettings, operations: Sequence[str], complaints: IO[str]
) -> subprocess.Popen[str]:
    """Start a worker for these operations and send its request."""
    command = module_command("braingpt.bench.kernels.runner")
    with tempfile.TemporaryFile("w+") as request:
        json.dump({**asdict(settings), "operations": list(operations)}, request)
        request.seek(0)
        return subprocess.Popen(command, stdin=request, stdout=subprocess.PIPE, stderr=complaints, text=True)


def _record(line: str) -> dict[str, Any]:
    """A worker's line; empty where a library printed something of its own."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def measured(settings: KernelSettings) -> Iterator[dict[str, Any]]:
    """Measure in this process.

    Args:
        settings: From `resolve_kernel_settings`.

    Yields:
        The machine with its limits, then a row for each operation.

    Raises:
        _BrokenContext: No further row can be measured.
    """
    device, dtype = pick_device(settings.device), getattr(torch, settings.dtype)
    peak = {
        name: limits(device, kind) for name, kind in (("float32", torch.float32), (settings.dtype, dtype))
    }
    yield {"machine": machine(), "limits": peak}
    clock = ColdClock(device)
    v1, v2 = (load_recipe(f"{settings.size}-{name}").model for name in ("v1", "v2"))
    assert isinstance(v1, V1Config) and isinstance(v2, V2Config)
    shapes = Shapes(v1, v2, settings.batch, settings.context, device, dtype)
    for name in settings.operations:
        torch.manual_seed(0)
        try:
            figures = _row(name, shapes, settings.rounds, clock, peak)
        except Exception as error:
            # Whatever failed, the other rows are measured.
            figures = {"error": _reason(error)}
        yield {"operation": name, **figures}
        if device.type == "cuda":
            try:
                torch.cuda.synchronize()
            except RuntimeError as error:
                raise _BrokenContext from error
            torch.cuda.empty_cache()


class _BrokenContext(Exception):
    """The GPU's context is broken for this process."""


def _row(
    name: str, shapes: Shapes, rounds: int, clock: ColdClock, peak: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """The figures of one operation. A reference or counterpart that fails is left out, with the reason."""
    operation = OPERATIONS[name](shapes)
    works: dict[str, Work] = {"seconds": operation.work}
    failed = {}
    clock(operation.work)
    for other in ("reference", "dense"):
        work = getattr(operation, other)
        try:
            if work is not None:
                clock(work)
                works[other] = work
        except RuntimeError as error:
            failed[other] = _reason(error)
    found = time_in_turns(works, rounds, clock)
    dtype = "float32" if operation.float32 else str(shapes.dtype).removeprefix("torch.")
    limit = {
        "bytes": operation.bytes / peak[dtype]["bytes_per_second"],
        "operations": operation.flops / peak[dtype]["flops"],
    }
    binds = max(limit, key=limit.__getitem__)
    times = found["seconds"]
    return {
        "path": operation.path,
        "dtype": dtype,
        "bytes": round(operation.bytes),
        "flops": round(operation.flops),
        "seconds": times.as_dict(),
        "reference_over_it": found["reference"].over(times).as_dict() if "reference" in found else None,
        "dense_over_it": found["dense"].over(times).as_dict() if "dense" in found else None,
        "dense_is": operation.dense_is,
        "failed": failed,
        "limit_seconds": limit[binds],
        "bound_by": binds,
        "share_of_limit": limit[binds] / times.median,
    }


def _reason(error: Exception) -> str:
    return "out of memory" if isinstance(error, RuntimeError) and is_out_of_memory(error) else one_line(error)


def main(request: dict[str, Any]) -> int:
    """Answer one request line by line; returns the exit code."""
    configure_cpu()
    torch.set_num_threads(request["threads"])
    try:
        for record in measured(KernelSettings(**{**request, "operations": tuple(request["operations"])})):
            print(json.dumps(record), flush=True)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except _BrokenContext:
        return BROKEN_CONTEXT
    return 0


if __name__ == "__main__":
    sys.exit(main(json.load(sys.stdin)))
