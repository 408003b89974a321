"""Vocabularies by name: GPT-2's, GPT-4's and GPT-4o's, for comparison and for models that are to share them.

Their entries, ranks and patterns are tiktoken's; the ids of plain text are the same. Their own special ids
stay unused, and our 64 specials follow them, so that a model of such a vocabulary has language markers too.
They are used where their rank files lie in tiktoken's cache (TIKTOKEN_CACHE_DIR); nothing is downloaded.
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
            f"there is no tokenizer folder '{name}', made by `braingpt tokenizer train`, "
            f"nor a vocabulary of that name{did_you_mean(str(name), NAMED)}"
        )
    return Tokenizer.load(name)


def is_cached(name: str) -> bool:
    """Whether the rank file of one of NAMED lies in tiktoken's cache.

    Where tiktoken looks is part of its documented environment variables.
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
