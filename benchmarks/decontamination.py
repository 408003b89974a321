"""Decontamination: which stretches find planted copies of evaluation items, and which hit documents that hold
none.

    python benchmarks/decontamination.py --source "$BRAINGPT_CORPORA"      # half a minute

Items: KorQuAD paragraphs cut to two sentences (Korean), English news sentences. Each is planted in the middle
of an unrelated document: as it is, without a tenth of its spaces, and with a tenth of its words replaced.
False hits: documents (film reviews, web) that share a stretch with a set of items they have nothing to do
with. Runs of words, as in GPT-3, beside stretches of letters and digits of several lengths.
"""

import argparse
import random
import re
import sys
import time
from pathlib import Path

from braingpt.cli.console import guarded
from braingpt.data.quality.config import Contamination as Settings
from braingpt.data.quality.contamination import Contamination
from braingpt.data.quality.text_stats import TextStats

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from clean_text import texts

ITEMS = 300
PLANTED = {"ko": "ko-korquad", "en": "en-news"}
CLEAN = {"ko": {"ko-reviews", "ko-web"}, "en": {"en-web"}}


def words_hit(items: list[str], n: int):
    """A detector by runs of `n` words, lower case, without punctuation."""

    def grams(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    known = set().union(*map(grams, items))
    return lambda text: not known.isdisjoint(grams(text))


def characters_hit(items: list[str], n: int, folder: Path):
    file = folder / "items.txt"
    file.write_text("\n".join(item.replace("\n", " ") for item in items), encoding="utf-8")
    rule = Contamination(Settings(files=[str(file)], characters=n))
    return lambda text: rule.drops(TextStats(text))


def edited(item: str, how: str, others: list[str], chance: random.Random) -> str:
    words = item.split()
    if how == "spaces":
        return "".join(word if chance.random() < 0.1 else word + " " for word in words)
    if how == "words":
        return " ".join(chance.choice(others) if chance.random() < 0.1 else word for word in words)
    return item


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    source = parser.parse_args().source
    print(
        "| language | stretch | items long enough | as it is | spaces changed | words changed "
        "| false hits per 1,000 documents | MB/s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for language, name in PLANTED.items():
        corpus = texts(source, language)
        chance = random.Random(0)
        items = [" ".join(re.split(r"(?<=[.!?])\s+", text)[:2]) for of, _, text in corpus if of == name]
        items = chance.sample([item for item in items if len(item) >= 60], ITEMS)
        clean = chance.sample(
            [text for of, _, text in corpus if of in CLEAN[language] and len(text) > 200], 2000
        )
        others = " ".join(clean[:50]).split()
        planted = {
            how: [
                host[: len(host) // 2]
                + " "
                + edited(item, how, others, chance)
                + " "
                + host[len(host) // 2 :]
                for item, host in zip(items, clean, strict=False)
            ]
            for how in ("", "spaces", "words")
        }
        size = sum(len(text.encode()) for text in clean) / 1e6
        with tempfile.TemporaryDirectory() as folder:
            for kind, n in [
                ("words", 8),
                ("words", 13),
                *(("characters", n) for n in (15, 20, 25, 30, 40, 50, 60)),
            ]:
                hit = words_hit(items, n) if kind == "words" else characters_hit(items, n, Path(folder))
                enough = sum(map(hit, items)) / len(items)
                found = [100 * sum(map(hit, those)) / len(those) for those in planted.values()]
                start = time.process_time()
                false = 1000 * sum(map(hit, clean)) / len(clean)
                speed = size / (time.process_time() - start)
                row = " | ".join(f"{one:.0f}" for one in found)
                print(
                    f"| {language} | {n} {kind} | {100 * enough:.0f} % | {row} | {false:.1f} | {speed:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    raise SystemExit(guarded(main))
