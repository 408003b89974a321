"""The rank files of GPT's vocabularies: tiktoken's own where its cache holds them, else stand-ins made here.

A stand-in has the pattern, the special tokens and the number of entries of the vocabulary it stands for.
Its merges are trained on the built-in corpus, so every rule of `open_tokenizer` is tested without a network.
What a stand-in cannot show is how well the real vocabulary fits a text.
"""

import hashlib
from collections.abc import Iterator

import pytest
import tiktoken

from braingpt.data.sample import documents
from braingpt.tokenizer import named, training

ENTRIES = {"r50k_base": 50_256, "cl100k_base": 100_256, "o200k_base": 199_998}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bool]:
    """Make every name of NAMED open; the value is whether the rank files are the real ones."""
    real = all(map(named.is_cached, named.NAMED))
    with pytest.MonkeyPatch.context() as patch:
        if not real:
            _stand_in(patch, tmp_path_factory.mktemp("ranks"))
        named._named.cache_clear()
        yield real
    named._named.cache_clear()


def _stand_in(patch: pytest.MonkeyPatch, folder) -> None:
    """Put empty files where tiktoken's cache has rank files, and give tiktoken the merges made here."""
    from tiktoken_ext import openai_public

    learnt = training.train((document.text for document in documents(size_bytes=200_000)), 2_000).entries

    def load(address: str, expected_hash: str | None = None) -> dict[bytes, int]:
        entries = ENTRIES[address.rsplit("/", 1)[-1].removesuffix(".tiktoken")]
        # No text holds the bytes FE or FF, so no text holds one of the added entries.
        added = (b"\xff\xfe" + str(number).encode() for number in range(entries - len(learnt)))
        return {entry: rank for rank, entry in enumerate([*learnt, *added])}

    for name in named.NAMED.values():
        (folder / hashlib.sha1(named.RANKS_URL.format(name).encode()).hexdigest()).touch()
    patch.setattr(openai_public, "load_tiktoken_bpe", load)
    # What tiktoken made before is set aside; the stand-ins fall away with the patch.
    patch.setattr(tiktoken.registry, "ENCODINGS", {})
    patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
