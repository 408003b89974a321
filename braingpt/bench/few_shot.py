"""What a trained model makes of what it has just read, and of what it was taught once: without a memory and
with one.

- In-context gain: nats a token that the last quarter of a validation window is easier than its first (Olsson
    et al. 2022, "In-context Learning
  and Induction Heads", call it the in-context learning score).
- Repetition: random tokens, then the same again; the share of the second copy that is predicted (their test
    for induction heads). Chance is 1 in the vocabulary.
- Facts (`evaluation/tasks/facts.py`) asked for by their beginning: never told, told in the context among
    others, and taught once to the slow tier of episodic
  memory (asked for alone, and behind another sentence), which works beside any of our architectures, though
  not beside another library's model.
"""

import math
import statistics
from typing import Any

import torch

from braingpt.bench.contender import Contender
from braingpt.device.eval_mode import eval_mode
from braingpt.errors import one_line
from braingpt.evaluation.tasks.facts import DISTRACTOR, facts, share_recalled
from braingpt.model.lm import LanguageModel

# tokens said twice, and how many such rows
REPEATED, ROWS = 64, 16
# facts a language, and how many of them stand in one context
FACTS_PER_LANGUAGE, FACTS_PER_CONTEXT = 12, 4


def few_shot(contender: Contender, windows: int) -> dict[str, Any]:
    """The figures of one trained contender; shares between 0 and 1.

    Those of the memory are None where there can be none; "memory_error" says where it failed.
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
    """None where a loss is not finite; nats a token between the first and the last quarter of validation
    windows (of training text where there is no validation text).
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


def repetition(model: torch.nn.Module) -> float:
    """Share of the second copy's tokens, but its first, that are the likeliest continuation."""
    draw = torch.Generator().manual_seed(0)
    once_BL = torch.randint(model.config.vocab, (ROWS, REPEATED), generator=draw).to(model.device)
    with eval_mode(model):
        said_BL = model(torch.cat([once_BL, once_BL], 1)).logits[:, REPEATED:-1].argmax(-1)
    return float((said_BL == once_BL[:, 1:]).float().mean())


def _recall_in_context(model: Any, tokenizer: Any, known: list[tuple[str, str]], language: str) -> float:
    """Facts in groups: each is asked for behind the group's texts."""
    groups = [known[first : first + FACTS_PER_CONTEXT] for first in range(0, len(known), FACTS_PER_CONTEXT)]
    return statistics.mean(
        share_recalled(
            model, tokenizer, group, language, before=" ".join(start + end for start, end in group) + " "
        )
        for group in groups
    )


def _recall_from_memory(
    model: Any, tokenizer: Any, known: dict[str, list[tuple[str, str]]]
) -> tuple[float, float]:
    """Shares of the taught facts that come back: asked for alone, and behind another sentence."""
    from braingpt.episodic.memory import EpisodicMemory, Remembering

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
