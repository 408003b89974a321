"""Architectures side by side in one run: memory, speed, learning, generation and few-shot, in interleaved
rounds.

    report = run_bench(resolve_settings(["v1", "v2", "dense"], "nano"))

Stages follow one another, each with models of its own, so that no stage disturbs another: memory (each
contender in a process of its own), training speed by parts, training for equal tokens and for equal time
(several seeds of each), generation, few-shot. With `out` every stage is written as soon as it is done, and an
interrupted run continues after the last one. A contender that fails is left out from there on, with the
reason.
"""

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from braingpt.bench.contender import Contender, bench_recipe
from braingpt.bench.few_shot import few_shot
from braingpt.bench.fit import check_fit, too_long
from braingpt.bench.learning import equal_time, equal_tokens
from braingpt.bench.limits import limits
from braingpt.bench.machine import machine
from braingpt.bench.peak_memory import training_memory
from braingpt.bench.peers import Peer, build_peer
from braingpt.bench.report.claims import claims
from braingpt.bench.report.comparisons import matched_comparisons
from braingpt.bench.results import FILE, OnProgress, Results
from braingpt.bench.settings import BenchSettings
from braingpt.bench.speed import generation, training_speed
from braingpt.checkpoint import checkpoint, listing
from braingpt.device.compile import compile_steps
from braingpt.device.cpu import configure_cpu
from braingpt.device.device import autocast_dtype, is_out_of_memory
from braingpt.errors import Failure, UserError, one_line
from braingpt.model.lm import LanguageModel, build
from braingpt.recipes import Recipe
from braingpt.train.batches import open_data
from braingpt.utils.file_lock import file_lock


def run_bench(
    settings: BenchSettings, progress: OnProgress = lambda share, what: None, out: Path | None = None
) -> dict[str, Any]:
    """Measure a comparison of architectures.

    Args:
        settings: From `resolve_settings`.
        progress: Receives the share done and what is being done.
        out: Folder for the report and the trained weights; an interrupted run in it is continued.

    Returns:
        The report (docs/reference/json.md).

    Raises:
        UserError: The data are not prepared, a window or a context does not fit into memory, `out` holds
            another benchmark, or another process is measuring there.
    """
    configure_cpu()
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                busy = f"another process is measuring in {out}; wait for it, or name another --out"
                stack.enter_context(file_lock(out / FILE, busy=busy))
            return _BenchRun(settings, Path(scratch), out, progress).run()
    finally:
        torch.set_num_threads(before)


