#!/usr/bin/env bash
# One split pattern, three engines, three splits.
#
# One would guess: a split pattern of a byte-level tokenizer means the same in tiktoken, in Hugging Face tokenizers
#   and in Python's `regex` module (which tiktoken's own teaching class uses), or the engine refuses the pattern.
# What happens:
#   1. `\p{N}{1,3}+`, as in tiktoken's own cl100k_base pattern: possessive in tiktoken and regex, so that digits come
#      in threes. tokenizers reads "one or more groups of one to three digits": any number is one piece.
#   2. `[\p{L}&&[^\p{Hangul}]]`: letters that are not Hangul in tiktoken and tokenizers. `regex` matches hardly
#      anything, without an error, until regex.V1 is given.
#   3. `[\p{L}--\p{Hangul}]`: the same set in tiktoken. tokenizers refuses the pattern, and `regex` without V1 reads a
#      union: Latin and Hangul stay in one piece.
# Versions: tiktoken 0.14.0, tokenizers 0.23.3, regex 2026.11.19.
# Why it matters: a tokenizer is converted from one library to another by copying merges and pattern. The merges are
#   right, every text still decodes to itself, but numbers or mixed Korean and English get other ids than in training.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --quiet tiktoken==0.14.0 tokenizers==0.23.3 regex==2026.11.19
"$work/venv/bin/python" - <<'PY'
import inspect
import sys
from importlib.metadata import version

import regex
import tiktoken
import tiktoken_ext.openai_public as shipped
from tokenizers import Regex, pre_tokenizers

TEXT = "GPU메모리 1234567"


def in_tiktoken(pattern):
    """Every slice of the text is an entry, so that each piece of the split is exactly one token."""
    data = TEXT.encode()
    slices = (data[i:j] for i in range(len(data)) for j in range(i + 2, len(data) + 1))
    entries = dict.fromkeys([*(bytes([i]) for i in range(256)), *slices])
    ranks = {entry: rank for rank, entry in enumerate(entries)}
    encoding = tiktoken.Encoding("one", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return [encoding.decode([token]) for token in encoding.encode_ordinary(TEXT)]


def in_tokenizers(pattern):
    try:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
    except Exception:
        return "refused"
    return [piece for piece, _ in split.pre_tokenize_str(TEXT)]


ENGINES = {
    "tiktoken": in_tiktoken,
    "tokenizers": in_tokenizers,
    "regex": lambda pattern: regex.findall(pattern, TEXT),
    "regex V1": lambda pattern: regex.findall(pattern, TEXT, regex.V1),
}
WORDS, NUMBERS = ["GPU", "메모리"], [" ", "123", "456", "7"]
STATED = {
    r"\p{L}+|\s|\p{N}{1,3}+": {
        "tiktoken": ["GPU메모리", *NUMBERS],
        "tokenizers": ["GPU메모리", " ", "1234567"],
        "regex": ["GPU메모리", *NUMBERS],
        "regex V1": ["GPU메모리", *NUMBERS],
    },
    r"[\p{L}&&[^\p{Hangul}]]+|\p{Hangul}+|\s|\p{N}{1,3}": {
        "tiktoken": [*WORDS, *NUMBERS],
        "tokenizers": [*WORDS, *NUMBERS],
        "regex": ["메모리", *NUMBERS],
        "regex V1": [*WORDS, *NUMBERS],
    },
    r"[\p{L}--\p{Hangul}]+|\p{Hangul}+|\s|\p{N}{1,3}": {
        "tiktoken": [*WORDS, *NUMBERS],
        "tokenizers": "refused",
        "regex": ["GPU메모리", *NUMBERS],
        "regex V1": [*WORDS, *NUMBERS],
    },
}

print("; ".join(f"{name} {version(name)}" for name in ("tiktoken", "tokenizers", "regex")))
wrong = [] if r"\p{N}{1,3}+" in inspect.getsource(shipped.cl100k_base) else ["cl100k_base has another pattern"]
for pattern, stated in STATED.items():
    print(pattern)
    for engine, split in ENGINES.items():
        seen = split(pattern)
        print(f"  {engine:10} {seen}")
        if seen != stated[engine]:
            wrong.append(f"{engine}, {pattern}: stated {stated[engine]}, seen {seen}")
sys.exit("no longer as stated: " + "; ".join(wrong) if wrong else 0)
PY
