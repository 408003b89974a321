"""What learned classes promise: every token once, full classes, equal results, the classes behind a text."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.data import vocabulary_classes
from braingpt.data.shards.reader import ShardSet
from braingpt.data.vocabulary_classes import PairCounts, count_pairs, learn_classes, order_by_class
from tests.data.folders import ByteTokenizer, write_folder

CLASSES, WIDTH = 12, 16


class SpecialTokenizer(ByteTokenizer):
    """The special tokens are the last 64 ids."""

    first_special = 256
    specials = tuple(map(str, range(64)))


def _open(out: Path, **streams: np.ndarray) -> ShardSet:
    """Training streams by language."""
    write_folder(out, {("train", language, "text"): ids for language, ids in streams.items()}, piece=1000)
    return ShardSet.open([out], SpecialTokenizer())


def _pairs(ids: np.ndarray, vocab: int) -> PairCounts:
    keys, counts = np.unique(ids[1:] * vocab + ids[:-1], return_counts=True)
    return PairCounts(keys // vocab, keys % vocab, counts.astype(np.float64))


def _planted(tokens: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A text whose classes follow each other by chance, frequent and rare words in each, and its class_V."""
    random = np.random.default_rng(seed)
    class_V = random.permutation(np.repeat(np.arange(CLASSES), WIDTH))
    words = [np.flatnonzero(class_V == number) for number in range(CLASSES)]
    successors = [random.choice(CLASSES, 3, replace=False) for _ in range(CLASSES)]
    share = 1 / np.arange(1, WIDTH + 1)
    rank = random.choice(WIDTH, tokens, p=share / share.sum())
    choice = random.integers(0, 3, tokens)
    ids, number = np.empty(tokens, dtype=np.int64), 0
    for place in range(tokens):
        number = successors[number][choice[place]] if random.random() < 0.9 else random.integers(CLASSES)
        ids[place] = words[number][rank[place]]
    return ids, class_V


def _parts(order_V: np.ndarray, width: int) -> set[frozenset[int]]:
    return {frozenset(order_V[start : start + width].tolist()) for start in range(0, len(order_V), width)}


def test_classes_that_made_a_text_are_found() -> None:
    ids, class_V = _planted(60_000)
    order_V = order_by_class(_pairs(ids, len(class_V)), len(class_V), WIDTH)
    assert _parts(order_V, WIDTH) == {
        frozenset(np.flatnonzero(class_V == number).tolist()) for number in range(CLASSES)
    }


def test_moving_words_makes_the_classes_tell_more_of_the_words_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids, class_V = _planted(4_000)
    pairs, told = _pairs(ids, len(class_V)), []
    for rounds in (0, 4):
        monkeypatch.setattr(vocabulary_classes, "ROUNDS", rounds)
        number_V = np.empty(len(class_V), dtype=np.int64)
        number_V[order_by_class(pairs, len(class_V), WIDTH)] = np.arange(len(class_V)) // WIDTH
        told.append(_information(number_V[pairs.word_P], pairs))
    assert told[1] > told[0] + 0.003


def _information(class_P: np.ndarray, pairs: PairCounts) -> float:
    """Nats that the classes and the words before them tell of each other."""
    joint = np.zeros((class_P.max() + 1, pairs.before_P.max() + 1))
    np.add.at(joint, (class_P, pairs.before_P), pairs.count_P)
    joint /= joint.sum()
    expected = joint.sum(1, keepdims=True) * joint.sum(0)
    return float((joint[joint > 0] * np.log(joint[joint > 0] / expected[joint > 0])).sum())


