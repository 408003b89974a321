"""`braingpt data` as a user meets it: exit codes, one-line errors, JSON on standard output."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from braingpt.data.prepare.drop_counts import excerpt
from tests.data.texts import english, korean


def _run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "braingpt", "data", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "100"}
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/text prepared in it."""
    cwd = tmp_path_factory.mktemp("place")
    texts = [write(number) for number in range(30) for write in (korean, english)]
    (cwd / "own.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    done = _run("prepare", "text", "own.jsonl", "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["folder"], facts["fresh"]) == ("data/text", True)
    return cwd


def test_prepared_again_is_kept(place: Path) -> None:
    done = _run("prepare", "text", "own.jsonl", cwd=place)
    assert done.returncode == 0
    assert "already prepared" in done.stdout
    other = _run("prepare", "text", "own.jsonl", "--validation", "0.2", cwd=place)
    assert other.returncode == 2
    assert "--force" in other.stderr
    assert other.stderr.count("\n") == 1


def test_info_and_list(place: Path) -> None:
    info = json.loads(_run("info", "data/text", "--json", cwd=place).stdout)
    assert sum(stream["documents"] for stream in info["streams"]) == 60
    assert "KO" in _run("info", "data/text", cwd=place).stdout.upper()
    listed = json.loads(_run("list", "--json", cwd=place).stdout)
    assert [entry["folder"] for entry in listed["prepared"]] == ["data/text"]
    assert {"korean", "all", "text"} <= {entry["name"] for entry in listed["corpora"]}
    missing = _run("info", "data/korean", cwd=place)
    assert missing.returncode == 2
    assert "braingpt data prepare korean" in missing.stderr


def test_verify(place: Path, tmp_path: Path) -> None:
    assert _run("verify", "data/text", cwd=place).returncode == 0
    _run("prepare", "text", place / "own.jsonl", "--out", tmp_path / "own", cwd=place)
    shard = next((tmp_path / "own" / "train").glob("ko-*.bin"))
    content = bytearray(shard.read_bytes())
    content[9] ^= 1
    shard.write_bytes(content)
    damaged = _run("verify", tmp_path / "own", "--json", cwd=place)
    assert damaged.returncode == 1
    assert shard.name in damaged.stderr
    assert shard.name in json.loads(damaged.stdout)["problems"][0]


def test_errors_are_one_line(place: Path) -> None:
    for arguments, words in (
        (("prepare", "koraen"), "did you mean 'korean'"),
        (("prepare", "own.jsonl"), "braingpt data prepare text own.jsonl"),
        (("prepare", "text", "nothing.txt"), "there is no file or folder nothing.txt"),
        (("prepare", "korean", "--source", "nowhere"), "not a folder"),
        (
            ("prepare", "text", "own.jsonl", "--out", "own.jsonl/below"),
            "own.jsonl is a file; name another folder",
        ),
        (("prepare", "text", "own.jsonl", "--languages", ","), "--languages names no language"),
    ):
        done = _run(*arguments, cwd=place)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert words in done.stderr


def test_samples_of_dropped_documents_leave_the_terminal_alone() -> None:
    assert excerpt("\x1b[31mred \u202eשלום\n\u200b end") == "\\x1b[31mred \\u202eשלום \\u200b end"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_preparation_leaves_nothing_for_long(tmp_path: Path, number: int, code: int) -> None:
    fifo = tmp_path / "slow.txt"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "braingpt", "data", "prepare", "text", str(fifo)]
    # a shell's background jobs are born deaf to it
    listening = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=listening)
    with fifo.open("w") as writer:
        writer.write(english(0))
        writer.flush()
        for _ in range(300):
            if (tmp_path / "data").exists():
                break
            time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    left = list((tmp_path / "data").iterdir()) if (tmp_path / "data").exists() else []
    if number == signal.SIGINT:
        assert "Traceback" not in said
        assert left == []
    else:
        fifo.unlink()
        fifo.write_text(" ".join(map(english, range(20))))
        assert len(left) == 1
        assert _run("prepare", "text", fifo, cwd=tmp_path).returncode == 0
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["text"]
