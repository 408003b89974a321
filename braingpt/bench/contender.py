"""One model in the ring: trained by the real trainer on real shards, scored, made to write.

The trainer, its batches and its optimizer are those of `braingpt train`; the same seed gives every contender
the same batches. A peer from another library (`peers.py`) takes the same way: only the model is another one.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from braingpt.device.device import autocast
from braingpt.errors import one_line
from braingpt.inference.engine import Decoder
from braingpt.optim.schedule import learning_rate
from braingpt.recipes import Recipe, load_recipe
from braingpt.train.loop import Trainer
from braingpt.train.micro_batches import gradients
from braingpt.train.run.folder import RunFolder
from braingpt.train.run.progress import Reporter
from braingpt.train.stability import SPIKE_WINDOW, is_spike

# resolution of a learning rate that follows the clock
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
    """The shipped `{size}-{name}` recipe with `changes` (`train.lr=1e-3`), its schedule squeezed into `steps`.

    UserError for one there is not.
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
    """Keeps every step's record."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def step(self, record: dict[str, Any]) -> None:
        self.steps.append(record)


class _Trainer(Trainer):
    """A trainer whose learning rate may follow the clock: with `limit` seconds the schedule's place is the
    share of them that has passed.
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
    """A model in training. `scratch` is a folder for the trainer's metrics; the caller removes it.

    `model`: a peer's, in place of the recipe's.
    """

    def __init__(
        self, recipe: Recipe, scratch: Path, device: torch.device, model: torch.nn.Module | None = None
    ) -> None:
        self.recipe, self.device = recipe, device
        scratch.mkdir(parents=True, exist_ok=True)
        self.recorder = _Recorder()
        # why it trains no further
        self.lost: str | None = None
        folders = [Path(folder) for folder in recipe.data.folders]
        self.trainer = _Trainer(recipe, RunFolder(scratch), folders, device, self.recorder, model=model)

    @property
    def model(self) -> torch.nn.Module:
        """The model as trained so far."""
        return self.trainer.model

    @property
    def losses(self) -> list[float]:
        """Of every step so far; NaN where it was not finite."""
        return [math.nan if record["loss"] is None else record["loss"] for record in self.recorder.steps]

    def train(self, steps: int) -> float | None:
        """Take `steps` optimizer steps; tokens per second, or None where the run is lost."""
        self.finish()
        start = time.perf_counter()
        for _ in range(steps):
            if not self._step():
                return None
        self.finish()
        return steps * self.recipe.train.batch * self.recipe.train.context / (time.perf_counter() - start)

    def train_until(self, seconds: float, limit: float) -> None:
        """Take steps until `seconds` of its own clock have passed, the learning rate's schedule laid over
        `limit` seconds.
        """
        self.trainer.limit = limit
        while self.trainer.seconds < seconds and self._step():
            pass
        self.finish()

    def _step(self) -> bool:
        """One step; False where the run is lost, or breaks down: a run of its own would go back to a
        checkpoint, here that ends it.
        """
        if self.lost is None:
            try:
                self.trainer._take_step()
            except RuntimeError as error:
                # Lost is one
                self.lost = one_line(error)
        return self.lost is None

    def warm(self) -> None:
        """Forward and backward once, for what is compiled and allocated the first time; the model stays as it
        was.
        """
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        gradients(self.trainer)
        self.trainer.optimizer.zero_grad(set_to_none=True)
        for buffer, value in before:
            buffer.copy_(value)
        self.finish()

    def phases(self) -> dict[str, float]:
        """Seconds of one step's forward passes and of its backward passes over all rows, and then of the
        whole step with the optimizer, which is taken.
        """
        trainer = self.trainer
        trainer.model.train()
        spent = {"forward": 0.0, "backward": 0.0}
        for piece in trainer.feed.micro_batches(trainer.step, trainer.micro):
            where = {} if piece.segments_BL is None else {"segments_BL": piece.segments_BL}
            began = self._now()
            with autocast(self.device, trainer.dtype):
                loss = trainer.forward(piece.ids_BL, piece.targets_BL, **where).loss
            between = self._now()
            (loss * piece.target_fraction).backward()
            spent["forward"] += between - began
            spent["backward"] += self._now() - between
        trainer.optimizer.zero_grad(set_to_none=True)
        began = self._now()
        trainer.update()
        spent["step"] = self._now() - began
        trainer.step += 1
        return spent

    def write(self, prompt_BL: torch.Tensor, new_tokens: int) -> tuple[float, float, int]:
        """Read prompts (B, L) of equal length and write `new_tokens` (2 or more) greedily after each.

        Returns seconds to the first token, tokens per second after it, all rows together, and the bytes of
        state held at the end.
        """
        start = self._now()
        decoder = Decoder(self.model, len(prompt_BL))
        decoder.read(prompt_BL)
        ids_B = self._greedy(decoder)
        first = self._now()
        for _ in range(new_tokens - 1):
            decoder.step(ids_B)
            ids_B = self._greedy(decoder)
        seconds = self._now() - first
        return first - start, len(prompt_BL) * (new_tokens - 1) / seconds, decoder.state.bytes()

    @staticmethod
    def _greedy(decoder: Decoder) -> torch.Tensor:
        """The likeliest tokens, looked at as one that waits for the end of a text has to."""
        with torch.inference_mode():
            ids_B = decoder.logits_BV.argmax(-1)
            ids_B.tolist()
        return ids_B

    def validate(self, windows: int, rows: int = 8) -> dict[str, Any]:
        """Scores over `windows` validation windows a language, in the precision of training."""
        from braingpt.evaluation.perplexity import evaluate

        trainer, recipe = self.trainer, self.recipe
        with autocast(self.device, trainer.dtype):
            scores = evaluate(
                self.model, trainer.shards, trainer.tokenizer, context=recipe.train.context, windows=windows, rows=rows,
                device=self.device, reset_at_documents=recipe.data.reset_at_documents,
            )  # fmt: skip
        return scores.as_dict()

    def prompts(self, rows: int, length: int, number: int = 0) -> torch.Tensor:
        """(B, L >= 2) real tokens to continue, the same for every contender: validation text where there is
        so much of it, else text trained on; the longest there is, repeated, where neither holds `length`
        tokens.
        """
        shards = self.trainer.shards
        streams = [
            (split, language) for split in ("validation", "train") for language in shards.languages(split)
        ]
        whole = next((stream for stream in streams if shards.windows(*stream, length)), None)
        stream = whole or max(streams, key=lambda stream: shards.tokens(*stream))
        most = min(length, shards.tokens(*stream))
        windows = shards.windows(*stream, most)
        found = [
            shards.window(*stream, (number * rows + row) % windows, most).tolist() for row in range(rows)
        ]
        return torch.tensor([(ids * -(-length // most))[:length] for ids in found])

    def finish(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _now(self) -> float:
        self.finish()
        return time.perf_counter()


def spikes(losses: Sequence[float]) -> int:
    """Steps whose loss jumps out of the 16 before it (`braingpt.train.stability.is_spike`), or is not finite."""
    return sum(is_spike(loss, losses[max(0, step - SPIKE_WINDOW) : step]) for step, loss in enumerate(losses))
