"""Shards to batches. A batch is a pure function of (seed, step, rank, world size): nothing is remembered between calls.

Which language stands in which row: global row g (step * rows + row) lies in block g // BLOCK. Every block holds the same number of rows
of a language, as the weights ask, each language spread evenly over the block from an offset drawn per block. So the n-th draw of a language
up to any row is counted in closed form, without walking through the steps before.

Which window the n-th draw is: n // windows is the language's epoch, and n % windows goes through a permutation keyed by seed, language and
epoch (a Feistel network with cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Each window is visited once
per epoch, and no permutation is ever stored.

Shapes: B rows, L positions.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from braingpt.data.shards import ShardSet
from braingpt.errors import UserError, nearest

BLOCK = 4096  # rows; weights are kept to 1 / BLOCK
_ROUNDS = 6
_MASK = (1 << 64) - 1


class Batch(NamedTuple):
    """`ids_BL` and `targets_BL` (the ids one position later), int64 on the CPU, and each row's language."""

    ids_BL: Tensor
    targets_BL: Tensor
    language: list[str]


class Batches:
    """Batches of `rows` windows of `context` tokens from one split.

    `mixture`: "proportional" to the languages' tokens, "balanced", or weights by language, of which the missing ones are left out.
    Languages with less than one window are left out and named in `skipped`. Raises UserError when none is left, for weights that are not
    positive or name a language the data lacks.
    """

    def __init__(
        self,
        shards: ShardSet,
        split: str,
        rows: int,
        context: int,
        seed: int = 0,
        mixture: str | dict[str, float] = "proportional",
    ) -> None:
        self.shards, self.split, self.rows, self.context, self.seed = shards, split, rows, context, seed
        present = {language: shards.windows(split, language, context + 1) for language in shards.languages(split)}
        windows = {language: count for language, count in present.items() if count}
        self.skipped = [language for language in present if language not in windows]
        if not windows:
            raise UserError(f"the {split} data holds no window of {context} tokens; take a smaller train.context or prepare more data")
        self.weights = _weights(mixture, windows, self.skipped)
        self.languages = list(self.weights)
        self.windows = {language: windows[language] for language in self.languages}
        self._quota = _quotas(np.array(list(self.weights.values())))
        self._windows = np.array(list(self.windows.values()), dtype=np.uint64)
        self._keys = np.array([_key(seed, language) for language in self.languages], dtype=np.uint64)
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # the last few; recomputed at need, so no hidden state

    def epoch(self, step: int) -> dict[str, float]:
        """How many times each language has been seen before `step`, in passes over its windows."""
        return {
            language: step * self.rows * int(quota) / BLOCK / count
            for quota, (language, count) in zip(self._quota, self.windows.items(), strict=True)
        }

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The rows of `step` that belong to `rank`: a contiguous 1/world of them. Together, the ranks see the same rows for any `world`."""
        if self.rows % world:
            raise UserError(f"train.batch ({self.rows}) must be a multiple of the number of processes ({world})")
        share = self.rows // world
        language_B, window_B = self.draws(step * self.rows + rank * share, share)
        ids = np.empty((share, self.context + 1), dtype=np.int64)
        for row, language, window in zip(ids, language_B.tolist(), window_B.tolist(), strict=True):
            self.shards.read_into(row, self.split, self.languages[language], window * self.context)
        return _batch(ids, [self.languages[language] for language in language_B])

    def draws(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Language numbers and window numbers of the global rows `start` to `start + count`."""
        row_B = np.arange(start, start + count)
        block_B = row_B // BLOCK
        language_B, nth_B = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        for block in range(int(block_B[0]), int(block_B[-1]) + 1):
            here = block_B == block
            order, rank = self._block(block)
            place = row_B[here] - block * BLOCK
            language_B[here] = order[place]
            nth_B[here] = block * self._quota[order[place]] + rank[place]
        size_B = self._windows[language_B]
        epoch_B, index_B = np.divmod(nth_B.astype(np.uint64), size_B)
        return language_B, permuted(index_B, size_B, _mix(self._keys[language_B] + epoch_B)).astype(np.int64)

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each row of a block: its language, and how many rows of that language come before it in the block."""
        if block not in self._blocks:
            offsets = np.random.Generator(np.random.Philox(key=_key(self.seed, f"block {block}"))).random(len(self._quota))
            language = np.repeat(np.arange(len(self._quota)), self._quota)
            rank = np.concatenate([np.arange(quota) for quota in self._quota])
            order = np.argsort((rank + offsets[language]) / self._quota[language], kind="stable")
            if len(self._blocks) > 3:
                self._blocks.clear()
            self._blocks[block] = language[order], rank[order]
        return self._blocks[block]


def validation_windows(shards: ShardSet, language: str, context: int, rows: int, limit: int) -> Iterator[Batch]:
    """At most `limit` windows of the language's validation tokens in batches of up to `rows`, the same ones in the same order every time.

    They do not overlap, and are spread evenly over the sequence so that every source is heard. None where there is no whole window.
    """
    total = shards.windows("validation", language, context + 1)
    count = min(total, limit)
    for first in range(0, count, rows):
        chosen = [number * total // count for number in range(first, min(first + rows, count))]
        ids = np.empty((len(chosen), context + 1), dtype=np.int64)
        for row, index in zip(ids, chosen, strict=True):
            shards.read_into(row, "validation", language, index * context)
        yield _batch(ids, [language] * len(chosen))


def permuted(index_B: np.ndarray, size_B: np.ndarray, key_B: np.ndarray) -> np.ndarray:
    """Images of `index_B` under keyed permutations of range(size_B), element by element. All uint64.

    A Feistel network on the smallest grid a x b that holds `size` and is nearly square; an image beyond `size` is permuted again.
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
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little") & _MASK


def _weights(mixture: str | dict[str, float], windows: dict[str, int], skipped: list[str]) -> dict[str, float]:
    """Weights that sum to 1, by language."""
    if mixture == "proportional":
        raw: dict[str, float] = {language: float(count) for language, count in windows.items()}
    elif mixture == "balanced":
        raw = dict.fromkeys(windows, 1.0)
    elif isinstance(mixture, dict) and mixture:
        raw = {str(language): weight for language, weight in mixture.items()}
        for language, weight in raw.items():
            if language in skipped:
                raise UserError(f"data.mixture names '{language}', whose data is shorter than one window; take a smaller train.context")
            if language not in windows:
                raise UserError(f"data.mixture names '{language}', which the data lacks{nearest(language, windows)}")
            if not (isinstance(weight, int | float) and 0 < weight < math.inf):
                raise UserError(f"data.mixture: the weight of '{language}' must be a positive number, not {weight!r}")
    else:
        raise UserError(f"data.mixture is 'proportional', 'balanced' or weights by language, not {mixture!r}")
    total = sum(raw.values())
    return {language: weight / total for language, weight in raw.items()}


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


def _batch(ids: np.ndarray, language: list[str]) -> Batch:
    windows = torch.from_numpy(ids)
    return Batch(windows[:, :-1].contiguous(), windows[:, 1:].contiguous(), language)
