"""One model in a comparison: trained by the real trainer on real shards, scored, and made to generate.

Trainer, batches and optimizer are those of `braingpt train`; the same seed gives every contender the same
batches. A peer from another library (`peers.py`) is trained in the same way: only the model differs.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from braingpt.bench.peers import Peer
from braingpt.device.device import autocast
from braingpt.errors import one_line
from braingpt.evaluation.perplexity import evaluate
from braingpt.inference.engine import Decoder
from braingpt.inference.sampling import Sampler, Sampling
from braingpt.model.lm import LanguageModel
from braingpt.optim.schedule import learning_rate
from braingpt.recipes import Recipe, load_recipe
from braingpt.train.classes import settle_classes
from braingpt.train.loop import Trainer
from braingpt.train.micro_batches import gradients
from braingpt.train.run.folder import RunFolder
from braingpt.train.run.progress import Reporter
from braingpt.train.stability import SPIKE_WINDOW, is_spike

# Steps of the schedule of a learning rate that follows the clock.
TICKS = 10_000


def bench_recipe(
    size: str,
    name: str,
    steps: int,
    context: int,
    batch: int,
    folders: Sequence[str] = (),
    seed: int = 0,
    compiled: bool = False,
    changes: Sequence[str] = (),
) -> Recipe:
    """The shipped recipe `{size}-{name}` with its schedule squeezed into `steps`.

    Args:
        size: Size of the recipe, such as nano.
        name: Architecture of the recipe, such as v2.
        steps: Optimizer steps.
        context: Tokens a window.
        batch: Windows a step.
        folders: Prepared data; empty: the recipe's.
        seed: Seed of weights and batches.
        compiled: Whether training is compiled.
        changes: Further changes, such as `train.lr=1e-3`.

    Raises:
        UserError: There is no such recipe, or a change is wrong.
    """
    recipe = f"{size}-{name}"
    warmup = min(load_recipe(recipe, list(changes)).train.warmup, steps // 10)
    settings = {
        "steps": steps,
        "context": context,
        "batch": batch,
        "micro_batch": "null",
        "warmup": warmup,
        "seed": seed,
        "compile": compiled,
    }
    overrides = [*changes, *(f"train.{key}={value}" for key, value in settings.items())]
    return load_recipe(
        recipe, overrides + ([f"data.folders=[{', '.join(map(_quoted, folders))}]"] if folders else [])
    )


def _quoted(folder: str) -> str:
    return "'" + folder.replace("'", "''") + "'"


class _Recorder(Reporter):
    """Keeps the record of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def step(self, record: dict[str, Any]) -> None:
        self.steps.append(record)


