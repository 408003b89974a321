"""The training loop: batches in; steps, validations and checkpoints out. A run that stops and continues
equals one that never stopped.

    train(load_recipe("nano-v2"), Path("runs/nano-v2"), [Path("data/sample")])

A step is a pure function of weights, optimizer, guard, step number and data. Batches and learning rate follow
from the step number, and a checkpoint holds the guard's window. On a CPU, 10 steps and 10 more after a
restart equal 20 steps bit for bit. Products run in bfloat16 on a GPU that has it; weights and optimizer stay
in float32. On a CPU everything is float32. `Trainer.update` is the whole step.
"""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from braingpt.data.shards.reader import ShardSet
from braingpt.device import threads
from braingpt.device.cpu import denormals_flushed
from braingpt.device.device import autocast_dtype, pick_device
from braingpt.distributed.world import World, join_world
from braingpt.errors import Failure, UserError
from braingpt.model.lm import LanguageModel
from braingpt.model.step_stats import step_stats
from braingpt.optim.optimizer import set_learning_rate
from braingpt.optim.schedule import layers_at, learning_rate
from braingpt.recipes import Recipe, TrainConfig
from braingpt.tokenizer import Tokenizer
from braingpt.train.agreement import of_this_run
from braingpt.train.batches import BatchLoader, open_run_data
from braingpt.train.classes import settle_classes
from braingpt.train.growth import grow_if_due
from braingpt.train.learner import Learner, Placement, build_learner, fresh_model
from braingpt.train.micro_batches import (
    MicroBatching,
    accumulate_with_oom_retry,
    restore_counters,
    snapshot_counters,
)
from braingpt.train.plan.limits import fitting
from braingpt.train.preflight import make_ready, opening_notes, plan_start, settle_speed
from braingpt.train.records import log_step
from braingpt.train.resume import checkpoint_writer, find_start_checkpoint, restore_trainer
from braingpt.train.run.checkpoint_writer import Saver, retry_while_disk_full
from braingpt.train.run.folder import RunFolder, micro_batch_limit, opened
from braingpt.train.run.progress import Reporter
from braingpt.train.run.result import Result
from braingpt.train.run.run_log import RunLog
from braingpt.train.run.signals import Stopped, StopRequest, stop_on_signals
from braingpt.train.stability import Guard, Lost
from braingpt.train.validation import Validator


def train(
    recipe: Recipe,
    out: Path | str,
    folders: Sequence[Path | str] | None = None,
    *,
    resume: str | None = None,
    reporter: Reporter | None = None,
    device: str | None = None,
) -> Result:
    """Train a model; SIGINT, SIGTERM and SIGHUP end the run early, with a checkpoint.

    Started by torchrun, each process trains on its rows of every step.

    Args:
        recipe: The recipe of the run.
        out: The run folder.
        folders: Prepared folders to train on; the recipe's by default.
        resume: None for a new run, "auto" for the newest undamaged checkpoint in `out` if there is one, or a
            run folder or checkpoint.
        reporter: Shows progress; by default nothing is shown.
        device: "cpu", "cuda", or None for the GPU where there is one.

    Returns:
        How the run ended.

    Raises:
        UserError: The caller can correct something: recipe, data, folders or device.
        Failure: The loss does not recover, memory does not suffice, or a checkpoint is damaged.
    """
    reporter = reporter or Reporter()
    with (
        denormals_flushed(),
        threads.restore_thread_count(),
        join_world(pick_device(device), recipe.train.parallel, recipe.train.offload) as (world, target),
        opened(Path(out), world) as run,
    ):
        start = world.run_on_rank0(lambda: find_start_checkpoint(run.path, resume, reporter.note))
        recipe = world.run_on_all(
            lambda: fitting(of_this_run(recipe, folders, start, run.path), target, world.size)
        )
        trainer = Trainer(recipe, run, list(map(Path, recipe.data.folders)), target, reporter, world)
        trainer.begin(start)
        try:
            with stop_on_signals(trainer.stop):
                return trainer.run_to_end()
        finally:
            trainer.log.close()


