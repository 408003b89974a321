"""The training loop: batches in, steps, validations, checkpoints; stopped and resumed without a trace.

    train(load_recipe("nano-v2"), Path("runs/nano-v2"), [Path("data/sample")])

A step is a pure function of (weights, optimizer, step number, data): batches and the learning rate follow from the step number, nothing
else is remembered. On a CPU, 10 steps and 10 more after a restart equal 20 steps bit for bit. Products run in bfloat16 on a GPU that has
it, weights and optimizer stay in float32; on a CPU everything is float32.
"""

import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from braingpt.errors import Failure
from braingpt.recipes import Recipe, load_recipe
from braingpt.train import checkpoint
from braingpt.train.optimizer import build_optimizer, set_learning_rate
from braingpt.train.plan import build_plan
from braingpt.train.progress import Reporter
from braingpt.train.resume import check_agreement, data_identity, run_of, starting_point
from braingpt.train.run_folder import RunFolder, locked
from braingpt.train.schedule import learning_rate
from braingpt.train.setup import autocast, autocast_dtype, compiled, denormals_flushed, open_data, pick_device
from braingpt.train.stopping import Stopped, StopRequest, stop_on_signals

MAX_SKIPPED = 20  # steps in a row without a finite gradient before the run is given up
VALIDATION_ROWS = 8  # windows at a time


@dataclass(frozen=True)
class Result:
    """How a run ended. Sizes in bytes, losses in nats a token, seconds of training without validation and saving."""

    run: str
    checkpoint: str | None
    step: int
    steps: int
    taken: int  # steps of this call
    tokens: int
    loss: float | None  # of the last step taken now
    validation: dict[str, Any] | None  # the run's last validation record
    best: dict[str, Any] | None  # {"step", "loss"} of the best validation of the whole run
    skipped: int
    seconds: float
    peak_memory_bytes: int
    interrupted: bool

    def as_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return asdict(self)


def train(
    recipe: Recipe,
    out: Path | str,
    folders: Sequence[Path | str] | None = None,
    *,
    resume: str | None = None,
    reporter: Reporter | None = None,
    device: str | None = None,
) -> Result:
    """Train `recipe` on the prepared `folders` (the recipe's by default) into the run folder `out`.

    `resume`: None for a new run, "auto" for the newest checkpoint in `out` if there is one, or a run folder or checkpoint.
    `device`: "cpu", "cuda" or None for the GPU where there is one. SIGINT and SIGTERM end the run early, with a checkpoint.
    Raises UserError for what the caller can put right, Failure when gradients stay infinite or a checkpoint is damaged.
    """
    reporter = reporter or Reporter()
    target = pick_device(device)
    with denormals_flushed(), locked(Path(out)) as run:
        start = starting_point(run.path, resume)
        if start and not folders:
            folders = load_recipe(start / "recipe.yaml").data.folders
        paths = tuple(map(Path, folders or recipe.data.folders))
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"folders": tuple(map(str, paths))})})
        if start:
            check_agreement(load_recipe(start / "recipe.yaml"), recipe, start)
        trainer = Trainer(recipe, run, paths, target, reporter)
        trainer.begin(start)
        try:
            with stop_on_signals() as stop:
                return trainer.run_to_end(stop)
        finally:
            reporter.end()


def batches_of(recipe: Recipe, shards: Any, tokenizer: Any) -> Any:
    """The `Batches` a run of `recipe` trains on. Raises UserError where its mixture and the data do not go together."""
    from braingpt.data.mixture import Batches

    config, data = recipe.train, recipe.data
    reset_at = tokenizer.eot if data.reset_at_documents else None
    return Batches(shards, "train", config.batch, config.context, config.seed, data.mixture, steps=config.steps, reset_at=reset_at)


def training_tokens(shards: Any) -> int:
    """Tokens to train on, all languages together."""
    return sum(shards.tokens("train", language) for language in shards.languages("train"))


