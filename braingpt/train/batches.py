"""What a run reads: the tokenizer and shards of prepared folders, and each step's batch in pieces on the
device.

A step's rows follow from its number alone (`data.mixture.Batches`); nothing else is remembered but how many
steps of data a rewind has passed over. Short sequences at first (`train.lengths`) are the same windows cut
into pieces, so every token still comes once an epoch and a step sees as many tokens as ever.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from braingpt.errors import UserError
from braingpt.optim.schedule import length_at
from braingpt.recipes import Recipe


class MicroBatch(NamedTuple):
    """A micro-batch on the device.

    `target_fraction`: its part of the targets that count in the whole step, of all processes. `segments_BL`
    None where nothing resets.
    """

    ids_BL: Tensor
    targets_BL: Tensor
    segments_BL: Tensor | None
    target_fraction: float


def open_data(folders: Sequence[Path], recipe: Recipe) -> tuple[Any, Any]:
    """(tokenizer, shards) of the prepared folders.

    The tokenizer is the first folder's; the others must have been prepared with the same.

    Raises UserError for a folder that is not prepared (naming the command), and for a vocabulary that is not
    the model's.
    """
    from braingpt.data.shards.manifest import read_manifest
    from braingpt.data.shards.reader import ShardSet
    from braingpt.tokenizer import Tokenizer

    if not folders:
        raise UserError(
            "no data to train on; --data DIR names a prepared folder, `braingpt data prepare sample` makes one"
        )
    for folder in folders:
        read_manifest(folder)
    tokenizer = Tokenizer.load(folders[0] / "tokenizer")
    if tokenizer.vocab_size != recipe.model.vocab:
        raise UserError(
            f"{folders[0]} has a vocabulary of {tokenizer.vocab_size:,} tokens, the recipe's model one of {recipe.model.vocab:,};"
            f" --set model.vocab={tokenizer.vocab_size} makes them agree"
        )
    return tokenizer, ShardSet.open(folders, tokenizer)


def batches_of(recipe: Recipe, shards: Any, tokenizer: Any) -> Any:
    """The `Batches` a run of `recipe` trains on.

    Raises UserError where its mixture and the data do not go together.
    """
    from braingpt.data.batches.batches import Batches

    config, data = recipe.train, recipe.data
    reset_at = tokenizer.eot if data.reset_at_documents else None
    return Batches(
        shards,
        "train",
        config.batch,
        config.context,
        config.seed,
        data.mixture,
        steps=config.steps,
        reset_at=reset_at,
    )


def training_tokens(shards: Any) -> int:
    """Tokens to train on, all languages together."""
    return sum(shards.tokens("train", language) for language in shards.languages("train"))


class BatchLoader:
    """The batches of a run, step by step, `micro` rows of `train.context` tokens at a time.

    `offset`: steps of data passed over.

    Of several processes each gets the rows of its `rank`; together they see the same rows, whatever the
    `world`.
    """

    def __init__(
        self, recipe: Recipe, shards: Any, tokenizer: Any, device: torch.device, rank: int = 0, world: int = 1
    ) -> None:
        self.batches = batches_of(recipe, shards, tokenizer)
        self.config, self.device, self.offset = recipe.train, device, 0
        self.rank, self.world = rank, world
        # spent on reading the last step's rows
        self.seconds = 0.0
        self._ready: tuple[Any, list[MicroBatch]] = (None, [])

    def micro_batches(self, step: int, micro: int) -> list[MicroBatch]:
        """The step's rows, on their way to the device."""
        self.prepare(step, micro)
        return self._ready[1]

    def prepare(self, step: int, micro: int) -> None:
        """Read and send the step's rows now, so that `micro_batches` need not: called while the device still
        computes.
        """
        if self._ready[0] == (step, micro, self.offset):
            return
        began = time.perf_counter()
        batch = self.batches.batch(step + self.offset, self.rank, self.world)
        everyone = (
            batch if self.world == 1 or batch.segments_BL is None else self.batches.batch(step + self.offset)
        )
        counted = (everyone.targets_BL != -100).sum().clamp(min=1) * (self.world if everyone is batch else 1)
        parts = [batch.ids_BL, batch.targets_BL, *([] if batch.segments_BL is None else [batch.segments_BL])]
        length = length_at(step, self.config)
        pieces = []
        for ids_BL, targets_BL, *segments in zip(*(part.split(micro) for part in parts), strict=True):
            share = float((targets_BL != -100).sum() / counted)
            moved = [self._move(tensor.reshape(-1, length)) for tensor in (ids_BL, targets_BL, *segments)]
            pieces.append(MicroBatch(moved[0], moved[1], moved[2] if segments else None, share))
        self._ready = ((step, micro, self.offset), pieces)
        self.seconds = time.perf_counter() - began

    def changes_at(self, step: int) -> bool:
        """Whether the data are of another kind from this step on: sequences of another length, or another
        part of the mixture's schedule.
        """
        longer = step > 0 and length_at(step, self.config) != length_at(step - 1, self.config)
        return longer or step + self.offset in [phase.end for phase in self.batches.phases]

    def windows(self, step: int) -> dict[str, list[int]]:
        """Which windows the step reads, by language: what names a batch."""
        rows = self.config.batch
        found: dict[str, list[int]] = {}
        for language, window in zip(*self.batches.draws((step + self.offset) * rows, rows), strict=True):
            found.setdefault(self.batches.languages[int(language)], []).append(int(window))
        return found

    def _move(self, tensor: Tensor) -> Tensor:
        return (
            tensor.to(self.device)
            if self.device.type == "cpu"
            else tensor.pin_memory().to(self.device, non_blocking=True)
        )
