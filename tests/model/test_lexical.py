"""Lexical memory: which rows a token looks up, what they add, and that documents keep to themselves.

`test_contracts.py` holds the promises of the whole model (architecture `v2-lexical`).
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from braingpt.model.config import V2Config
from braingpt.model.config_parts import LexicalConfig
from braingpt.model.growth import grow
from braingpt.model.growth_stages import stage_config
from braingpt.model.lm import build
from braingpt.model.memory.lexical import PRIME, LexicalMemory, hash_factors
from braingpt.model.sequence_layout import Layout
from tests.conftest import SMALL, awake

CONFIG = LexicalConfig(rows=1000, width=4, hashes=2, orders=(2, 3))
GOLDEN = [
    [96783, 871587, 219617, 695683, 855900, 44138],
    [844443, 495404, 677256, 594202, 610054, 954913],
    [586596, 62731, 925937, 519579, 240221, 282709],
    [639507, 383315, 924294, 378852, 419304, 33719],
]
few = settings(max_examples=30, deadline=None)


def rows_by_hand(document: list[int], config: LexicalConfig) -> list[list[int]]:
    """The rows of each token of a document, in plain integers."""
    factors, found = hash_factors(config), []
    for end in range(len(document)):
        words = [document[end - back] + 1 if end >= back else 0 for back in range(config.past + 1)]
        sums = list(factors[-1])
        for word, row in zip(words, factors[:-1], strict=True):
            sums = [total + word * factor for total, factor in zip(sums, row, strict=True)]
        found.append([total % PRIME % config.rows for total in sums])
    return found


def random_ids(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 65_536, shape, generator=torch.Generator().manual_seed(seed))


def test_hashes_are_those_of_every_checkpoint():
    """These numbers must never change: they say which row of a saved table belongs to which n-gram."""
    memory = LexicalMemory(8, LexicalConfig(rows=1_000_003, hashes=3))
    ids = torch.tensor([[7, 65_535, 0, 16_447]])
    rows, _ = memory.rows_of(ids, torch.arange(4)[None])
    assert rows[0].tolist() == GOLDEN


def test_hashes_need_no_more_than_exact_arithmetic():
    config = LexicalConfig(rows=(1 << 31) - 1, width=1, hashes=64, orders=(1, 16))
    factors = hash_factors(config)
    assert max(map(max, factors)) < PRIME
    # beyond 2^53, float64 (where a compiler might take it) would round
    assert max(sum(65_536 * factor for factor in column) for column in zip(*factors, strict=True)) < 1 << 53


@few
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from([(1,), (2, 3), (1, 4)]),
    st.integers(0, 10**6),
)
def test_rows_are_those_of_each_document_alone(lengths, orders, seed):
    config = CONFIG.model_copy(update={"orders": orders})
    memory, ids = LexicalMemory(8, config), random_ids(seed, 1, sum(lengths))
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    rows, _ = memory.rows_of(ids, Layout.of(ids, segments, None).position)
    by_hand = [row for part in ids[0].split(lengths) for row in rows_by_hand(part.tolist(), config)]
    assert rows[0].tolist() == by_hand


@few
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=4),
    st.integers(0, 10**6),
)
def test_pieces_with_padding_on_the_left_look_up_what_the_whole_does(pieces, seed):
    """Two rows whose tokens come in pieces of different lengths, shorter ones padded."""
    config = CONFIG.model_copy(update={"orders": (2, 4)})
    memory = LexicalMemory(8, config)
    read, found = [[], []], [[], []]
    past, seen = memory.new_past(2, torch.device("cpu")), torch.zeros(2, dtype=torch.long)
    for number, (first, shared, second) in enumerate(pieces):
        counts = (shared + first, shared + second)
        ids = random_ids(seed + number, 2, max(counts))
        padding = torch.tensor([[max(counts) - count] for count in counts])
        segments = torch.where(torch.arange(max(counts)) < padding, -1, 0)
        layout = Layout.of(ids, segments, seen)
        start = None if layout.valid is None else padding
        rows, past = memory.rows_of(ids, layout.position, past, start)
        seen = seen + torch.tensor(counts)
        for row, count in enumerate(counts):
            read[row] += ids[row, -count:].tolist()
            found[row] += rows[row, -count:].tolist()
    for row in range(2):
        assert found[row] == rows_by_hand(read[row], config)
        kept = [0] * config.past + [token + 1 for token in read[row]]
        assert past[row].tolist() == kept[-config.past :]


@pytest.mark.parametrize("int8", [False, True])
def test_what_is_added_is_the_formula_in_float64(int8):
    torch.manual_seed(0)
    memory = LexicalMemory(6, CONFIG).double()
    torch.nn.init.normal_(memory.readers[0].value.weight)
    ids, x = random_ids(0, 2, 7), torch.randn(2, 7, 6, dtype=torch.float64)
    layout = Layout.of(ids, None, None)
    table = memory.table.detach().clone()
    key, value = (part.weight.detach().clone() for part in (memory.readers[0].key, memory.readers[0].value))
    if int8:
        # The readers stay as they are: what is tested is the table.
        memory.to_int8()
        scale = table.abs().amax(1, keepdim=True) / 127
        assert (table - (table / scale).round() * scale).abs().max() <= scale.max() / 2
        table = (table / scale).round() * scale
    memory(ids, layout)
    found = memory.read(0, x, layout)

    def normed(t):
        return t / (t.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    for row in range(2):
        for at, rows in enumerate(rows_by_hand(ids[row].tolist(), CONFIG)):
            looked_up = normed(table[rows].flatten())
            fit = (normed(key @ looked_up) * normed(x[row, at])).sum() / 6**0.5
            expected = x[row, at] + torch.sigmoid(fit) * (value @ looked_up)
            tolerance = 1e-4 if int8 else 1e-5
            torch.testing.assert_close(found[row, at], expected, atol=tolerance, rtol=tolerance)


def test_a_fresh_model_is_unchanged_by_it():
    ids = random_ids(0, 2, 20) % 97
    with_it, without = build(SMALL["v2-lexical"]).eval(), build(SMALL["v2"]).eval()
    own = with_it.state_dict()
    assert {name for name in own if name not in without.state_dict()} == {
        "lexical.table",
        *(f"lexical.readers.{i}.{part}.weight" for i in (0, 1) for part in ("key", "value")),
    }
    without.load_state_dict({name: own[name] for name in without.state_dict()})
    with torch.no_grad():
        assert torch.equal(with_it(ids).logits, without(ids).logits)


def test_the_last_tokens_and_no_others_change_what_is_looked_up():
    model = awake(SMALL["v2-lexical"]).eval()
    ids = random_ids(0, 1, 12) % 97
    changed = ids.clone()
    changed[0, 5] = (ids[0, 5] + 1) % 97
    position = torch.arange(12)[None]
    one, other = (model.lexical.rows_of(t, position)[0][0] for t in (ids, changed))
    assert [at for at in range(12) if not torch.equal(one[at], other[at])] == [5, 6, 7]


def test_the_counts_by_hand():
    plain, model = build(SMALL["v2"]), build(SMALL["v2-lexical"])
    maps = 2 * 2 * (2 * 3 * 4) * 32
    assert model.parameters_total() - plain.parameters_total() == 61 * 4 + maps
    assert model.parameters_active() - plain.parameters_active() == maps
    assert model.flops_per_token(16) - plain.flops_per_token(16) == 2 * maps
    assert model.state_bytes(16) - plain.state_bytes(16) == 8 * 2
    assert model.new_state(3).bytes() - plain.new_state(3).bytes() == 3 * 8 * 2


def test_growth_keeps_it_and_what_a_stage_has_none_of_begins_fresh():
    final = SMALL["v2-lexical"].model_copy(update={"layers": 4})
    ids = random_ids(0, 2, 20) % 97
    small = awake(stage_config(final, 2)).eval()
    grown = grow(small, final).eval()
    assert torch.equal(grown.lexical.table, small.lexical.table)
    assert torch.equal(grown(ids).logits, small(ids).logits)
    late = final.model_copy(update={"lexical": final.lexical.model_copy(update={"layers": (2,)})})
    early = awake(stage_config(late, 2)).eval()
    assert early.lexical is None
    assert torch.equal(grow(early, late).eval()(ids).logits, early(ids).logits)


def test_int8_rows_take_a_quarter_and_a_scale():
    memory = LexicalMemory(8, CONFIG)
    memory.to_int8()
    assert sum(t.numel() * t.element_size() for t in memory.int8.buffers()) == 1000 * (4 + 4)
    assert memory.table.is_meta and memory.table.numel() == 4000


@pytest.mark.parametrize(
    ("lexical", "words"),
    [
        ({"layers": [3]}, r"model.lexical.layers \[3\] must lie in 0..2"),
        ({"layers": []}, "must rise, and not be empty"),
        ({"orders": [3, 2]}, r"model.lexical.orders \[3, 2\] must rise"),
        ({"orders": [17]}, "less than or equal to 16"),
    ],
)
def test_wrong_settings_are_named(lexical, words):
    with pytest.raises(ValidationError, match=words):
        V2Config(layers=3, hidden=64, heads=4, lexical={"rows": 10, **lexical})


def test_rows_are_added_before_the_first_exit():
    depth = {"share": 0.7, "exits": [2]}
    with pytest.raises(ValidationError, match=r"0..1, before the first of model.depth.exits"):
        V2Config(layers=4, hidden=64, heads=4, depth=depth, lexical={"rows": 10, "layers": [2]})
    V2Config(layers=4, hidden=64, heads=4, depth=depth, lexical={"rows": 10, "layers": [1]})


def test_with_exits_steps_equal_the_whole():
    lexical = SMALL["v2-lexical"].lexical
    model = awake(SMALL["v2-depth"].model_copy(update={"lexical": lexical})).eval()
    ids = random_ids(0, 2, 24) % 97
    state = model.new_state(2)
    with torch.no_grad():
        steps = torch.stack([model.step(ids[:, t], state) for t in range(24)], 1)
        torch.testing.assert_close(steps, model(ids).logits, rtol=1e-9, atol=1e-9)
