"""docs/reference/environment.md names every environment variable the package reads, and every operation."""

import contextlib
import io
import json
import re
from pathlib import Path

from braingpt.cli.console import guarded
from braingpt.cli.main import app

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
READ = re.compile(
    r"(?:environ(?:\.get\(|\.setdefault\(|\[)|getenv\(|rank_of_environment\()\s*\"([A-Z0-9_]+)\""
)


def test_every_variable_that_is_read_is_described() -> None:
    found: set[str] = set()
    for path in (ROOT / "braingpt").rglob("*.py"):
        found |= set(READ.findall(path.read_text(encoding="utf-8")))
    assert {"BRAINGPT_KERNELS", "BRAINGPT_TRACEBACK"} <= found
    assert not {name for name in found if f"`{name}`" not in PAGE}


def test_every_operation_is_described() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert guarded(lambda: app(["doctor", "--json"], standalone_mode=False)) == 0
    said = " ".join(
        finding["topic"] + " " + finding["text"] for finding in json.loads(out.getvalue())["findings"]
    )
    operations = re.findall(r"^\| `([a-z0-9_ ]+)` \| `", PAGE, re.MULTILINE)
    assert len(operations) >= 9
    assert not [operation for operation in operations if operation not in said]
