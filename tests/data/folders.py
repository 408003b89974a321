"""A tokenizer of bytes with the attributes the preparation reads, and folders of tokens made by hand."""

import json
from pathlib import Path

import numpy as np

from braingpt.data.shards.manifest import NAME, Manifest, TokenizerFacts
from braingpt.data.shards.reader import ShardSet
from braingpt.data.shards.writer import FolderWriter


class ByteTokenizer:
    """Token ids are bytes; markers and the end of text follow them."""

    vocab_size = 320
    eot = 256
    markers = {language: 257 + number for number, language in enumerate(("ko", "en", "de", "fr", "es", "it"))}  # noqa: RUF012
    marked = tuple(markers)
    fingerprint = "b" * 64

    def encode_array(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint32)

    def token_bytes(self) -> np.ndarray:
        return (np.arange(self.vocab_size) < 256).astype(np.int32)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "tokenizer.json").write_text(json.dumps({"fingerprint": self.fingerprint}))


class NumberTokenizer(ByteTokenizer):
    """All ids that two bytes hold."""

    vocab_size = 1 << 16


def write_folder(
    out: Path,
    streams: dict[tuple[str, str, str], np.ndarray],
    file_bytes: int = 1 << 20,
    piece: int = 50,
    tokenizer: ByteTokenizer | None = None,
) -> None:
    """A prepared folder whose streams, by (split, language, source), hold exactly these ids, added `piece` at
    a time.
    """
    tokenizer = tokenizer or ByteTokenizer()
    with FolderWriter(out, "uint16", file_bytes) as writer:
        for (split, language, source), ids in streams.items():
            for start in range(0, len(ids), piece):
                writer.add(split, language, source, ids[start : start + piece], piece)
        writer.publish(
            Manifest(
                name="text",
                braingpt="0",
                created="2026-01-01",
                parameters={},
                tokenizer=TokenizerFacts(fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size),
                dtype="uint16",
                streams=writer.close(),
                filters={},
            )
        )


def numbered(tmp_path: Path, sizes: dict[str, int], split: str = "train") -> ShardSet:
    """A ShardSet whose language sequences count 0, 1, 2, ..., so that a window shows where it lies."""
    out = tmp_path / "numbered"
    if not (out / NAME).exists():
        write_folder(
            out,
            {(split, language, "text"): np.arange(size) for language, size in sizes.items()},
            tokenizer=NumberTokenizer(),
        )
    return ShardSet.open([out], NumberTokenizer())
