"""Train the classifier of educational value on text of two kinds and measure it.

    # writes braingpt/assets/educational.npz (Korean); seconds
    python scripts/train_educational.py --source "$BRAINGPT_CORPORA"
    # your own text: a document a line
    python scripts/train_educational.py --good ko=good.txt --bad ko=bad.txt [--tokenizer DIR] --out mine.npz

With `--source`: Wikipedia, KorQuAD's paragraphs and web manuals against film reviews, Korean alone. There is
no such pair for the other languages at hand: the English reviews are pre-tokenised in lower case, so a
classifier would learn the spacing, and the scores of the FineWeb-Edu sample are all the same. Naive Bayes: a
token's weight is the logarithm of how much more frequent it is on the good side; scale and bias are fitted by
logistic regression, with both sides equally likely. One text in ten is held out for the AUC; with `--source`
a domain never trained on is measured too: KLUE-NLI sentences by their source (policy briefings, Wikipedia and
news against reviews of lodgings and films).
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet
from clean_text import held_out, texts
from train_perplexity import auc

from braingpt.cli.console import guarded
from braingpt.data.quality.clean import clean
from braingpt.data.quality.educational import SHIPPED, Classifier
from braingpt.tokenizer import Tokenizer

GOOD = {"ko-wikipedia", "ko-korquad", "ko-web"}
BAD = {"ko-reviews"}
KLUE = "klue/klue/nli/validation-00000-of-00001.parquet"
# Tokens of the shortest text that is used.
SHORTEST = 16


def fit(good: list[np.ndarray], bad: list[np.ndarray], vocab: int) -> np.ndarray:
    """float32 (vocab + 1,): the weight of every token, and the bias."""
    counts = [np.bincount(np.concatenate(side), minlength=vocab) + 1.0 for side in (good, bad)]
    weights_V = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())
    means = [np.array([weights_V[ids].mean() for ids in side]) for side in (good, bad)]
    x_D = np.concatenate(means)
    y_D = np.concatenate([np.ones(len(good)), np.zeros(len(bad))])
    each_D = np.concatenate([np.full(len(side), 0.5 / len(side)) for side in (good, bad)])
    inputs_DF = np.stack([x_D, np.ones_like(x_D)], axis=1)
    scale_F = np.zeros(2)
    # Newton's method; the small ridge keeps separable sides finite.
    for _ in range(50):
        p_D = 1 / (1 + np.exp(-inputs_DF @ scale_F))
        gradient_F = inputs_DF.T @ (each_D * (p_D - y_D)) + 1e-4 * scale_F
        hessian_FF = (inputs_DF * (each_D * p_D * (1 - p_D))[:, None]).T @ inputs_DF + 1e-4 * np.eye(2)
        scale_F -= np.linalg.solve(hessian_FF, gradient_F)
    return np.append(weights_V * scale_F[0], scale_F[1]).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder of corpora in the hub's layout")
    parser.add_argument("--good", action="append", default=[], metavar="LANGUAGE=FILE")
    parser.add_argument("--bad", action="append", default=[], metavar="LANGUAGE=FILE")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer; default: the shipped one")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    options = parser.parse_args()
    tokenizer = Tokenizer.load(options.tokenizer) if options.tokenizer else Tokenizer.default()
    sides: dict[str, tuple[list[str], list[str]]] = {}
    if options.source:
        for name, language, text in texts(options.source, "ko"):
            if name in GOOD | BAD:
                sides.setdefault(language, ([], []))[name in BAD].append(text)
    for side, items in enumerate((options.good, options.bad)):
        for item in items:
            language, _, path = item.partition("=")
            lines = Path(path).read_text(encoding="utf-8").splitlines()
            sides.setdefault(language, ([], []))[side].extend(text for text in map(clean, lines) if text)
    if not sides or not all(good and bad for good, bad in sides.values()):
        parser.error("every language needs text of both kinds: give --source, or --good and --bad")

    def encode(texts: list[str]) -> list[np.ndarray]:
        return [
            ids
            for ids in (np.array(tokenizer.encode(text), np.int64) for text in texts)
            if len(ids) >= SHORTEST
        ]

    weights = {}
    for language, pair in sides.items():
        trained = [encode([text for text in side if not held_out(text)]) for side in pair]
        weights[language] = fit(*trained, tokenizer.vocab_size)
    Classifier.save(options.out, tokenizer.fingerprint, weights)
    classifier = Classifier(options.out)

    def measure(name: str, language: str, good: list[str], bad: list[str]) -> None:
        scores = [np.array([classifier.score(language, ids) for ids in encode(side)]) for side in (good, bad)]
        below = [f"{100 * (side < 0.5).mean():.1f} %" for side in scores]
        print(
            f"{language}, {name}: AUC {auc(scores[1], scores[0]):.4f}; below 0.5: "
            f"{below[0]} of {len(scores[0])} good, {below[1]} of {len(scores[1])} bad"
        )

    for language, pair in sides.items():
        measure("held out", language, *([text for text in side if held_out(text)] for side in pair))
    if options.source:
        rows = pyarrow.parquet.read_table(options.source / KLUE, columns=["source", "premise"]).to_pylist()
        reviews = ("airbnb", "NSMC")
        good = {clean(row["premise"]) for row in rows if row["source"] not in reviews}
        bad = {clean(row["premise"]) for row in rows if row["source"] in reviews}
        measure("KLUE-NLI", "ko", sorted(good), sorted(bad))
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
