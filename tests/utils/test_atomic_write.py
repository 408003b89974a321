"""The target of a write may be anything that a user can name."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from braingpt.errors import UserError
from braingpt.utils import atomic_write
from braingpt.utils.atomic_write import check_target, write_atomically


def test_a_file_is_the_new_one_or_the_old_one(tmp_path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "하나\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text("utf-8") == "하나\n" and list(tmp_path.iterdir()) == [path]
    write_atomically(path, "\ud800", errors="replace")
    assert path.read_text("utf-8") == "?"


def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path) -> None:
    real, middle, link, dangling = (tmp_path / name for name in ("deep/real", "middle", "link", "dangling"))
    real.parent.mkdir()
    real.write_text("old")
    middle.symlink_to("deep/real")
    link.symlink_to(middle)
    dangling.symlink_to("deep/new")
    write_atomically(link, "new")
    write_atomically(dangling, "made")
    assert link.is_symlink() and middle.is_symlink() and dangling.is_symlink()
    assert (real.read_text(), dangling.read_text()) == ("new", "made")
    assert sorted(os.listdir(tmp_path / "deep")) == ["new", "real"]


def test_a_file_keeps_its_rights(tmp_path) -> None:
    path = tmp_path / "private"
    path.write_text("old")
    path.chmod(0o600)
    write_atomically(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_pipes_and_devices_are_written_to_and_stay(tmp_path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # More than a pipe holds, so that the write comes in parts.
    text, read = "0123456789" * 50_000, []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_atomically(pipe, text)
    reader.join()
    assert read == [text] and stat.S_ISFIFO(pipe.stat().st_mode)
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        null.symlink_to("/dev/null")
    write_atomically(null, text)
    assert stat.S_ISCHR(null.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["null", "pipe"]


def test_a_reader_of_a_pipe_may_leave(tmp_path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def read_little() -> None:
        with open(pipe, "rb", buffering=0) as file:
            file.read(1)

    reader = threading.Thread(target=read_little)
    reader.start()
    write_atomically(pipe, b"x" * 1_000_000)
    reader.join()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_an_open_file_is_continued_where_it_is(tmp_path, name, kind) -> None:
    if not os.path.exists(name):
        pytest.skip(f"no {name}")
    code = (
        "from pathlib import Path; from braingpt.utils.atomic_write import write_atomically\n"
        f"print('before', flush=True); write_atomically(Path({name!r}), 'written\\n'); print('after')"
    )
    expected = "before\nwritten\nafter\n"
    if kind == "pipe":
        assert subprocess.check_output([sys.executable, "-c", code], text=True) == expected
        return
    out = tmp_path / "out"
    with out.open("w") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert out.read_text() == expected and os.listdir(tmp_path) == ["out"]


def test_what_cannot_be_written_is_one_line_and_unchanged(tmp_path, monkeypatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to("folder")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "lost").symlink_to("no/where")
    (tmp_path / "file").write_text("")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    for name, reason in (
        ("folder", "is a folder; name a file"),
        ("to_folder", "is a folder; name a file"),
        ("loop", "symbolic links"),
        ("lost", "there is no folder"),
        ("no/file", "there is no folder"),
        ("file/below", "Not a directory"),
        ("x" * 300, "name too long"),
        ("socket", "is a socket"),
    ):
        with pytest.raises(UserError, match=reason) as raised:
            check_target(tmp_path / name, "--json-file")
        assert str(raised.value).startswith("--json-file ") and "\n" not in str(raised.value)
        with pytest.raises(UserError, match=reason):
            write_atomically(tmp_path / name, "text")
    server.close()

    def mounted(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", "temporary")

    monkeypatch.setattr(atomic_write.os, "replace", mounted)
    with pytest.raises(OSError, match="file'"):
        write_atomically(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == ""
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "loop", "lost", "socket", "to_folder"]


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path) -> None:
    for name in ("n" * 255, "이" * 85):
        write_atomically(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"


def test_rests_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path) -> None:
    path = tmp_path / "file"
    code = (
        "import os, sys; from pathlib import Path; from braingpt.utils import scratch\n"
        "place = Path(sys.argv[1])\n"
        "with scratch.scratch_file(place), scratch.scratch_folder(place):\n"
        "    print('there', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"there\n"
        # One of an earlier version, and names that are the user's own.
        (tmp_path / ".file.tmp-999999999").write_text("")
        (tmp_path / ".other.tmp-1").write_text("")
        (tmp_path / ".file.tmp-mine").write_text("")
        write_atomically(path, "text")
        assert len(os.listdir(tmp_path)) == 5
        process.send_signal(signal.SIGKILL)
    write_atomically(path, "text")
    assert sorted(os.listdir(tmp_path)) == [".file.tmp-mine", ".other.tmp-1", "file"]


def test_many_writers_leave_one_whole_file(tmp_path) -> None:
    path = tmp_path / "file"
    writers = [
        threading.Thread(target=write_atomically, args=(path, f"{number}" * 10_000)) for number in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    text = path.read_text()
    assert len(text) == 10_000 and len(set(text)) == 1 and os.listdir(tmp_path) == ["file"]


def test_every_file_that_a_user_names_is_written_by_this_function() -> None:
    """No module below `braingpt` writes a file in one go by other means."""
    package = Path(atomic_write.__file__).parents[1]
    allowed = {
        # Into a temporary folder that is renamed when it is whole.
        "checkpoint/checkpoint.py",
        "recipes/loader.py",
        # The kernel's own switch.
        "bench/machine.py",
        # A help formatter's method of this name.
        "cli/command.py",
    }
    words = (".write_text(", ".write_bytes(", "savez_compressed(path", ".savez(path", "np.save(out")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(word in path.read_text("utf-8") for word in words)
    }
    assert found - allowed == set()
