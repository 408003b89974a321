"""Commands that prepare data, stopped at the changes of the file system they make (`killed.py`)."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from braingpt.data.prepare import cluster
from braingpt.data.shards.documents import DocumentReader
from braingpt.data.shards.manifest import read_manifest, verify
from tests.cli.killed import Case, braingpt, killed
from tests.crash import at_every_change, hidden
from tests.fixed_texts import documents


def texts_before() -> None:
    for language in ("ko", "en"):
        lines = [json.dumps({"text": text}) for text in documents(language, 12)]
        Path(f"{language}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def sound_data(folder: Path) -> None:
    if folder.exists():
        assert verify(folder, read_manifest(folder)) == [] and DocumentReader(folder).problems() == []


PREPARE = ("data", "prepare", "text", "ko.jsonl", "en.jsonl", "--out", "deep/out", "--workers", "1")


def other_before() -> None:
    texts_before()
    braingpt(*PREPARE[:3], "ko.jsonl", *PREPARE[5:])


@pytest.mark.parametrize("name", ["fresh", pytest.param("--force", marks=pytest.mark.slow)])
def test_data_prepare(place: Path, name: str) -> None:
    case = Case(PREPARE, texts_before, 4, checks=[lambda: sound_data(Path("deep/out"))])
    if name == "--force":
        case.words, case.begin = (*PREPARE, "--force"), other_before
        case.checks.append(lambda: read_manifest(Path("deep/out")))
    assert killed(place, case) >= 20


def test_data_cluster(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of a machine of its own, one after the other; the engine itself is left out."""
    monkeypatch.setattr(cluster, "module_command", lambda module, *words: [])

    def in_this_process(words: list[str], **_: Any) -> Any:
        braingpt(*words)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(cluster.subprocess, "run", in_this_process)
    arguments = ["text", "ko.jsonl", "en.jsonl", "--workers", "1"]

    def begin() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        os.chdir(place)
        texts_before()

    def work() -> None:
        for rank in range(2):
            cluster.PreparePart(place / "parts", arguments)(None, rank, 2)
        assert all(cluster.is_done(place / "parts", number, 2, arguments) for number in (1, 2))
        assert hidden(place) == []

    def check() -> None:
        for number in (1, 2):
            sound_data(cluster.part_folder(place / "parts", number, 2))

    begin()
    assert at_every_change(begin, work, check, 3) >= 40


def test_data_join(place: Path) -> None:
    def begin() -> None:
        texts_before()
        for part in ("1/2", "2/2"):
            braingpt(*PREPARE[:5], "--out", part[0], "--part", part, "--workers", "1")

    case = Case(
        ("data", "join", "1", "2", "--out", "out"), begin, 3, checks=[lambda: sound_data(Path("out"))]
    )
    assert killed(place, case) >= 15
