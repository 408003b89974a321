"""Train the shipped vocabulary and set aside the texts that measure it.

    python scripts/train_default_tokenizer.py --source "$BRAINGPT_CORPORA" --held-out runs/held-out
    TIKTOKEN_CACHE_DIR=... braingpt tokenizer report runs/held-out/*.jsonl

`--source` is a folder in the layout of the hub's datasets. The mix is 44 % Korean, 31 % English, 25 % German,
French, Spanish and Italian by bytes. Small but good Korean prose (parallel news, encyclopedia) is repeated up
to twelve times, because the large sources are film reviews and translated manuals. Held out, and skipped
wherever the same text turns up in another source: the validation files, a twentieth of the web documents, all
of WikiText (its text is pre-tokenised, so nothing is trained on it) and a quarter of the Korean Wikipedia
articles. KorQuAD's validation paragraphs are cut from those articles, so only those that no training text
holds are measured. The result is a pure function of the source files.
"""

import argparse
import gzip
import hashlib
import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
from clean_text import corpora_folder

from braingpt.cli.console import guarded
from braingpt.tokenizer import training
from braingpt.tokenizer.language import LANGUAGES, detect, split

WEB = "HuggingFaceFW/fineweb-2/data/{}/train/000_00000.parquet"
ENGLISH = (
    "HuggingFaceFW/fineweb/sample/10BT/000_00000.parquet",
    "allenai/c4/en/c4-train.00000-of-00001.json.gz",
)
PARALLEL = "Moo/korean-parallel-corpora/data/{}-00000-of-00001.parquet"
REVIEWS = "e9t/nsmc/data/{}-00000-of-00001.parquet"
WIKIPEDIA = "wikimedia/wikipedia/20231101.{}/train-00000-of-00001.parquet"
KORQUAD = "KorQuAD/squad_kor_v1/squad_kor_v1/validation-00000-of-00001.parquet"
KLUE = "klue/klue/{}/validation-00000-of-00001.parquet"
OTHERS = {"de": "deu_Latn", "fr": "fra_Latn", "es": "spa_Latn", "it": "ita_Latn"}
DEFAULT = Path(__file__).parent.parent / "braingpt" / "tokenizer" / "assets" / "default"

# Megabytes of each source in the mix.
SHARES = {
    "ko-web": 6.0,
    "ko-reviews": 6.0,
    "ko-news": 7.0,
    "ko-wikipedia": 5.0,
    "en-web": 14.5,
    "en-news": 2.4,
    "de-web": 3.4,
    "fr-web": 3.4,
    "es-web": 3.4,
    "it-web": 3.4,
}


def column(source: Path, file: str, *names: str) -> list[str]:
    """The texts of a parquet or json.gz file, NFC, without empty ones."""
    path = source / file
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
    else:
        rows = pyarrow.parquet.read_table(path, columns=list(names)).to_pylist()
    return [unicodedata.normalize("NFC", row[name]) for row in rows for name in names if row[name]]


def one_in(n: int, text: str) -> bool:
    """True for one text in `n`; the same wherever the text turns up."""
    return hashlib.sha256(text.encode()).digest()[0] % n == 0


def held_out(source: Path) -> dict[str, list[str]]:
    """The texts that measure the vocabulary, by name of the set."""
    sets = {
        "ko-news-parallel": column(source, PARALLEL.format("validation"), "ko"),
        "ko-news-klue-nli": list(dict.fromkeys(column(source, KLUE.format("nli"), "premise"))),
        "ko-klue-sts": column(source, KLUE.format("sts"), "sentence1", "sentence2"),
        "ko-reviews": column(source, REVIEWS.format("validation"), "text"),
        "ko-web": [text for text in column(source, WEB.format("kor_Hang"), "text") if one_in(20, text)],
        "en-news-parallel": column(source, PARALLEL.format("validation"), "en"),
        "en-web": [text for file in ENGLISH for text in column(source, file, "text") if one_in(20, text)],
        "en-wikitext": column(source, WIKIPEDIA.format("en"), "text"),
    }
    for code, name in OTHERS.items():
        sets[f"{code}-web"] = [text for text in column(source, WEB.format(name), "text") if one_in(20, text)]
    _, articles = wikipedia(source)
    trained = "\n".join(wikipedia(source)[0])
    paragraphs = column(source, KORQUAD, "context")
    sets["ko-wikipedia-korquad"] = [
        text for text in paragraphs if text[:100] not in trained and any(text[:100] in a for a in articles)
    ]
    return {name: list(dict.fromkeys(texts)) for name, texts in sorted(sets.items())}


