"""What leaves no trace in the bytes: interruptions at any moment, the number of workers, how documents are
cut into chunks. And parts.
"""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from braingpt import __version__
from braingpt.data.prepare import chunk_reader, journal, preparer, worker_pool
from braingpt.data.prepare.pipeline import Request, prepare
from braingpt.data.prepare.worker import Worker
from braingpt.data.shards.manifest import read_manifest, verify
from braingpt.data.shards.writer import FolderWriter
from braingpt.errors import UserError
from tests.data.folders import ByteTokenizer
from tests.data.texts import english, korean


def hashes(folder: Path) -> dict[str, str]:
    """of every file below the folder; the manifest without its time and its hash."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "manifest.json":
                content = json.dumps({**json.loads(content), "created": "", "sha256": ""}).encode()
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files with duplicates, near duplicates, broken rows and short texts, within and across files."""
    folder = tmp_path_factory.mktemp("own")
    draw = random.Random(0)
    paths = []
    for name in "abc":
        lines = []
        for _ in range(150):
            text = draw.choice((korean, english))(draw.randrange(200))
            text = draw.choice((text, text, text.upper(), text + " Yes.", text[:6]))
            lines.append(draw.choice(["{", "[3]"]) if draw.random() < 0.05 else json.dumps({"text": text}))
        paths.append(folder / f"{name}.jsonl")
        paths[-1].write_text("\n".join(lines))
    return paths