class Trainer:
    """A run on this process: everything that changes during training."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        folders: Sequence[Path],
        device: torch.device,
        reporter: Reporter,
        world: World | None = None,
        model: LanguageModel | None = None,
    ) -> None:
        """Open the data and build the learner.

        Args:
            recipe: The recipe of the run.
            run: The run folder.
            folders: Prepared folders.
            device: Where to train.
            reporter: Shows progress.
            world: The processes of the run; this one alone by default.
            model: Trained instead of the recipe's, to compare it; it behaves as a `LanguageModel`.

        Raises:
            UserError: The batch does not divide among the processes, or the data do not suit the recipe.
        """
        world, config = world or World(), recipe.train
        if config.batch % world.size:
            raise UserError(
                f"train.batch ({config.batch}) must be a multiple of the number of processes ({world.size})"
            )
        self.recipe: Recipe = recipe
        self.config: TrainConfig = config
        self.run: RunFolder = run
        self.reporter: Reporter = reporter
        self.world: World = world
        self.placement: Placement = Placement(device, autocast_dtype(config.dtype, device), world)
        # The data.
        data = world.run_on_all(lambda: open_run_data(recipe, folders, device, world))
        self.tokenizer: Tokenizer = data.tokenizer
        self.shards: ShardSet = data.shards
        self.loader: BatchLoader = data.loader
        self.data_identity: str = data.identity
        self.validator: Validator = Validator(
            self.shards, self.tokenizer, recipe, self.placement, data.validation
        )
        # The model and its training.
        model = model or fresh_model(recipe, layers_at(0, recipe))
        self.learner: Learner = build_learner(model, config, self.placement)
        self.guard: Guard = Guard(config.skip_sigma, device)
        self.batching: MicroBatching = MicroBatching.of(self.loader, self.placement, reporter.note, run.path)
        # Progress: steps, tokens and seconds in all, steps of this call, rewinds.
        self.step: int = 0
        self.tokens: int = 0
        self.seconds: float = 0.0
        self.taken: int = 0
        self.rewinds: int = 0
        # The last step: its loss, the shares it left out, and the layers before it where it grew.
        self.loss: float | None = None
        self.inside: dict[str, float] = {}
        self.grown_from: int | None = None
        # What stops the run, and what the run writes.
        self.stop: StopRequest = StopRequest()
        self.all_stop: bool = False
        self.log: RunLog = RunLog(run, reporter, self.stop)
        self.saver: Saver = Saver(in_thread=config.async_save and not world.sharded)
        self.saved: Path | None = None
        # Threads on a CPU and the device's measured speed; None where they are not measured.
        self.threads: int | None = None
        self.matmul_flops: float | None = None

    def begin(self, start: Path | None) -> None:
        """Load the verified checkpoint `start`, if any; plan the run, make its folder ready, report both."""
        classes = None
        if start:
            restore_trainer(self, start)
        else:
            classes = settle_classes(self.learner.model, self.shards, self.tokenizer, self.world)
        limit = self.world.run_on_rank0(lambda: micro_batch_limit(self.run.path))
        plan = plan_start(self, resumed=start is not None, limit=limit)
        self.batching.micro = min(self.world.all_gather(plan.micro_batch))
        self.world.run_on_rank0(lambda: make_ready(self, plan, start))
        self.threads, self.matmul_flops = settle_speed(self, plan)
        self.validator.recall(self.world.run_on_rank0(self.run.validations))
        # A kill may have come between a validation and its record in best.json.
        self.world.run_on_rank0(lambda: self.run.settle(self.validator.best, self.config.keep))
        self.reporter.begin(plan.summary(), self.step, self.config.steps)
        for words in (*opening_notes(self, plan, start, limit), classes):
            if words:
                self.reporter.note(words)

    def run_to_end(self) -> Result:
        """Take all steps that are left, unless a stop is asked for; return how the run ended."""
        try:
            if self._due(self.config.eval_every) and (self.validator.last or {}).get("step") != self.step:
                # The run was stopped between saving and validating.
                self._validate()
            while self.step < self.config.steps:
                if self.stop.asked if self.world.size == 1 else self.all_stop:
                    raise Stopped
                try:
                    self.take_step()
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
        """Whether something done every so many steps, and at the end, is due after this step."""
        return self.step > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def rate(self) -> float:
        """The learning rate of this step."""
        return learning_rate(self.step, self.config)

    def update(self) -> tuple[float, float, bool]:
        """Learn from this step's batch; a skipped step changes nothing.

        Returns:
            The mean loss in nats a token, the gradient norm before clipping, and whether the step was
            skipped.
        """
        # The model and the learning rate of this step.
        before = self.learner
        self.learner = grow_if_due(before, self.step, self.recipe, self.placement)
        self.grown_from = None if self.learner is before else len(before.model.blocks)
        del before
        model, optimizer, average = self.learner.model, self.learner.optimizer, self.learner.average
        set_learning_rate(optimizer, self.rate())
        if self.grown_from or self.loader.changes_at(self.step):
            self.guard.new_level()
            self.batching.require_rehearsal()
        # The gradients, and what all processes must agree on.
        counters = snapshot_counters(model)
        loss, norm = accumulate_with_oom_retry(self.learner, self.batching, self.step, counters)
        stop_asked = loss.new_tensor(float(self.stop.asked))
        loss, stop_asked = self.world.all_reduce(torch.stack((loss, stop_asked)))
        self.world.all_reduce_changes(counters)
        # The optimizer's step, skipped on the device where the guard says so.
        skip = self.guard.judge(norm)
        optimizer.step(skip)
        optimizer.zero_grad(set_to_none=True)
        # The next rows are read while the device still computes.
        self.loader.prepare(self.step + 1, self.batching.micro)
        stats = step_stats(model) if isinstance(model, LanguageModel) else {}
        # The only wait for the device.
        figures = torch.stack((loss, norm, skip, stop_asked, *stats.values())).tolist()
        step_loss, step_norm, skipped, stops, *shares = figures
        self.inside = {name: share for name, share in zip(stats, shares, strict=True) if math.isfinite(share)}
        self.all_stop = stops > 0
        # The controllers' and the average's step, or no trace of this one.
        if skipped:
            restore_counters(counters)
        else:
            model.after_step()
            if average:
                average.update()
        return step_loss, step_norm, bool(skipped)

    def take_step(self) -> None:
        """Take one step, count it and log it. Raises `Lost` when the run does not recover by itself."""
        began, rate = time.perf_counter(), self.rate()
        loss, norm, skipped = self.update()
        seconds = time.perf_counter() - began
        remarks = self.guard.note(loss, norm, skipped)
        tokens = self.config.batch * self.config.context
        self.step, self.taken = self.step + 1, self.taken + 1
        self.tokens, self.seconds = self.tokens + tokens, self.seconds + seconds
        self.loss = loss if math.isfinite(loss) else None
        log_step(self, rate, norm, seconds, skipped, remarks)
        self.guard.check(self.step)

    def _rewound(self, lost: Lost) -> bool:
        """Go back to the last good checkpoint and pass over the data since then.

        Returns False where no rewind is left and a high loss is accepted instead; raises Failure where there
        is no usable gradient either.
        """
        self.saver.finish()
        # All processes wait until the first has finished its last checkpoint.
        self.world.barrier()
        good = self.run.last_good(verified=True)
        if good is None or self.rewinds == self.config.rewinds:
            if not self.guard.skipped_in_row:
                self.reporter.note(f"{lost}; no rewind is left, so this loss counts as the new level")
                self.guard.new_level()
                return False
            last = f"; the last good checkpoint is {good}" if good else ""
            raise self.world.agree_on_error(Failure(f"{lost}{last}; try a lower train.lr"))
        astray, offset, rewinds = self.step, self.loader.offset, self.rewinds + 1
        restore_trainer(self, good)
        self.world.barrier()
        self.run.drop_after(self.step)
        self.loader.offset, self.rewinds = offset + astray - self.step, rewinds
        self.validator.recall(self.world.run_on_rank0(self.run.validations))
        self.log.write("rewind", self.step, reason=str(lost), astray=astray, offset=self.loader.offset)
        return True

    def _validate(self) -> None:
        """Score the validation text and save a new best, even between two regular saves.

        A stop drops the validation.
        """
        # All processes score the same text together where weights are sharded, else the first does alone.
        if not self.validator.has_text or not (self.world.is_rank0 or self.world.sharded):
            return
        # With several processes a validation is not dropped, because the others wait for its end.
        with self.stop.droppable() if self.world.size == 1 else nullcontext():
            scores = self.validator.scores(self.learner, self.batching.micro)
        if self.validator.add(self.log.write("validation", self.step, **scores)):
            self._save()
            self.saver.finish()
            self.run.settle(self.validator.best, self.config.keep)

    def _save(self) -> None:
        """Save a checkpoint of this step, unless there is one."""
        folder = self.run.checkpoint(self.step)
        if self.step == 0 or self.saved == folder:
            return
        write = checkpoint_writer(self, folder)
        # All processes write sharded weights together; the first writes unsharded weights.
        writers = self.world if self.world.sharded else None
        if self.world.is_rank0 or writers:
            self.saver.submit(lambda: retry_while_disk_full(write, self.reporter.note, self.stop, writers))
        self.saved = folder