@settings(max_examples=60, deadline=None)
@given(
    vocab=st.integers(1, 150),
    width=st.integers(1, 40),
    tokens=st.integers(0, 600),
    special=st.integers(0, 20),
    seed=st.integers(0, 99),
)
def test_every_token_has_one_place_unseen_and_special_ones_the_last(
    vocab: int, width: int, tokens: int, special: int, seed: int
) -> None:
    ids = np.random.default_rng(seed).integers(0, vocab, tokens) ** 2 // vocab
    last = range(max(0, vocab - special), vocab)
    order_V = order_by_class(_pairs(ids, vocab), vocab, width, last)
    assert np.array_equal(np.sort(order_V), np.arange(vocab))
    words = [word for word in order_V.tolist() if word not in last]
    assert order_V.tolist() == [*words, *last]
    seen = set(ids[1:].tolist()) - set(last)
    assert set(words[: len(seen)]) == seen
    assert words[len(seen) :] == sorted(set(words) - seen)


def test_a_pair_does_not_cross_the_end_of_a_document(tmp_path: Path) -> None:
    shards = _open(
        tmp_path / "two", ko=np.array([257, 1, 2, 256, 257, 2, 1, 1, 256, 257]), en=np.array([3, 4])
    )
    pairs = count_pairs(shards, 320, 256)
    found = dict(
        zip(zip(*(p.tolist() for p in pairs[1::-1]), strict=True), pairs.count_P.tolist(), strict=True)
    )
    assert found == {
        **dict.fromkeys([(257, 1), (1, 2), (2, 256)], 1),
        **dict.fromkeys([(257, 2), (2, 1), (1, 1), (1, 256)], 1),
        (3, 4): 1,
    }


def test_special_tokens_share_the_last_class(tmp_path: Path) -> None:
    ids, _ = _planted(3_000)
    ids[::50] = 256
    order_V = learn_classes(_open(tmp_path / "planted", ko=ids), SpecialTokenizer(), WIDTH)
    assert order_V[256:].tolist() == list(range(256, 320))
    assert set(order_V[: CLASSES * WIDTH].tolist()) == set(range(CLASSES * WIDTH))


@pytest.mark.parametrize("tokens", [0, 1, 2, 40])
def test_few_or_no_tokens_give_classes_of_neighbouring_ids(tmp_path: Path, tokens: int) -> None:
    shards = _open(tmp_path / "few", ko=np.full(tokens, 7)) if tokens else ShardSet([])
    order_V = learn_classes(shards, SpecialTokenizer(), WIDTH)
    rest = [word for word in range(320) if word != 7 or tokens < 2]
    assert order_V.tolist() == ([] if tokens < 2 else [7]) + rest


def test_equal_pairs_give_equal_classes_with_any_number_of_threads() -> None:
    ids, class_V = _planted(5_000)
    pairs, threads, orders = _pairs(ids, len(class_V)), torch.get_num_threads(), []
    try:
        for number in (1, 1, 2):
            torch.set_num_threads(number)
            orders.append(order_by_class(pairs, len(class_V), WIDTH).tolist())
    finally:
        torch.set_num_threads(threads)
    assert orders[0] == orders[1] == orders[2]


def test_a_long_stream_is_sampled_over_its_whole_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary_classes, "STRETCH", 100)
    # Token k stands in tokens 1000 k to 1000 k + 999.
    shards = _open(tmp_path / "long", ko=np.arange(200_000) // 1000, en=np.arange(1_000) // 1000 + 250)
    pairs = count_pairs(shards, 320, 256, sample=40_000)
    # English has all its 10 stretches, and Korean the rest of the 400.
    assert pairs.count_P.sum() == 390 * 99 + 10 * 99
    korean = pairs.word_P < 250
    assert np.array_equal(np.unique(pairs.word_P[korean]), np.arange(200))


def test_memory_is_that_of_the_sample(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shards = _open(tmp_path / "large", ko=random.integers(0, 250, 2_000_000))
    tracemalloc.start()
    count_pairs(shards, 320, 256, sample=1 << 17)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Keys, the joined keys and what marks their starts; all tokens would take 16 MB in each.
    assert peak < 5 * 8 * (1 << 17)
