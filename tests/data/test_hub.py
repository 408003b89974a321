"""Datasets of the hub, from a server that answers as the hub does: the same documents as from a folder,
whatever the network does.
"""

import gzip
import json
import os
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from braingpt.data.document import Document
from braingpt.data.sources import byte_reader
from braingpt.data.sources import document_stream as stream_
from braingpt.data.sources import hub as hub_
from braingpt.data.sources.catalog import PREPARATIONS
from braingpt.data.sources.document_stream import DocumentStream, StreamEvents
from braingpt.data.sources.open_streams import StreamRequest, check_available, open_streams
from braingpt.errors import Failure, UserError
from tests.data.hub_server import Hub

ID = "org/some"
TEXTS = [f"문서 {n}: this is the text with the number {n}, and nothing else." for n in range(60)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Datasets in the hub's layout: two configurations, one without a card, a script, pictures."""
    folder = tmp_path / "hub" / ID
    (folder / "data").mkdir(parents=True)
    for number in range(3):
        rows = pyarrow.table({"body": TEXTS[number * 20 : number * 20 + 20], "n": range(20)})
        pyarrow.parquet.write_table(rows, folder / "data" / f"train-{number}.parquet", row_group_size=8)
    (folder / "lines").mkdir()
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS)
    (folder / "lines" / "train.jsonl.gz").write_bytes(
        gzip.compress((lines[:1000] + "\n{broken\n" + lines[1000:]).encode())
    )
    (folder / "lines" / "test.jsonl").write_text(json.dumps({"text": "held out"}))
    configs = {
        "tables": {"train": "data/train-*"},
        "lines": {"train": "lines/train.*", "test": "lines/test.*"},
    }
    card = "configs:\n"
    for name, splits in configs.items():
        card += f"- config_name: {name}\n  data_files:\n" + "".join(
            f"  - split: {key}\n    path: {path}\n" for key, path in splits.items()
        )
    (folder / "README.md").write_text(f"---\n{card}---\n")
    for name, file, content in (
        ("plain", "train.csv", "n,text\n1,하나\n2,둘\n"),
        ("script", "script.py", "raise SystemExit('never run')"),
        ("pictures", "a.png", "no picture"),
        ("empty", "LICENSE", ""),
    ):
        (tmp_path / "hub" / "org" / name).mkdir()
        (tmp_path / "hub" / "org" / name / file).write_text(content)
    return tmp_path / "hub"


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Hub]]:
    """A function that starts a server over a folder and turns the libraries to it, with short pauses and an
    empty cache.
    """
    import datasets
    import huggingface_hub
    from huggingface_hub import constants

    started: list[Hub] = []

    def start(root: Path) -> Hub:
        hub = Hub(root.resolve())
        started.append(hub)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
        return hub

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.4)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.4)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(
        huggingface_hub.utils._http, "time", types.SimpleNamespace(sleep=lambda seconds: None)
    )
    monkeypatch.setattr(stream_, "RETRY_PAUSES", (0, 0, 0))
    # several requests even for a small file
    monkeypatch.setattr(byte_reader, "HUB_BLOCK", 500)
    hub_.forget_listings()
    yield start
    for hub in started:
        hub.close()
    hub_.forget_listings()
    huggingface_hub.utils._http.close_session()


def _open(
    config: str | None = "tables", id: str = ID, **options
) -> tuple[DocumentStream, Counter, list[str]]:
    counts: Counter = Counter()
    notes: list[str] = []
    request = StreamRequest("hub", [], paths=[Path(id)], config=config, **options)
    events = StreamEvents(notes.append, lambda source, rule, sample: counts.update([rule]))
    [stream] = open_streams(request, events)
    return stream, counts, notes


def _texts(stream: DocumentStream) -> list[str]:
    return [document.text for document in stream]