@pytest.fixture(scope="module")
def undisturbed(own: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    dropped = prepare(Request("text", out, own, validation=0.2), ByteTokenizer()).manifest.filters["text"][
        "dropped"
    ]
    assert {"duplicate", "near duplicate", "short", "broken row"} <= set(dropped)
    return hashes(out)


@pytest.mark.parametrize("chunk", [1, 900, 5_000])
def test_chunks_leave_no_trace(
    tmp_path: Path, own, undisturbed, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(chunk_reader, "CHUNK_CHARACTERS", chunk)
    prepare(Request("text", tmp_path / "out", own, validation=0.2), ByteTokenizer())
    assert hashes(tmp_path / "out") == undisturbed


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Worker processes begin at once, and this one is so slow that they have begun before all is done.

    What they did is none of what is listed.
    """
    done, work = [], Worker.__call__

    def slow(self: Worker, documents):
        done.append(len(documents))
        time.sleep(0.05 * len(done))
        return work(self, documents)

    monkeypatch.setattr(Worker, "__call__", slow)
    monkeypatch.setattr(worker_pool, "MIN_SECONDS", -1)
    return done


def test_workers_leave_no_trace(
    tmp_path: Path, own, undisturbed, unhurried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_reader, "CHUNK_CHARACTERS", 300)
    prepare(Request("text", tmp_path / "out", own, validation=0.2, workers=3), ByteTokenizer())
    assert hashes(tmp_path / "out") == undisturbed
    assert sum(unhurried) < sum(report["read"] for report in read_manifest(tmp_path / "out").filters.values())


def test_little_work_begins_no_processes(
    tmp_path: Path, own, undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_reader, "CHUNK_CHARACTERS", 2_000)
    monkeypatch.setattr(worker_pool, "ProcessPoolExecutor", None)
    prepare(Request("text", tmp_path / "out", own, validation=0.2, workers=3), ByteTokenizer())
    assert hashes(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("method", ["add", "sync", "hold_out", "restore", "publish"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failures_leave_no_trace(
    tmp_path: Path, own, undisturbed, monkeypatch: pytest.MonkeyPatch, method: str, error: BaseException
) -> None:
    """The preparation fails at its first, second, fourth, eighth ...

    call of a method, every time it is tried, until it gets through.
    """
    monkeypatch.setattr(chunk_reader, "CHUNK_CHARACTERS", 3_000)
    monkeypatch.setattr(journal, "SECONDS", 0)
    original, calls, fail_at = getattr(FolderWriter, method), [0], [1]

    def failing(self, *arguments):
        calls[0] += 1
        if calls[0] == fail_at[0]:
            fail_at[0], calls[0] = 2 * fail_at[0], 0
            raise error
        return original(self, *arguments)

    monkeypatch.setattr(FolderWriter, method, failing)
    tries, notes = 0, []
    while not (tmp_path / "out").exists():
        tries += 1
        assert tries < 30
        try:
            prepare(
                Request("text", tmp_path / "out", own, validation=0.2), ByteTokenizer(), note=notes.append
            )
        except type(error):
            continue
    assert tries > 1 and hashes(tmp_path / "out") == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert any("continuing" in note for note in notes) == any(
        "finished work is kept" in note for note in notes
    )


def test_killed_again_and_again(tmp_path: Path, own, undisturbed) -> None:
    """kill -9 at moments that differ, in a process of its own with two workers; then the same bytes, and no
    process is left.
    """
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from braingpt.data.prepare import chunk_reader, journal, pipeline\n"
        "journal.SECONDS, chunk_reader.CHUNK_CHARACTERS = 0, 1500\n"
        "from tests.data.folders import ByteTokenizer\n"
        "if __name__ == '__main__':\n"
        "    files = [*map(Path, sys.argv[2:])]\n"
        "    request = pipeline.Request('text', Path(sys.argv[1]), files, validation=0.2, workers=2)\n"
        "    pipeline.prepare(request, ByteTokenizer(), progress=lambda p: print(p.read, flush=True))\n"
    )
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "place" / "out", *own]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    reached = []
    for chunks in (4, 6, 9, None):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        lines = [process.stdout.readline() for _ in range(chunks)] if chunks else process.stdout.readlines()
        if chunks:
            process.send_signal(signal.SIGKILL)
        process.stdout.close()
        assert process.wait() == (-signal.SIGKILL if chunks else 0)
        reached.append((int(lines[0]), int(lines[-1])))
    # Each process continued where the one before was killed.
    assert 0 == reached[0][0] < reached[2][0] < reached[3][0] < reached[3][1]
    assert hashes(tmp_path / "place" / "out") == undisturbed
    for _ in range(50):
        left = subprocess.run(
            ["pgrep", "-f", str(tmp_path / "script.py")], capture_output=True, text=True, check=False
        ).stdout
        if not left:
            break
        time.sleep(0.1)
    assert not left


def test_an_interrupted_preparation_with_other_parameters(
    tmp_path: Path, own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(FolderWriter, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            prepare(Request("text", tmp_path / "out", own), ByteTokenizer())
    with pytest.raises(
        UserError,
        match=r"interrupted preparation with other parameters \(languages: .*discard it with --force",
    ):
        prepare(Request("text", tmp_path / "out", own, languages=["ko"]), ByteTokenizer())
    assert prepare(
        Request("text", tmp_path / "out", own, languages=["ko"], force=True), ByteTokenizer()
    ).manifest.languages() == ["ko"]
    assert verify(tmp_path / "out", read_manifest(tmp_path / "out")) == []


def _interrupted(out: Path, own, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder of a preparation that was interrupted half way."""
    with monkeypatch.context() as patch:
        patch.setattr(journal, "SECONDS", 0)
        patch.setattr(chunk_reader, "CHUNK_CHARACTERS", 3_000)
        patch.setattr(FolderWriter, "hold_out", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            prepare(Request("text", out, own, validation=0.2), ByteTokenizer())
    return out.parent / f".{out.name}.partial"


@pytest.mark.parametrize(
    ("version", "said"), [("0.0.9", "by braingpt 0.0.9, "), (None, "by an earlier braingpt, ")]
)
def test_another_version_does_not_continue(
    tmp_path: Path, own, monkeypatch: pytest.MonkeyPatch, version, said: str
) -> None:
    work = _interrupted(tmp_path / "out", own, monkeypatch)
    state = json.loads((work / "journal.json").read_text())
    assert state["braingpt"] == __version__
    (work / "journal.json").write_text(json.dumps({**state, "braingpt": version}))
    request = Request("text", tmp_path / "out", own, validation=0.2)
    with pytest.raises(UserError, match=f"interrupted preparation {said}.*discard it with --force"):
        prepare(request, ByteTokenizer())
    assert work.is_dir()
    request.force = True
    prepare(request, ByteTokenizer())
    assert not work.exists() and verify(tmp_path / "out", read_manifest(tmp_path / "out")) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("a file that cannot be opened any more")])
def test_an_early_end_of_the_next_try_loses_nothing(
    tmp_path: Path, own, undisturbed, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    work = _interrupted(tmp_path / "out", own, monkeypatch)
    before = (work / "journal.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(chunk_reader, "open_streams", lambda *_, **__: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            prepare(Request("text", tmp_path / "out", own, validation=0.2), ByteTokenizer())
    assert (work / "journal.json").read_bytes() == before
    notes: list[str] = []
    prepare(Request("text", tmp_path / "out", own, validation=0.2), ByteTokenizer(), note=notes.append)
    assert any("continuing" in note for note in notes) and hashes(tmp_path / "out") == undisturbed


def test_an_error_of_the_user_half_way_keeps_what_is_finished(
    tmp_path: Path, own, undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when access to a dataset is withdrawn after hours of reading."""
    monkeypatch.setattr(journal, "SECONDS", 0)
    monkeypatch.setattr(chunk_reader, "CHUNK_CHARACTERS", 3_000)
    with monkeypatch.context() as patch:
        patch.setattr(
            preparer, "check_available", lambda *_: (_ for _ in ()).throw(UserError("the hub refuses it"))
        )
        with pytest.raises(UserError, match="the hub refuses it"):
            prepare(Request("text", tmp_path / "out", own, validation=0.2), ByteTokenizer())
    notes: list[str] = []
    prepare(Request("text", tmp_path / "out", own, validation=0.2), ByteTokenizer(), note=notes.append)
    assert any("continuing" in note for note in notes) and hashes(tmp_path / "out") == undisturbed


def test_killed_right_after_the_end(
    tmp_path: Path, own, undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = _interrupted(tmp_path / "out", own, monkeypatch)
    (work / "former").mkdir()
    prepare(Request("text", tmp_path / "elsewhere", own, validation=0.2), ByteTokenizer())
    (work / "folder").rename(tmp_path / "gone")
    (tmp_path / "elsewhere").rename(tmp_path / "out")
    assert not prepare(Request("text", tmp_path / "out", own, validation=0.2), ByteTokenizer()).fresh
    assert not work.exists() and hashes(tmp_path / "out") == undisturbed


def test_ctrl_c_while_workers_begin_is_one_line(tmp_path: Path) -> None:
    """A terminal sends it to all processes; it comes at moments when the workers are beginning."""
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": korean(number)}) for number in range(20_000))
    )
    small_chunks = (
        "from braingpt.data.prepare import chunk_reader, worker_pool\n"
        "chunk_reader.CHUNK_DOCUMENTS, worker_pool.MIN_SECONDS = 20, -1\n"
        "from braingpt.cli.main import run\n"
        "run()\n"
    )
    command = [sys.executable, "-c", small_chunks, "data", "prepare", "text", "a.jsonl", "--workers", "3"]
    for number, wait in enumerate((0.0, 0.2, 0.5)):
        process = subprocess.Popen(
            [*command, "--out", str(number)],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.poll() is None and not children.read_text().strip():
            time.sleep(0.02)
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=120)[1]
        assert (process.returncode, said.splitlines()) == (130, ["braingpt: interrupted"]), said


def test_two_at_once_are_refused(tmp_path: Path, own) -> None:
    with FolderWriter(tmp_path / "out", "uint16"), pytest.raises(UserError, match="another process"):
        prepare(Request("text", tmp_path / "out", own), ByteTokenizer())


def test_a_dead_worker_is_one_line(tmp_path: Path, own, unhurried, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_reader, "CHUNK_CHARACTERS", 300)
    from braingpt.errors import Failure

    class Deadly(ByteTokenizer):
        def __reduce__(self):
            return os._exit, (9,)

    with pytest.raises(Failure, match="use a smaller number of --workers"):
        prepare(Request("text", tmp_path / "out", own, workers=2), Deadly())
    assert not (tmp_path / "out").exists()


def test_limits(tmp_path: Path, own) -> None:
    capped = prepare(
        Request("text", tmp_path / "tokens", own, languages=["ko", "en"], max_tokens=3_000), ByteTokenizer()
    ).manifest
    for language in ("ko", "en"):
        tokens = sum(stream.tokens for stream in capped.streams if stream.language == language)
        assert 2_500 < tokens <= 3_000
    assert capped.filters["text"]["read"] < 450
