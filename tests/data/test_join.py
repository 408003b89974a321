"""A preparation in parts, on machines of their own: the parts joined are the whole."""

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from braingpt.cli.console import guarded
from braingpt.cli.main import app
from braingpt.data.dedup.deduplicator import Deduplicator
from braingpt.data.dedup.index import RECORD
from braingpt.data.prepare import cluster
from braingpt.data.prepare import join as join_module
from braingpt.data.prepare.join import join
from braingpt.data.prepare.pipeline import Request, prepare
from braingpt.data.shards.documents import DocumentReader
from braingpt.data.shards.manifest import DOCUMENT_LOG, manifest_text, read_manifest, sha256_of, verify
from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer
from tests.data.texts import english, korean


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five files that share some documents, exactly and nearly."""
    folder = tmp_path_factory.mktemp("own")
    draw = random.Random(3)
    for name in "abcde":
        texts = [
            draw.choice((korean, english))(draw.randrange(150)) + draw.choice(("", "", " Yes."))
            for _ in range(60)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return folder


@pytest.fixture(scope="module")
def whole(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "whole"
    prepare(Request("text", out, [own], validation=0.2), Tokenizer.default())
    return out


def documents(folder: Path) -> dict[str, set[str]]:
    """Texts by split, the ending by which near duplicates differ left out."""
    stored = DocumentReader(folder)
    found: dict[str, set[str]] = {"train": set(), "validation": set()}
    for stream in stored.manifest.streams:
        for file in stream.files:
            ids = np.fromfile(folder / file.path, dtype="<u2")
            for one in np.split(ids, np.flatnonzero(ids == stored.tokenizer.eot) + 1):
                if len(one):
                    found[stream.split].add(re.sub(r" Yes\.$", "", stored.tokenizer.decode(one.tolist())))
    return found


def in_parts(own: Path, place: Path, count: int) -> list[Path]:
    folders = [place / f"part-{number}" for number in range(1, count + 1)]
    for number, folder in enumerate(folders, start=1):
        prepare(Request("text", folder, [own], validation=0.2, part=(number, count)), Tokenizer.default())
    return folders


@pytest.mark.parametrize("count", [1, 2, 7])
def test_joined_parts_are_the_whole(tmp_path: Path, own: Path, whole: Path, count: int) -> None:
    folders = in_parts(own, tmp_path, count)
    manifest, _ = join(folders[::-1], tmp_path / "out")
    there, here = documents(whole), documents(tmp_path / "out")
    assert there["train"] | there["validation"] == here["train"] | here["validation"]
    assert not here["train"] & here["validation"]
    assert (
        verify(tmp_path / "out", read_manifest(tmp_path / "out")) == []
        and DocumentReader(tmp_path / "out").problems() == []
    )
    before = read_manifest(whole)
    for field in ("documents",):
        assert sum(getattr(stream, field) for stream in manifest.streams) == sum(
            getattr(stream, field) for stream in before.streams
        )
    assert {key: manifest.filters["text"][key] for key in ("read", "kept")} == {
        key: before.filters["text"][key] for key in ("read", "kept")
    }
    if count == 1:
        assert manifest.streams == before.streams and manifest.filters == before.filters
    assert not prepare(Request("text", tmp_path / "out", [own], validation=0.2), Tokenizer.default()).fresh
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["out", *(folder.name for folder in folders)]
    )


def test_what_is_no_set_of_parts_is_refused(tmp_path: Path, own: Path, whole: Path) -> None:
    first, second = in_parts(own, tmp_path, 2)
    other = tmp_path / "other"
    prepare(Request("text", other, [own], validation=0.1, part=(2, 2)), Tokenizer.default())
    shutil.copytree(first, tmp_path / "copy")
    for folders, words in (
        ([whole], "is not a part"),
        ([first], "missing: 2"),
        ([first, tmp_path / "copy"], "the same part, 1/2"),
        ([first, other], r"other parameters .*validation"),
        ([tmp_path / "none", first], "does not exist"),
    ):
        with pytest.raises(UserError, match=words):
            join(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="already exists"):
        join([first, second], second)
    with pytest.raises(UserError, match="excludes --max-samples"):
        prepare(Request("text", tmp_path / "out", [own], max_samples=3, part=(1, 2)), Tokenizer.default())


def test_parts_of_different_commits_are_refused(tmp_path: Path, own: Path, whole: Path) -> None:
    """The dataset has changed while the parts were prepared: their lists of files may differ."""
    folders = in_parts(own, tmp_path, 2)
    for folder, commit in zip(folders, ("a" * 40, "b" * 40), strict=True):
        manifest = read_manifest(folder)
        manifest.revisions["some/data train"] = commit
        (folder / "manifest.json").write_text(manifest_text(manifest))
    with pytest.raises(
        UserError,
        match=r"part-2 read some/data train at commit bbbbbbbbbbbb, .*part-1 at aaaaaaaaaaaa: .*same "
        r"--revision",
    ):
        join(folders, tmp_path / "out")


def test_parts_of_different_versions_are_refused(tmp_path: Path, own: Path, whole: Path) -> None:
    folders = in_parts(own, tmp_path, 2)
    manifest = read_manifest(folders[1])
    manifest.braingpt = "0.0.1"
    (folders[1] / "manifest.json").write_text(manifest_text(manifest))
    with pytest.raises(UserError, match=r"part-2 was prepared by braingpt 0.0.1, .*part-1 by "):
        join(folders, tmp_path / "out")


def test_joining_takes_long_documents_few_at_a_time(
    tmp_path: Path, own: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = in_parts(own, tmp_path, 2)
    join(folders, tmp_path / "out")
    begun: list[int] = []
    begin = Deduplicator.begin
    monkeypatch.setattr(
        Deduplicator,
        "begin",
        lambda self, keys, ids: (begun.append(sum(map(len, ids))), begin(self, keys, ids))[1],
    )
    monkeypatch.setattr(join_module, "SLICE_TOKENS", 1_000)
    join(folders, tmp_path / "again")
    longest = max(
        record["length"] for folder in folders for record in np.fromfile(folder / DOCUMENT_LOG, dtype=RECORD)
    )
    assert len(begun) > 5 and max(begun) < 1_000 + longest
    assert read_manifest(tmp_path / "again").streams == read_manifest(tmp_path / "out").streams


def test_joining_leaves_an_interrupted_preparation_alone(tmp_path: Path, own: Path, whole: Path) -> None:
    folders = in_parts(own, tmp_path, 1)
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "journal.json").write_text("{}")
    with pytest.raises(UserError, match="holds an interrupted preparation"):
        join(folders, tmp_path / "out")
    assert (tmp_path / ".out.partial" / "journal.json").exists()
    join(folders, tmp_path / "out", force=True)
    assert not (tmp_path / ".out.partial").exists()


def test_datatrove_runs_the_parts_and_skips_what_is_done(tmp_path: Path, own: Path, whole: Path) -> None:
    pytest.importorskip("datatrove")
    words = [
        "--parts",
        "2",
        "--jobs",
        "2",
        "--out",
        tmp_path / "web",
        "--",
        "text",
        own,
        "--validation",
        "0.2",
        "--workers",
        "1",
    ]
    command = [sys.executable, "-P", "-m", "braingpt.data.cluster", *map(str, words)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        parts = sorted((tmp_path / "web").glob("part-*"))
        assert len(parts) == 2
        # The engine's own list says that both are completed.
        if not (tmp_path / "second").exists():
            parts[1].rename(tmp_path / "second")
    assert [part.name for part in parts] == ["part-00001-of-00002", "part-00002-of-00002"]
    assert len(list((tmp_path / "web" / "log" / "completions").iterdir())) == 2
    join(parts, tmp_path / "out")
    assert documents(tmp_path / "out").keys() == documents(whole).keys()
    every = [set().union(*documents(folder).values()) for folder in (tmp_path / "out", whole)]
    assert every[0] == every[1]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch):
    """An engine that runs all tasks one after the other in this process; the parts prepared so far."""
    prepared: list[str] = []

    def run_part(words, **_):
        prepared.append(words[words.index("--part") + 1])
        code = guarded(lambda: app([str(word) for word in words], standalone_mode=False))
        return subprocess.CompletedProcess(words, code, "", "error")

    class Engine:
        def __init__(self, options, arguments):
            self.part, self.count = cluster.PreparePart(options.out.resolve(), arguments), options.parts

        def run(self):
            for rank in range(self.count):
                self.part(None, rank, self.count)

    monkeypatch.setattr(cluster.subprocess, "run", run_part)
    monkeypatch.setattr(cluster, "module_command", lambda *_: [])
    monkeypatch.setattr(cluster, "executor", Engine)
    return prepared


def test_a_part_is_done_only_where_it_is_there_and_of_these_arguments(
    tmp_path: Path, own: Path, whole: Path, engine: list[str], capsys
) -> None:
    texts, web = tmp_path / "texts", tmp_path / "web"
    shutil.copytree(own, texts)

    def run(parts: int = 2, validation: str = "0.2") -> list[str]:
        engine.clear()
        words = ["--parts", str(parts), "--out", str(web), "--", "text", str(texts), "--workers", "1"]
        assert cluster.main([*words, "--validation", validation]) == 0
        for number in range(1, parts + 1):
            folder = cluster.part_folder(web, number, parts)
            manifest = read_manifest(folder)
            assert verify(folder, manifest) == [] and manifest.parameters["validation"] == float(validation)
        return list(engine)

    both, first, second = ["1/2", "2/2"], web / "part-00001-of-00002", web / "part-00002-of-00002"
    record = web / "done" / "part-00001-of-00002.json"
    assert run() == both and run() == []
    shutil.rmtree(second)
    assert run() == ["2/2"] and run() == []
    assert run(validation="0.1") == both and run(validation="0.1") == []
    assert run() == both
    shard = next(first.rglob("*.bin"))
    shard.write_bytes(shard.read_bytes()[:-2])
    assert run() == ["1/2"]
    for text in ("", "{", "[]", record.read_text().replace("0.2", "0.1")):
        record.write_text(text)
        assert run() == ["1/2"]
    assert run(parts=3) == ["1/3", "2/3", "3/3"] and run() == []
    (texts / "a.jsonl").write_text((texts / "a.jsonl").read_text() + "\n")
    assert run() == both
    capsys.readouterr()


def test_missing_parts_are_an_error(tmp_path: Path, own: Path, engine, monkeypatch, capsys) -> None:
    part = cluster.PreparePart.__call__
    monkeypatch.setattr(
        cluster.PreparePart,
        "__call__",
        lambda self, data, rank, count: rank and part(self, data, rank, count),
    )
    words = ["--parts", "2", "--out", str(tmp_path / "web"), "--", "text", str(own), "--workers", "1"]
    assert cluster.main(words) == 1
    assert "error: of 2 parts these are not finished: 1; repeat the command" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["tokens", "log", "short log", "tokenizer", "places", "unknown token"])
def test_a_damaged_part_is_not_joined(tmp_path: Path, own: Path, whole: Path, what: str) -> None:
    folders = in_parts(own, tmp_path, 1)
    part, (manifest, log) = folders[0], (read_manifest(folders[0]), folders[0] / DOCUMENT_LOG)
    shard = part / manifest.streams[0].files[0].path
    if what == "tokens":
        shard.write_bytes(b"\1" + shard.read_bytes()[1:])
    elif what == "log":
        log.write_bytes(b"\1\2" + log.read_bytes()[2:])
    elif what == "short log":
        log.write_bytes(log.read_bytes()[:-2])
    elif what == "tokenizer":
        shutil.rmtree(part / "tokenizer")
        Tokenizer([bytes([value]) for value in range(256)]).save(part / "tokenizer")
    # Written so by a fault: the hashes fit.
    elif what == "places":
        records = np.fromfile(log, dtype=RECORD)
        records["at"][3] = 1 << 40
        log.write_bytes(records.tobytes())
        manifest.document_log = sha256_of(log)
    else:
        ids = np.fromfile(shard, dtype="<u2")
        ids[5] = 60_000
        shard.write_bytes(ids.tobytes())
        manifest.streams[0].files[0].sha256 = sha256_of(shard)
    (part / "manifest.json").write_text(manifest_text(manifest))
    with pytest.raises(UserError, match=r"part-1.* (differs|tokenizer of these tokens|not there|vocabulary)"):
        join(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.partial").exists()


def test_joining_again_changes_nothing(tmp_path: Path, own: Path, whole: Path) -> None:
    folders = in_parts(own, tmp_path, 2)
    manifest, _ = join(folders, tmp_path / "out")
    assert join(folders, tmp_path / "out")[0] == manifest
    prepare(Request("text", tmp_path / "other", [own], validation=0.1), Tokenizer.default())
    with pytest.raises(UserError, match="already exists"):
        join(folders, tmp_path / "other")


def test_a_failing_part_is_said(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    words = ["--parts", "1", "--out", tmp_path / "web", "--", "text", "nothing.txt"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "braingpt.data.cluster", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "there is no file or folder nothing.txt" in done.stderr
    done = subprocess.run(
        [sys.executable, "-P", "-m", "braingpt.data.cluster", "--parts", "1", "--out", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
