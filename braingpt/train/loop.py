"""The training loop: batches in, steps, validations, checkpoints; stopped and resumed without a trace.

    train(load_recipe("nano-v2"), Path("runs/nano-v2"), [Path("data/sample")])

A step is a pure function of (weights, optimizer, guard, step number, data): batches and the learning rate
follow from the step number, the guard's windows are saved. On a CPU, 10 steps and 10 more after a restart
equal 20 steps bit for bit. Products run in bfloat16 on a GPU that has it, weights and optimizer stay in
float32; on a CPU everything is float32. `Trainer.update` is the whole step.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from braingpt.checkpoint import checkpoint
from braingpt.device import threads
from braingpt.device.cpu import denormals_flushed
from braingpt.device.device import autocast_dtype, matmul_flops, pick_device
from braingpt.distributed.sharded_tensors import local_rows
from braingpt.distributed.world import World, join_world
from braingpt.errors import Failure, UserError
from braingpt.model.lm import LanguageModel
from braingpt.model.step_stats import step_stats
from braingpt.optim.optimizer import set_learning_rate
from braingpt.optim.schedule import layers_at, learning_rate
from braingpt.recipes import Recipe
from braingpt.train.batches import BatchLoader, open_data, training_tokens
from braingpt.train.growth import build_learner, fresh_model, grow_if_due, stage_of, stage_recipe
from braingpt.train.micro_batches import (
    SMALLER,
    accumulate_with_oom_retry,
    backward,
    restore_counters,
    snapshot_counters,
)
from braingpt.train.plan.plan import plan_run, shortfall
from braingpt.train.resume import (
    data_identity,
    find_start_checkpoint,
    of_this_run,
    restore_from,
    run_of,
    state_of,
)
from braingpt.train.run.checkpoint_writer import Saver, retry_while_disk_full
from braingpt.train.run.folder import RunFolder, opened, pieces_limit
from braingpt.train.run.loggers import Loggers
from braingpt.train.run.progress import Reporter, first_words
from braingpt.train.run.result import Result, peak_memory
from braingpt.train.run.signals import Stopped, StopRequest, stop_on_signals
from braingpt.train.stability import Guard, Lost
from braingpt.train.validation import validate

# floating-point operations of a run below which the device's speed is not measured
SHORT = 1e12


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

    `resume`: None for a new run, "auto" for the newest undamaged checkpoint in `out` if there is one, or a
        run folder or checkpoint.
    `device`: "cpu", "cuda" or None for the GPU where there is one. Started by torchrun, each process trains
        on its rows of every step. SIGINT, SIGTERM and SIGHUP end the run early, with a checkpoint. Raises
        UserError for what the caller can put right, Failure when gradients stay infinite or a checkpoint is
        damaged.
    """
    reporter = reporter or Reporter()
    with (
        denormals_flushed(),
        threads.restore_thread_count(),
        join_world(pick_device(device), recipe.train.parallel, recipe.train.offload) as (world, target),
        opened(Path(out), world) as run,
    ):
        start = world.run_on_rank0(lambda: find_start_checkpoint(run.path, resume, reporter.note))
        recipe = world.run_on_all(lambda: of_this_run(recipe, folders, start))
        trainer = Trainer(
            recipe, run, [Path(folder) for folder in recipe.data.folders], target, reporter, world
        )
        trainer.begin(start)
        try:
            with stop_on_signals() as stop:
                return trainer.run_to_end(stop)
        finally:
            reporter.end()
            if trainer.loggers:
                trainer.loggers.close()


