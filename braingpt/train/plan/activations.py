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
    states = sum(_state_floats(model, kind, context) for kind in layer_kinds(model)[:layers])
    return round(4 * (context * floats + states))


def _state_floats(model: ModelConfig, kind: str, context: int) -> float:
    """Numbers of a layer's recurrent states: one for each chunk of a window."""
    if not isinstance(model, V2Config) or kind == "selective":
        return 0
    if kind == "memory":
        memory = model.memory
        return 4 * memory.heads * memory.key * memory.value * -(-context // memory.chunk)
    mamba = model.mamba
    return 4 * model.hidden * mamba.expand * mamba.state * -(-context // mamba.chunk)
