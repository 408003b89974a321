"""Whether a comparison fits into memory, checked before anything is measured.

On a CPU the system would end the process instead of raising an error.
"""

import torch

from braingpt.bench.peers import Peer
from braingpt.bench.settings import BenchSettings
from braingpt.device.free_memory import available_memory
from braingpt.errors import UserError
from braingpt.model.lm import LanguageModel
from braingpt.utils.formatting import byte_size

# Numbers, a token and unit of width, that reading a prompt holds at once, generously.
PROMPT_NUMBERS = 40
# Numbers, a token, layer and unit of width, that training keeps for the backward pass, at least.
TRAINING_NUMBERS = 10
# Bytes of a parameter's weight, gradient and optimizer state.
TRAINED_PARAMETER_BYTES = 16


def too_long(name: str, s: BenchSettings) -> str:
    """The message for a training window that does not fit."""
    return (
        f"training {name} on {s.batch} x {s.context:,} tokens does not fit into memory; "
        "use a smaller --batch or --context"
    )


def check_fit(name: str, model: LanguageModel | Peer, s: BenchSettings, device: torch.device) -> None:
    """Raise UserError where a training window or a context to generate after does not fit into memory."""
    room, shape = available_memory(device), model.config
    parameters = model.parameters_total()
    kept = 4 * TRAINING_NUMBERS * s.batch * s.context * shape.layers * shape.hidden
    least = TRAINED_PARAMETER_BYTES * parameters + kept
    available = f"{byte_size(room.bytes)} are available ({room.source})"
    if least > room.bytes:
        window = kept / s.batch
        fits = int((room.bytes - TRAINED_PARAMETER_BYTES * parameters) / (2 * window))
        offer = f"; --batch {fits} would fit" if fits > 0 else ""
        raise UserError(f"{too_long(name, s)} (at least {byte_size(least)}, {available}){offer}")
    for context in s.contexts:
        if isinstance(model, LanguageModel):
            state = model.state_bytes(context)
        else:
            state = 8 * context * shape.layers * shape.hidden
        for rows in s.batches:
            need = rows * (state + 4 * PROMPT_NUMBERS * context * shape.hidden) + 4 * parameters
            if need > room.bytes:
                raise UserError(
                    f"generating with {name} after {rows} x {context:,} tokens takes about "
                    f"{byte_size(need)}, {available}; use smaller --contexts or --batches"
                )
