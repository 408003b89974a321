import os
import signal
import subprocess
import sys

import pytest

from braingpt.errors import UserError
from braingpt.utils.file_lock import file_lock

ADD = """
import sys
from pathlib import Path
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.file_lock import file_lock
path = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with file_lock(path):
        lines = path.read_text().splitlines() if path.exists() else []
        write_atomically(path, "".join(f"{line}\\n" for line in [*lines, str(len(lines) + 1)]))
"""


def test_changes_of_several_processes_are_all_kept(tmp_path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(path)
    commands = [[sys.executable, "-c", ADD, str(name), "25"] for name in (path, path, link, link)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0] * 4
    assert path.read_text().split() == [str(number) for number in range(1, 101)]
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_a_killed_holder_frees_the_lock_and_a_living_one_is_waited_for(tmp_path) -> None:
    path = tmp_path / "file"
    code = (
        "import sys; from pathlib import Path; from braingpt.utils.file_lock import file_lock\n"
        "with file_lock(Path(sys.argv[1])):\n    print('there', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"there\n"
        with pytest.raises(UserError, match="busy here"), file_lock(path, busy="busy here"):
            pass
        notes: list[str] = []

        def end_it(line: str) -> None:
            notes.append(line)
            holder.send_signal(signal.SIGKILL)

        with file_lock(path, end_it):
            assert notes == [f"another process is changing {path}; waiting for it"]
    assert os.listdir(tmp_path) == []
