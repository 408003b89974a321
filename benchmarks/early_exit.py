"""Early exit on a trained model: what each threshold saves and costs, and how fast the same text comes with
drafts.

    braingpt train --recipe nano-v1 --data data/korean --set model.layers=6 \\
        --set model.early_exit.loss=0.3 --set model.early_exit.dropout=0.2
    python benchmarks/early_exit.py runs/nano-v1 --data data/korean --drafts 1:3 2:3 3:3

Drafts as LAYERS:TOKENS, or LAYERS:TOKENS:LEAST to stop drafting where the first layers are less sure than
LEAST. Plain decoding and each draft in turns; the processor's time, ratios are medians of pairs.
"""

import argparse
import statistics
import time
from pathlib import Path

import braingpt
from braingpt.cli.console import guarded
from braingpt.data.shards.reader import ShardSet
from braingpt.device.cpu import configure_cpu
from braingpt.evaluation import exit_threshold, perplexity
from braingpt.inference.engine import Decoder, stream
from braingpt.inference.speculative import SpeculativeDecoder
from braingpt.inspection.sparsity import SAMPLE


def written(ids: list[int], count: int, temperature: float, decoder: Decoder) -> tuple[float, list[int]]:
    """Seconds for `count` tokens, and the tokens."""
    began = time.process_time()
    tokens = list(stream(decoder.model, ids, count, temperature=temperature, seed=0, decoder=decoder))
    return time.process_time() - began, tokens


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--drafts", nargs="+", default=["1:3", "2:3", "3:3"])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    configure_cpu()
    model, tokenizer = braingpt.load(args.run)
    shards = ShardSet.open([args.data], tokenizer)

    def score() -> float:
        return perplexity.evaluate(model, shards, tokenizer, context=args.context, windows=args.windows).loss

    print("threshold, layers used, loss, rise of perplexity")
    for one in exit_threshold.sweep_thresholds(model, score):
        print(f"{one.threshold!s:>6} {one.layers_used:7.1%} {one.loss:8.4f} {one.perplexity_cost:8.2%}")

    model.set_exit_threshold(None)
    ids = tokenizer.encode(SAMPLE[:60], language="ko")
    faster: dict[str, list[float]] = {draft: [] for draft in args.drafts}
    about = {}
    for _ in range(args.rounds):
        plain, text = written(ids, args.tokens, args.temperature, Decoder(model))
        for draft in args.drafts:
            layers, ahead, *least = draft.split(":")
            decoder = SpeculativeDecoder(model, int(layers), int(ahead), *map(float, least))
            spent, same = written(ids, args.tokens, args.temperature, decoder)
            faster[draft].append(plain / spent)
            about[draft] = (
                f"{decoder.followed} of {decoder.drafted} drafted tokens followed, "
                f"{decoder.passes} verifications, {decoder.depth():.0%} of the layers computed"
            )
            if same != text:
                print(f"{draft} wrote another text")
    for draft, ratios in faster.items():
        speed = f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{draft}: {speed}; {about[draft]}")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
