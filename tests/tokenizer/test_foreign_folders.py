"""Tokenizer folders that somebody else made, or that a fault has changed: one line and no panic."""

import json
import shutil
import time

import pytest

from braingpt.cli.console import guarded
from braingpt.cli.main import app
from braingpt.errors import Failure, UserError
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.foreign_pattern import why_not_usable
from braingpt.tokenizer.storage import DESCRIPTION, NEXT_RANKS, RANKS, write_vocabulary
from braingpt.tokenizer.vocabulary import GROUPED_PATTERN, PATTERN, Vocabulary

BYTES = [bytes([value]) for value in range(256)]
# Each with a fingerprint that fits.
HOSTILE = {
    "no expression": {"pattern": "\x1b[2J("},
    "look-behind": {"pattern": "(?<=a+)b"},
    "backtracking": {"pattern": r"((?:a|aa)+)+\1c|(?s:.)"},
    "no character": {"pattern": ""},
    "a look-ahead": {"pattern": "(?=x)|(?s:.)"},
    "characters left out": {"pattern": "[a-z]+"},
    "a byte is missing": {"entries": [*BYTES[1:], b"ab", b"cd"]},
    "an entry twice": {"entries": [*BYTES, b"ab"], "added": [b"ab"]},
    "ids beyond 32 bits": {"first_special": 1 << 40},
    "half a character": {"specials": None},
}


def written(folder, **changes):
    """A small tokenizer with some parts replaced, written without the checks of `Tokenizer`."""
    plain = Tokenizer([*BYTES, b"ab"]).vocabulary
    names = ("entries", "pattern", "specials", "marked", "added", "first_special")
    parts = {name: getattr(plain, name) for name in names}
    write_vocabulary(folder, Vocabulary(**(parts | changes)))
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_a_folder_of_somebody_else_ends_in_one_line(name, tmp_path, capfd) -> None:
    changes = dict(HOSTILE[name])
    if name == "half a character":
        folder = written(tmp_path / "t")
        text = (folder / DESCRIPTION).read_text("utf-8").replace("<|ko|>", "\\ud800")
        (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    else:
        folder = written(tmp_path / "t", **changes)
    began = time.monotonic()
    with pytest.raises((Failure, UserError)):
        Tokenizer.load(folder)
    words = ["tokenizer", "encode", "a" * 60 + " 하나\n", "--tokenizer", str(folder)]
    assert guarded(lambda: app(words, standalone_mode=False)) == 1
    told = capfd.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and "\x1b" not in told.err, told.err
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "description",
    ["[" * 100_000, "[]", "{}", '{"format": "braingpt-tokenizer"}', "\x00", "\ufeff{}"],
    ids=["deep", "list", "empty", "no version", "zero byte", "mark"],
)
def test_a_description_that_is_none(description, tmp_path, capfd) -> None:
    folder = written(tmp_path / "t")
    (folder / DESCRIPTION).write_text(description, encoding="utf-8")
    words = ["tokenizer", "encode", "a", "--tokenizer", str(folder)]
    assert guarded(lambda: app(words, standalone_mode=False)) in (1, 2)
    assert capfd.readouterr().err.count("\n") == 1


def test_any_field_of_another_type_is_a_damaged_folder(tmp_path) -> None:
    folder = written(tmp_path / "t")
    sound = json.loads((folder / DESCRIPTION).read_text("utf-8"))
    for key in sound:
        for value in (None, -1, 1.5, True, "x", [], {}, [1], ["x"], [[]], 10**30):
            # A tokenizer may have no marked language.
            if value == sound[key] or (key, value) == ("languages", []):
                continue
            (folder / DESCRIPTION).write_text(json.dumps(sound | {key: value}), encoding="utf-8")
            with pytest.raises((Failure, UserError)):
                Tokenizer.load(folder)


def test_patterns_in_use_are_usable() -> None:
    public = pytest.importorskip("tiktoken_ext.openai_public")
    for pattern in (PATTERN, GROUPED_PATTERN, public.r50k_pat_str):
        assert why_not_usable(pattern) is None


def test_other_files_of_the_folder_stay(tmp_path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for tokenizer in (Tokenizer([*BYTES, b"ab"]), Tokenizer([*BYTES, b"ab", b"cd"])):
        tokenizer.save(folder)
        assert Tokenizer.load(folder).fingerprint == tokenizer.fingerprint
        assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", RANKS, DESCRIPTION]


def test_a_link_to_a_folder_stays_a_link(tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        Tokenizer([*BYTES, b"ab"]).save(tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / RANKS).is_file()


def test_writers_at_once_leave_one_whole_tokenizer(tmp_path) -> None:
    """Processes that write different tokenizers into one folder again and again, while others read it."""
    import os

    folder = tmp_path / "t"
    each = [
        Tokenizer([*BYTES, b"ab", *(b"x%d" % number for number in range(size))]) for size in (1, 400, 900)
    ]
    each[0].save(folder)

    def work(number: int) -> None:
        for _ in range(30):
            if number < 3:
                each[number].save(folder)
            else:
                Tokenizer.load(folder)

    processes = []
    for number in range(5):
        if not (process := os.fork()):
            try:
                work(number)
                os._exit(0)
            finally:
                os._exit(1)
        processes.append(process)
    assert [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes] == [0] * 5
    assert Tokenizer.load(folder).fingerprint in {one.fingerprint for one in each}
    assert sorted(path.name for path in folder.iterdir()) == [RANKS, DESCRIPTION]
    shutil.rmtree(folder)
    assert NEXT_RANKS.startswith(".")
