import pytest

from braingpt.utils.atomic_write import write_atomically


def test_a_file_is_the_new_one_or_the_old_one(tmp_path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "하나\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text("utf-8") == "하나\n" and list(tmp_path.iterdir()) == [path]
    write_atomically(path, "\ud800", errors="replace")
    assert path.read_text("utf-8") == "?"
