"""Recipes trained for the same wall-clock time on the same data, interleaved in one process: who has the lower validation loss?

    python benchmarks/equal_time.py tiny-dense tiny-v2 --data data/korean --minutes 10 --out runs/equal-time

Each recipe has a clock of its own that runs only while it trains; the recipes take turns in slices of a few seconds, so a slow spell of the
machine hits all alike. The learning-rate schedule follows the clock. Validation and saving are on nobody's clock. Everything else (batches,
optimizer, schedule, threads, precision, no torch.compile) is the same. The matching is iso-time, and iso-total as far as the recipes are.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from braingpt.bench.machine import machine
from braingpt.data.shards import ShardSet
from braingpt.evaluation.perplexity import evaluate
from braingpt.inference.engine import generate
from braingpt.model.lm import build
from braingpt.recipes import load_recipe
from braingpt.tokenizer import Tokenizer
from braingpt.train import checkpoint, shelf
from braingpt.train.feed import batches_of
from braingpt.train.optimizer import build_optimizer, set_learning_rate
from braingpt.train.schedule import learning_rate
from braingpt.train.setup import settle_cpu

SLICE = 10.0  # seconds a turn
TICKS = 10_000  # the schedule's resolution


class Runner:
    """One recipe, its model and its clock."""

    def __init__(self, name: str, overrides: list[str], seed: int, shards: ShardSet, tokenizer: Tokenizer) -> None:
        self.recipe = load_recipe(name, [*overrides, f"train.seed={seed}"])
        self.name, self.shards, self.seconds, self.step, self.curve = name, shards, 0.0, 0, []
        config = self.recipe.train
        self.schedule = config.model_copy(update={"steps": TICKS, "warmup": TICKS // 20})
        self.model = build(self.recipe, seed)
        self.optimizer = build_optimizer(self.model, config)
        self.batches = batches_of(self.recipe, shards, tokenizer)

    def turn(self, limit: float) -> None:
        """Train for one slice of the clock."""
        end = min(limit, self.seconds + SLICE)
        self.model.train()
        while self.seconds < end:
            began = time.perf_counter()
            set_learning_rate(self.optimizer, learning_rate(int(TICKS * self.seconds / limit), self.schedule))
            batch = self.batches.batch(self.step)
            self.model(batch.ids_BL, batch.targets_BL, segments_BL=batch.segments_BL).loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.train.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.model.after_step()
            self.step += 1
            self.seconds += time.perf_counter() - began

    def validate(self, tokenizer: Tokenizer, windows: int) -> dict:
        """Score the validation text as it stands now."""
        config = self.recipe.train
        scores = evaluate(self.model, self.shards, tokenizer, context=config.context, windows=windows, rows=8,
            reset_at_documents=self.recipe.data.reset_at_documents,
        ).as_dict()  # fmt: skip
        seen = {"seconds": round(self.seconds, 1), "step": self.step, "tokens_trained": self.step * config.batch * config.context}
        point = seen | {"bits_per_byte": scores["bits_per_byte"], "loss": scores["loss"], "by_language": scores["by_language"]}
        self.curve.append(point)
        print(f"{self.name:14} {self.seconds:6.0f} s  step {self.step:5}  {point['bits_per_byte']:.4f} bits per byte", flush=True)
        return point


def main() -> None:
    """Train, validate, save, print, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--windows", type=int, default=128, help="of validation, a language")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    settle_cpu()
    tokenizer = Tokenizer.default()
    shards = ShardSet.open([Path(options.data)], tokenizer)
    runners = [Runner(name, options.overrides, options.seed, shards, tokenizer) for name in options.recipes]
    limit = options.minutes * 60
    for fifth in range(1, 6):
        while any(runner.seconds < limit * fifth / 5 for runner in runners):
            for runner in runners:
                if runner.seconds < limit * fifth / 5:
                    runner.turn(limit)
        for runner in runners:
            runner.validate(tokenizer, options.windows)

    results = {}
    prompt = tokenizer.encode("이 영화는", language="ko")
    for runner in runners:
        folder = options.out / runner.name / "checkpoints" / shelf.name_of(runner.step)
        checkpoint.save(
            folder,
            model=runner.model,
            tokenizer=tokenizer,
            recipe=runner.recipe,
            step=runner.step,
            tokens=runner.curve[-1]["tokens_trained"],
        )
        text = tokenizer.decode(generate(runner.model.eval(), prompt, max_new_tokens=60, temperature=0.8, top_p=0.9, seed=1))
        results[runner.name] = {
            "parameters_total": runner.model.parameters_total(),
            "parameters_active": runner.model.parameters_active(),
            "curve": runner.curve,
            "sample": "이 영화는" + text,
        }
    report = {"minutes": options.minutes, "seed": options.seed, "overrides": options.overrides, "machine": machine(), "results": results}
    (options.out / f"equal-time-seed{options.seed}.json").write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    for name, result in results.items():
        last = result["curve"][-1]
        print(
            f"{name}: {last['bits_per_byte']:.4f} bits per byte after {last['step']} steps, {last['tokens_trained']:,} tokens\n  {result['sample']}"
        )


if __name__ == "__main__":
    main()
