"""Reading prepared folders: memory-mapped tokens of one or more folders, merged by language.

The tokens of a language are one long sequence: its streams, folder after folder, source after source, file
after file. A window is a slice of that sequence. Opening checks the manifest, the tokenizer's fingerprint and
the files' sizes; `braingpt data verify` also checks hashes.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from braingpt.data.shards.manifest import Manifest, check_ids, check_sizes, prepare_command, read_manifests
from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer


class ShardSet:
    """Token sequences by (split, language).

    Open with `ShardSet.open`; splits are "train" and "validation".
    """

    def __init__(self, folders: list[tuple[Path, Manifest]]) -> None:
        self.folders = [folder for folder, _ in folders]
        self._vocabulary = min((one.tokenizer.vocab_size for _, one in folders), default=0)
        self._files: dict[tuple[str, str], list[np.ndarray]] = {}
        # The folder of each of these files.
        self._owners: dict[tuple[str, str], list[Path]] = {}
        for folder, manifest in folders:
            dtype = np.dtype(manifest.dtype).newbyteorder("<")
            for stream in manifest.streams:
                for file in stream.files:
                    # A plain array over the map: np.memmap's own slicing is ten times slower.
                    ids = np.memmap(folder / file.path, dtype=dtype, mode="r").view(np.ndarray)
                    self._files.setdefault((stream.split, stream.language), []).append(ids)
                    self._owners.setdefault((stream.split, stream.language), []).append(folder)
        self._starts = {key: np.cumsum([0, *map(len, files)]) for key, files in self._files.items()}

    @classmethod
    def open(cls, folders: Iterable[str | Path], tokenizer: Tokenizer) -> "ShardSet":
        """Open prepared folders.

        Args:
            folders: Folders that `braingpt data prepare` wrote; a repeated one counts once.
            tokenizer: The tokenizer their tokens must belong to; its fingerprint is compared.

        Returns:
            The tokens of all folders, merged by language.

        Raises:
            UserError: No folder is given, one is missing or damaged, or its tokens are another tokenizer's.
        """
        opened: list[tuple[Path, Manifest]] = []
        paths = list(dict.fromkeys(map(Path, folders)))
        for folder, manifest in zip(paths, read_manifests(paths), strict=True):
            if manifest.tokenizer.fingerprint != tokenizer.fingerprint:
                raise UserError(
                    f"{folder} was prepared with another tokenizer "
                    f"({manifest.tokenizer.fingerprint[:12]}, this one is {tokenizer.fingerprint[:12]}); "
                    f"prepare it again: {prepare_command(folder)} --force"
                )
            if manifest.tokenizer.vocab_size != tokenizer.vocab_size:
                raise UserError(
                    f"{folder} names a vocabulary of {manifest.tokenizer.vocab_size} tokens where its "
                    f"tokenizer has {tokenizer.vocab_size}; "
                    f"prepare it again: {prepare_command(folder)} --force"
                )
            check_sizes(folder, manifest)
            opened.append((folder, manifest))
        if not opened:
            raise UserError("no data folder given; prepare one with: braingpt data prepare sample")
        return cls(opened)

    def languages(self, split: str) -> list[str]:
        """Languages that have tokens in a split, in the order of the folders.

        Args:
            split: "train" or "validation".
        """
        return [language for stored, language in self._files if stored == split]

    def tokens(self, split: str, language: str) -> int:
        """Length of a language's sequence.

        Args:
            split: "train" or "validation".
            language: Language code.

        Returns:
            Tokens; 0 where there are none.
        """
        starts = self._starts.get((split, language))
        return 0 if starts is None else int(starts[-1])

    def windows(self, split: str, language: str, length: int) -> int:
        """Number of windows, each of which begins with the last token of the one before.

        Args:
            split: "train" or "validation".
            language: Language code.
            length: Tokens of a window.
        """
        return max(0, (self.tokens(split, language) - 1) // (length - 1))

    def unmeasured(self, context: int) -> str | None:
        """A line on the languages that have text, and too little validation text for a window of `context`
        tokens; None where all have enough.
        """
        languages = dict.fromkeys(language for _, language in self._files)
        held = {
            language: self.tokens("validation", language)
            for language in languages
            if not self.windows("validation", language, context + 1)
        }
        if not held:
            return None
        named = ", ".join(f"{language} ({tokens:,} tokens)" for language, tokens in held.items())
        return f"not measured, with less validation text than a window of {context:,} tokens: {named}"

    def window(self, split: str, language: str, index: int, length: int) -> np.ndarray:
        """The tokens of one window.

        Args:
            split: "train" or "validation".
            language: Language code.
            index: Number of the window, from 0; it begins at position `index * (length - 1)`.
            length: Tokens of a window.

        Returns:
            Token ids, int64 (length,).
        """
        ids = np.empty(length, dtype=np.int64)
        self.read_into(ids, split, language, index * (length - 1))
        return ids

    def read_into(self, out: np.ndarray, split: str, language: str, start: int) -> None:
        """Copy tokens of a language's sequence, across files where needed.

        Args:
            out: Where the token ids go; its length is the number of tokens.
            split: "train" or "validation".
            language: Language code.
            start: Position of the first token.

        Raises:
            IndexError: The sequence is shorter.
            UserError: A token is beyond the vocabulary.
        """
        files, starts = self._files[split, language], self._starts[split, language]
        end = start + len(out)
        if start < 0 or end > starts[-1]:
            raise IndexError(f"tokens {start}..{end} of {starts[-1]}")
        number = int(np.searchsorted(starts, start, side="right")) - 1
        filled = 0
        while filled < len(out):
            offset = start + filled - int(starts[number])
            piece = files[number][offset : offset + len(out) - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            number += 1
        # A model would find no row for such a token.
        if filled and out.max() >= self._vocabulary:
            number = int(np.searchsorted(starts, start + int(out.argmax()), side="right")) - 1
            check_ids(self._owners[split, language][number], out, self._vocabulary)
