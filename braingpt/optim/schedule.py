"""What changes with the step: the learning rate (warm-up, then one of three descents), the length of
sequences and the number of layers.

All are pure functions of the step, so a resumed run needs only its step number.
"""

import math

from braingpt.recipes import Recipe, TrainConfig

# Share of the steps in which `wsd` descends (MiniCPM, section 4: 10 to 20 %).
WSD_DECAY = 0.2


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step.

    It rises linearly to `lr` over `warmup` steps and ends at `final_lr` x `lr` in the last step. `cosine` and
    `linear` descend over all steps after the warm-up. `wsd` (warm-up, stable, decay) stays at `lr` and
    descends linearly over the last fifth.

    Args:
        step: The step, counted from 0.
        config: The recipe's `train` section.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    last = config.steps - 1
    begin = config.warmup
    if config.schedule == "wsd":
        begin = max(begin, last - round(WSD_DECAY * config.steps))
    # 0 where the descent begins, 1 in the last step.
    done = min(1.0, max(0, step - begin) / max(1, last - begin))
    fall = 0.5 * (1 - math.cos(math.pi * done)) if config.schedule == "cosine" else done
    return config.lr * (1 - (1 - config.final_lr) * fall)


def length_at(step: int, config: TrainConfig) -> int:
    """Tokens of a sequence in `step`: those of its phase of `lengths`, `context` after the last phase."""
    lengths = (phase.context for phase in config.lengths if step < round(phase.until * config.steps))
    return next(lengths, config.context)


def layers_at(step: int, recipe: Recipe) -> int:
    """Layers of the model in `step`: those of its stage of growth."""
    return next((stage.layers for stage in recipe.growth_stages if step < stage.end), recipe.model.layers)
