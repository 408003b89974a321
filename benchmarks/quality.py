"""The quality rules on clean corpora: what each drops where (nearly all of it wrongly, as the corpora are
clean), and how fast they are.

    # tables in Markdown, as in docs/results/quality-filters.md
    python benchmarks/quality.py --source "$BRAINGPT_CORPORA"
    # what one rule drops
    python benchmarks/quality.py --source "$BRAINGPT_CORPORA" --show perplexity
"""

import argparse
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from braingpt.cli.console import guarded
from braingpt.data.document import Document
from braingpt.data.quality import Judge, load_quality
from braingpt.data.quality.clean import clean
from braingpt.data.quality.text_stats import TextStats
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.language import LANGUAGES

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from clean_text import raw_texts

# Bytes of a set that are timed.
SPEED = 2_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--quality", type=Path, help="settings (YAML); default: the shipped ones")
    parser.add_argument("--show", metavar="RULE", help="print what this rule drops")
    options = parser.parse_args()
    tokenizer = Tokenizer.default()
    judge = Judge(load_quality(options.quality), LANGUAGES, tokenizer.fingerprint)
    sets: dict[str, list[Document]] = defaultdict(list)
    for name, language, text in raw_texts(options.source):
        sets[name].append(Document(text, language, name, ""))
    drops: dict[str, Counter[str]] = {}
    for name, documents in sets.items():
        counts = drops[name] = Counter()
        for document in documents:
            judged = judge.judge_text(document)
            rule = judged.rule or judge.judge_tokens(judged.language, tokenizer.encode(judged.text))
            counts[rule or ""] += 1
            if options.show and rule == options.show:
                print(f"[{name}] {document.text[:300]!r}")
    _print_drops(drops)
    print(
        "\n| set | "
        + " | ".join(["clean", "stats", "text", "perplexity", "all but tokenizing", "tokenizing"])
        + " |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, documents in sets.items():
        print(
            f"| {name} | " + " | ".join(f"{one:.1f}" for one in _speeds(documents, judge, tokenizer)) + " |"
        )


def _print_drops(drops: dict[str, Counter[str]]) -> None:
    rules = [rule for rule, _ in sum(drops.values(), Counter()).most_common() if rule]
    print("| set | documents | dropped % | " + " | ".join(rules) + " |\n|" + "---|" * (len(rules) + 3))
    for name, counts in drops.items():
        total = counts.total()
        row = [
            f"{100 * (total - counts['']) / total:.2f}",
            *(f"{100 * counts[rule] / total:.2f}" if counts[rule] else "" for rule in rules),
        ]
        print(f"| {name} | {total} | " + " | ".join(row) + " |")


def _speeds(documents: list[Document], judge: Judge, tokenizer: Tokenizer) -> list[float]:
    """MB/s on one core of cleaning, of counting, of `Judge.judge_text`, of the perplexity, of both, and of
    the tokenizer beside them.
    """
    some, size = [], 0
    for document in documents:
        if size < SPEED:
            some.append(document)
            size += len(document.text.encode())
    texts = [clean(document.text) for document in some]
    ids = [tokenizer.encode(text) for text in texts]
    runs = [
        lambda: [clean(document.text) for document in some],
        lambda: [TextStats(text) for text in texts],
        lambda: [judge.judge_text(document) for document in some],
        lambda: [judge.judge_tokens(document.language, one) for document, one in zip(some, ids, strict=True)],
        lambda: [tokenizer.encode(text) for text in texts],
    ]
    seconds = []
    for run in runs:
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return [size / 1e6 / one for one in (*seconds[:4], seconds[2] + seconds[3], seconds[4])]


if __name__ == "__main__":
    raise SystemExit(guarded(main))
