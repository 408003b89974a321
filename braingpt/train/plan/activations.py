"""The memory of activations by a generous count, from a model's settings alone: what fits by it needs no
measurement.
"""

from braingpt.model.config import DenseConfig, ModelConfig, V1Config, V2Config
from braingpt.model.outline import layer_kinds

# Bytes of a weight with its gradient and AdamW's two moments.
TRAINED_BYTES = 16


def generous_bytes(model: ModelConfig, context: int, layers: int | None = None) -> int:
    """Bytes of activations of one window, counted generously.

    Args:
        model: The model.
        context: Tokens of the window.
        layers: Layers; all of the model's by default.
    """
    layers = model.layers if layers is None else layers
    if isinstance(model, DenseConfig):
        neurons = model.mlp
    elif isinstance(model, V1Config):
        neurons = model.columns.width * model.columns.count
    else:
        neurons = model.columns.width * (model.columns.active + model.columns.shared) + model.columns.count
    floats = layers * (40 * model.hidden + 8 * neurons) + 8 * model.hidden
    if isinstance(model, V1Config):
        floats += layers * 8 * model.heads * context
    if isinstance(model, V2Config) and model.lexical.rows:
        floats += 8 * model.lexical.looked_up + 12 * model.hidden * len(model.lexical.layers)
    states = sum(_state_floats(model, kind, context) for kind in layer_kinds(model)[:layers])
    return round(4 * (context * floats + states))


def spared_gradient_bytes(model: ModelConfig, tokens: int, dense: bool) -> int:
    """Bytes of the lexical table's gradient that a step does not hold, as it looks up few rows.

    Args:
        model: The model.
        tokens: Tokens of a step.
        dense: Whether processes exchange all of the gradient.
    """
    if dense or not isinstance(model, V2Config) or not model.lexical.rows:
        return 0
    lexical = model.lexical
    # Of each row its numbers, and its place as int64.
    held = tokens * (4 * lexical.looked_up + 8 * lexical.looked_up // lexical.width)
    return max(0, 4 * lexical.rows * lexical.width - held)


def _state_floats(model: ModelConfig, kind: str, context: int) -> float:
    """Numbers of a layer's recurrent states: one for each chunk of a window."""
    if not isinstance(model, V2Config) or kind in ("selective", "none"):
        return 0
    if kind == "memory":
        memory = model.memory
        return 4 * memory.heads * memory.key * memory.value * -(-context // memory.chunk)
    mamba = model.mamba
    return 4 * model.hidden * mamba.expand * mamba.state * -(-context // mamba.chunk)