class _Trainer(Trainer):
    """A trainer whose learning rate may follow the clock.

    With a `limit` in seconds, the place in the schedule is the share of the limit that has passed.
    """

    limit: float | None = None

    def rate(self) -> float:
        if self.limit is None:
            return super().rate()
        schedule = self.config.model_copy(
            update={"steps": TICKS, "warmup": TICKS * self.config.warmup // self.config.steps}
        )
        return learning_rate(min(TICKS - 1, int(TICKS * self.seconds / self.limit)), schedule)


class Contender:
    """A model in training.

    Args:
        recipe: The recipe of its training.
        scratch: A folder for the trainer's metrics, which the caller removes.
        device: Where it is trained.
        model: A peer's model, instead of the recipe's.
    """

    def __init__(
        self, recipe: Recipe, scratch: Path, device: torch.device, model: LanguageModel | Peer | None = None
    ) -> None:
        self.recipe, self.device = recipe, device
        scratch.mkdir(parents=True, exist_ok=True)
        self.recorder = _Recorder()
        # Why training ended; None while it continues.
        self.lost: str | None = None
        folders = [Path(folder) for folder in recipe.data.folders]
        # A peer has all that the trainer uses of a `LanguageModel`.
        self.trainer = _Trainer(
            recipe,
            RunFolder(scratch),
            folders,
            device,
            self.recorder,
            model=model,  # pyright: ignore[reportArgumentType]
        )
        trainer = self.trainer
        settle_classes(trainer.learner.model, trainer.shards, trainer.tokenizer, trainer.world)

    @property
    def model(self) -> LanguageModel | Peer:
        """The model as trained so far."""
        return self.trainer.learner.model

    @property
    def losses(self) -> list[float]:
        """The loss of every step so far; NaN where it was not finite."""
        return [math.nan if record["loss"] is None else record["loss"] for record in self.recorder.steps]

    def train(self, steps: int) -> float | None:
        """Take `steps` optimizer steps; returns tokens a second, or None where the run is lost."""
        self.finish()
        start = time.perf_counter()
        for _ in range(steps):
            if not self._step():
                return None
        self.finish()
        return steps * self.recipe.train.batch * self.recipe.train.context / (time.perf_counter() - start)

    def train_until(self, seconds: float, limit: float) -> None:
        """Take steps until `seconds` of the contender's own clock have passed.

        The learning rate's schedule covers `limit` seconds.
        """
        self.trainer.limit = limit
        while self.trainer.seconds < seconds and self._step():
            pass
        self.finish()

    def _step(self) -> bool:
        """Take one step; False where the run is lost.

        `braingpt train` would return to a checkpoint; a comparison ends the run here.
        """
        if self.lost is None:
            try:
                self.trainer.take_step()
            except RuntimeError as error:
                # `Lost` is a RuntimeError.
                self.lost = one_line(error)
        return self.lost is None

    def warm(self) -> None:
        """Run forward and backward once, to compile and allocate; the model does not change."""
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        gradients(self.trainer.learner, self.trainer.batching, self.trainer.step)
        self.trainer.learner.optimizer.zero_grad(set_to_none=True)
        for buffer, value in before:
            buffer.copy_(value)
        self.finish()

    def phases(self) -> dict[str, float]:
        """Take one step; returns the seconds of its parts.

        "forward" and "backward" are passes over all rows, measured apart; "step" is the whole step with its
        optimizer.
        """
        trainer = self.trainer
        learner = trainer.learner
        learner.model.train()
        spent = {"forward": 0.0, "backward": 0.0}
        for micro_batch in trainer.loader.micro_batches(trainer.step, trainer.batching.micro):
            where = {} if micro_batch.segments_BL is None else {"segments_BL": micro_batch.segments_BL}
            began = self._now()
            with autocast(self.device, trainer.placement.dtype):
                loss = learner.forward(micro_batch.ids_BL, micro_batch.targets_BL, **where).loss
            between = self._now()
            (loss * micro_batch.target_fraction).backward()
            spent["forward"] += between - began
            spent["backward"] += self._now() - between
        learner.optimizer.zero_grad(set_to_none=True)
        began = self._now()
        trainer.update()
        spent["step"] = self._now() - began
        trainer.step += 1
        return spent

    def generate(self, prompt_BL: torch.Tensor, new_tokens: int) -> tuple[float, float, int]:
        """Read prompts and generate greedily after each.

        Args:
            prompt_BL: Prompts of equal length.
            new_tokens: Tokens after each prompt, 2 or more.

        Returns:
            Seconds to the first token, tokens a second after it over all rows, and bytes of state at the end.
        """
        start = self._now()
        decoder, greedy = Decoder(self.model, len(prompt_BL)), Sampler(Sampling(0.0), len(prompt_BL))
        decoder.read(prompt_BL)
        ids_B = decoder.sample(greedy)
        first = self._now()
        for _ in range(new_tokens - 1):
            decoder.step(ids_B)
            ids_B = decoder.sample(greedy)
            # Waiting for the end of a text needs the tokens on the CPU.
            ids_B.tolist()
        seconds = self._now() - first
        return first - start, len(prompt_BL) * (new_tokens - 1) / seconds, decoder.state.bytes()

    def validate(self, windows: int, rows: int = 8) -> dict[str, Any]:
        """Scores over `windows` validation windows of each language, in the precision of training."""
        trainer, recipe = self.trainer, self.recipe
        with autocast(self.device, trainer.placement.dtype):
            scores = evaluate(
                self.model,
                trainer.shards,
                trainer.tokenizer,
                context=recipe.train.context,
                windows=windows,
                rows=rows,
                device=self.device,
                reset_at_documents=recipe.data.reset_at_documents,
            )
        return scores.as_dict()

    def prompts(self, rows: int, length: int, number: int = 0) -> torch.Tensor:
        """Real tokens to continue, the same for every contender.

        They come from validation text where one stream holds `length` tokens, else from training text; where
        neither does, from the longest stream, repeated.

        Args:
            rows: Rows B.
            length: Tokens L of a row, 2 or more.
            number: Number of the prompts; each number gives other tokens.

        Returns:
            (B, L) ids.
        """
        shards = self.trainer.shards
        streams = [
            (split, language) for split in ("validation", "train") for language in shards.languages(split)
        ]
        whole = next((stream for stream in streams if shards.windows(*stream, length)), None)
        stream = whole or max(streams, key=lambda stream: shards.tokens(*stream))
        available = min(length, shards.tokens(*stream))
        windows = shards.windows(*stream, available)
        found = [
            shards.window(*stream, (number * rows + row) % windows, available).tolist() for row in range(rows)
        ]
        return torch.tensor([(ids * -(-length // available))[:length] for ids in found])

    def finish(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _now(self) -> float:
        self.finish()
        return time.perf_counter()


def spikes(losses: Sequence[float]) -> int:
    """Steps whose loss is a spike beside the 16 before (`train.stability.is_spike`), or is not finite."""
    return sum(is_spike(loss, losses[max(0, step - SPIKE_WINDOW) : step]) for step, loss in enumerate(losses))
