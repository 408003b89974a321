"""What a text costs in tokens: bytes and characters per token, beside the encodings of GPT-2, GPT-4 and GPT-4o.

More per token is cheaper. Between languages compare characters (a Hangul syllable has three bytes), between vocabularies of one language
either. The other encodings are used where their rank files already lie in tiktoken's cache; nothing is downloaded.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from braingpt.tokenizer.encoding import Tokenizer
from braingpt.tokenizer.language import detect

OTHERS = {"gpt2": "r50k_base", "cl100k_base": "cl100k_base", "o200k_base": "o200k_base"}  # "gpt2" has the ranks of r50k_base
RANKS_AT = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
FIRST_CHARACTERS = 2_000_000  # per row: the figures do not change any more, and the slowest encoding reads 3 MB/s


@dataclass
class Row:
    """Counts over the texts under one name in one language (None: none of ours)."""

    name: str
    language: str | None
    texts: int = 0
    characters: int = 0
    bytes: int = 0
    tokens: dict[str, int] = field(default_factory=dict)  # by encoding

    def per_token(self, encoding: str) -> tuple[float, float]:
        """(bytes, characters) per token."""
        return self.bytes / self.tokens[encoding], self.characters / self.tokens[encoding]


def measure(documents: Iterable[tuple[str, str]], tokenizer: Tokenizer) -> tuple[list[Row], list[str]]:
    """A row for each name and detected language of the (name, text) pairs, and the names of the encodings that are not at hand.

    Per row the first two million characters count.
    """
    encoders: dict[str, Callable[[str], list[int]]] = {"braingpt": tokenizer.encode}
    encoders |= {name: encoder for name, ranks in OTHERS.items() if (encoder := _encoder(ranks))}
    rows: dict[tuple[str, str | None], Row] = {}
    for name, text in documents:
        key = name, detect(text)
        row = rows.setdefault(key, Row(*key, tokens=dict.fromkeys(encoders, 0)))
        if not text or row.characters >= FIRST_CHARACTERS:
            continue
        row.texts += 1
        row.characters += len(text)
        row.bytes += len(text.encode())
        for encoding, encode in encoders.items():
            row.tokens[encoding] += len(encode(text))
    return [row for row in rows.values() if row.texts], [name for name in OTHERS if name not in encoders]


def as_json(rows: list[Row], absent: list[str]) -> dict[str, Any]:
    """The report as plain values: the counts, and bytes and characters per token for each encoding."""
    return {
        "rows": [
            asdict(row)
            | {
                "bytes_per_token": {name: round(row.per_token(name)[0], 4) for name in row.tokens},
                "characters_per_token": {name: round(row.per_token(name)[1], 4) for name in row.tokens},
            }
            for row in rows
        ],
        "absent": absent,
    }


def _encoder(name: str) -> Callable[[str], list[int]] | None:
    """tiktoken's encoding if its ranks are in the cache. Where tiktoken looks is part of its documented environment variables."""
    cache = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR") or Path(tempfile.gettempdir()) / "data-gym-cache"
    if not (Path(cache) / hashlib.sha1(RANKS_AT.format(name).encode()).hexdigest()).is_file():
        return None
    import tiktoken

    return tiktoken.get_encoding(name).encode_ordinary
