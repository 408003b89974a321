"""Training speed by parts, and generation at several contexts and batches: rounds in which every contender
takes its turn.
"""

from collections.abc import Callable
from typing import Any

import torch

from braingpt.bench.clock import Series
from braingpt.bench.contender import Contender
from braingpt.device.device import is_out_of_memory
from braingpt.errors import Failure, one_line

Say = Callable[[float, str], None]


def training_speed(contenders: dict[str, Contender], rounds: int, say: Say) -> dict[str, dict[str, Any]]:
    """Tokens a second of the forward pass, the backward pass and the whole step (optimizer and all), one step
    a round; the first is not counted.

    "over": the same over the first contender, round by round.
    """
    found = {name: {part: Series() for part in ("forward", "backward", "step")} for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            say(number / (rounds + 1), f"a step of {name}")
            tokens = contender.recipe.train.batch * contender.recipe.train.context
            for part, seconds in contender.phases().items():
                if number > 0:
                    found[name][part].rounds.append(tokens / seconds)
    first = next(iter(found.values()))
    return {
        name: {part: series.as_dict() for part, series in parts.items()}
        | {"over": {part: series.over(first[part]).as_dict() for part, series in parts.items()}}
        for name, parts in found.items()
    }


def generation(
    contenders: dict[str, Contender],
    context: int,
    rows: int,
    new_tokens: int,
    warm_tokens: int,
    rounds: int,
    bytes_per_second: float,
    say: Say,
) -> dict[str, dict[str, Any]]:
    """Greedy generation after `context` tokens for `rows` rows, once untimed with `warm_tokens`: seconds to
    the first token, tokens a second after it, bytes of state.

    One row's share of the bandwidth counts what a token must read: its active weights once, and its state. Of
    several rows sparse models read different weights, so nothing is said. A contender that runs out of
    memory, or of positions, tells so: {"error": why}.
    """
    found: dict[str, dict[str, Any]] = {
        name: {"first": Series(), "speed": Series(), "state": 0} for name in contenders
    }
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        for name in [name for name in contenders if name not in failed]:
            say(number / (rounds + 1), f"generation of {name}, {rows} x {context:,} tokens before")
            contender = contenders[name]
            try:
                first, speed, state = contender.write(
                    contender.prompts(rows, context, number), new_tokens if number else warm_tokens
                )
            except (RuntimeError, Failure) as error:
                failed[name] = (
                    "out of memory"
                    if isinstance(error, RuntimeError) and is_out_of_memory(error)
                    else one_line(error)
                )
                if contender.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            if number > 0:
                found[name]["first"].rounds.append(first)
                found[name]["speed"].rounds.append(speed)
                found[name]["state"] = state
    base = next((name for name in contenders if name not in failed), None)
    results = {}
    for name, series in found.items():
        if name in failed:
            results[name] = {"error": failed[name]}
            continue
        read = 4 * contenders[name].model.parameters_active() + series["state"] // rows
        results[name] = {
            "first_token_seconds": series["first"].as_dict(),
            "tokens_per_second": series["speed"].as_dict(),
            "state_bytes": series["state"] // rows,
            "over": base,
            "speed_over": series["speed"].over(found[base]["speed"]).as_dict(),
            "first_token_over": series["first"].over(found[base]["first"]).as_dict(),
            "share_of_bandwidth": read * series["speed"].median / bytes_per_second if rows == 1 else None,
        }
    return results
