"""How good the model in training is now, and what it left out meanwhile: counted by the layers themselves
(`model.recording()`).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from braingpt.device.device import autocast
from braingpt.model.work_counters import WorkCounters

# windows at a time
ROWS = 8


def validate(trainer: Any) -> dict[str, Any]:
    """Scores of the validation text in nats and bits, and `inside`, under the averaged weights where there
    are such.
    """
    from braingpt.evaluation.perplexity import evaluate

    averaged = trainer.average.in_place() if trainer.average else nullcontext()
    with (
        averaged,
        autocast(trainer.device, trainer.dtype, cached=not trainer.world.sharded),
        trainer.model.recording() as records,
    ):
        scores = evaluate(
            trainer.model, trainer.shards, trainer.tokenizer, context=trainer.config.context, windows=trainer.config.eval_windows,
            rows=min(ROWS, trainer.micro), device=trainer.device, reset_at_documents=trainer.recipe.data.reset_at_documents,
        ).as_dict()  # fmt: skip
    return {name: scores[name] for name in ("loss", "bits_per_byte", "by_language")} | {
        "inside": inside(records)
    }


def inside(records: Sequence[WorkCounters]) -> dict[str, float]:
    """Shares in 0..1, each where the model has something of the kind: tokens `attended` (that query, in
    layers that choose them), query-key pairs `keys`, `columns` computed, `depth` gone through, arithmetic
    `computed` of the same shape done densely; and `imbalance`, the load of the busiest column over the
    mean one, averaged over layers (1 is even).
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
    records: Sequence[WorkCounters], part: Callable[[WorkCounters], int], whole: Callable[[WorkCounters], int]
) -> float | None:
    total = sum(map(whole, records))
    return sum(map(part, records)) / total if total else None