@pytest.mark.parametrize("name", ["korean", "wikipedia", "c4", "fineweb-edu", "fineweb2", "redpajama"])
def test_the_hub_and_a_folder_give_the_same(
    corpora: Path, serve, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(byte_reader, "HUB_BLOCK", 1 << 20)
    hub = serve(corpora)
    languages = list(PREPARATIONS[name].languages)

    def read(source: Path | None) -> tuple[list[Document], list[str], Counter]:
        notes: list[str] = []
        counts: Counter = Counter()
        request = StreamRequest(name, languages, source=source)
        streams = open_streams(request, StreamEvents(notes.append, lambda *row: counts.update([row])))
        documents = []
        for stream in streams:
            for document, _ in zip(stream, range(300), strict=False):
                documents.append(document)
        check_available(streams, request)
        return documents, notes, counts

    local = read(corpora)
    assert len(local[0]) >= 100
    asked = len(hub.requests)
    assert read(None) == local
    assert any("bytes=" in request for request in hub.requests[asked:])
    if name == "fineweb-edu":
        assert set(local[0][0].scores) == {"score", "int_score", "language_score"}


def test_configurations_splits_and_columns(root: Path, serve) -> None:
    serve(root)
    stream, counts, _ = _open()
    assert _texts(stream) == TEXTS
    assert (stream.source, stream.language, stream.fraction_read()) == ("org-some", None, 1.0)
    stream, counts, _ = _open("lines")
    assert sorted(_texts(stream)) == sorted(
        text for text in TEXTS if text in set(_texts(_open("lines", source=root)[0]))
    )
    assert counts["broken row"] >= 1
    assert _texts(_open("lines", split="test")[0]) == ["held out"]
    assert _texts(_open(None, "org/plain", column="text")[0]) == ["하나", "둘"]
    for options, words in (
        ({"config": None}, "has several configurations; name one with --config: tables, lines"),
        ({"config": "table"}, "no configuration 'table'; did you mean 'tables'"),
        ({"config": "lines", "split": "tset"}, "no split 'tset'; did you mean 'test'"),
        ({"column": "txet"}, "no column 'txet'"),
        ({"revision": "v9"}, "has no revision 'v9'"),
        (
            {"config": None, "id": "org/script"},
            "loading script, which braingpt never runs.*--revision refs/convert/parquet",
        ),
        ({"config": None, "id": "org/pictures"}, "png files, which hold no text"),
        ({"config": None, "id": "org/empty"}, "has no data files"),
        ({"config": None, "id": "org/nothing"}, "no dataset org/nothing on the hub, or it is private"),
        ({"config": None, "id": "a b/c"}, "no dataset a b/c on the hub"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            list(_open(**options)[0])
        assert "\n" not in str(caught.value)


def test_gated_and_private(root: Path, serve) -> None:
    hub = serve(root)
    for what, where, words in (
        ("gated", "", f"{ID} is gated: ask for access at .*/datasets/{ID}, then log in with 'hf auth login'"),
        ("gated", ".parquet", f"{ID} is gated"),
        ("private", "", f"no dataset {ID} on the hub, or it is private"),
        ("403", ".parquet", f"the hub refuses {ID} to this account"),
    ):
        hub_.forget_listings()
        hub.fault = lambda method, path, part, what=what, where=where: (
            what if where in path and path != "/" else None
        )
        with pytest.raises(UserError, match=words):
            list(_open()[0])


@pytest.mark.parametrize(
    ("where", "what"),
    [
        *(("/data/train-1", what) for what in ("500", "503", "429", "504", "reset", "short", "hang")),
        *(("/tree/", what) for what in ("503", "reset", "short")),
        *(("README.md", what) for what in ("500", "short", "hang")),
    ],
)
def test_faults_of_a_while_change_nothing(root: Path, serve, where: str, what: str) -> None:
    hub = serve(root)
    left = [2]

    def fault(method: str, path: str, part: str | None) -> str | None:
        if where in path and left[0] and (method == "GET" or what != "short"):
            left[0] -= 1
            return what
        return None

    hub.fault = fault
    stream, counts, _ = _open()
    assert _texts(stream) == TEXTS
    assert left == [0]
    assert not counts


@pytest.mark.parametrize("what", ["503", "reset"])
def test_a_lasting_fault_is_one_line_and_reading_goes_on_later(root: Path, serve, what: str) -> None:
    hub = serve(root)
    hub.fault = lambda method, path, part: what if "train-1" in path and method == "GET" else None
    stream, _, notes = _open()
    got: list[str] = []
    with pytest.raises(
        Failure,
        match=r"cannot reach the Hugging Face hub \(org/some tables train: data/train-1.*continues where it "
        r"stopped",
    ) as caught:
        for document in stream:
            got.append(document.text)
    assert "\n" not in str(caught.value)
    assert got == TEXTS[:20]
    assert [note for note in notes if "trying again" in note]
    position = json.loads(json.dumps(stream.position()))
    hub.fault = lambda method, path, part: None
    later, _, _ = _open()
    later.resume(position)
    assert got + _texts(later) == TEXTS


def test_a_file_cut_short_on_the_hub(root: Path, serve) -> None:
    hub = serve(root)
    whole = (root / ID / "lines" / "train.jsonl.gz").read_bytes()
    (root / ID / "lines" / "train.jsonl.gz").write_bytes(whole[: len(whole) * 2 // 3])
    stream, counts, _ = _open("lines")
    with pytest.raises(
        Failure,
        match=r"lines/train.jsonl.gz is damaged \(Truncated.*after 4 attempts; finished work is kept",
    ):
        _texts(stream)
    assert hub.requests
    assert counts["broken file"] == 0


def test_reading_goes_on_at_the_same_commit(root: Path, serve) -> None:
    hub = serve(root)
    stream, _, _ = _open()
    iterator = iter(stream)
    first = [next(iterator).text for _ in range(30)]
    position = stream.position()
    iterator.close()
    (root / "org" / "some" / "new.txt").write_text("a new commit")
    assert hub.commit(ID) != position["revision"]
    hub_.forget_listings()
    hub.requests.clear()
    later, _, _ = _open()
    later.resume(position)
    assert first + _texts(later) == TEXTS
    assert not [request for request in hub.requests if "/main/" in request or hub.commit(ID) in request]
    fresh, _, _ = _open()
    next(iter(fresh))
    assert fresh.position()["revision"] == hub.commit(ID)


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Failure, match=r"cannot reach the Hugging Face hub.*--source DIR"):
        list(_open()[0])


def test_the_command_reads_the_hub_as_a_folder(root: Path, tmp_path: Path) -> None:
    """`HF_ENDPOINT` alone turns a fresh process to the server; the shards are the same bytes as from the
    folder.
    """
    hub = Hub(root)
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "COLUMNS": "100"}
    made = []
    try:
        for options in ([], ["--source", str(root)]):
            out = tmp_path / f"out{len(made)}"
            command = [
                sys.executable,
                "-m",
                "braingpt",
                "data",
                "prepare",
                "hub",
                ID,
                "--config",
                "tables",
                "--out",
                str(out),
                *options,
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
            assert done.returncode == 0, done.stderr
            made.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.bin"))})
    finally:
        hub.close()
    assert made[0] == made[1] and made[0]
