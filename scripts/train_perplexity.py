"""Train the perplexity filter's trigram models on clean text and measure them on held-out text.

    # writes braingpt/assets/perplexity.npz; about a minute and a half
    python scripts/train_perplexity.py --source "$BRAINGPT_CORPORA"
    # your own text and tokenizer: a document a line
    python scripts/train_perplexity.py --text ko=wiki.txt --tokenizer DIR --out mine.npz

`--source` is a folder in the layout of the hub's datasets. Nine texts in ten are trained on; the tenth gives
the percentiles that the filter cuts at, and the figures: AUC of the score between held-out text and the same
text with its characters, or its words, shuffled. The built-in sample corpus is trained on too: the four
languages of web manuals know no everyday words otherwise. WikiText is left out (it is pre-tokenised). The
result is a pure function of the texts and the tokenizer.
"""

import argparse
import random
from pathlib import Path

import numpy as np
from clean_text import held_out, texts

from braingpt.cli.console import guarded
from braingpt.data.quality.clean import clean
from braingpt.data.quality.perplexity import PERCENTILES, SHIPPED, Trigrams, sample, save
from braingpt.data.sample import documents
from braingpt.tokenizer import Tokenizer

# Pairs and triples kept, of each.
ENTRIES = 150_000
LEFT_OUT = {"en-wikitext"}
# Held-out texts that are shuffled.
MEASURED = 600
TOKENS = 2048


def auc(low: np.ndarray, high: np.ndarray) -> float:
    """The chance that a score of `high` lies above one of `low`."""
    ranks = np.concatenate([low, high]).argsort().argsort()[len(low) :]
    return float((ranks.sum() - len(high) * (len(high) - 1) / 2) / (len(low) * len(high)))


def shuffled(text: str, words: bool, chance: random.Random) -> str:
    parts = text.split() if words else list(text)
    chance.shuffle(parts)
    return (" " if words else "").join(parts)


def train(language: str, corpus: list[str], tokenizer: Tokenizer) -> tuple[Trigrams, np.ndarray]:
    """The model of one language and the scores of held-out text at PERCENTILES, then the first of shuffled
    text; prints a line of figures.
    """

    def ids(text: str) -> np.ndarray:
        return np.array(tokenizer.encode(text), np.int64)

    held = sorted(text for text in corpus if held_out(text))
    trained = sorted(text for text in corpus if not held_out(text))
    random.Random(0).shuffle(held)
    model = Trigrams.fit(np.concatenate([ids(text) for text in trained]), tokenizer.token_bytes(), ENTRIES)

    def scores(texts: list[str]) -> np.ndarray:
        encoded = (ids(text) for text in texts)
        return np.array([model.score(sample(one, TOKENS)) for one in encoded if len(one) >= 16])

    clean_scores = scores(held)
    chance = random.Random(0)
    some = [text[:6000] for text in held[:MEASURED]]
    plain = scores(some)
    spoilt = [scores([shuffled(text, words, chance) for text in some]) for words in (False, True)]
    figures = [auc(plain, one) for one in spoilt]
    size = sum(len(text.encode()) for text in trained) / 1e6
    print(
        f"{language}: {size:.1f} MB trained on; AUC of shuffled characters {figures[0]:.4f}, "
        f"of shuffled words {figures[1]:.3f}"
    )
    return model, np.append(np.percentile(clean_scores, PERCENTILES), np.percentile(spoilt[0], 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder of corpora in the hub's layout")
    parser.add_argument(
        "--text", action="append", default=[], metavar="LANGUAGE=FILE", help="clean text, a document a line"
    )
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer; default: the shipped one")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    options = parser.parse_args()
    tokenizer = Tokenizer.load(options.tokenizer) if options.tokenizer else Tokenizer.default()
    by_language: dict[str, list[str]] = {}
    if options.source:
        for name, language, text in texts(options.source):
            if name not in LEFT_OUT:
                by_language.setdefault(language, []).append(text)
        for document in documents():
            by_language.setdefault(document.language, []).append(clean(document.text))
    for item in options.text:
        language, _, path = item.partition("=")
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        by_language.setdefault(language, []).extend(text for text in map(clean, lines) if text)
    if not by_language:
        parser.error("nothing to train on: give --source or --text")
    trained = {language: train(language, corpus, tokenizer) for language, corpus in by_language.items()}
    save(
        options.out,
        tokenizer.fingerprint,
        {code: one for code, (one, _) in trained.items()},
        {code: s for code, (_, s) in trained.items()},
    )
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