class Trainer:
    """One run in one process: everything that changes while it trains."""

    def __init__(self, recipe: Recipe, run: RunFolder, folders: Sequence[Path], device: torch.device, reporter: Reporter) -> None:
        from braingpt.model.lm import build

        config = recipe.train
        self.recipe, self.config, self.run, self.device, self.reporter = recipe, config, run, device, reporter
        self.tokenizer, self.shards = open_data(folders, recipe)
        self.data = data_identity(folders)
        self.batches = batches_of(recipe, self.shards, self.tokenizer)
        self.dtype = autocast_dtype(config, device)
        self.model = build(recipe, seed=config.seed).to(device)
        self.forward = compiled(self.model, device) if config.compile else self.model
        self.optimizer = build_optimizer(self.model, config)
        self.step = self.tokens = self.skipped = self.skipped_in_row = self.taken = 0
        self.seconds = 0.0
        self.best: dict[str, Any] | None = None
        self.loss: float | None = None
        self.validation: dict[str, Any] | None = None
        self.saved: Path | None = None
        validation = self.shards.languages("validation")
        self.validates = any(self.shards.tokens("validation", language) > config.context for language in validation)

    def begin(self, start: Path | None) -> None:
        """Take up the checkpoint `start`, or begin anew; make the run folder ready and say what lies ahead."""
        epochs = self.batches.epochs(self.config.steps)
        plan = build_plan(self.recipe, training_tokens(self.shards), self.dtype is not None, epochs)
        if start:
            self._restore(start)
        self.run.check_space(plan.checkpoint_bytes)
        self.run.prepare(self.recipe, self.step, run_of(start) if start else None)
        for record in self.run.validations():
            self.validation = record
            self._compare(record)
        self.reporter.begin(plan.summary(), self.step, self.config.steps)
        if start:
            self.reporter.note(f"going on after step {self.step} ({start})")
        if self.dtype is not None and self.device.type == "cpu":
            self.reporter.note("bfloat16 is slow on most CPUs, up to hundreds of times; --set train.dtype=float32 avoids that")
        if self.batches.skipped:
            self.reporter.note(f"left out, being shorter than a window: {', '.join(self.batches.skipped)}")
        if not self.validates:
            self.reporter.note(f"no validation: the data hold no validation text of {self.config.context} tokens")

    def _restore(self, start: Path) -> None:
        state = checkpoint.read_state(start)
        checkpoint.verify(start, state)
        checkpoint.load_weights(self.model, start)
        checkpoint.load_training(self.model, self.optimizer, start)
        self.step, self.tokens, self.best = state["step"], state["tokens"], state["best"]
        self.skipped, self.skipped_in_row, self.seconds = state["skipped"], state["skipped_in_row"], state["seconds"]
        if start.resolve().parent == self.run.checkpoint(0).resolve().parent:
            self.saved = start
        if state["data"] != self.data:
            self.reporter.note("the data differ from those the run began with; going on with the new ones")

    def run_to_end(self, stop: StopRequest) -> Result:
        """All steps that are left, unless a stop is asked for."""
        try:
            if self._due(self.config.eval_every) and (self.validation or {}).get("step") != self.step:
                self._validate(stop)  # the run was stopped between saving and validating
            while self.step < self.config.steps:
                if stop.asked:
                    raise Stopped
                self._take_step()
                if self._due(self.config.save_every):
                    self._save()
                if self._due(self.config.eval_every):
                    self._validate(stop)
        except Stopped:
            pass
        self._save()
        return self._result(interrupted=self.step < self.config.steps)

    def _due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is due after this one."""
        return self.step > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def _take_step(self) -> None:
        began = time.perf_counter()
        loss, norm = self.update()
        finite = math.isfinite(norm)
        self.skipped += not finite
        self.skipped_in_row = 0 if finite else self.skipped_in_row + 1
        if self.skipped_in_row > MAX_SKIPPED:
            last = f"; the last checkpoint is {self.saved}" if self.saved else ""
            raise Failure(f"no finite gradient in {self.skipped_in_row} steps up to step {self.step + 1}{last}; try a lower train.lr")
        seconds = time.perf_counter() - began
        tokens = self.config.batch * self.config.context
        self.step, self.tokens, self.seconds, self.taken = self.step + 1, self.tokens + tokens, self.seconds + seconds, self.taken + 1
        self.loss = loss if math.isfinite(loss) else None
        rate = learning_rate(self.step - 1, self.config)
        self._log(
            "train", self.reporter.step, loss=self.loss, lr=rate, grad_norm=norm if finite else None, tokens=self.tokens,
            tokens_per_second=tokens / seconds, seconds=self.seconds, **({} if finite else {"skipped": True}),
        )  # fmt: skip

    def update(self) -> tuple[float, float]:
        """Learn from this step's batch: (loss, gradient norm before clipping). A norm that is not finite changes nothing."""
        set_learning_rate(self.optimizer, learning_rate(self.step, self.config))
        loss, norm = self._gradients()
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if math.isfinite(norm):
            self.model.after_step()
        return loss, norm

    def _gradients(self) -> tuple[float, float]:
        """Fill the gradients from the step's batch, piece by piece; (mean loss, norm before clipping)."""
        batch = self.batches.batch(self.step)
        micro = self.config.micro_batch or self.config.batch
        counted = (batch.targets_BL != -100).sum().clamp(min=1)
        self.model.train()
        total = torch.zeros((), device=self.device)
        ids, targets = batch.ids_BL.split(micro), batch.targets_BL.split(micro)
        segments = [None] * len(ids) if batch.segments_BL is None else batch.segments_BL.split(micro)
        for ids_BL, targets_BL, segments_BL in zip(ids, targets, segments, strict=True):
            share = float((targets_BL != -100).sum() / counted)
            where = {} if segments_BL is None else {"segments_BL": self._move(segments_BL)}
            with autocast(self.device, self.dtype):
                loss = self.forward(self._move(ids_BL), self._move(targets_BL), **where).loss
            (loss * share).backward()
            total += loss.detach() * share
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        return float(total), float(norm)

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device) if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    def _validate(self, stop: StopRequest) -> None:
        """Score the validation text; a new best is saved even between two regular saves. A stop drops the validation."""
        from braingpt.evaluation.perplexity import evaluate

        if not self.validates:
            return
        with stop.droppable(), autocast(self.device, self.dtype):
            scores = evaluate(
                self.model, self.shards, self.tokenizer, context=self.config.context, windows=self.config.eval_windows,
                rows=min(VALIDATION_ROWS, self.config.micro_batch or self.config.batch), device=self.device,
                reset_at_documents=self.recipe.data.reset_at_documents,
            ).as_dict()  # fmt: skip
        self.validation = self._log(
            "validation", self.reporter.validation,
            loss=scores["loss"], bits_per_byte=scores["bits_per_byte"], by_language=scores["by_language"],
        )  # fmt: skip
        if self._compare(self.validation):
            self._save()
            self.run.settle(self.best)

    def _compare(self, record: dict[str, Any]) -> bool:
        """Whether a validation is the best so far; it is remembered then."""
        better = record["loss"] is not None and (self.best is None or record["loss"] < self.best["loss"])
        if better:
            self.best = {"step": record["step"], "loss": record["loss"]}
        return better

    def _log(self, kind: str, report: Any, **figures: Any) -> dict[str, Any]:
        record = {"kind": kind, "step": self.step, **figures}
        self.run.log(record)
        report(record)
        return record

    def _save(self) -> None:
        """A checkpoint of this step, unless there is one."""
        folder = self.run.checkpoint(self.step)
        if self.step == 0 or self.saved == folder:
            return
        extra = {
            "best": self.best, "skipped": self.skipped, "skipped_in_row": self.skipped_in_row, "seconds": self.seconds, "data": self.data,
        }  # fmt: skip
        self.saved = checkpoint.save(
            folder, model=self.model, tokenizer=self.tokenizer, recipe=self.recipe, step=self.step, tokens=self.tokens,
            optimizer=self.optimizer, extra=extra,
        )  # fmt: skip
        self.run.settle(self.best)

    def _result(self, interrupted: bool) -> Result:
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Result(
            run=str(self.run.path), checkpoint=str(self.saved) if self.saved else None,
            step=self.step, steps=self.config.steps, taken=self.taken, tokens=self.tokens,
            loss=self.loss, validation=self.validation, best=self.best, skipped=self.skipped,
            seconds=self.seconds, peak_memory_bytes=peak, interrupted=interrupted,
        )  # fmt: skip
