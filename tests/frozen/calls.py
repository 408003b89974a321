"""Commands called in this process, a copy of what an earlier version wrote, and what was recorded."""

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from braingpt.cli.main import app

DATA = Path(__file__).parent / "data"
WRITTEN = DATA / "written"
# an environment variable
RECORD = "BRAINGPT_FROZEN_RECORD"


def recorded(file: str, name: str, found: Any) -> Any:
    """What data/FILE.json holds under `name`; None where it holds nothing.

    `found` is what there is today: it is written to the file first where `python -m tests.frozen.record` asks
    for it.
    """
    path = DATA / f"{file}.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if os.environ.get(RECORD):
        content[name] = found
        path.write_text(
            json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8"
        )
    return content.get(name)


@contextlib.contextmanager
def place(folder: Path) -> Iterator[Path]:
    """A copy of what was written as the current folder."""
    shutil.copytree(WRITTEN, folder, dirs_exist_ok=True)
    # other vocabularies that may lie there
    before = os.environ.pop("TIKTOKEN_CACHE_DIR", None)
    try:
        with contextlib.chdir(folder):
            yield folder
    finally:
        if before is not None:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


def call(*arguments: Any, stdin: str = "") -> str:
    """Standard output of a command, which must end well."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = app([str(argument) for argument in arguments], standalone_mode=False)
    finally:
        sys.stdin = before
    assert code in (None, 0), f"{arguments}: {code} {err.getvalue()}"
    return out.getvalue()


def call_json(*arguments: Any, stdin: str = "") -> Any:
    """The JSON that a command prints with `--json`."""
    return json.loads(call(*arguments, stdin=stdin))


def metrics(run: Path | str) -> list[dict[str, Any]]:
    """All records of a run."""
    return [
        json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
