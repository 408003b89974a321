"""The data of a run: tokenizer and shards of prepared folders, and each step's batch as micro-batches on the
device.

A step's rows follow from its number alone (`data.batches.Batches`); the loader remembers only how many steps
of data a rewind has passed over. Short sequences (`train.lengths`) are the same windows cut into shorter
rows: every token still comes once an epoch, and a step has as many tokens as with long sequences.

Shapes: B rows, L positions.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from braingpt.data.batches.batches import Batches
from braingpt.data.shards.manifest import read_manifests
from braingpt.data.shards.reader import ShardSet
from braingpt.distributed.world import World
from braingpt.errors import UserError
from braingpt.kernels.cross_entropy import IGNORED
from braingpt.optim.schedule import length_at
from braingpt.recipes import Recipe
from braingpt.tokenizer import Tokenizer


class MicroBatch(NamedTuple):
    """A micro-batch on the device.

    `segments_BL` is None where nothing resets. `target_fraction` is the micro-batch's share of the counted
    targets in the whole step, of all processes.
    """

    ids_BL: Tensor
    targets_BL: Tensor
    segments_BL: Tensor | None
    target_fraction: float


def open_data(folders: Sequence[Path], recipe: Recipe) -> tuple[Tokenizer, ShardSet]:
    """Open prepared folders for training.

    Args:
        folders: Prepared folders; all must have been prepared with the tokenizer of the first.
        recipe: The recipe whose model reads them.

    Returns:
        The tokenizer, and the shards of all folders.

    Raises:
        UserError: A folder is not prepared (the message names the command), or the vocabulary is not the
            model's.
    """
    if not folders:
        raise UserError(
            "there are no data to train on; name a prepared folder with --data DIR "
            "(`braingpt data prepare sample` makes one)"
        )
    config = recipe.train
    read_manifests(folders, config.steps * config.batch * config.context)
    tokenizer = Tokenizer.load(folders[0] / "tokenizer")
    if tokenizer.vocab_size != recipe.model.vocab:
        raise UserError(
            f"{folders[0]} has a vocabulary of {tokenizer.vocab_size:,} tokens, the recipe's model one of"
            f" {recipe.model.vocab:,}; match them with --set model.vocab={tokenizer.vocab_size}"
        )
    return tokenizer, ShardSet.open(folders, tokenizer)


def batches_of(recipe: Recipe, shards: ShardSet, tokenizer: Tokenizer) -> Batches:
    """The batches a run of `recipe` trains on. Raises UserError where its mixture does not suit the data."""
    config, data = recipe.train, recipe.data
    return Batches(
        shards,
        "train",
        config.batch,
        config.context,
        config.seed,
        data.mixture,
        steps=config.steps,
        reset_at=tokenizer.eot if data.reset_at_documents else None,
    )


def training_tokens(shards: ShardSet) -> int:
    """Tokens to train on, all languages together."""
    return sum(shards.tokens("train", language) for language in shards.languages("train"))


def data_identity(folders: Sequence[Path]) -> str:
    """SHA-256 over the manifests of the prepared folders, which names the data wherever they are."""
    digest = hashlib.sha256()
    for folder in folders:
        digest.update((Path(folder) / "manifest.json").read_bytes())
    return digest.hexdigest()


def validation_identity(folders: Sequence[Path], recipe: Recipe, tokenizer: Tokenizer) -> str:
    """A hash of all that a validation loss depends on beside the model.

    Losses of two validations may be compared where it is equal: the same text, tokens and windows.

    Args:
        folders: Prepared folders.
        recipe: The recipe that says which windows are read.
        tokenizer: The tokenizer of the tokens.
    """
    files = [
        (stream.language, stream.source, file.sha256)
        for manifest in read_manifests(list(map(Path, folders)))
        for stream in manifest.streams
        if stream.split == "validation"
        for file in stream.files
    ]
    config = recipe.train
    settings = (config.context, config.eval_windows, recipe.data.reset_at_documents, tokenizer.fingerprint)
    return hashlib.sha256(repr((files, settings)).encode()).hexdigest()[:16]


def windows(count: int) -> str:
    """A count in words: 1 window, 2 windows."""
    return f"{count} window{'s' * (count != 1)}"


class BatchLoader:
    """The micro-batches of a run, step by step.

    Each of several processes reads the rows of its `rank`. Together they read the same rows as one process.

    Attributes:
        batches: The run's batches on the CPU.
        offset: Steps of data that rewinds have passed over.
        seconds: Time spent on reading the last step's rows.
    """

    def __init__(
        self,
        recipe: Recipe,
        shards: ShardSet,
        tokenizer: Tokenizer,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.batches = batches_of(recipe, shards, tokenizer)
        self.config, self.device = recipe.train, device
        self.rank, self.world = rank, world
        self.offset, self.seconds = 0, 0.0
        # (step, windows at a time, offset) of the micro-batches that are ready.
        self._ready_for: tuple[int, int, int] | None = None
        self._ready: list[MicroBatch] = []

    def micro_batches(self, step: int, micro: int) -> list[MicroBatch]:
        """The step's rows, `micro` windows at a time, on their way to the device."""
        self.prepare(step, micro)
        return self._ready

    def prepare(self, step: int, micro: int) -> None:
        """Read and send the step's rows, so that `micro_batches` finds them ready.

        The loop calls it while the device still computes.
        """
        if self._ready_for == (step, micro, self.offset):
            return
        began = time.perf_counter()
        batch = self.batches.batch(step + self.offset, self.rank, self.world)
        targets_in_step = self._targets_in_step(step, batch.targets_BL, batch.segments_BL is not None)
        tensors = [batch.ids_BL, batch.targets_BL]
        if batch.segments_BL is not None:
            tensors.append(batch.segments_BL)
        length, micro_batches = length_at(step, self.config), []
        for ids_BL, targets_BL, *segments in zip(*(tensor.split(micro) for tensor in tensors), strict=True):
            fraction = float((targets_BL != IGNORED).sum() / targets_in_step)
            moved = [self._move(tensor.reshape(-1, length)) for tensor in (ids_BL, targets_BL, *segments)]
            micro_batches.append(MicroBatch(moved[0], moved[1], moved[2] if segments else None, fraction))
        self._ready_for, self._ready = (step, micro, self.offset), micro_batches
        self.seconds = time.perf_counter() - began

    def _targets_in_step(self, step: int, own_targets_BL: Tensor, resets: bool) -> Tensor:
        """Counted targets of all processes' rows, at least 1; `own_targets_BL` are this process's."""
        if self.world == 1 or not resets:
            # Without resets every target counts, so all processes have as many.
            return (own_targets_BL != IGNORED).sum().clamp(min=1) * self.world
        return (self.batches.batch(step + self.offset).targets_BL != IGNORED).sum().clamp(min=1)

    def changes_at(self, step: int) -> bool:
        """Whether the data change at this step: another sequence length, or another phase of the mixture."""
        longer = step > 0 and length_at(step, self.config) != length_at(step - 1, self.config)
        return longer or step + self.offset in [phase.end for phase in self.batches.phases]

    def windows(self, step: int) -> dict[str, list[int]]:
        """The numbers of the windows that the step reads, by language; they identify a batch."""
        rows = self.config.batch
        numbers: dict[str, list[int]] = {}
        for language, window in zip(*self.batches.draws((step + self.offset) * rows, rows), strict=True):
            numbers.setdefault(self.batches.languages[int(language)], []).append(int(window))
        return numbers

    def _move(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cpu":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


class RunData(NamedTuple):
    """The data of a run, the `data_identity` of its folders, and the `validation_identity`."""

    tokenizer: Tokenizer
    shards: ShardSet
    loader: BatchLoader
    identity: str
    validation: str


def open_run_data(recipe: Recipe, folders: Sequence[Path], device: torch.device, world: World) -> RunData:
    """Open the data of a run for this process. Raises UserError where the data do not suit the recipe."""
    tokenizer, shards = open_data(folders, recipe)
    identity = data_identity(folders)
    loader = BatchLoader(recipe, shards, tokenizer, device, world.rank, world.size)
    return RunData(tokenizer, shards, loader, identity, validation_identity(folders, recipe, tokenizer))
