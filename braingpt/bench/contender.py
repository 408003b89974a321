"""One architecture in the ring: trained by the real trainer on real shards, then made to write.

The trainer, its batches and its optimizer are those of `braingpt train`; the same seed gives every contender the same batches.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from braingpt.errors import UserError
from braingpt.inference.engine import Decoder, draw
from braingpt.inference.sampling import Sampler, Sampling
from braingpt.recipes import Recipe, load_recipe
from braingpt.train.guard import SPIKE_WINDOW, is_spike
from braingpt.train.loop import Trainer
from braingpt.train.progress import Reporter
from braingpt.train.run_folder import RunFolder


def bench_recipe(size: str, architecture: str, steps: int, context: int, batch: int, folders: Sequence[str] = ()) -> Recipe:
    """The shipped `{size}-{architecture}` recipe, its schedule squeezed into `steps`. UserError for a size or architecture there is not."""
    name = f"{size}-{architecture}"
    warmup = min(load_recipe(name).train.warmup, steps // 10)
    settings = {"steps": steps, "context": context, "batch": batch, "micro_batch": "null", "warmup": warmup}
    overrides = [f"train.{key}={value}" for key, value in settings.items()]
    return load_recipe(name, overrides + ([f"data.folders=[{', '.join(map(_quoted, folders))}]"] if folders else []))


def _quoted(folder: str) -> str:
    return "'" + folder.replace("'", "''") + "'"


class Contender:
    """A model in training. `scratch` is a folder for the trainer's metrics; the caller removes it."""

    def __init__(self, recipe: Recipe, scratch: Path, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        scratch.mkdir(parents=True, exist_ok=True)
        self.trainer = Trainer(recipe, RunFolder(scratch), [Path(folder) for folder in recipe.data.folders], device, Reporter())
        self.losses: list[float] = []

    @property
    def model(self) -> torch.nn.Module:
        """The model as trained so far."""
        return self.trainer.model

    def train(self, steps: int) -> float:
        """Take `steps` optimizer steps; tokens per second."""
        self._finish()
        start = time.perf_counter()
        for _ in range(steps):
            self.trainer._take_step()
            self.losses.append(math.nan if self.trainer.loss is None else self.trainer.loss)
        self._finish()
        return steps * self.recipe.train.batch * self.recipe.train.context / (time.perf_counter() - start)

    def write(self, prompt: list[int], new_tokens: int) -> tuple[float, float, int]:
        """Read `prompt` and write `new_tokens` (2 or more) greedily, one row.

        Returns seconds to the first token, tokens per second after it, and the bytes of state held at the end.
        """
        self._finish()
        start = time.perf_counter()
        decoder = Decoder(self.model)
        decoder.read(torch.tensor([prompt]))
        tokens = draw(decoder, Sampler(Sampling(temperature=0)), new_tokens, ())
        next(tokens)
        first = time.perf_counter()
        written = sum(1 for _ in tokens)
        self._finish()
        return first - start, written / (time.perf_counter() - first), decoder.state.bytes()

    def validate(self, windows: int, rows: int = 8) -> dict[str, Any]:
        """Scores over `windows` validation windows a language, in the precision of training."""
        from braingpt.evaluation.perplexity import evaluate
        from braingpt.train.setup import autocast

        trainer = self.trainer
        with autocast(self.device, trainer.dtype):
            scores = evaluate(
                self.model,
                trainer.shards,
                trainer.tokenizer,
                context=self.recipe.train.context,
                windows=windows,
                rows=rows,
                device=self.device,
                reset_at_documents=self.recipe.data.reset_at_documents,
            )
        return scores.as_dict()

    def prompt(self, length: int, number: int) -> list[int]:
        """Real tokens to continue: window `number` of the validation text, the same for every contender."""
        shards = self.trainer.shards
        for split in ("validation", "train"):
            for language in shards.languages(split):
                if windows := shards.windows(split, language, length):
                    return shards.window(split, language, number % windows, length).tolist()
        raise UserError(f"{', '.join(self.recipe.data.folders)} hold no {length} tokens in a row for a prompt; --prompt-tokens takes fewer")

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def spikes(losses: Sequence[float]) -> int:
    """Steps whose loss jumps out of the 16 before it (`braingpt.train.guard.is_spike`), or is not finite."""
    return sum(is_spike(loss, losses[max(0, step - SPIKE_WINDOW) : step]) for step, loss in enumerate(losses))
