"""What changes with the step, as pure functions of it: the learning rate (warm-up, then one of three
descents), the length of sequences and the number of layers.

Nothing is remembered between steps, so a resumed run needs only its step number.
"""

import math

from braingpt.recipes import Recipe, TrainConfig

# share of the steps in which `wsd` descends (MiniCPM, section 4: 10 to 20 %)
WSD_DECAY = 0.2


def learning_rate(step: int, config: TrainConfig) -> float:
    """The rate of step `step` (counted from 0): rises linearly to `lr` over `warmup` steps, ends at
    `final_lr` x `lr` in the last step.

    `cosine` and `linear` descend over all steps after the warm-up, `wsd` (warm-up, stable, decay) stays at
    `lr` and descends linearly over the last fifth.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    last = config.steps - 1
    begin = (
        max(config.warmup, last - round(WSD_DECAY * config.steps))
        if config.schedule == "wsd"
        else config.warmup
    )
    # 0 where the descent begins, 1 in the last step
    done = min(1.0, max(0, step - begin) / max(1, last - begin))
    fall = 0.5 * (1 - math.cos(math.pi * done)) if config.schedule == "cosine" else done
    return config.lr * (1 - (1 - config.final_lr) * fall)


def length_at(step: int, config: TrainConfig) -> int:
    """Tokens a sequence has in step `step`: that of the phase of `lengths` it lies in, `context` after the
    last.
    """
    return next(
        (phase.context for phase in config.lengths if step < round(phase.until * config.steps)),
        config.context,
    )


def layers_at(step: int, recipe: Recipe) -> int:
    """Layers the model has in step `step`: those of the stage of growth it lies in."""
    return next((stage.layers for stage in recipe.growth_stages if step < stage.end), recipe.model.layers)
