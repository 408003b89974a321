"""Facts taught once to a trained model: how many come back, how many come where they do not belong, and what
a foreign memory costs.

    python benchmarks/episodic.py runs/nano-v2 --data data/sample

For each language generated facts ("수진의 고양이 이름은 두부예요.") are taught to one memory and asked for by
their beginning, greedily: alone, behind another sentence, and with a person's name that was never taught,
where any taught value is a false recall. Then validation text is read with that memory, which has nothing to
do with the text, and with a memory of as many entries of ordinary text. Last come time and bytes at --entries
entries.
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from braingpt.checkpoint.checkpoint import load_model
from braingpt.checkpoint.listing import resolve
from braingpt.cli.console import guarded
from braingpt.data.sample import documents
from braingpt.data.shards.reader import ShardSet
from braingpt.device.cpu import configure_cpu
from braingpt.episodic.memory import EpisodicMemory, Remembering
from braingpt.episodic.store import Store
from braingpt.evaluation.perplexity import evaluate
from braingpt.evaluation.tasks.facts import DISTRACTOR, continuations, facts, share_recalled


def recalled(plain: Any, remembering: Any, tokenizer: Any, language: str, taught: int) -> dict[str, float]:
    """Shares of facts recalled, and of foreign questions answered with a taught value."""
    known, unknown = facts(language, taught)
    unknown = unknown[: max(20, taught // 2)]

    def false(model: Any) -> float:
        written = continuations(model, tokenizer, [start for start, _ in unknown], language)
        return statistics.mean(
            any(text.strip().startswith(v) for v in values)
            for text, (_, values) in zip(written, unknown, strict=True)
        )

    share = partial(share_recalled, tokenizer=tokenizer, known=known, language=language)
    figures = {
        "without": share(plain),
        "with": share(remembering),
        "behind": share(remembering, before=DISTRACTOR[language]),
    }
    return {**figures, "false without": false(plain), "false with": false(remembering)}


def speed(memory: EpisodicMemory, entries: int, hidden: int) -> dict[str, float]:
    """Milliseconds of one core to read one token's neighbours among `entries`, and the bytes they take."""
    store = Store(hidden)
    draw = torch.Generator().manual_seed(0)
    store.keys_ND = torch.nn.functional.normalize(torch.randn(entries, hidden, generator=draw), dim=1).half()
    store.values_N = torch.randint(0, 16_000, (entries,), generator=draw, dtype=torch.int32)
    store.owners_M2 = torch.stack([torch.arange(entries), torch.ones(entries, dtype=torch.int64)], 1)
    query_QD = store.keys_ND[entries // 2 : entries // 2 + 1].float()
    seconds = []
    for _ in range(12):
        began = time.process_time()
        found = store.read(query_QD, 32)
        seconds.append(time.process_time() - began)
    assert int(found[1][0, 0]) == int(store.values_N[entries // 2])
    return {
        "entries": entries,
        "hidden": hidden,
        "ms": 1000 * statistics.median(seconds[2:]),
        "MB": store.bytes() / 1e6,
    }


def main() -> None:
    """Teach, ask, read, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--facts", type=int, default=50, help="a language")
    parser.add_argument("--windows", type=int, default=16, help="of validation text, a language")
    parser.add_argument("--entries", type=int, default=262_144)
    options = parser.parse_args()
    configure_cpu()
    torch.set_num_threads(1)
    model, tokenizer, recipe, _ = load_model(resolve(options.run))
    model.eval()
    began = time.process_time()
    memory = EpisodicMemory.fresh(model, tokenizer, "")
    results: dict[str, Any] = {"calibration seconds": time.process_time() - began}
    for language in ("ko", "en"):
        for start, end in facts(language, options.facts)[0]:
            memory.teach(model, tokenizer, start + end, language)
    results["facts"] = len(memory.store.texts), "entries", len(memory.store)
    remembering = Remembering(model, memory)
    for language in ("ko", "en"):
        results[language] = recalled(model, remembering, tokenizer, language, options.facts)
        print(
            language, {name: f"{100 * value:.0f} %" for name, value in results[language].items()}, flush=True
        )

    ordinary = EpisodicMemory("", memory.maker, memory.gate, Store(model.config.hidden), {})
    for document in documents(2_000):
        if len(ordinary.store) < 2 * len(memory.store):
            ordinary.teach(model, tokenizer, document.text, document.language)
    shards = ShardSet.open([Path(options.data)], tokenizer)
    for name, reader in (
        ("no memory", model),
        ("facts", remembering),
        ("ordinary text", Remembering(model, ordinary)),
    ):
        scores = evaluate(reader, shards, tokenizer, context=recipe.train.context, windows=options.windows)
        results[f"perplexity, {name}"] = scores.perplexity
        print(f"perplexity with {name}: {scores.perplexity:.3f}", flush=True)
    results["reading"] = [speed(memory, options.entries, hidden) for hidden in (128, 512)]
    print(json.dumps(results, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
