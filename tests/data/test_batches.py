"""What batches promise: pure, every window once per epoch, weights kept, the same rows for any world size."""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.data.batches.batches import BLOCK, Batches, _quotas, permute, validation_windows
from braingpt.data.batches.mixture import check_mixture
from braingpt.data.shards.reader import ShardSet
from braingpt.errors import UserError
from tests.data.folders import ByteTokenizer, numbered, write_folder

CONTEXT = 8


def _where(batch) -> list[tuple[str, int]]:
    """(language, window number) of each row of a `numbered` set."""
    return [
        (language, int(ids[0]) // CONTEXT) for language, ids in zip(batch.language, batch.ids_BL, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 700), key=st.integers(0, 2**64 - 1))
def test_permuted_is_a_bijection(size: int, key: int) -> None:
    sizes, keys = np.full(size, size, dtype=np.uint64), np.full(size, key, dtype=np.uint64)
    assert sorted(permute(np.arange(size, dtype=np.uint64), sizes, keys).tolist()) == list(range(size))


def test_permuted_shuffles_and_depends_on_its_key() -> None:
    size = np.full(5000, 5000, dtype=np.uint64)
    index = np.arange(5000, dtype=np.uint64)
    one = permute(index, size, size * 0 + np.uint64(1)).astype(np.int64)
    two = permute(index, size, size * 0 + np.uint64(2)).astype(np.int64)
    assert abs(np.corrcoef(np.arange(5000), one)[0, 1]) < 0.05
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.05
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.05
    assert (one == two).mean() < 0.01


def test_targets_follow_ids(tmp_path: Path) -> None:
    batch = Batches(numbered(tmp_path, {"ko": 500}), "train", 4, CONTEXT).batch(3)
    assert batch.ids_BL.shape == batch.targets_BL.shape == (4, CONTEXT)
    assert str(batch.ids_BL.dtype) == "torch.int64"
    assert batch.targets_BL.is_contiguous()
    assert (batch.targets_BL == batch.ids_BL + 1).all()


@pytest.mark.parametrize("mixture", ["proportional", "balanced", {"ko": 5, "en": 1, "de": 0.3}])
def test_each_window_once_per_epoch_of_its_language(tmp_path: Path, mixture) -> None:
    batches = Batches(
        numbered(tmp_path, {"ko": 801, "en": 303, "de": 41}), "train", 6, CONTEXT, seed=3, mixture=mixture
    )
    seen: dict[str, list[int]] = {"ko": [], "en": [], "de": []}
    # two block boundaries
    for step in range(1500):
        for language, window in _where(batches.batch(step)):
            seen[language].append(window)
    for language, count in batches.windows.items():
        visits = seen[language]
        epochs = [visits[start : start + count] for start in range(0, len(visits) - count + 1, count)]
        assert len(epochs) > 1
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
        if count > 20:
            assert epochs[0] != epochs[1]


def test_a_batch_depends_on_its_arguments_only(tmp_path: Path) -> None:
    shards = numbered(tmp_path, {"ko": 801, "en": 303})
    forward = Batches(shards, "train", 8, CONTEXT, seed=1)
    in_order = [_where(forward.batch(step)) for step in range(600, 640)]
    for step in (639, 600, 620, 5, 601):
        assert _where(Batches(shards, "train", 8, CONTEXT, seed=1).batch(step)) == _where(forward.batch(step))
    assert _where(forward.batch(600)) == in_order[0]
    assert [
        _where(Batches(shards, "train", 8, CONTEXT, seed=2).batch(step)) for step in range(600, 640)
    ] != in_order


@settings(max_examples=20, deadline=None)
@given(step=st.integers(0, 10**7), world=st.sampled_from([1, 2, 3, 4, 6, 12]), seed=st.integers(0, 99))
def test_ranks_share_the_same_rows_for_any_world(tmp_path_factory, step: int, world: int, seed: int) -> None:
    batches = Batches(_shared(tmp_path_factory), "train", 12, CONTEXT, seed=seed, mixture="balanced")
    parts = [_where(batches.batch(step, rank, world)) for rank in range(world)]
    assert [row for part in parts for row in part] == _where(batches.batch(step))


_SHARED: list[ShardSet] = []


def _shared(tmp_path_factory) -> ShardSet:
    if not _SHARED:
        _SHARED.append(numbered(tmp_path_factory.mktemp("shared"), {"ko": 801, "en": 303}))
    return _SHARED[0]


@pytest.mark.parametrize(
    ("mixture", "expected"),
    [
        ("proportional", {"ko": 100 / 150, "en": 50 / 150}),
        ("balanced", {"ko": 0.5, "en": 0.5}),
        ({"ko": 1, "en": 9}, {"ko": 0.1, "en": 0.9}),
    ],
)
def test_weights_are_kept(tmp_path: Path, mixture, expected: dict[str, float]) -> None:
    batches = Batches(numbered(tmp_path, {"ko": 801, "en": 401}), "train", 30, CONTEXT, mixture=mixture)
    counts = Counter(language for step in range(400) for language in batches.batch(step).language)
    for language, share in expected.items():
        assert counts[language] / 12_000 == pytest.approx(share, abs=0.002)
    # and nearly so in every batch
    for step in range(20):
        assert abs(batches.batch(step).language.count("ko") - 30 * expected["ko"]) <= 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12))
