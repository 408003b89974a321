"""A program as a user writes it: checked by mypy and pyright, and run.

python tests/python_api/use.py RUN DATA
"""

import sys
from pathlib import Path

import torch

import braingpt
from braingpt.checkpoint.checkpoint import load_model, weights_hash
from braingpt.checkpoint.listing import resolve
from braingpt.data.shards.reader import ShardSet
from braingpt.episodic.memory import EpisodicMemory, Remembering
from braingpt.evaluation.perplexity import Scores, evaluate


def write(run: Path) -> list[str]:
    """Texts of a trained model, at once, piece by piece, and from ids."""
    model, tokenizer = braingpt.load(run, device="cpu")
    ids: list[int] = tokenizer.encode("인공지능의 미래는", language="ko")
    new: list[int] = model.generate(ids, max_new_tokens=4, temperature=0.8, top_p=0.9, seed=0)
    text: str = braingpt.generate(model, tokenizer, "Once upon a time", max_new_tokens=4, seed=1)
    stream = braingpt.generate_text(model, tokenizer, "옛날", language="ko", max_new_tokens=4)
    pieces: list[str] = list(stream)
    reason: str = stream.finish
    return [tokenizer.decode(new), text, "".join(pieces), reason]


def remember(run: Path) -> int:
    """The entries that a text leaves in a memory."""
    model, tokenizer, recipe, state = load_model(resolve(run))
    memory = EpisodicMemory.fresh(model.eval(), tokenizer, weights_hash(state), {"recipe": recipe.name})
    number, entries = memory.teach(model, tokenizer, "The lighthouse keeper is called Haneul.")
    remembering = Remembering(model, memory)
    print(number, braingpt.generate(remembering, tokenizer, "The lighthouse keeper is", max_new_tokens=3))
    return entries


def train(steps: int) -> list[float]:
    """The losses of a few steps of a fresh model."""
    recipe = braingpt.load_recipe("nano-v2", ["model.layers=2", "model.hidden=32", "model.heads=2"])
    model = braingpt.build(recipe, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.train.lr)
    tokens = torch.arange(66).reshape(2, 33)
    losses: list[float] = []
    for _ in range(steps):
        loss: torch.Tensor = model(tokens[:, :-1], targets_BL=tokens[:, 1:]).loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        optimizer.step()
        model.after_step()
        losses.append(loss.item())
    return losses


def score(run: Path, data: Path) -> float:
    """Bits per byte on validation data."""
    model, tokenizer = braingpt.load(run)
    shards = ShardSet.open([data], tokenizer)
    scores: Scores = evaluate(model, shards, tokenizer, context=32, windows=2)
    assert scores.bits_per_byte is not None
    return scores.bits_per_byte


def mistake() -> str:
    """The message of an error."""
    try:
        braingpt.load("no/such/run")
    except braingpt.UserError as error:
        assert isinstance(error, braingpt.BraingptError)
        return str(error)
    except braingpt.Failure as error:
        return str(error)
    raise AssertionError("no error")


def main() -> None:
    """Everything, with what a reader wants to see."""
    run, data = Path(sys.argv[1]), Path(sys.argv[2])
    print(write(run))
    print(remember(run))
    losses = train(3)
    assert losses[-1] < losses[0]
    print(losses, score(run, data), mistake())


if __name__ == "__main__":
    main()
