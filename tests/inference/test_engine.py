import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braingpt.errors import UserError
from braingpt.inference import engine
from braingpt.inference.engine import Decoder, generate, generate_batch, left_padded, stream
from tests.conftest import SMALL, awake

MODELS = {name: awake(config) for name, config in SMALL.items()}


def naive(model, ids, count):
    """Greedy tokens by reading everything anew for each one."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model.eval()(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-count:]


def test_greedy_equals_reading_everything_anew(architecture):
    model = MODELS[architecture]
    ids = torch.randint(97, (21,), generator=torch.Generator().manual_seed(1)).tolist()
    assert generate(model, ids, 12, temperature=0) == naive(model, ids, 12)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompts=st.lists(st.lists(st.integers(0, 96), min_size=1, max_size=24), min_size=2, max_size=4),
    seed=st.integers(0, 1000),
)
def test_a_batch_writes_what_each_row_writes_alone(architecture, prompts, seed):
    model = MODELS[architecture]
    chosen = {"top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.3}
    alone = [generate(model, ids, 6, seed=seed + row, **chosen) for row, ids in enumerate(prompts)]
    assert generate_batch(model, prompts, 6, seed=seed, **chosen) == alone


def test_a_high_penalty_leaves_no_token_twice(architecture):
    model, prompts = MODELS[architecture], [[1, 2, 3], list(range(50, 97))]
    together = generate_batch(model, prompts, 20, temperature=0, repetition_penalty=100)
    for ids, new in zip(prompts, together, strict=True):
        assert len({*ids, *new}) == len(ids) + 20
        assert generate(model, ids, 20, temperature=0, repetition_penalty=100) == new


def test_the_prefix_is_read_once(architecture, monkeypatch):
    model, read = MODELS[architecture], []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda ids, *a, **k: read.append(ids.shape[1]) or forward(ids, *a, **k)
    )
    assert len(generate(model, range(30), 8, seed=0)) == 8
    # the last token is never read: nothing comes after it
    assert read == [30] + [1] * 7


def test_stop_ends_before_its_token_and_rows_end_alone(architecture):
    model = MODELS[architecture]
    whole = generate(model, [5, 6], 10, seed=3)
    stop = whole[4]
    cut = whole[: whole.index(stop)]
    assert generate(model, [5, 6], 10, seed=3, stop=[stop]) == cut
    other = generate(model, [7] * 9, 10, seed=4, stop=[stop])
    assert generate_batch(model, [[5, 6], [7] * 9], 10, seed=3, stop=[stop]) == [cut, other]


def test_streaming_gives_the_same_tokens_as_they_come(architecture):
    model = MODELS[architecture]
    tokens = stream(model, [1, 2, 3], 9, seed=1)
    first = next(tokens)
    assert [first, *tokens] == generate(model, [1, 2, 3], 9, seed=1) == model.generate([1, 2, 3], 9, seed=1)


def test_a_decoder_goes_on_where_it_stopped(architecture):
    """Reading in parts equals reading at once: what chat relies on."""
    model = MODELS[architecture]
    ids = torch.randint(97, (1, 20), generator=torch.Generator().manual_seed(2))
    whole, parts = Decoder(model), Decoder(model)
    whole.read(ids)
    for piece in (ids[:, :7], ids[:, 7:8], ids[:, 8:]):
        parts.read(piece)
    assert torch.allclose(whole.next_tokens.logits(), parts.next_tokens.logits(), atol=1e-9)


def test_the_mode_comes_back_and_no_gradient_is_kept(architecture):
    model = MODELS[architecture]
    model.train()
    assert generate(model, [1], 2, seed=0) and model.training
    with pytest.raises(UserError):
        generate(model, [97], 2)
    assert model.training
    model.eval()
    decoder = Decoder(model)
    decoder.read(torch.tensor([[1]]))
    assert not decoder.next_tokens.logits().requires_grad and not model.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([], 3), "at least one token"), (([97], 3), "vocabulary of 97"), (([1], -1), "at least 0")],
)
def test_what_cannot_be_generated_is_said_at_the_call(arguments, message):
    for function in (stream, generate):
        with pytest.raises(UserError, match=message):
            function(MODELS["v2"], *arguments)
    with pytest.raises(UserError, match=message):
        generate_batch(MODELS["v2"], [arguments[0]], arguments[1])


def test_nothing_asked_nothing_written():
    assert (
        generate(MODELS["v2"], [1], 0) == []
        and generate_batch(MODELS["v2"], [], 5) == []
        and generate_batch(MODELS["v2"], [[1]], 0) == [[]]
    )


def test_padding_stands_on_the_left():
    ids, segments = left_padded([[1, 2, 3], [4]])
    assert ids.tolist() == [[1, 2, 3], [0, 0, 4]] and segments.tolist() == [[0, 0, 0], [-1, -1, 0]]
    assert left_padded([[1], [2]])[1] is None


def test_a_long_prompt_is_read_in_parts(architecture, monkeypatch):
    model = MODELS[architecture]
    ids = torch.randint(97, (23,), generator=torch.Generator().manual_seed(2)).tolist()
    whole = generate(model, ids, 8, temperature=0)
    for part in (1, 5, 22, 23):
        monkeypatch.setattr(engine, "READ_AT_ONCE", part)
        assert generate(model, ids, 8, temperature=0) == whole


def test_a_prompt_that_does_not_fit_into_memory_is_refused_at_the_call(monkeypatch):
    # The state of this model grows with each token.
    model = MODELS["dense"]
    monkeypatch.setattr(engine, "free_memory", lambda device: model.state_bytes(20_000))
    with pytest.raises(UserError, match=r"the prompt has 20,001 tokens, .* shorten the prompt"):
        stream(model, [1] * 20_001, 1)
    stream(model, [1] * 20_000, 1)
