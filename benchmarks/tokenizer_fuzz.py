"""Random Unicode through a vocabulary and back: does every text return as cleaning leaves it?

    TIKTOKEN_CACHE_DIR=... python benchmarks/tokenizer_fuzz.py [--tokenizer gpt2] --texts 20000

Half of the texts draw code points from all of Unicode (surrogates left out), half from a few scripts side by
side, so that runs, joins and switches of script come often.
"""

import argparse
import random
import time

from braingpt.cli.console import guarded
from braingpt.tokenizer.cleaning import clean_text
from braingpt.tokenizer.named import open_tokenizer

# First and last code points of scripts whose runs and joins are delicate.
RANGES = (
    (32, 126),
    (0xAC00, 0xACFF),
    (0x1100, 0x11FF),
    (0x3040, 0x30FF),
    (0x300, 0x30F),
    (0x1F468, 0x1F470),
    (0x200B, 0x200F),
)
MARKS = ["\n", "\r\n", "\t", "\x00", "\u3000", "<|ko|>", "<|endoftext|>", "\u0627", "\u05d0"]
NEAR = [chr(code) for first, last in RANGES for code in range(first, last + 1)] + MARKS


def text(source: random.Random) -> str:
    """One text of up to 200 characters."""
    size = source.randrange(200)
    if source.random() < 0.5:
        return "".join(source.choice(NEAR) for _ in range(size))
    codes = (source.randrange(0x110000 - 0x800) for _ in range(size))
    return "".join(chr(code if code < 0xD800 else code + 0x800) for code in codes)


def main() -> None:
    """Encode, decode, compare, count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tokenizer, source, began, wrong = (
        open_tokenizer(options.tokenizer),
        random.Random(options.seed),
        time.perf_counter(),
        0,
    )
    for _ in range(options.texts):
        one = text(source)
        wrong += any(
            tokenizer.decode(tokenizer.encode(one, language)) != clean_text(one)
            for language in (None, "ko", "auto", "split")
        )
    seconds, name = time.perf_counter() - began, options.tokenizer or "default"
    print(f"{name}: {wrong} of {options.texts} texts came back changed, {seconds:.0f} s")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