def wikipedia(source: Path) -> tuple[list[str], list[str]]:
    """Korean articles to train on and to hold out, told apart by title: paragraphs of one article resemble
    each other.
    """
    table = pyarrow.parquet.read_table(source / WIKIPEDIA.format("ko"), columns=["title", "text"]).to_pylist()
    articles = [(one_in(4, row["title"]), unicodedata.normalize("NFC", row["text"])) for row in table]
    return [text for held, text in articles if not held], [text for held, text in articles if held]


def mix(source: Path, held: set[str]) -> Iterator[str]:
    """The training texts, each source up to its share, repeated where it is smaller."""
    sources = {
        "ko-web": column(source, WEB.format("kor_Hang"), "text"),
        "ko-reviews": column(source, REVIEWS.format("train"), "text"),
        "ko-news": column(source, PARALLEL.format("train"), "ko"),
        "ko-wikipedia": wikipedia(source)[0],
        "en-web": [text for file in ENGLISH for text in column(source, file, "text")],
        "en-news": column(source, PARALLEL.format("train"), "en"),
        **{f"{code}-web": column(source, WEB.format(name), "text") for code, name in OTHERS.items()},
    }
    for name, texts in sources.items():
        # Order by hash is a fixed shuffle, so that a share below the whole comes from all over the source.
        texts = sorted(
            {text for text in texts if text not in held},
            key=lambda text: hashlib.sha256(text.encode()).digest(),
        )
        left = SHARES[name] * 1e6
        unique = sum(len(text.encode()) for text in texts)
        print(
            f"{name}: {SHARES[name]} MB from {unique / 1e6:.1f} MB ({SHARES[name] * 1e6 / unique:.1f} times)",
            file=sys.stderr,
        )
        while left > 0:
            for text in texts:
                yield text
                left -= len(text.encode())
                if left <= 0:
                    break


def language_accuracy(sets: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Share of right answers of `detect` by language for lines cut to 200, 30 and 12 characters; "split":
    Korean lines kept whole.
    """
    scores: dict[str, dict[str, float]] = {}
    for code in LANGUAGES:
        lines = [
            line.strip()
            for name, texts in sets.items()
            if name.startswith(code)
            for text in texts
            for line in text.splitlines()
        ]
        lines = [
            line
            for line in dict.fromkeys(lines)
            if len(line) >= 60 and sum(map(str.isalpha, line)) > 0.6 * len(line)
        ][:2000]
        cuts = {size: [line[:size].rsplit(" ", 1)[0] for line in lines] for size in (200, 30, 12)}
        scores[code] = {
            str(size): sum(detect(text) == code for text in texts) / len(texts)
            for size, texts in cuts.items()
        }
        scores[code]["split_whole"] = sum(len(split(line)) == 1 for line in lines) / len(lines)
        scores[code]["lines"] = len(lines)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DEFAULT)
    parser.add_argument("--held-out", type=Path, help="write the held-out texts here, one jsonl file a set")
    parser.add_argument(
        "--language-accuracy",
        action="store_true",
        help="print the accuracy of language detection on them and stop",
    )
    arguments = parser.parse_args()
    sets = held_out(corpora_folder(arguments.source))
    if arguments.held_out:
        arguments.held_out.mkdir(parents=True, exist_ok=True)
        for name, texts in sets.items():
            lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
            (arguments.held_out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    if arguments.language_accuracy:
        print(json.dumps(language_accuracy(sets), indent=1))
        return
    tokenizer = training.train(mix(arguments.source, {text for texts in sets.values() for text in texts}))
    tokenizer.save(arguments.out)
    print(f"{arguments.out}: {tokenizer}")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
