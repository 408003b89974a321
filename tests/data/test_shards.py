"""Writing and reading prepared folders, and the faults a folder can have."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braingpt.data.shards.manifest import NAME, read_manifest, verify
from braingpt.data.shards.reader import ShardSet
from braingpt.data.shards.writer import FolderWriter
from braingpt.errors import UserError
from tests.data.folders import ByteTokenizer, write_folder


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    file_tokens=st.integers(20, 200),
    data=st.data(),
)
def test_windows_are_slices_of_all_streams_in_order(
    tmp_path_factory, sizes: list[int], file_tokens: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shards") / "out"
    whole = np.random.default_rng(0).integers(0, 320, sum(sizes))
    bounds = np.cumsum([0, *sizes])
    streams = {("train", "ko", f"s{n}"): whole[bounds[n] : bounds[n + 1]] for n in range(len(sizes))}
    write_folder(folder, streams, file_bytes=2 * file_tokens, piece=17)
    shards = ShardSet.open([folder], ByteTokenizer())
    assert shards.tokens("train", "ko") == len(whole)
    length = data.draw(st.integers(2, 60))
    count = shards.windows("train", "ko", length)
    assert count == max(0, (len(whole) - 1) // (length - 1))
    for index in range(count):
        start = index * (length - 1)
        assert np.array_equal(shards.window("train", "ko", index, length), whole[start : start + length])
    with pytest.raises(IndexError):
        shards.window("train", "ko", count, length)


def test_several_folders_merge_their_languages(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", {("train", "ko", "x"): np.arange(10), ("train", "en", "x"): np.arange(5)})
    write_folder(
        tmp_path / "b", {("train", "ko", "y"): np.arange(100, 107), ("validation", "de", "y"): np.arange(3)}
    )
    shards = ShardSet.open([tmp_path / "a", tmp_path / "b", tmp_path / "a"], ByteTokenizer())
    assert shards.languages("train") == ["ko", "en"]
    assert shards.languages("validation") == ["de"]
    assert shards.window("train", "ko", 0, 17).tolist() == [*range(10), *range(100, 107)]
    assert shards.tokens("train", "it") == 0


def _folder(tmp_path: Path) -> Path:
    write_folder(
        tmp_path / "korean", {("train", "ko", "x"): np.arange(100), ("validation", "ko", "x"): np.arange(20)}
    )
    return tmp_path / "korean"


def _refused(folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        ShardSet.open([folder], ByteTokenizer())
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_missing_folder_names_the_command(tmp_path: Path) -> None:
    _refused(Path("data/korean"), "data/korean", "braingpt data prepare korean")
    _refused(tmp_path / "mine", "braingpt data prepare NAME --out")
    _refused(tmp_path, "not a prepared data folder")


def test_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    other = ByteTokenizer()
    other.fingerprint = "c" * 64
    with pytest.raises(UserError, match="another tokenizer"):
        ShardSet.open([_folder(tmp_path)], other)


def test_damage_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    shard = folder / "train" / "ko-x-00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    _refused(folder, "ko-x-00000.bin", "198", "200", "--force")
    shard.unlink()
    _refused(folder, "ko-x-00000.bin", "missing")
    shard.write_bytes(b"\x01" + whole[1:])
    # opening checks sizes only
    ShardSet.open([folder], ByteTokenizer())
    (problem,) = verify(folder, read_manifest(folder))
    assert "ko-x-00000.bin" in problem
    shard.write_bytes(whole)
    assert verify(folder, read_manifest(folder)) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', "\0"])
def test_corrupt_manifest(tmp_path: Path, text: str) -> None:
    folder = _folder(tmp_path)
    (folder / NAME).write_text(text)
    _refused(folder, "damaged", NAME)


def test_manifest_may_not_point_outside(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    tree = json.loads((folder / NAME).read_text())
    tree["streams"][0]["files"][0]["path"] = "train/../../secret.bin"
    (folder / NAME).write_text(json.dumps(tree))
    _refused(folder, "damaged")


def test_nothing_is_left_of_a_failed_writing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), FolderWriter(tmp_path / "deep" / "out", "uint16") as writer:
        writer.add("train", "ko", "x", [1, 2, 3], 3)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_hold_out_gives_both_splits(tmp_path: Path) -> None:
    only_train, only_validation = np.arange(100), np.arange(100, 180)
    with FolderWriter(tmp_path / "out", "uint16") as writer:
        writer.add("train", "ko", "x", only_train, 100)
        writer.add("validation", "en", "y", only_validation, 80)
        writer.hold_out(0.1, np.ones(320, dtype=np.int32))
        writer.restore(writer.state())
        streams = {(stream.split, stream.language): stream for stream in writer.close()}
        assert {key: (s.tokens, s.bytes, s.documents) for key, s in streams.items()} == {
            ("train", "ko"): (90, 90, 1),
            ("validation", "ko"): (10, 10, 0),
            ("train", "en"): (72, 72, 1),
            ("validation", "en"): (8, 8, 0),
        }
        ids = np.fromfile(writer.root / streams["validation", "en"].files[0].path, dtype="<u2")
        assert ids.tolist() == list(range(172, 180))
