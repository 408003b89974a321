"""The records of a step in metrics.jsonl: `growth` where the model grew before the step, `train`, and
`incident` where the step was skipped or its loss was a spike.
"""

import math
from typing import TYPE_CHECKING, Any

from braingpt.train.growth import stage_of
from braingpt.train.run.result import peak_memory

if TYPE_CHECKING:
    from braingpt.train.loop import Trainer


def log_step(
    trainer: "Trainer", rate: float, norm: float, seconds: float, skipped: bool, remarks: dict[str, Any]
) -> None:
    """Write the records of the step just counted.

    Args:
        trainer: The run after the step.
        rate: The learning rate of the step.
        norm: The gradient norm before clipping.
        seconds: The duration of the step.
        skipped: Whether the update was skipped.
        remarks: The guard's remarks: why it was skipped, or a spike.
    """
    log, step, config = trainer.log, trainer.step, trainer.config
    tokens, layers = config.batch * config.context, len(trainer.learner.model.blocks)
    if trainer.grown_from:
        log.write(
            "growth",
            step,
            stage=stage_of(trainer.recipe, layers),
            layers_before=trainer.grown_from,
            layers=layers,
            stages=len(trainer.recipe.growth_stages),
        )
    log.write(
        "train",
        step,
        loss=trainer.loss,
        lr=rate,
        grad_norm=norm if math.isfinite(norm) else None,
        tokens=trainer.tokens,
        tokens_per_second=tokens / seconds,
        seconds=trainer.seconds,
        data_seconds=trainer.loader.seconds,
        memory_bytes=peak_memory(trainer.placement.device),
        inside=trainer.inside,
        **_some_runs(trainer, seconds, skipped),
        **remarks,
    )
    if remarks:
        reason = remarks.get("skipped") or "loss spike"
        log.write("incident", step, reason=reason, windows=trainer.loader.windows(step - 1))


def _some_runs(trainer: "Trainer", seconds: float, skipped: bool) -> dict[str, Any]:
    """Figures of a step that only some devices, recipes and models have."""
    config, learner, figures = trainer.config, trainer.learner, {}
    if trainer.matmul_flops:
        flops = learner.flops_per_token * config.batch * config.context
        figures["share_of_peak"] = flops / seconds / trainer.matmul_flops
    if config.growth:
        layers = len(learner.model.blocks)
        figures |= {"stage": stage_of(trainer.recipe, layers), "layers": layers}
    if not skipped and (flips := learner.model.flip_rate()) is not None:
        figures["flip_rate"] = flips
    return figures
