"""A model with a memory is a model: its promises hold, an empty memory changes nothing, and what was taught
once comes back.
"""

import pytest
import torch

from braingpt.episodic.memory import Remembering
from braingpt.episodic.storage import load_memory, save_memory
from braingpt.errors import UserError
from braingpt.inference.engine import generate_batch
from braingpt.inference.text_stream import generate_text, prompt_ids

FACTS = {
    "지난주에 우리 집에 온 작은 고양이의 이름은": " 콩이예요.",
    "The little cat that came to our house last week is called": " Biscuit.",
}


@pytest.fixture
def full(loaded, memory):
    model, tokenizer, _ = loaded
    for start, end in FACTS.items():
        memory.teach(model, tokenizer, start + end)
    return memory


def ids_of(tokenizer, *texts: str) -> list[list[int]]:
    return [tokenizer.encode(text, language="auto") for text in texts]


def test_an_empty_memory_is_silent(loaded, memory):
    model, tokenizer, _ = loaded
    ids = torch.tensor(ids_of(tokenizer, "My cat is called Biscuit."))
    assert torch.equal(Remembering(model, memory)(ids).logits, model(ids).logits)


@pytest.mark.parametrize("start", FACTS)
def test_a_fact_taught_once_is_recalled(loaded, full, start):
    model, tokenizer, _ = loaded
    with_memory = "".join(
        generate_text(Remembering(model, full), tokenizer, start, temperature=0, max_new_tokens=12)
    )
    assert with_memory == FACTS[start]
    assert FACTS[start].split(".")[0] not in "".join(
        generate_text(model, tokenizer, start, temperature=0, max_new_tokens=12)
    )


def test_step_equals_forward_and_rows_do_not_meet(loaded, full):
    model, tokenizer, _ = loaded
    model = Remembering(model, full)
    short, long = ids_of(tokenizer, "My cat is called", "나는 오늘 아침에 내 고양이 이름은")
    with torch.no_grad():
        alone = model(torch.tensor([long])).logits
        torch.testing.assert_close(alone.exp().sum(-1), torch.ones(1, len(long)), rtol=0, atol=1e-4)
        torch.testing.assert_close(
            model(torch.tensor([long]), last=True).logits, alone[:, -1:], rtol=1e-4, atol=1e-4
        )
        state = model.new_state(1)
        parts = [model(torch.tensor([long[:3]]), state=state).logits]
        parts += [model.step(torch.tensor([token]), state)[:, None] for token in long[3:]]
        torch.testing.assert_close(torch.cat(parts, 1), alone, rtol=1e-3, atol=1e-3)
        packed = model(
            torch.tensor([short + long]), segments_BL=torch.tensor([[0] * len(short) + [1] * len(long)])
        ).logits
        torch.testing.assert_close(packed[:, len(short) :], alone, rtol=1e-3, atol=1e-3)
    together = generate_batch(
        model, [prompt_ids(tokenizer, start) for start in FACTS], 12, temperature=0, stop=[tokenizer.eot]
    )
    assert [tokenizer.decode(ids) for ids in together] == list(FACTS.values())


def test_loss_is_that_of_the_mixed_logits(loaded, full):
    model, tokenizer, _ = loaded
    [ids] = ids_of(tokenizer, "My cat is called Biscuit.")
    ids = torch.tensor([ids])
    targets = torch.cat([ids[:, 1:], torch.tensor([[-100]])], 1)
    remembering = Remembering(model, full)
    logits = remembering(ids).logits[0, :-1].log_softmax(-1)
    wanted = -logits.gather(1, ids[0, 1:, None]).squeeze(1)
    torch.testing.assert_close(remembering(ids, targets, reduction="none").loss[0, :-1], wanted)
    assert remembering(ids, targets).loss < model(ids, targets).loss


def test_the_same_text_is_taught_once(loaded, full):
    model, tokenizer, _ = loaded
    before = len(full.store)
    assert full.teach(model, tokenizer, "  지난주에 우리 집에 온 작은 고양이의 이름은 콩이예요.\n")[0] == 1
    assert len(full.store) == before
    with pytest.raises(UserError, match="text is empty"):
        full.teach(model, tokenizer, " \n")


def test_a_file_holds_all_of_it(loaded, full, tmp_path):
    model, tokenizer, weights = loaded
    save_memory(full, tmp_path / "m")
    again = load_memory(tmp_path / "m", weights)
    ids = torch.tensor(ids_of(tokenizer, "내 고양이 이름은 콩이예요."))
    assert torch.equal(Remembering(model, again)(ids).logits, Remembering(model, full)(ids).logits)
    assert (
        again.store.texts == full.store.texts
        and again.store.last_number == 2
        and [p.name for p in tmp_path.iterdir()] == ["m"]
    )


def test_foreign_and_damaged_files_are_refused(loaded, full, tmp_path):
    path = tmp_path / "m"
    save_memory(full, path)
    with pytest.raises(UserError, match=r"belongs to another model \(nano-v2, step 60\)"):
        load_memory(path, "0" * 64)
    raw = path.read_bytes()
    for place in (len(raw) // 2, len(raw) - 3):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(UserError, match="damaged"):
            load_memory(path)
    for content in (raw[:-5], b"", b"not a memory file at all"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged or not a memory file"):
            load_memory(path)
    from safetensors.torch import save_file

    save_file({"keys": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not a memory file of this version"):
        load_memory(path)
    with pytest.raises(UserError, match="memory add"):
        load_memory(tmp_path / "nothing")


def test_teaching_says_how_far_it_is(loaded, memory):
    model, tokenizer, _ = loaded
    shares: list[float] = []
    memory.teach(model, tokenizer, "The cat is called Biscuit. " * 200, "en", shares.append)
    assert len(shares) > 2 and shares == sorted(shares) and shares[-1] == 1
