"""Validation during training: the model's scores, and the shares of its computation that the layers count
themselves (`model.recording()`).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from braingpt.data.shards.reader import ShardSet
from braingpt.evaluation.perplexity import evaluate
from braingpt.model.work_counters import WorkCounters
from braingpt.recipes import Recipe
from braingpt.tokenizer import Tokenizer
from braingpt.train.learner import Learner, Placement

# Windows at a time, at most.
ROWS = 8


class Validator:
    """Scores the validation text of a run and remembers what it found.

    Attributes:
        has_text: Whether any language has a window of validation text.
        last: The last validation record, or None.
        best: Step and loss of the best validation, or None.
        identity: The `validation_identity` of the run; losses of another one are not compared.
        changed: Whether the checkpoint that the run continues from was validated differently.
    """

    def __init__(
        self,
        shards: ShardSet,
        tokenizer: Tokenizer,
        recipe: Recipe,
        placement: Placement,
        identity: str = "",
    ) -> None:
        self.shards, self.tokenizer, self.recipe, self.placement = shards, tokenizer, recipe, placement
        self.identity, self.changed = identity, False
        self.has_text = any(
            shards.tokens("validation", language) > recipe.train.context
            for language in shards.languages("validation")
        )
        self.last: dict[str, Any] | None = None
        self.best: dict[str, Any] | None = None

    def scores(self, learner: Learner, micro: int) -> dict[str, Any]:
        """Score the model, with the averaged weights where there is an average.

        Args:
            learner: The model in training; it is the same afterwards.
            micro: Windows at a time that training has memory for.

        Returns:
            `loss` in nats a token, `bits_per_byte`, `by_language`, the shares of `inside()`, and in
            `validated_on` the identity.
        """
        averaged = learner.average.in_place() if learner.average else nullcontext()
        with averaged, self.placement.autocast(), learner.model.recording() as records:
            scores = evaluate(
                learner.model,
                self.shards,
                self.tokenizer,
                context=self.recipe.train.context,
                windows=self.recipe.train.eval_windows,
                rows=min(ROWS, micro),
                device=self.placement.device,
                reset_at_documents=self.recipe.data.reset_at_documents,
            ).as_dict()
        kept = {name: scores[name] for name in ("loss", "bits_per_byte", "by_language")}
        return kept | {"inside": inside(records), "validated_on": self.identity}

    def add(self, record: dict[str, Any]) -> bool:
        """Remember a validation record; return whether it is the best so far."""
        self.last = record
        better = record["loss"] is not None and (self.best is None or record["loss"] < self.best["loss"])
        if better:
            self.best = {"step": record["step"], "loss": record["loss"]}
        return better

    def continue_from(self, best: dict[str, Any] | None, identity: str) -> None:
        """Continue after a checkpoint, whose `best` counts only where it was validated with this identity."""
        self.changed = identity != self.identity
        self.best = None if self.changed else best

    def recall(self, records: Sequence[dict[str, Any]]) -> None:
        """Remember the validations of a run folder, of which one may be younger than the checkpoint.

        A record that names no identity was written by an earlier version for the same validation.
        """
        self.last = None
        for record in records:
            if record.get("validated_on", self.identity) == self.identity:
                self.add(record)


def inside(records: Sequence[WorkCounters]) -> dict[str, float]:
    """What a model computed and left out, each figure where the model has something of the kind.

    Args:
        records: The work counters of every layer and pass.

    Returns:
        Shares in 0..1: tokens `attended` (tokens that query, in layers that choose them), query-key pairs
        `keys`, `columns` computed, `depth` gone through, arithmetic `computed` compared with the same shape
        done densely. And `imbalance`: the load of the busiest column over the mean load, averaged over
        layers; 1 is even.
    """
    choosing = [record for record in records if record.mixer == "selective"]
    loads = [
        record.column_load.float()
        for record in records
        if record.column_load is not None and record.column_load.sum() > 0
    ]
    shares = {
        "attended": _share(choosing, lambda r: r.attended, lambda r: r.arrived),
        "keys": _share(records, lambda r: r.keys_kept, lambda r: r.keys_possible),
        "columns": _share(records, lambda r: r.columns_active, lambda r: r.columns),
        "imbalance": sum(float(load.max() / load.mean()) for load in loads) / len(loads) if loads else None,
        "depth": _share(records, lambda r: r.arrived, lambda r: r.tokens),
        "computed": _share(records, lambda r: r.flops, lambda r: r.flops_dense),
    }
    return {name: share for name, share in shares.items() if share is not None}


def _share(
    records: Sequence[WorkCounters],
    part: Callable[[WorkCounters], float],
    whole: Callable[[WorkCounters], float],
) -> float | None:
    """The sum of the parts over the sum of the wholes; None where there is nothing to divide by."""
    total = sum(map(whole, records))
    return sum(map(part, records)) / total if total else None
