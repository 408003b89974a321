"""A preparation on many machines: datatrove's executors run `braingpt data prepare --part N/COUNT` for every
part.

    python -P -m braingpt.data.cluster --engine local --parts 2 --jobs 2 --out data/web \\
        -- fineweb2 --languages ko
    python -P -m braingpt.data.cluster --engine slurm --parts 1000 --jobs 200 --cpus 16 --partition cpu \\
        --time 20:00:00 --out /shared/web -- fineweb2
    python -P -m braingpt.data.cluster --engine ray --parts 64 --jobs 16 --cpus 8 --out /shared/web -- fineweb

What follows `--` is given to `braingpt data prepare`. The parts are folders of their own,
DIR/part-00001-of-01000. Train on the parts as they are (`--data` may be repeated), or join them with
`braingpt data join`. It needs `pip install "braingpt[cluster]"`, and all machines must see the folder of the
parts.

The command can be repeated: finished parts are skipped, interrupted parts continue. A part is finished when
its folder is whole and its record, DIR/done/part-00001-of-01000.json, names the same arguments, the same
state of the files that these name, and the same version. Parts of other arguments are prepared again. What
the engine notes of its tasks says nothing about the parts, and is not asked.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from braingpt import __version__
from braingpt.data.prepare.worker_pool import processors
from braingpt.data.shards.manifest import NAME, check_sizes, read_manifest, sha256_of
from braingpt.data.sources.local_files import stamp
from braingpt.errors import Failure, UserError
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.child import module_command, set_safe_path
from braingpt.utils.hashed_json import check_hash, hashed, read_object
from braingpt.utils.paths import check_folder
from braingpt.utils.terminal_text import visible


def part_folder(out: Path, number: int, count: int) -> Path:
    """Where part `number` of `count`, from 1 on, is prepared."""
    return out / f"part-{number:05}-of-{count:05}"


def is_done(out: Path, number: int, count: int, arguments: list[str]) -> bool:
    """Whether part `number` of `count` is whole, and was prepared with these arguments."""
    folder = part_folder(out, number, count)
    try:
        if check_hash(read_object(_record(out, number, count))) != _evidence(folder, arguments):
            return False
        check_sizes(folder, read_manifest(folder))
    except (OSError, ValueError):
        return False
    return True


def _record(out: Path, number: int, count: int) -> Path:
    """The file that says how a finished part was prepared."""
    return out / "done" / f"{part_folder(out, number, count).name}.json"


def _evidence(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """What the record of a finished part says: how it was prepared, and which folder came of it."""
    named = [Path(word) for word in arguments if Path(word).exists()]
    files = [file for path in named for file in [path, *sorted(path.rglob("*"))] if file.is_file()]
    return {
        "arguments": arguments,
        "inputs": stamp(files),
        "braingpt": __version__,
        "manifest": sha256_of(folder / NAME),
    }


class PreparePart:
    """The work of one task of the engine: an object instead of a function, because datatrove pickles it."""

    def __init__(self, out: Path, arguments: list[str]) -> None:
        self.out, self.arguments = out, arguments

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Prepare part `rank` + 1 of `world_size`, unless it is done.

        Raises Failure with the command's own message; the engine counts the task as failed.
        """
        if is_done(self.out, rank + 1, world_size, self.arguments):
            return data
        folder = part_folder(self.out, rank + 1, world_size)
        command = [
            *module_command("braingpt"),
            "data",
            "prepare",
            *self.arguments,
            "--part",
            f"{rank + 1}/{world_size}",
            "--out",
            folder,
            # A part of other arguments is replaced once the new one is whole.
            "--force",
        ]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"ended with code {done.returncode}"]
            raise Failure(f"part {rank + 1} of {world_size}: {reason[0].removeprefix('braingpt: ')}")
        record = _record(self.out, rank + 1, world_size)
        record.parent.mkdir(exist_ok=True)
        write_atomically(record, json.dumps(hashed(_evidence(folder, self.arguments))) + "\n")
        return data


def executor(options: argparse.Namespace, arguments: list[str]) -> Any:
    """The engine's executor, ready to run. UserError where datatrove or an option is missing."""
    try:
        from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
    except ImportError:
        raise UserError(
            'preparing on many machines needs datatrove: pip install "braingpt[cluster]"'
        ) from None
    out = options.out.resolve()
    shared: dict[str, Any] = {
        "pipeline": [PreparePart(out, arguments)],
        "tasks": options.parts,
        "workers": options.jobs,
        "logging_dir": str(out / "log"),
        # The engine marks tasks by their number alone: it would skip those of other arguments, too.
        "skip_completed": False,
    }
    if options.engine == "local":
        # Each part is a process of its own, with workers of its own.
        shared["workers"] = min(options.jobs, processors()) if options.jobs > 0 else processors()
        return LocalPipelineExecutor(**shared)
    if options.engine == "ray":
        return RayPipelineExecutor(**shared, cpus_per_task=options.cpus, mem_per_cpu_gb=options.gb_per_cpu)
    if not options.partition or not options.time:
        raise UserError("slurm needs --partition NAME and --time HH:MM:SS")
    return SlurmPipelineExecutor(
        **shared,
        partition=options.partition,
        time=options.time,
        cpus_per_task=options.cpus,
        mem_per_cpu_gb=options.gb_per_cpu,
    )


def _check_done(out: Path, count: int, arguments: list[str]) -> None:
    """Failure where a part is missing."""
    missing = [number for number in range(1, count + 1) if not is_done(out, number, count, arguments)]
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise Failure(f"of {count} parts these are not finished: {shown}; repeat the command")


def main(words: list[str] | None = None) -> int:
    """The command; its exit code."""
    words = sys.argv[1:] if words is None else words
    # The engine's own processes inherit it.
    set_safe_path()
    cut = words.index("--") if "--" in words else len(words)
    own, arguments = words[:cut], words[cut + 1 :]
    parser = argparse.ArgumentParser(
        prog="python -P -m braingpt.data.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--engine", choices=["local", "slurm", "ray"], default="local")
    parser.add_argument(
        "--parts", type=int, required=True, help="number of parts; at most as many as there are files"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=-1,
        help="parts at the same time; all if not given, and here one for each processor at most",
    )
    parser.add_argument(
        "--cpus", type=int, default=1, help="processors of a part; give --workers the same number after --"
    )
    parser.add_argument("--gb-per-cpu", type=int, default=2, help="memory for each processor, in GB")
    parser.add_argument("--partition", help="the partition of slurm")
    parser.add_argument("--time", help="slurm's time limit of a part, HH:MM:SS")
    parser.add_argument("--out", type=Path, required=True, help="folder of the parts")
    options = parser.parse_args(own)
    try:
        if not arguments:
            raise UserError("name after -- what to prepare, for example: ... -- fineweb2 --languages ko")
        if options.parts < 1:
            raise UserError(f"--parts must be at least 1, not {options.parts}")
        check_folder(options.out)
        executor(options, arguments).run()
        # Slurm has only queued the parts by now.
        if options.engine != "slurm":
            _check_done(options.out.resolve(), options.parts, arguments)
    except (UserError, Failure) as error:
        print(visible(f"error: {error}"), file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except RuntimeError as error:
        # The local engine raises it where a part failed.
        print(visible(f"error: {error}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
