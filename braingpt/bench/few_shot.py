"""What a trained model can use of what it has just read, and of what it was taught once, without a memory and
with one.

- In-context gain: how much easier the last quarter of a validation window is than its first, in nats a token
  (the in-context learning score of Olsson et al. 2022, "In-context Learning and Induction Heads").
- Repetition: random tokens, then the same again; the share of the second copy that is predicted (their test
  for induction heads). Chance is one in the vocabulary.
- Facts (`evaluation/tasks/facts.py`) asked for by their beginning: never told; told in the context among
  others; and taught once to the slow tier of episodic memory, then asked for alone and after another
  sentence. The memory works beside any of our architectures, but not beside another library's model.
"""

import math
import statistics
from typing import Any

import torch

from braingpt.bench.contender import Contender
from braingpt.bench.peers import Peer
from braingpt.device.eval_mode import eval_mode
from braingpt.episodic.memory import EpisodicMemory, Remembering
from braingpt.errors import one_line
from braingpt.evaluation.tasks.facts import DISTRACTOR, facts, share_recalled
from braingpt.model.lm import LanguageModel
from braingpt.tokenizer import Tokenizer

# Tokens repeated, and rows of them.
REPEATED, ROWS = 64, 16
# Facts of each language, and how many of them one context holds.
FACTS_PER_LANGUAGE, FACTS_PER_CONTEXT = 12, 4


def few_shot(contender: Contender, windows: int) -> dict[str, Any]:
    """Measure one trained contender.

    Args:
        contender: A trained contender.
        windows: Validation windows for the in-context gain.

    Returns:
        Nats for "in_context_gain", shares between 0 and 1 for the others. Those of the memory are None where
        there can be none; "memory_error" says why the memory failed.
    """
    model, tokenizer = contender.model, contender.trainer.tokenizer
    languages = [language for language in ("ko", "en") if language in tokenizer.markers]
    known = {language: facts(language, FACTS_PER_LANGUAGE)[0] for language in languages}
    figures: dict[str, Any] = {
        "in_context_gain": in_context_gain(contender, windows),
        "repetition": repetition(model),
        "facts_never_told": statistics.mean(
            share_recalled(model, tokenizer, known[language], language) for language in languages
        ),
        "facts_in_context": statistics.mean(
            _recall_in_context(model, tokenizer, known[language], language) for language in languages
        ),
        "facts_in_memory": None,
        "facts_in_memory_behind": None,
    }
    if isinstance(model, LanguageModel):
        try:
            figures["facts_in_memory"], figures["facts_in_memory_behind"] = _recall_from_memory(
                model, tokenizer, known
            )
        except RuntimeError as error:
            figures["memory_error"] = one_line(error)
    return figures


def in_context_gain(contender: Contender, windows: int) -> float | None:
    """Nats a token between the first and the last quarter of validation windows; None where a loss is not
    finite. Without validation text, training text is read.
    """
    context = contender.recipe.train.context
    gains = []
    for number in range(windows):
        ids_BL = contender.prompts(1, context + 1, number).to(contender.device)
        with eval_mode(contender.model):
            loss_L = contender.model(ids_BL[:, :-1], ids_BL[:, 1:], reduction="none").loss.flatten()
        quarter = max(1, context // 4)
        gains.append(float(loss_L[:quarter].mean() - loss_L[-quarter:].mean()))
    return statistics.mean(gains) if all(map(math.isfinite, gains)) else None


def repetition(model: LanguageModel | Peer) -> float:
    """Share of the second copy's tokens, without its first, that are the likeliest continuation."""
    draw = torch.Generator().manual_seed(0)
    once_BL = torch.randint(model.config.vocab, (ROWS, REPEATED), generator=draw).to(model.device)
    with eval_mode(model):
        predicted_BL = model(torch.cat([once_BL, once_BL], 1)).logits[:, REPEATED:-1].argmax(-1)
    return float((predicted_BL == once_BL[:, 1:]).float().mean())


def _recall_in_context(
    model: LanguageModel | Peer, tokenizer: Tokenizer, known: list[tuple[str, str]], language: str
) -> float:
    """Share of facts that come back in a context that holds the fact's group."""
    groups = [known[first : first + FACTS_PER_CONTEXT] for first in range(0, len(known), FACTS_PER_CONTEXT)]
    return statistics.mean(
        share_recalled(
            model, tokenizer, group, language, before=" ".join(start + end for start, end in group) + " "
        )
        for group in groups
    )


def _recall_from_memory(
    model: LanguageModel, tokenizer: Tokenizer, known: dict[str, list[tuple[str, str]]]
) -> tuple[float, float]:
    """Shares of the taught facts that come back: asked for alone, and after another sentence."""
    model.eval()
    memory = EpisodicMemory.fresh(model, tokenizer, "")
    for language, pairs in known.items():
        for start, end in pairs:
            memory.teach(model, tokenizer, start + end, language)
    remembering = Remembering(model, memory)
    shares = [
        [
            share_recalled(remembering, tokenizer, pairs, language, before)
            for before in ("", DISTRACTOR[language])
        ]
        for language, pairs in known.items()
    ]
    alone, behind = map(statistics.mean, zip(*shares, strict=True))
    return alone, behind
