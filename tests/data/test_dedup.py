"""Hashes, signatures, counts and the index on disk."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.data.dedup import index as index_module
from braingpt.data.dedup.content_hash import content_hash, is_held_out
from braingpt.data.dedup.deduplicator import Deduplicator, similarity, trigrams
from braingpt.data.dedup.index import KEYS, RECORD, Index
from braingpt.data.dedup.minhash import band_keys
from braingpt.data.prepare.drop_counts import DropCounts
from braingpt.data.shards.stream_writer import Place
from tests.data.texts import english, korean


def test_hash_ignores_case_and_whitespace_only() -> None:
    assert content_hash("Ein  Wort\n hier") == content_hash("ein wort HIER")
    assert content_hash("ein wort hier") != content_hash("ein wort, hier")
    held = sum(is_held_out(content_hash(str(number)), 0.05) for number in range(4000))
    assert 140 < held < 260


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.integers(0, 5), max_size=30))
def test_similarity_is_jaccards(first: list[int], second: list[int]) -> None:
    sets = [
        {tuple(ids[at : at + 3]) for at in range(len(ids) - 2)} or {tuple(ids)} for ids in (first, second)
    ]
    expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert similarity(trigrams(np.array(first)), trigrams(np.array(second))) == pytest.approx(expected)


@pytest.mark.parametrize("write", [korean, english])
def test_signatures_find_small_changes_and_not_strangers(write) -> None:
    draw = random.Random(1)
    texts = [" ".join(write(10 * number + part) for part in range(5)) for number in range(60)]
    changed = []
    for text in texts:
        words = text.split()
        words[draw.randrange(len(words))] = write(999).split()[0]
        changed.append(" ".join(words))
    keys, others = band_keys(texts), band_keys(changed)
    shared = (keys[:, None, :] == others[None, :, :]).any(-1)
    assert np.diag(shared).mean() > 0.95
    assert (shared.sum() - np.diag(shared).sum()) / (60 * 59) < 0.01
    assert (band_keys([texts[0].upper().replace(" ", "\n")]) == keys[:1]).all()


def test_signatures_of_odd_texts() -> None:
    texts = ["", "a", "🧠" * 3, "\ud800 x", "가" * 4, "aaaaa" * 10_000]
    keys = band_keys(texts)
    assert keys.shape == (len(texts), index_module.BANDS)
    for number, text in enumerate(texts):
        assert (band_keys([text]) == keys[number]).all()
    assert band_keys([]).shape[0] == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60), max_size=12), max_size=8), st.randoms(use_true_random=False))
def test_index_finds_the_first_with_a_key(
    tmp_path_factory, batches: list[list[int]], draw: random.Random
) -> None:
    """As a dictionary for each column does (no key is in two of them, as each knows its band); also when it
    begins again from any length of its log, and with a table that must grow.
    """
    folder = tmp_path_factory.mktemp("index")
    old = index_module.FIRST_SLOTS, index_module.SECTION
    index_module.FIRST_SLOTS, index_module.SECTION = 32, 64
    try:
        index, first, count = Index(folder), [{} for _ in range(KEYS)], 0
        for batch in batches:
            keys = np.array(
                [
                    [
                        (value % 3) * 2**62 + column * 2**8 + draw.randrange(3) * 2**33 + value
                        for column in range(KEYS)
                    ]
                    for value in batch
                ],
                dtype=np.uint64,
            ).reshape(-1, KEYS)
            expected = [[first[column].get(int(key), -1) for column, key in enumerate(row)] for row in keys]
            assert index.find(keys).tolist() == expected
            records = np.zeros(len(batch), dtype=RECORD)
            records["keys"], records["at"] = keys, np.arange(count, count + len(batch))
            index.add(records)
            for row in keys:
                for column, key in enumerate(row):
                    first[column].setdefault(int(key), count)
                count += 1
        if count:
            assert index.records(np.array([count - 1]))["at"] == [count - 1]
        index.sync()
        index.close()
        kept = draw.randint(0, count)
        again = Index(folder, kept)
        every = np.array([[key for key in column][:1] or [0] for column in first], dtype=np.uint64).reshape(
            1, KEYS
        )
        expected = [column.get(int(key), -1) for column, key in zip(first, every[0], strict=True)]
        assert again.find(every).tolist() == [[number if number < kept else -1 for number in expected]]
        again.close()
    finally:
        index_module.FIRST_SLOTS, index_module.SECTION = old


@pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(),
    reason="the system does not tell how much of a mapped file is resident",
)
def test_resident_memory_follows_neither_the_log_nor_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 2 MB
    monkeypatch.setattr(index_module, "SECTION", 1 << 18)
    # 0.6 MB
    monkeypatch.setattr(index_module, "REPLAY", 1 << 12)
    resident, insert = [], Index._insert

    def watched(self: Index, begin: int, keys: np.ndarray, inside: np.ndarray) -> None:
        insert(self, begin, keys, inside)
        # the last of a section
        if begin + index_module.REPLAY >= self.count:
            resident.append(resident_of(tmp_path))

    monkeypatch.setattr(Index, "_insert", watched)
    index, draw = Index(tmp_path), np.random.default_rng(0)
    records = np.zeros(60_000, dtype=RECORD)
    records["keys"] = draw.integers(0, 2**64, (len(records), KEYS), dtype=np.uint64)
    # keys that are compared with those of former documents
    records["keys"][30_000:, 1] = records["keys"][:30_000, 1]
    index.add(records[:30_000])
    index.add(records[30_000:])
    assert index.find(records["keys"][::999]).tolist() == [
        [number] + [number - 30_000 if number >= 30_000 else number] + [number] * (KEYS - 2)
        for number in range(0, 60_000, 999)
    ]
    index.close()
    assert index.path.stat().st_size > 9e6 and (tmp_path / "documents.table").stat().st_size > 16e6
    # systems map up to 2 MB at a touch
    assert len(resident) >= 8 and max(resident) <= 5e6


def resident_of(folder: Path) -> int:
    """Bytes of the mapped files in a folder that are in this process' memory."""
    size, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            ours = words[-1].startswith(str(folder))
        elif ours and words[0] == "Rss:":
            size += 1024 * int(words[1])
    return size


