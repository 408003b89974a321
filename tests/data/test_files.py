"""The user's own files: every format, and every fault a file can have."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.data import files
from braingpt.errors import UserError


class Counts(Counter):
    def broken(self, rule: str, sample: str) -> None:
        self[rule] += 1


def _read(path: Path, column: str | None = None) -> tuple[list[str], dict[str, int]]:
    counts = Counts()
    return [document.text for document in files.read(path, column, counts.broken)], dict(counts)


def _write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_text(tmp_path: Path) -> None:
    assert _read(_write(tmp_path / "a.txt", "\ufeff안녕\n세상\n")) == (["안녕\n세상\n"], {})
    assert _read(_write(tmp_path / "b.md", "")) == ([], {})
    assert _read(_write(tmp_path / "c.txt.gz", gzip.compress("둘".encode()))) == (["둘"], {})
    assert _read(_write(tmp_path / "d.txt", "한국어".encode("cp949"))) == ([], {"not UTF-8": 1})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["한국어 ", "word ", "\n", "\n\n", "🙂" * 40, "x" * 90]), max_size=300))
def test_a_long_text_is_cut_and_nothing_is_lost(tmp_path_factory, parts: list[str]) -> None:
    path = _write(tmp_path_factory.mktemp("cut") / "a.txt", "".join(parts))
    before, files.PIECE = files.PIECE, 200
    try:
        texts, counts = _read(path)
    finally:
        files.PIECE = before
    assert ("".join(texts), counts) == ("".join(parts), {})
    assert all(len(text.encode()) <= 400 for text in texts)


def test_json_rows(tmp_path: Path) -> None:
    rows = [json.dumps({"id": n, "text": f"글 {n}"}, ensure_ascii=False).encode() for n in range(3)]
    bad = [b"{", b"", b'{"text": 3}', b"[1]", b'{"text": "\xff"}', b'{"other": "x"}']
    path = _write(tmp_path / "a.jsonl", b"\n".join([rows[0], *bad, *rows[1:]]))
    assert _read(path) == (["글 0", "글 1", "글 2"], {"broken row": 4, "not UTF-8": 1})
    packed = _write(tmp_path / "b.jsonl.gz", gzip.compress(path.read_bytes()))
    assert _read(packed) == _read(path)
    assert _read(path, "id") == ([], {"broken row": 7, "not UTF-8": 1})


def test_csv(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", '\ufeffid,본문\n1,"여러 줄,\n그리고 쉼표"\n2\n3,끝\n')
    assert _read(path) == (["여러 줄,\n그리고 쉼표", "끝"], {"broken row": 1})
    assert _read(_write(tmp_path / "b.tsv", "a\ttext\n1\tx y\n")) == (["x y"], {})
    assert _read(_write(tmp_path / "c.csv", b"text\ngood\n\xffbad\n")) == (["good"], {"not UTF-8": 1})
    assert _read(_write(tmp_path / "d.csv", "text,n\n" + "x" * 300_000 + ",1\n"))[0] == ["x" * 300_000]
    assert _read(_write(tmp_path / "e.csv", "")) == ([], {})
    two = _write(tmp_path / "f.csv", "question,answer\nwhy,because\n")
    with pytest.raises(UserError, match="--column, one of question, answer"):
        _read(two)
    assert _read(two, "answer") == (["because"], {})
    with pytest.raises(UserError, match="did you mean 'answer'"):
        _read(two, "anser")


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2, 3], "body": ["하나", None, "셋"]}), path)
    assert _read(path) == (["하나", "셋"], {"broken row": 1})
    with pytest.raises(UserError, match="no column 'text'"):
        _read(path, "text")
    with pytest.raises(UserError, match="not a readable parquet"):
        _read(_write(tmp_path / "b.parquet", "PAR1 not really"))
    pyarrow.parquet.write_table(pyarrow.table({"id": [1]}), path)
    with pytest.raises(UserError, match="no text column; its columns are id"):
        _read(path)


def test_broken_gzip_stops(tmp_path: Path) -> None:
    whole = gzip.compress(b"text " * 50_000)
    for content in (whole[: len(whole) // 2], b"no gzip at all", whole[:50] + b"xxxx" + whole[54:]):
        with pytest.raises(UserError, match="not a whole gzip file"):
            _read(_write(tmp_path / "a.txt.gz", content))


def test_find(tmp_path: Path) -> None:
    for name in ("b.txt", "sub/a.MD", "c.jsonl.gz", "d.bin", ".hidden/e.txt"):
        _write(tmp_path / name, "x")
    assert [path.name for path in files.find([tmp_path, tmp_path / "b.txt"])] == ["b.txt", "c.jsonl.gz", "a.MD"]
    with pytest.raises(UserError, match="no file or folder"):
        files.find([tmp_path / "nothing"])
    with pytest.raises(UserError, match="not a kind of file"):
        files.find([tmp_path / "d.bin"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="files in"):
        files.find([tmp_path / "empty"])


def test_stamp_changes_with_the_files(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.txt", "one")
    before = files.stamp([path])
    assert files.stamp([path]) == before
    _write(path, "three")
    assert files.stamp([path]) != before
