"""Whether a model, or what it reads and writes, fits into memory: by arithmetic, before it is made.

The counts are lower bounds, so that nothing is refused that would fit.
"""

import torch

from braingpt.device.free_memory import available_memory
from braingpt.errors import UserError
from braingpt.model.arithmetic import ModelArithmetic
from braingpt.model.config import ModelConfig
from braingpt.model.interface import CausalModel
from braingpt.model.outline import outline
from braingpt.utils.formatting import byte_size

# Bytes of a float32 number.
FLOAT = 4
# Numbers, a token and unit of width, that a forward pass without gradients holds at once, at least.
READING_NUMBERS = 4
# Tokens of a long prompt that are read at once (`inference/engine.py`).
READ_AT_ONCE = 8192
# Bytes below which nothing is asked of the system.
CERTAINLY_FREE = 1 << 26


def require_weights(config: ModelConfig, device: torch.device) -> None:
    """Check that the float32 weights of a model fit into the device's memory.

    Args:
        config: The model's settings.
        device: Where the weights are made, or go to.

    Raises:
        UserError: They do not; the message says how many layers would fit.
    """
    shape = outline(config)
    needed = FLOAT * shape.parameters_total() + shape.buffer_bytes()
    if needed < CERTAINLY_FREE:
        return
    room = available_memory(device)
    if needed <= room.bytes:
        return
    layers = int((room.bytes / FLOAT - shape.shell_size()) / max(shape.block_sizes()))
    fits = f"at most {layers:,} layers of this width would fit" if layers > 0 else "use a smaller model"
    raise UserError(
        f"the model's weights need {byte_size(needed)} of memory, {byte_size(room.bytes)} are available"
        f" ({room.source}); {fits}"
    )


def require_state(model: CausalModel, prompt: int, new: int, rows: int = 1, before: int = 0) -> None:
    """Check that the state of a generation fits into memory at its full length.

    Args:
        model: The model.
        prompt: Tokens to read.
        new: Tokens to write at most.
        rows: Sequences at a time.
        before: Tokens whose state is there already.

    Raises:
        UserError: It does not; the message says how many new tokens would fit.
    """
    inner = getattr(model, "model", model)
    if not isinstance(inner, ModelArithmetic):
        return
    arithmetic, reading = inner, FLOAT * READING_NUMBERS * min(prompt, READ_AT_ONCE) * inner.config.hidden
    held = arithmetic.state_bytes(before) if before else 0

    def needed(count: int) -> int:
        return rows * (arithmetic.state_bytes(before + prompt + count) - held + reading)

    if needed(new) < CERTAINLY_FREE:
        return
    room = available_memory(model.device)
    if needed(new) <= room.bytes:
        return
    sizes = f"{byte_size(needed(new))} of memory, {byte_size(room.bytes)} are available ({room.source})"
    if needed(0) > room.bytes:
        raise UserError(f"a prompt of {prompt:,} tokens needs at least {sizes}; use a shorter one")
    # The state grows with the length: halve the interval in which it stops to fit.
    fits, too_many = 0, new
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if needed(middle) <= room.bytes else (fits, middle)
    raise UserError(f"{new:,} new tokens need at least {sizes}; at most {fits:,} would fit")


def require_context(model: CausalModel, context: int, option: str = "--context") -> None:
    """Check that a window of `context` tokens fits into memory, read without gradients.

    Args:
        model: The model.
        context: Tokens of the window, no more than there are to read.
        option: What sets it.

    Raises:
        UserError: It does not; the message says how many tokens would fit.
    """
    each = FLOAT * READING_NUMBERS * model.config.hidden
    if each * context < CERTAINLY_FREE:
        return
    room = available_memory(model.device)
    if each * context > room.bytes:
        raise UserError(
            f"windows of {context:,} tokens need at least {byte_size(each * context)} of memory, "
            f"{byte_size(room.bytes)} are available ({room.source}); "
            f"{option} {room.bytes // (2 * each)} would fit"
        )