class _BenchRun:
    """The stages of one report, in their order."""

    SHARES = (
        ("memory", 0.1),
        ("speed", 0.1),
        ("tokens", 0.3),
        ("time", 0.3),
        ("generation", 0.15),
        ("few_shot", 0.05),
    )

    def __init__(
        self, settings: BenchSettings, scratch: Path, out: Path | None, progress: OnProgress
    ) -> None:
        self.settings, self.scratch, self.progress = settings, scratch, progress
        self.device = torch.device(settings.device)
        self.folder = out or scratch
        self.results = Results(asdict(settings), machine(), out)

    def run(self) -> dict[str, Any]:
        """Run every stage that the report does not hold yet."""
        results = self.results
        dtype = autocast_dtype(self.recipe(self.settings.architectures[0]).train.dtype, self.device)
        results.stage("contenders", self._contenders)
        results.stage("precision", lambda: _precision(dtype))
        results.stage("limits", lambda: limits(self.device, dtype or torch.float32))
        results.stage("memory", self._memory)
        results.stage("speed", self._speed)
        results.stage("tokens", self._tokens)
        results.stage("time", self._time)
        results.stage("generation", self._generation)
        results.stage("few_shot", self._few_shot)
        results.record("views", matched_comparisons(results.report))
        results.record("claims", claims(results.report))
        return results.report

    def recipe(self, name: str, seed: int = 0, compiled: bool = False) -> Recipe:
        """The contender's recipe; a peer is trained by that of `dense`."""
        s = self.settings
        own = name if name in s.architectures else "dense"
        return bench_recipe(s.size, own, s.steps, s.context, s.batch, s.folders, seed, compiled, s.changes)

    def contender(self, name: str, stage: str, seed: int, compiled: bool) -> Contender:
        """A fresh contender."""
        return Contender(
            self.recipe(name, seed, compiled),
            self.scratch / f"{stage}-{seed}-{name}",
            self.device,
            self.peer(name, seed),
        )

    def peer(self, name: str, seed: int = 0) -> LanguageModel | Peer | None:
        """A peer's model, of the first contender's size; None for our own."""
        if name in self.settings.architectures:
            return None
        with torch.device("meta"):
            total = build(self.recipe(self.settings.architectures[0])).parameters_total()
        return build_peer(name, self.recipe(name).model, total, self._positions(name), seed)

    def _positions(self, name: str) -> int:
        """Positions of a peer.

        Learned positions are parameters, so GPT-2 has only those it is trained on or the shortest context
        needs; the others have those of the longest context.
        """
        s = self.settings
        return max(s.context, min(s.contexts) if name == "gpt2-hf" else max(s.contexts)) + s.warm_tokens

    @contextmanager
    def alive(self, stage: str, seed: int = 0, learning: bool = True) -> Iterator[dict[str, Contender]]:
        """Fresh contenders; those that learn have run one forward and backward pass.

        A contender that cannot be built or warmed fails. The memory of all contenders is free afterwards.
        """
        ready: dict[str, Contender] = {}
        for name in self.results.alive():
            try:
                ready[name] = self.contender(name, stage, seed, learning and self.settings.compile)
                if learning:
                    ready[name].warm()
            except (RuntimeError, Failure) as error:
                if isinstance(error, RuntimeError) and is_out_of_memory(error):
                    raise UserError(too_long(name, self.settings)) from None
                ready.pop(name, None)
                self.results.fail(name, stage, one_line(error))
        try:
            yield ready
        finally:
            ready.clear()
            # A compiled model refers to itself.
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def progress_of(self, stage: str, number: int = 0, count: int = 1) -> OnProgress:
        """Progress of part `number` of `count` of one stage, as progress of the whole run."""
        names = [name for name, _ in self.SHARES]
        before, share = sum(share for _, share in self.SHARES[: names.index(stage)]), dict(self.SHARES)[stage]
        return lambda done, what: self.progress(before + share * (number + done) / count, what)

    def _keep(self, stage: str) -> Callable[[Any], None]:
        """Receives what a stage has found so far, and writes it."""
        return lambda found: self.results.record("unfinished", {"stage": stage, "found": found})

    def _contenders(self) -> dict[str, Any]:
        """Sizes, counted by the models themselves. Before any measurement this checks that the data are
        prepared and that memory suffices.
        """
        s, found = self.settings, {}
        open_data([Path(folder) for folder in s.folders], self.recipe(s.architectures[0]))
        for name in s.names:
            with torch.device("meta"):
                model = self.peer(name) or build(self.recipe(name))
            found[name] = {
                "recipe": self.recipe(name).name,
                "peer": name in s.peers,
                "layers": model.config.layers,
                "hidden": model.config.hidden,
                "parameters_total": model.parameters_total(),
                "parameters_active": model.parameters_active(),
                "flops_per_token": model.flops_per_token(s.context),
            }
            check_fit(name, model, s, self.device)
        return found

    def _memory(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        for number, name in enumerate(self.results.alive()):
            self.progress_of("memory", number, len(self.settings.names))(0, f"memory of {name}")
            total = self.results.report["contenders"][self.settings.architectures[0]]["parameters_total"]
            peer = (
                {"name": name, "total": total, "positions": self._positions(name)}
                if name in self.settings.peers
                else None
            )
            try:
                # On a CPU compiling itself takes memory.
                compiled = self.settings.compile and self.device.type == "cuda"
                found[name] = training_memory(
                    self.recipe(name, compiled=compiled), self.settings.device, self.settings.threads, peer
                )
            except Failure as error:
                self.results.fail(name, "memory", one_line(error))
        return found

    def _speed(self) -> dict[str, Any]:
        with self.alive("speed") as contenders:
            return training_speed(contenders, self.settings.rounds, self.progress_of("speed"))

    def _tokens(self) -> dict[str, Any]:
        s = self.settings

        def train(contenders: dict[str, Contender], on_progress: OnProgress, first: bool) -> dict[str, Any]:
            courses = equal_tokens(
                contenders, s.steps, s.rounds, s.windows, on_progress, self._keep("tokens")
            )
            for name, contender in contenders.items() if first else ():
                self._save(name, contender)
            return courses

        return {
            "tokens": s.steps * s.batch * s.context,
            "steps": s.steps,
            "seeds": s.seeds,
            "runs": self._seeds("tokens", train),
        }

    def _time(self) -> dict[str, Any] | None:
        minutes = self.settings.minutes
        if minutes == 0:
            return None
        runs = self.results.report["tokens"]["runs"]
        limit = 60 * minutes if minutes else max(run["seconds"] for found in runs.values() for run in found)

        def train(contenders: dict[str, Contender], on_progress: OnProgress, first: bool) -> dict[str, Any]:
            return equal_time(contenders, limit, self.settings.windows, on_progress, self._keep("time"))

        return {"seconds": limit, "runs": self._seeds("time", train)}

    def _seeds(
        self, stage: str, train: Callable[[dict[str, Contender], OnProgress, bool], dict[str, Any]]
    ) -> dict[str, list[dict[str, Any]]]:
        """The courses of each contender, one a seed; `train` receives whether the seed is the first."""
        runs: dict[str, list[dict[str, Any]]] = {}
        for seed in range(self.settings.seeds):
            with self.alive(stage, seed) as contenders:
                for name, course in train(
                    contenders, self.progress_of(stage, seed, self.settings.seeds), seed == 0
                ).items():
                    runs.setdefault(name, []).append(course)
        return runs

    def _generation(self) -> list[dict[str, Any]]:
        s, bandwidth = self.settings, self.results.report["limits"]["bytes_per_second"]
        points, found = [(context, rows) for context in s.contexts for rows in s.batches], []
        with self.trained("generation") as contenders:
            if s.compile:
                for contender in contenders.values():
                    compile_steps(contender.model, self.device)
            for number, (context, rows) in enumerate(points):
                on_progress = self.progress_of("generation", number, len(points))
                results = generation(
                    contenders, context, rows, s.new_tokens, s.warm_tokens, s.rounds, bandwidth, on_progress
                )
                found.append({"context": context, "rows": rows, "results": results})
                self._keep("generation")(found)
        return found

    def _few_shot(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with self.trained("few_shot") as contenders:
            for number, (name, contender) in enumerate(contenders.items()):
                self.progress_of("few_shot", number, len(contenders))(0, f"few-shot of {name}")
                try:
                    found[name] = few_shot(contender, self.settings.windows)
                except (RuntimeError, Failure) as error:
                    found[name] = {"error": one_line(error)}
        return found

    @contextmanager
    def trained(self, stage: str) -> Iterator[dict[str, Contender]]:
        """The contenders with the weights of training for equal tokens."""
        with self.alive(stage, learning=False) as contenders:
            for name, contender in contenders.items():
                checkpoint.load_weights(contender.model, self._weights(name))
            yield contenders

    def _weights(self, name: str) -> Path:
        return self.folder / "models" / name / "checkpoints" / listing.name_of(self.settings.steps)

    def _save(self, name: str, contender: Contender) -> None:
        """Save a checkpoint, which for our models is like any other and can be inspected."""
        trainer = contender.trainer
        checkpoint.save(
            self._weights(name),
            model=contender.model,
            tokenizer=trainer.tokenizer,
            recipe=contender.recipe,
            step=trainer.step,
            tokens=trainer.tokens,
        )


def _precision(dtype: torch.dtype | None) -> str:
    """In words; `dtype` None: no autocast."""
    return "float32" if dtype is None else f"{dtype} products, float32 weights".removeprefix("torch.")