class Trainer:
    """One run, or one process's part of it: everything that changes while it trains."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        folders: Sequence[Path],
        device: torch.device,
        reporter: Reporter,
        world: World | None = None,
        model: torch.nn.Module | None = None,
    ) -> None:
        """`model`: trained in place of the recipe's, to compare it; it behaves as a `LanguageModel`."""
        config = recipe.train
        self.recipe, self.config, self.run, self.device, self.reporter = recipe, config, run, device, reporter
        self.world = world or World()
        if config.batch % self.world.size:
            raise UserError(
                f"train.batch ({config.batch}) must be a multiple of the number of processes ({self.world.size})"
            )
        self.world.run_on_all(lambda: self._open(folders))
        # of each process
        self.rows = config.batch // self.world.size
        self.dtype = autocast_dtype(config.dtype, device)
        build_learner(self, model or fresh_model(recipe, layers_at(0, recipe)))
        # layers before this step, where it began with growing
        self.grown_from: int | None = None
        self.guard = Guard(config.skip_sigma, device)
        self.micro = min(config.micro_batch or config.batch, self.rows)
        self.loggers: Loggers | None = None
        # of this device's matrix products, where a run is worth measuring them
        self.peak_flops: float | None = None
        self.saver, self.stop = Saver(config.async_save and not self.world.sharded), StopRequest()
        # whether all processes have found room for a step of this length
        self.rehearsed = self.world.size == 1 or self.world.sharded
        self.step = self.tokens = self.taken = self.rewinds = 0
        self.seconds, self.agreed_to_stop = 0.0, False
        # on a CPU; None until they are chosen
        self.threads: int | None = None
        self.best: dict[str, Any] | None = None
        self.loss: float | None = None
        # what the last step left out
        self.inside: dict[str, float] = {}
        self.validation: dict[str, Any] | None = None
        self.saved: Path | None = None
        shards = self.shards
        self.validates = any(
            shards.tokens("validation", name) > config.context for name in shards.languages("validation")
        )

    def _open(self, folders: Sequence[Path]) -> None:
        """The data, where they suit the recipe."""
        self.tokenizer, self.shards = open_data(folders, self.recipe)
        self.data = data_identity(folders)
        self.feed = BatchLoader(
            self.recipe, self.shards, self.tokenizer, self.device, self.world.rank, self.world.size
        )

    def begin(self, start: Path | None) -> None:
        """Take up the checkpoint `start`, or begin anew; make the run folder ready and say what lies ahead."""
        if start:
            restore_from(self, start)
        tokens, epochs = training_tokens(self.shards), self.feed.batches.epochs(self.config.steps)
        # bytes of the model that lie on host and device already
        resting = {"cpu": 0, self.device.type: 0}
        for tensor in map(local_rows, [*self.model.parameters(), *self.model.buffers()]):
            resting[tensor.device.type] += tensor.numel() * tensor.element_size()
        micro, here = self.micro if start else None, resting[self.device.type]
        limit = self.world.run_on_rank0(lambda: pieces_limit(self.run.path))
        plan, room = plan_run(
            self.recipe, self.device, tokens, epochs, micro, held=here, processes=self.world.size, most=limit
        )
        self.micro = min(self.world.all_gather(plan.micro_batch))
        if short := shortfall(plan, room, self.device, resting["cpu"]):
            self.reporter.note(f"it may not fit: {short}; {SMALLER}")
        self.world.run_on_rank0(lambda: self._make_ready(plan.checkpoint_bytes, start))
        self._settle_threads(plan.training_flops > SHORT)
        self.peak_flops = matmul_flops(self.device, self.dtype) if plan.training_flops > SHORT else None
        self._recall()
        # a kill may have come between a validation and this
        self.world.run_on_rank0(lambda: self.run.settle(self.best, self.config.keep))
        self.reporter.begin(plan.summary(), self.step, self.config.steps)
        for words in first_words(self, start, limit):
            self.reporter.note(words)

    def _make_ready(self, checkpoint_bytes: int, start: Path | None) -> None:
        """The run folder and the loggers; the first process's matter."""
        self.run.check_space(checkpoint_bytes)
        # one that is not installed is found before the folder is a run's
        if self.config.loggers:
            self.loggers = Loggers(self.config.loggers, self.run.path, self.recipe)
        self.run.prepare(self.recipe, self.step, run_of(start) if start else None)

    def _settle_threads(self, worth_it: bool) -> None:
        """Compute with as many threads as this run did before, or does fastest. Trying leaves no trace."""
        self.threads = threads.known_thread_count(self.device, self.threads)
        if self.threads is None and worth_it:
            before, drawn, piece = (
                snapshot_counters(self.model),
                torch.get_rng_state(),
                self.feed.micro_batches(self.step, self.micro)[0],
            )
            self.model.train()
            self.threads = threads.faster_thread_count(lambda: backward(self, piece), torch.get_num_threads())
            self.optimizer.zero_grad(set_to_none=True)
            restore_counters(before)
            torch.set_rng_state(drawn)
        if self.threads:
            torch.set_num_threads(self.threads)

    def run_to_end(self, stop: StopRequest) -> Result:
        """All steps that are left, unless a stop is asked for."""
        self.stop = stop
        try:
            if self._due(self.config.eval_every) and (self.validation or {}).get("step") != self.step:
                # the run was stopped between saving and validating
                self._validate()
            while self.step < self.config.steps:
                if stop.asked if self.world.size == 1 else self.agreed_to_stop:
                    raise Stopped
                try:
                    self._take_step()
                except Lost as lost:
                    if self._rewound(lost):
                        continue
                if self._due(self.config.save_every):
                    self._save()
                if self._due(self.config.eval_every):
                    self._validate()
        except Stopped:
            pass
        finally:
            self.saver.finish()
        self._save()
        self.saver.finish()
        return Result.of(self)

    def _due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is due after this one."""
        return self.step > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def rate(self) -> float:
        """The learning rate of this step."""
        return learning_rate(self.step, self.config)

    def update(self) -> tuple[float, float, bool]:
        """Learn from this step's batch: (loss, gradient norm before clipping, whether it was left out).

        What is left out changes nothing.
        """
        self.grown_from = grow_if_due(self)
        set_learning_rate(self.optimizer, self.rate())
        if self.grown_from or self.feed.changes_at(self.step):
            self.guard.new_level()
            self.rehearsed = self.world.size == 1 or self.world.sharded
        before = snapshot_counters(self.model)
        loss, norm = accumulate_with_oom_retry(self, before)
        loss, asked = self.world.all_reduce(torch.stack((loss, loss.new_tensor(float(self.stop.asked)))))
        self.world.all_reduce_changes(before)
        skip = self.guard.judge(norm)
        self.optimizer.step(skip)
        self.optimizer.zero_grad(set_to_none=True)
        # while the device computes
        self.feed.prepare(self.step + 1, self.micro)
        seen = step_stats(self.model) if isinstance(self.model, LanguageModel) else {}
        # The only wait for the device.
        loss, norm, skipped, asked, *shares = torch.stack((loss, norm, skip, asked, *seen.values())).tolist()
        self.inside = {name: share for name, share in zip(seen, shares, strict=True) if math.isfinite(share)}
        self.agreed_to_stop = asked > 0
        if skipped:
            restore_counters(before)
        else:
            self.model.after_step()
            if self.average:
                self.average.update()
        return loss, norm, bool(skipped)

    def _take_step(self) -> None:
        """One step, counted and written down. Raises `Lost` when the run does not recover by itself."""
        began, rate = time.perf_counter(), self.rate()
        loss, norm, skipped = self.update()
        seconds = time.perf_counter() - began
        remarks = self.guard.note(loss, norm, skipped)
        tokens = self.config.batch * self.config.context
        self.step, self.tokens, self.seconds, self.taken = (
            self.step + 1,
            self.tokens + tokens,
            self.seconds + seconds,
            self.taken + 1,
        )
        self.loss = loss if math.isfinite(loss) else None
        finite_norm = norm if math.isfinite(norm) else None
        if self.grown_from:
            growth = {
                "layers_before": self.grown_from,
                "layers": len(self.model.blocks),
                "stages": len(self.recipe.growth_stages),
            }
            self._log(
                "growth", self.reporter.growth, stage=stage_of(self.recipe, len(self.model.blocks)), **growth
            )
        self._log(
            "train", self.reporter.step, loss=self.loss, lr=rate, grad_norm=finite_norm,
            tokens=self.tokens, tokens_per_second=tokens / seconds, seconds=self.seconds, data_seconds=self.feed.seconds,
            memory_bytes=peak_memory(self.device), inside=self.inside, **self._of_this_model(seconds, skipped), **remarks,
        )  # fmt: skip
        if remarks:
            reason = remarks.get("skipped") or "loss spike"
            self._log(
                "incident", self.reporter.incident, reason=reason, windows=self.feed.windows(self.step - 1)
            )
        self.guard.check(self.step)

    def _of_this_model(self, seconds: float, skipped: bool) -> dict[str, Any]:
        """Figures of a step that only some devices and models have."""
        figures: dict[str, Any] = {}
        if self.peak_flops:
            figures["share_of_peak"] = (
                self.flops_per_token * self.config.batch * self.config.context / seconds / self.peak_flops
            )
        if self.config.growth:
            figures |= {
                "stage": stage_of(self.recipe, len(self.model.blocks)),
                "layers": len(self.model.blocks),
            }
        if not skipped and (flips := self.model.flip_rate()) is not None:
            figures["flip_rate"] = flips
        return figures

    def _rewound(self, lost: Lost) -> bool:
        """Go back to the last good checkpoint and pass over the data that led astray; False where a high loss
        is accepted instead.

        Raises Failure where neither is a help.
        """
        self.saver.finish()
        # until the first process's last checkpoint is there
        self.world.barrier()
        good = self.run.last_good()
        if good is None or self.rewinds == self.config.rewinds:
            if not self.guard.skipped_in_row:
                self.reporter.note(f"{lost}; no going back is left, so this is taken for its new level")
                self.guard.new_level()
                return False
            last = f"; the last good checkpoint is {good}" if good else ""
            raise self.world.agree_on_error(Failure(f"{lost}{last}; try a lower train.lr"))
        astray, offset, rewinds = self.step, self.feed.offset, self.rewinds + 1
        checkpoint.verify(good)
        restore_from(self, good)
        self.world.barrier()
        self.run.drop_after(self.step)
        self.feed.offset, self.rewinds = offset + astray - self.step, rewinds
        self._recall()
        self._log("rewind", self.reporter.rewind, reason=str(lost), astray=astray, offset=self.feed.offset)
        return True

    def _validate(self) -> None:
        """Score the validation text; a new best is saved even between two regular saves.

        A stop drops the validation.
        """
        # sharded, all score the same text together
        if not self.validates or not (self.world.is_rank0 or self.world.sharded):
            return
        # of several, the others wait for its end
        with self.stop.droppable() if self.world.size == 1 else nullcontext():
            scores = validate(self)
        self.validation = self._log("validation", self.reporter.validation, **scores)
        if self._compare(self.validation):
            self._save()
            self.saver.finish()
            self.run.settle(self.best, self.config.keep)

    def _recall(self) -> None:
        """Take up the validations the run folder holds: one may be younger than its checkpoint."""
        self.validation = None
        for record in self.world.run_on_rank0(self.run.validations):
            self.validation = record
            self._compare(record)

    def _compare(self, record: dict[str, Any]) -> bool:
        """Whether a validation is the best so far; it is remembered then."""
        better = record["loss"] is not None and (self.best is None or record["loss"] < self.best["loss"])
        if better:
            self.best = {"step": record["step"], "loss": record["loss"]}
        return better

    def _log(self, kind: str, report: Callable[[dict[str, Any]], None], **figures: Any) -> dict[str, Any]:
        record = {"kind": kind, "step": self.step, **figures}
        retry_while_disk_full(lambda: self.run.log(record), self.reporter.note, self.stop)
        if self.loggers:
            self.loggers.log(record)
        report(record)
        return record

    def _save(self) -> None:
        """A checkpoint of this step, unless there is one."""
        folder, best = self.run.checkpoint(self.step), self.best
        # together; else the first alone
        writers = self.world if self.world.sharded else None
        if self.step == 0 or self.saved == folder:
            return
        tensors = checkpoint.contents(self.model, self.optimizer, self.average, copied=self.config.async_save)
        extra = state_of(self)
        recipe, final = stage_recipe(self.recipe, len(self.model.blocks)), self.recipe
        about = {
            "recipe": recipe,
            "final": None if recipe is final else final,
            "step": self.step,
            "tokens": self.tokens,
            "extra": extra,
        }

        def write() -> None:
            checkpoint.write(folder, tensors, tokenizer=self.tokenizer, **about, world=writers)
            self.run.settle(best, self.config.keep)

        if self.world.is_rank0 or writers:
            self.saver.submit(lambda: retry_while_disk_full(write, self.reporter.note, self.stop, writers))
        self.saved = folder
