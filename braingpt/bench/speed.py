"""Training speed by parts, and generation at several contexts and batches, in rounds in which every contender
takes its turn.
"""

from typing import Any

import torch

from braingpt.bench.clock import Series
from braingpt.bench.contender import Contender
from braingpt.bench.results import OnProgress
from braingpt.device.device import is_out_of_memory
from braingpt.errors import Failure, one_line


def training_speed(
    contenders: dict[str, Contender], rounds: int, on_progress: OnProgress
) -> dict[str, dict[str, Any]]:
    """Time the forward pass, the backward pass and the whole step with its optimizer, one step a round.

    The first round is not counted.

    Args:
        contenders: The contenders by name.
        rounds: Rounds that count.
        on_progress: Receives the share done and what is being done.

    Returns:
        Tokens a second of each part, and "over": the same over the first contender, round by round.
    """
    found = {name: {part: Series() for part in ("forward", "backward", "step")} for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            on_progress(number / (rounds + 1), f"a step of {name}")
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
    on_progress: OnProgress,
) -> dict[str, dict[str, Any]]:
    """Time greedy generation.

    The share of the bandwidth counts what one row must read for a token: the active weights once, and the
    state. Several rows of a sparse model read different weights, so their share is None.

    Args:
        contenders: The contenders by name.
        context: Tokens of each prompt.
        rows: Prompts at once.
        new_tokens: Tokens generated after each prompt, timed.
        warm_tokens: Tokens of the first round, which is not timed.
        rounds: Rounds that count.
        bytes_per_second: Bandwidth of the machine.
        on_progress: Receives the share done and what is being done.

    Returns:
        For each contender seconds to the first token, tokens a second after it, bytes of state a row; or
        {"error": why} where it runs out of memory or of positions.
    """
    found: dict[str, dict[str, Any]] = {
        name: {"first": Series(), "speed": Series(), "state": 0} for name in contenders
    }
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        for name in [name for name in contenders if name not in failed]:
            on_progress(number / (rounds + 1), f"generation of {name}, {rows} x {context:,} tokens before")
            contender = contenders[name]
            try:
                first, speed, state = contender.generate(
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
    return _generation_results(contenders, found, failed, rows, bytes_per_second)


def _generation_results(
    contenders: dict[str, Contender],
    found: dict[str, dict[str, Any]],
    failed: dict[str, str],
    rows: int,
    bytes_per_second: float,
) -> dict[str, dict[str, Any]]:
    """What `generation` returns, from the series of each contender."""
    base = next((name for name in contenders if name not in failed), "")
    results: dict[str, dict[str, Any]] = {}
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
