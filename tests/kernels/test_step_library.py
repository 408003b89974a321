"""The compiled step is kept: compiled once, shared by processes, and compiled again where it is damaged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from braingpt.kernels.step import library

# Stands in for a compiler: copies a text to where the library belongs, slowly, and counts its calls.
FAKE = """#!/bin/sh
if [ "$1" = --version ]; then echo fake 1; exit; fi
echo called >> "{folder}/calls"
sleep 0.3
while [ "$1" != -o ]; do shift; done
echo a library > "$2"
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "c++"
    path.write_text(FAKE.format(folder=tmp_path))
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setenv("BRAINGPT_CACHE", str(tmp_path / "cache"))
    return path


def calls(compiler: Path) -> int:
    return (compiler.parent / "calls").read_text().count("called")


def test_compiled_once_and_again_where_damaged_or_changed(compiler):
    path = library.compiled_library()
    assert path.read_text() == "a library\n"
    assert library.compiled_library() == path and calls(compiler) == 1
    path.write_text("a lib")
    assert library.compiled_library() == path and path.read_text() == "a library\n" and calls(compiler) == 2
    path.with_suffix(".sha256").unlink()
    library.compiled_library()
    assert calls(compiler) == 3
    compiler.write_text(compiler.read_text().replace("fake 1", "fake 2"))
    assert library.compiled_library() != path and calls(compiler) == 4
    assert not [name for name in os.listdir(path.parent) if name.startswith(".")]


def test_processes_at_once_compile_once(compiler):
    code = "from braingpt.kernels.step import library; print(library.compiled_library())"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    found = {process.communicate(timeout=100)[0] for process in processes}
    assert len(found) == 1 and found.pop().strip().endswith(".so") and calls(compiler) == 1


def test_a_compiler_that_fails_is_one_line(compiler, monkeypatch):
    compiler.write_text("#!/bin/sh\necho first line >&2\necho second >&2\nexit 1\n")
    with pytest.raises(ValueError, match=r"failed: first line$"):
        library.compiled_library()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler"):
        library.compiled_library()


def test_fake_processors_have_libraries_of_their_own(compiler, monkeypatch):
    path = library.compiled_library()
    monkeypatch.setattr(library, "_processor", lambda: "another")
    assert library.compiled_library() != path


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no owners of this kind")
def test_a_folder_that_others_may_write_to_is_not_loaded_from(compiler):
    folder = compiler.parent / "cache"
    assert library.compiled_library().parent == folder
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o777)
    with pytest.raises(ValueError, match="BRAINGPT_CACHE"):
        library.compiled_library()


def test_no_home_folder_is_one_line(compiler, monkeypatch):
    for name in ("BRAINGPT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(ValueError, match="no home folder"):
        library.compiled_library()