def test_counts_continue_from_their_report() -> None:
    counts = DropCounts()
    for number in range(10):
        rule = "short" if number % 2 else "language"
        counts.drop(rule, f"sample {number}" if counts.wants_sample(rule) else "")
        counts.keep()
        counts = DropCounts(counts.report())
    report = counts.report()
    assert (report["read"], report["kept"]) == (20, 10)
    assert report["dropped"]["short"] == {"documents": 5, "samples": ["sample 1", "sample 3", "sample 5"]}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_duplicates_do_not_depend_on_chunks(
    tmp_path_factory, documents: list[tuple[int, int]], cuts: list[int]
) -> None:
    """As one after the other against all that were kept: which is what the rule says."""
    folder = tmp_path_factory.mktemp("index")
    texts = [korean(number) + " 그리고" * changed for number, changed in documents]
    ids = [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]
    keys = np.zeros((len(texts), 17), dtype=np.uint64)
    keys[:, 0] = [hash(text) & (2**64 - 1) for text in texts]
    keys[:, 1:] = band_keys(texts)
    store: list[np.ndarray] = []
    index = Index(folder)
    duplicates = Deduplicator(index, lambda stream, place: store[place.at], 0.7)
    verdicts = []
    edges = sorted({0, len(texts), *(min(cut, len(texts)) for cut in cuts)})
    for begin, end in pairwise(edges):
        duplicates.begin(keys[begin:end], ids[begin:end])
        for number in range(end - begin):
            verdicts.append(duplicates.rule(number))
            if verdicts[-1] is None:
                duplicates.keep(number, 0, Place(0, len(store), len(ids[begin + number])))
                store.append(ids[begin + number])
        duplicates.end()
    index.close()
    first: dict[int, int] = {}
    for (number, changed), verdict in zip(documents, verdicts, strict=True):
        assert (verdict is None) == (number not in first)
        if verdict == "duplicate":
            assert changed == first[number]
        first.setdefault(number, changed)