def test_quotas_fill_a_block(raw: list[float]) -> None:
    weights = np.array(raw) / sum(raw)
    quotas = _quotas(weights)
    assert quotas.sum() == BLOCK
    assert (quotas >= 1).all()
    assert np.abs(quotas / BLOCK - weights).max() <= len(raw) / BLOCK


@pytest.mark.parametrize(
    "mixture", [{"ko": 1, "it": 1}, {"ko": 0}, {"ko": -1}, {"ko": float("nan")}, {"ko": "much"}, {}, "fair"]
)
def test_wrong_mixtures(tmp_path: Path, mixture) -> None:
    with pytest.raises(UserError, match=r"data\.mixture"):
        Batches(numbered(tmp_path, {"ko": 801, "en": 303}), "train", 4, CONTEXT, mixture=mixture)


def test_weights_leave_languages_out(tmp_path: Path) -> None:
    batches = Batches(numbered(tmp_path, {"ko": 801, "en": 303}), "train", 4, CONTEXT, mixture={"en": 2})
    assert set(batches.batch(7).language) == {"en"}


def test_too_little_data(tmp_path: Path) -> None:
    shards = numbered(tmp_path, {"ko": 801, "en": 8})
    assert Batches(shards, "train", 4, CONTEXT).skipped == ["en"]
    with pytest.raises(UserError, match="no window of 900 tokens"):
        Batches(shards, "train", 4, 900)
    with pytest.raises(UserError, match=r"train\.context"):
        Batches(shards, "train", 4, CONTEXT, mixture={"en": 1})
    with pytest.raises(UserError, match="multiple"):
        Batches(shards, "train", 4, CONTEXT).batch(0, 0, 3)


def test_validation_windows(tmp_path: Path) -> None:
    shards = numbered(tmp_path, {"ko": 801}, split="validation")
    windows = [row for batch in validation_windows(shards, "ko", CONTEXT, 7, 40) for row in _where(batch)]
    assert len(set(windows)) == 40
    assert windows == sorted(windows)
    # spread over the whole sequence
    assert windows[-1][1] > 90
    everything = list(validation_windows(shards, "ko", CONTEXT, 7, 10_000))
    assert [row for batch in everything for row in _where(batch)] == [("ko", number) for number in range(100)]
    assert len(everything[-1].language) == 100 % 7
    assert list(validation_windows(shards, "ko", 900, 7, 40)) == []
    assert list(validation_windows(shards, "en", CONTEXT, 7, 40)) == []


def test_batches_are_fast(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 300, 1_000_000)
    write_folder(
        tmp_path / "big",
        {("train", language, "x"): ids for language in ("ko", "en")},
        file_bytes=1 << 20,
        piece=100_000,
    )
    batches = Batches(ShardSet.open([tmp_path / "big"], ByteTokenizer()), "train", 16, 512)
    batches.batch(0)
    best = min(_seconds(lambda step=step: batches.batch(step)) for step in range(1, 50))
    assert best < 0.002


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


SCHEDULE = [
    {"until": 0.3, "mixture": "balanced"},
    {"until": 0.55, "mixture": {"de": 1}},
    {"until": 1, "mixture": {"ko": 3, "en": 1}},
]


def test_a_schedule_keeps_each_phases_weights_and_visits_each_window_once_per_epoch(tmp_path: Path) -> None:
    shards = numbered(tmp_path, {"ko": 801, "en": 303, "de": 41})
    batches = Batches(shards, "train", 6, CONTEXT, seed=3, mixture=SCHEDULE, steps=2000)
    rows = [_where(batches.batch(step)) for step in range(2000)]
    shares = {"ko": [1 / 3, 0, 3 / 4], "en": [1 / 3, 0, 1 / 4], "de": [1 / 3, 1, 0]}
    for phase, (start, end) in enumerate([(0, 600), (600, 1100), (1100, 2000)]):
        seen = Counter(language for step in rows[start:end] for language, _ in step)
        for language, expected in shares.items():
            assert seen[language] / (6 * (end - start)) == pytest.approx([*expected][phase], abs=0.003)
    for language, count in batches.windows.items():
        visits = [window for step in rows for drawn, window in step if drawn == language]
        epochs = [visits[start : start + count] for start in range(0, len(visits) - count + 1, count)]
        assert len(epochs) > 5
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
        assert batches.epochs(2000)[language] == len(visits) / count
        assert (
            batches.epochs(800)[language]
            == sum(drawn == language for step in rows[:800] for drawn, _ in step) / count
        )


