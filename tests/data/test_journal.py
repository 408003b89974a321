"""The journal of an interrupted preparation and its files, damaged in every way: the preparation begins
again and says so, gives what an undisturbed one gives, and writes nothing outside.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braingpt.data.prepare import chunk_reader, journal
from braingpt.data.prepare.pipeline import Request, prepare
from braingpt.data.shards.manifest import verify
from braingpt.data.shards.writer import FolderWriter
from braingpt.utils.hashed_json import KEY
from tests.data.folders import ByteTokenizer
from tests.fixed_texts import documents
from tests.test_own_files import GARBAGE, HUGE, read_json, rehash, write_json


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Path]]:
    """The work folder of a preparation that was interrupted half way, and its input."""
    monkeypatch.setattr(journal, "SECONDS", 0)
    monkeypatch.setattr(chunk_reader, "CHUNK_CHARACTERS", 500)
    lines = [json.dumps({"text": text}) for language in ("ko", "en") for text in documents(language, 12)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), "utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(FolderWriter, "hold_out", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            prepare(_request(tmp_path), ByteTokenizer())
    return tmp_path / ".out.partial", [tmp_path / "a.jsonl"]


def _request(place: Path, out: str = "out") -> Request:
    return Request("text", place / out, [place / "a.jsonl"], validation=0.2)


def test_a_journal_is_believed_only_as_far_as_its_files_go(tmp_path: Path, interrupted) -> None:
    """Whatever was done to an interrupted preparation: the result is that of an undisturbed one, and nothing
    is written outside.
    """
    work, _ = interrupted
    undisturbed = prepare(_request(tmp_path, "other"), ByteTokenizer()).manifest
    kept = tmp_path / "kept"
    shutil.copytree(work, kept)
    before = {path for path in tmp_path.iterdir() if path != work}

    def shorter(name: str) -> Callable[[], None]:
        def change() -> None:
            path = next(work.rglob(name))
            path.write_bytes(path.read_bytes()[:-2])

        return change

    def other(name: str) -> Callable[[], None]:
        def change() -> None:
            path = next(work.rglob(name))
            path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])

        return change

    def with_hash(**values: Any) -> Callable[[], None]:
        return lambda: rehash(work / "journal.json", {**read_json(work / "journal.json"), **values})

    def in_stream(**values: Any) -> Callable[[], None]:
        def change() -> None:
            tree = read_json(work / "journal.json")
            tree["writer"][0].update(values)
            rehash(work / "journal.json", tree)

        return change

    changes = {
        "shorter tokens": shorter("ko-text-00000.bin"),
        "other tokens": other("ko-text-00000.bin"),
        "no tokens": lambda: next(work.rglob("ko-text-00000.bin")).unlink(),
        "shorter log": shorter("documents.log"),
        "other log": other("documents.log"),
        "no log": lambda: (work / "documents.log").unlink(),
        "absurd count": with_hash(documents=10**9),
        "huge count": with_hash(documents=HUGE),
        "split outside": in_stream(split="../../outside"),
        "language outside": in_stream(language="../../outside"),
        "absolute source": in_stream(source="/outside"),
        "wrong stream": in_stream(tokens=5),
        "wrong type": with_hash(writer="all"),
        "wrong positions": with_hash(positions=[]),
        "wrong current": with_hash(current=99),
        "wrong counts": with_hash(counts={}),
        "no hash": lambda: write_json(
            work / "journal.json",
            {key: value for key, value in read_json(work / "journal.json").items() if key != KEY},
        ),
        "a value": lambda: write_json(
            work / "journal.json", {**read_json(work / "journal.json"), "bytes": 3}
        ),
        "empty": lambda: (work / "journal.json").write_bytes(b""),
        "garbage": lambda: (work / "journal.json").write_bytes(GARBAGE),
        "list": lambda: (work / "journal.json").write_text("[]"),
    }
    for what, change in changes.items():
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(kept, work)
        change()
        notes: list[str] = []
        manifest = prepare(_request(tmp_path), ByteTokenizer(), note=notes.append).manifest
        assert any("is damaged" in note and "begins again" in note for note in notes), what
        assert manifest.streams == undisturbed.streams and manifest.filters == undisturbed.filters, what
        assert verify(tmp_path / "out", manifest) == []
        assert {path for path in tmp_path.iterdir() if path != tmp_path / "out"} == before
    shutil.rmtree(tmp_path / "out")
    shutil.copytree(kept, work)
    notes = []
    assert prepare(_request(tmp_path), ByteTokenizer(), note=notes.append).manifest.streams
    assert any("continuing" in note for note in notes)
