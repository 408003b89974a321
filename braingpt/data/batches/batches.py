"""Shards to batches. A batch is a pure function of (seed, step, rank, world size): nothing is remembered
between calls.

Which language has which row: global row g (step * rows + row) is in a phase of the mixture, and there in a
block of BLOCK rows. Every block of a phase holds the same number of rows of a language, as the weights ask,
each language spread evenly over the block from an offset drawn per block. So the n-th draw of a language up
to any row is counted in closed form, without walking through the steps before; a schedule's later phases
continue to count where the former ended.

Which window the n-th draw is: n // windows is the language's epoch, and n % windows goes through a
permutation keyed by seed, language and epoch (a Feistel network with cycle walking: Black and Rogaway,
"Ciphers with arbitrary finite domains", 2002). Each window is visited once per epoch, and no permutation is
ever stored.

A window is cut from the language's tokens regardless of where documents end. With `reset_at`, the end-of-text
id, a batch also says which tokens belong to one document, so that a model starts afresh at each.

Shapes: B rows, L positions.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from braingpt.data.batches.mixture import Phase, phases_of
from braingpt.data.shards.reader import ShardSet
from braingpt.errors import UserError
from braingpt.kernels.cross_entropy import IGNORED

# Rows of a block; weights are kept to 1 / BLOCK.
BLOCK = 4096
# Rounds of the Feistel network.
_ROUNDS = 6
_MASK = (1 << 64) - 1


class Batch(NamedTuple):
    """One batch, or the rows of it that belong to one rank; tensors are on the CPU.

    Attributes:
        ids_BL: Token ids, int64.
        targets_BL: The ids one position later, int64.
        language: Language of each row.
        segments_BL: Number of the document that each token belongs to, from 0 in every row; None where
            nothing resets. The end of text belongs to the document it ends, and its target, the first token
            of another document, is IGNORED (-100), which counts for nothing.
    """

    ids_BL: Tensor
    targets_BL: Tensor
    language: list[str]
    segments_BL: Tensor | None = None


class Batches:
    """Batches of windows from one split.

    Attributes:
        rows: Windows of a batch, over all ranks.
        context: Tokens of a window.
        languages: Languages of the mixture.
        windows: Number of windows by language.
        skipped: Languages with less than one window, which are left out.
        phases: The mixture over the run.
    """

    def __init__(
        self,
        shards: ShardSet,
        split: str,
        rows: int,
        context: int,
        seed: int = 0,
        mixture: str | dict[str, float] | list[dict[str, Any]] = "proportional",
        *,
        steps: int | None = None,
        reset_at: int | None = None,
    ) -> None:
        """Check the mixture against the data, and lay it over the steps.

        Args:
            shards: The prepared data.
            split: "train" or "validation".
            rows: Windows of a batch, over all ranks.
            context: Tokens of a window.
            seed: Decides the order of the windows.
            mixture: How languages share the rows, as in `braingpt.data.batches.mixture`.
            steps: Steps of the run, over which a schedule is laid; its last phase continues beyond them.
            reset_at: The end-of-text id where models are to start afresh at documents.

        Raises:
            UserError: No language fills a window, or the mixture is invalid or names a language that the data
                lack.
        """
        self.shards, self.split, self.rows, self.context = shards, split, rows, context
        self.seed, self.reset_at = seed, reset_at
        present = {
            language: shards.windows(split, language, context + 1) for language in shards.languages(split)
        }
        windows = {language: count for language, count in present.items() if count}
        self.skipped = [language for language in present if language not in windows]
        if not windows:
            raise UserError(
                f"the {split} data holds no window of {context} tokens; "
                "take a smaller train.context or prepare more data"
            )
        self.phases = phases_of(mixture, windows, self.skipped, steps)
        self.languages = list(dict.fromkeys(language for phase in self.phases for language in phase.weights))
        self.windows = {language: windows[language] for language in self.languages}
        self._quotas = [self._quota(phase) for phase in self.phases]
        self._windows = np.array(list(self.windows.values()), dtype=np.uint64)
        self._keys = np.array([_key(seed, language) for language in self.languages], dtype=np.uint64)
        # The last few blocks; others are computed again, so that this is no hidden state.
        self._blocks: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        # Each phase's first row.
        self._starts = [0, *(phase.end * rows for phase in self.phases if phase.end is not None)]
        # Draws of each language before each phase.
        self._before = [np.zeros(len(self.languages), dtype=np.int64)]
        for number, start in enumerate(self._starts[1:]):
            self._before.append(self._drawn(number, start))

    def epochs(self, step: int) -> dict[str, float]:
        """Passes over its windows that each language has made before `step`.

        Args:
            step: The step, from 0.

        Returns:
            Passes by language; fractions count.
        """
        row = step * self.rows
        phase = int(np.searchsorted(self._starts, row, side="right")) - 1
        return {
            language: int(drawn) / self.windows[language]
            for language, drawn in zip(self.languages, self._drawn(phase, row), strict=True)
        }

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The rows of one step that belong to one rank: a contiguous 1/world of them.

        Together, the ranks see the same rows for any `world`.

        Args:
            step: The step, from 0.
            rank: The rank of this process.
            world: The number of ranks.

        Raises:
            UserError: The rows cannot be divided among the ranks.
        """
        if self.rows % world:
            raise UserError(
                f"train.batch ({self.rows}) must be a multiple of the number of processes ({world})"
            )
        count = self.rows // world
        language_B, window_B = self.draws(step * self.rows + rank * count, count)
        ids = np.empty((count, self.context + 1), dtype=np.int64)
        for row, language, window in zip(ids, language_B.tolist(), window_B.tolist(), strict=True):
            self.shards.read_into(row, self.split, self.languages[language], window * self.context)
        return _batch(ids, [self.languages[language] for language in language_B], self.reset_at)

    def draws(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows of consecutive global rows.

        Args:
            start: The first global row, step * rows + row.
            count: Rows.

        Returns:
            Of each row, the number of its language in `languages` and the number of its window.
        """
        row_B = np.arange(start, start + count)
        phase_B = np.searchsorted(self._starts, row_B, side="right") - 1
        language_B, nth_B = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        for phase in range(int(phase_B[0]), int(phase_B[-1]) + 1):
            block_B, place_B = np.divmod(row_B - self._starts[phase], BLOCK)
            blocks = block_B[phase_B == phase]
            for block in range(int(blocks[0]), int(blocks[-1]) + 1):
                inside = (phase_B == phase) & (block_B == block)
                order, rank = self._block(phase, block)
                place = place_B[inside]
                language_B[inside] = order[place]
                before = self._before[phase] + block * self._quotas[phase]
                nth_B[inside] = before[order[place]] + rank[place]
        size_B = self._windows[language_B]
        epoch_B, index_B = np.divmod(nth_B.astype(np.uint64), size_B)
        return language_B, permute(index_B, size_B, _mix(self._keys[language_B] + epoch_B)).astype(np.int64)

    def _quota(self, phase: Phase) -> np.ndarray:
        """Rows of each language in a block of the phase; 0 for those it leaves out."""
        quota = np.zeros(len(self.languages), dtype=np.int64)
        quota[[self.languages.index(language) for language in phase.weights]] = _quotas(
            np.array(list(phase.weights.values()))
        )
        return quota

    def _drawn(self, phase: int, row: int) -> np.ndarray:
        """Draws of each language before `row`, which lies in the phase or at its end."""
        block, place = divmod(row - self._starts[phase], BLOCK)
        order, _ = self._block(phase, block)
        return (
            self._before[phase]
            + block * self._quotas[phase]
            + np.bincount(order[:place], minlength=len(self.languages))
        )

    def _block(self, phase: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each row of a block: its language, and how many rows of that language come before it in the
        block.
        """
        if (phase, block) not in self._blocks:
            name = f"block {block}" if phase == 0 else f"phase {phase} block {block}"
            quotas = self._quotas[phase]
            offsets = np.random.Generator(np.random.Philox(key=_key(self.seed, name))).random(len(quotas))
            language = np.repeat(np.arange(len(quotas)), quotas)
            rank = np.concatenate([np.arange(quota) for quota in quotas])
            order = np.argsort((rank + offsets[language]) / quotas[language], kind="stable")
            if len(self._blocks) > 3:
                self._blocks.clear()
            self._blocks[phase, block] = language[order], rank[order]
        return self._blocks[phase, block]


def validation_windows(
    shards: ShardSet, language: str, context: int, rows: int, limit: int, reset_at: int | None = None
) -> Iterator[Batch]:
    """Windows of a language's validation tokens, the same ones in the same order every time.

    They do not overlap, and are spread evenly over the sequence so that every source takes part.

    Args:
        shards: The prepared data.
        language: The language.
        context: Tokens of a window.
        rows: Windows of a batch at most.
        limit: Windows in all at most.
        reset_at: The end-of-text id where models are to start afresh at documents.

    Returns:
        An iterator over batches; an empty one where the tokens fill no window.
    """
    total = shards.windows("validation", language, context + 1)
    count = min(total, limit)
    for first in range(0, count, rows):
        chosen = [number * total // count for number in range(first, min(first + rows, count))]
        ids = np.empty((len(chosen), context + 1), dtype=np.int64)
        for row, index in zip(ids, chosen, strict=True):
            shards.read_into(row, "validation", language, index * context)
        yield _batch(ids, [language] * len(chosen), reset_at)


def permute(index_B: np.ndarray, size_B: np.ndarray, key_B: np.ndarray) -> np.ndarray:
    """Images of `index_B` under keyed permutations of range(size_B), element by element.

    The permutation is a Feistel network on the smallest grid a x b that holds `size` and is nearly square. An
    image beyond `size` is permuted again.

    Args:
        index_B: Elements, below `size_B`, uint64.
        size_B: Sizes of the permuted ranges, uint64.
        key_B: Keys of the permutations, uint64.

    Returns:
        The images, uint64.
    """
    a_B = np.ceil(np.sqrt(size_B.astype(np.float64))).astype(np.uint64)
    b_B = (size_B + a_B - np.uint64(1)) // a_B
    image_B = index_B.astype(np.uint64)
    outside = np.ones(len(image_B), dtype=bool)
    while outside.any():
        a, b, key = a_B[outside], b_B[outside], key_B[outside]
        high, low = np.divmod(image_B[outside], b)
        for number in range(0, _ROUNDS, 2):
            high = (high + _mix(low + key + np.uint64(number << 40)) % a) % a
            low = (low + _mix(high + key + np.uint64((number + 1) << 40)) % b) % b
        image_B[outside] = high * b + low
        outside = image_B >= size_B
    return image_B


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _key(seed: int, name: str) -> int:
    """A 64-bit key from the seed and a name, the same on every machine."""
    return (
        int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little") & _MASK
    )


def _quotas(weights: np.ndarray) -> np.ndarray:
    """Rows of each language in a block: at least one, largest remainders first, BLOCK in all."""
    quota = np.maximum(1, np.floor(weights * BLOCK)).astype(np.int64)
    short = weights * BLOCK - quota
    while quota.sum() < BLOCK:
        at = int(np.argmax(short))
        quota[at] += 1
        short[at] -= 1
    while quota.sum() > BLOCK:
        quota[int(np.argmax(quota))] -= 1
    return quota


def _batch(ids: np.ndarray, language: list[str], reset_at: int | None) -> Batch:
    windows = torch.from_numpy(ids)
    ids_BL, targets_BL = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
    if reset_at is None:
        return Batch(ids_BL, targets_BL, language)
    ends_BL = (ids_BL == reset_at).long()
    # A copy, since ids and targets of a single row share memory.
    targets_BL = targets_BL.masked_fill(ends_BL.bool(), IGNORED)
    return Batch(ids_BL, targets_BL, language, ends_BL.cumsum(1) - ends_BL)