@settings(max_examples=25, deadline=None)
@given(
    shares=st.lists(st.floats(0.01, 1), min_size=1, max_size=4),
    mixtures=st.lists(
        st.sampled_from(
            ["balanced", "proportional", "temperature", {"temperature": 0.7}, {"ko": 1}, {"en": 2, "ko": 5}]
        ),
        min_size=4,
    ),
    steps=st.integers(1, 3000),
    rows=st.sampled_from([1, 2, 6]),
    seed=st.integers(0, 99),
)
def test_any_mixture_is_pure_and_visits_no_window_twice_in_an_epoch(
    tmp_path_factory, shares, mixtures, steps, rows, seed
) -> None:
    ends = np.cumsum(shares) / sum(shares)
    mixture = [{"until": min(1.0, end), "mixture": one} for end, one in zip(ends, mixtures, strict=False)]
    mixture[-1]["until"] = 1.0
    shards = _shared(tmp_path_factory)
    batches = Batches(shards, "train", rows, CONTEXT, seed=seed, mixture=mixture, steps=steps)
    # across phases and blocks
    language_B, window_B = batches.draws(0, 1500)
    cut = steps % 1500
    for part, whole in zip(batches.draws(cut, 1500 - cut), (language_B, window_B), strict=True):
        assert part.tolist() == whole[cut:].tolist()
    again = Batches(shards, "train", rows, CONTEXT, seed=seed, mixture=mixture, steps=steps)
    for part, whole in zip(again.draws(700, 100), (language_B, window_B), strict=True):
        assert part.tolist() == whole[700:800].tolist()
    for number, language in enumerate(batches.languages):
        visits, count = window_B[language_B == number], batches.windows[language]
        for start in range(0, len(visits), count):
            epoch = visits[start : start + count]
            assert len(set(epoch.tolist())) == len(epoch)


def test_temperature_lies_between_balanced_and_proportional(tmp_path: Path) -> None:
    shards = numbered(tmp_path, {"ko": 801, "en": 101})

    def ko(mixture) -> float:
        return Batches(shards, "train", 4, CONTEXT, mixture=mixture).phases[0].weights["ko"]

    assert ko({"temperature": 0}) == ko("balanced") == 0.5
    assert ko({"temperature": 1}) == pytest.approx(ko("proportional"))
    assert ko("temperature") == pytest.approx(100**0.3 / (100**0.3 + 12**0.3))


def test_a_schedule_starts_as_its_first_part_alone(tmp_path: Path) -> None:
    shards = numbered(tmp_path, {"ko": 801, "en": 303})
    alone = Batches(shards, "train", 4, CONTEXT, mixture="balanced")
    first = Batches(
        shards,
        "train",
        4,
        CONTEXT,
        mixture=[{"until": 0.5, "mixture": "balanced"}, {"mixture": {"ko": 1}}],
        steps=200,
    )
    assert [_where(first.batch(step)) for step in range(100)] == [
        _where(alone.batch(step)) for step in range(100)
    ]
    assert {language for step in range(100, 300) for language, _ in _where(first.batch(step))} == {"ko"}


@pytest.mark.parametrize(
    "mixture",
    [
        [],
        [{"mixture": "fair"}],
        [{"until": 0.5, "mixture": "balanced"}],
        [{"until": 0.5, "mixture": "balanced"}, {"until": 0.4, "mixture": "balanced"}],
        [{"until": 0, "mixture": "balanced"}, {"mixture": "balanced"}],
        [{"mixture": "balanced"}, {"mixture": "balanced"}],
        [{"mixture": [{"mixture": "balanced"}]}],
        [{"till": 1, "mixture": "balanced"}],
        ["balanced"],
        {"temperature": 2},
        {"temperature": 0.3, "ko": 1},
        {"temperature": True},
        {False: 1},
    ],
)
def test_wrong_schedules_and_temperatures(tmp_path: Path, mixture) -> None:
    with pytest.raises(UserError, match=r"data\.mixture"):
        Batches(numbered(tmp_path, {"ko": 801, "en": 303}), "train", 4, CONTEXT, mixture=mixture, steps=10)
    with pytest.raises(UserError, match=r"data\.mixture"):
        check_mixture(mixture)
