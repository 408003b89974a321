"""A report that an interrupted benchmark left is continued, or refused in one line."""

import json
from pathlib import Path

import pytest

from braingpt.bench.results import FILE, Results
from braingpt.errors import UserError


def test_a_report_is_continued(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps(Results({"a": 1}, {"b": 2}, None).report | {"memory": 3}))
    assert Results({"a": 1}, {"b": 2}, tmp_path).stage("memory", pytest.fail) == 3


@pytest.mark.parametrize("text", [
    b"", b"\xff", b"[]", b"3", b'{"version": 1}',
    b'{"version": 1, "settings": 3, "machine": {}, "failed": {}}',
    b'{"version": 1, "settings": {}, "machine": {}}', b"[" * 100_000,
])  # fmt: skip
def test_a_damaged_report_is_one_line(tmp_path: Path, text: bytes) -> None:
    (tmp_path / FILE).write_bytes(text)
    with pytest.raises(UserError, match=r"bench\.json .*name another --out") as error:
        Results({}, {}, tmp_path)
    assert "\n" not in str(error.value)
