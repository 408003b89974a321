"""Vocabularies by name: GPT-2's, GPT-4's and GPT-4o's, for comparison and for models that are to share them.

Entries, ranks and patterns are tiktoken's, and so are the ids of plain text. Their own special ids stay
unused, and our 64 specials follow, so that a model of such a vocabulary has language markers too. A
vocabulary is available where its rank file is in tiktoken's cache (TIKTOKEN_CACHE_DIR); nothing is
downloaded.
"""

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

import tiktoken

from braingpt.errors import UserError, did_you_mean
from braingpt.tokenizer.encoding import Tokenizer

# Name here -> name of the rank file; "gpt2" has the ranks of r50k_base.
NAMED = {"gpt2": "r50k_base", "cl100k_base": "cl100k_base", "o200k_base": "o200k_base"}
RANKS_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


def open_tokenizer(name: str | Path | None) -> Tokenizer:
    """The tokenizer that a command line or a recipe names.

    Args:
        name: None for the shipped tokenizer, one of NAMED, or a folder that holds a tokenizer.

    Returns:
        The tokenizer; one object per process for the shipped one and for each of NAMED.

    Raises:
        UserError: `name` is none of these, or its rank file is not in tiktoken's cache.
        Failure: The folder holds a damaged tokenizer.
    """
    if name is None:
        return Tokenizer.default()
    if str(name) in NAMED:
        return _named(str(name))
    if not Path(name).exists():
        raise UserError(
            f"'{name}' is neither a tokenizer folder (`braingpt tokenizer train` makes one) "
            f"nor a known vocabulary{did_you_mean(str(name), NAMED)}"
        )
    return Tokenizer.load(name)


def is_cached(name: str) -> bool:
    """Whether a rank file is in tiktoken's cache, whose place its documented environment variables name.

    Args:
        name: One of NAMED.
    """
    folder = (
        os.environ.get("TIKTOKEN_CACHE_DIR")
        or os.environ.get("DATA_GYM_CACHE_DIR")
        or Path(tempfile.gettempdir()) / "data-gym-cache"
    )
    return (Path(folder) / hashlib.sha1(RANKS_URL.format(NAMED[name]).encode()).hexdigest()).is_file()


@cache
def _named(name: str) -> Tokenizer:
    if not is_cached(name):
        fetch = f"python -c \"import tiktoken; tiktoken.get_encoding('{NAMED[name]}')\""
        raise UserError(
            f"{name}: its rank file is not in tiktoken's cache (TIKTOKEN_CACHE_DIR); "
            f"with a network, this fetches it once: {fetch}"
        )
    encoding = tiktoken.get_encoding(NAMED[name])
    entries = sorted(encoding._mergeable_ranks, key=encoding._mergeable_ranks.__getitem__)
    return Tokenizer(entries, pattern=encoding._pat_str, first_special=encoding.n_vocab)
