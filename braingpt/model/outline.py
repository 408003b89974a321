"""What a model would be, without its weights: one layer of each kind on the meta device, counted as often as
the model has it.

A model of 1,024 layers, or of terabytes, is outlined in some ten milliseconds, so its parameters, operations
and bytes are known before anything is allocated.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from braingpt.errors import UserError
from braingpt.model.arithmetic import ModelArithmetic
from braingpt.model.blocks import BLOCKS
from braingpt.model.config import ModelConfig, V2Config
from braingpt.model.config_parts import DepthConfig
from braingpt.model.heads.build import build_head
from braingpt.model.memory.lexical import LexicalMemory
from braingpt.model.routing.adaptive_depth import Exit, continue_rate


class Outline(ModelArithmetic):
    """The counts of a model of `config`; its blocks are shared by all layers of a kind."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        kinds = layer_kinds(config)
        places = {kind: kinds.index(kind) for kind in dict.fromkeys(kinds)}
        with torch.device("meta"):
            self.embedding = build_head(config)
            self.kinds = {kind: BLOCKS[config.architecture](config, layer) for kind, layer in places.items()}
            self.depth_rate = 1.0
            if isinstance(config, V2Config) and config.depth_exits:
                self.depth_rate = continue_rate(config.depth.share, config.depth_exits, config.layers)
            exit_ = Exit(config.hidden, self.depth_rate)
            self.lexical = LexicalMemory.of(config)
        self.counts = {kind: kinds.count(kind) for kind in places}
        # Lists and no ModuleList: the same block stands for all layers of its kind.
        self.blocks = [self.kinds[kind] for kind in kinds]
        self.exits = [exit_] * len(config.depth_exits)
        self.spans = list(pairwise((0, *config.depth_exits, config.layers)))

    def groups(self) -> Iterator[tuple[str, nn.Module, int]]:
        """(kind, module, how many of it) of the parts that the model is made of."""
        yield "embedding", self.embedding, 1
        if self.lexical is not None:
            yield "lexical", self.lexical, 1
        for kind, block in self.kinds.items():
            yield kind, block, self.counts[kind]
        if self.exits:
            yield "exit", self.exits[0], len(self.exits)

    def tensors(self) -> Iterator[tuple[str, Tensor, int]]:
        """(name, tensor, how many of it) of all parameters and of the buffers that are saved."""
        for kind, module, count in self.groups():
            saved = module.state_dict(keep_vars=True)
            for name, tensor in {id(tensor): (name, tensor) for name, tensor in saved.items()}.values():
                yield f"{kind}.{name}", tensor, count

    def learned(self) -> Iterator[tuple[str, Tensor, int]]:
        """(name, parameter, how many of it) of everything that learns."""
        for kind, module, count in self.groups():
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    yield f"{kind}.{name}", parameter, count

    def buffer_bytes(self) -> int:
        """Bytes of all buffers."""
        return sum(
            count * tensor.numel() * tensor.element_size()
            for _, module, count in self.groups()
            for tensor in module.buffers()
        )

    def parameters_total(self) -> int:
        """Number of weights, the tied embedding counted once."""
        return sum(count * p.numel() for _, module, count in self.groups() for p in module.parameters())

    def shell_size(self) -> int:
        """Weights outside the blocks."""
        blocks = zip(self.block_sizes(), self.counts.values(), strict=True)
        return self.parameters_total() - sum(size * count for size, count in blocks)

    def block_sizes(self) -> list[int]:
        """Weights of a block of each kind."""
        return [sum(p.numel() for p in block.parameters()) for block in self.kinds.values()]


def outline(config: ModelConfig) -> Outline:
    """The outline of a model.

    Args:
        config: The model's settings.

    Raises:
        UserError: The sizes are beyond what a tensor can have.
    """
    try:
        return Outline(config)
    except RuntimeError as error:
        # torch counts the bytes of a tensor with 63 bits, on the meta device too.
        if "overflow" not in str(error) and "too big" not in str(error):
            raise
        raise UserError("a matrix of this model would have more than 9 EB; use smaller sizes") from None


def layer_kinds(model: ModelConfig) -> list[str]:
    """The kind of each layer: its mixer in `v2`, the architecture otherwise."""
    if not isinstance(model, V2Config):
        return [model.architecture] * model.layers
    return [model.mixer(layer) for layer in range(model.layers)]


def with_layers(model: ModelConfig, kinds: list[str]) -> ModelConfig:
    """The same model with layers of these kinds only, and without exits."""
    if not isinstance(model, V2Config):
        return model.model_copy(update={"layers": len(kinds)})
    selective, memory, mamba = (
        tuple(i for i, kind in enumerate(kinds) if kind == wanted)
        for wanted in ("selective", "memory", "mamba")
    )
    return model.model_copy(
        update={
            "layers": len(kinds),
            "depth": DepthConfig(share=1.0),
            "attention": model.attention.model_copy(update={"layers": selective}),
            "memory": model.memory.model_copy(update={"layers": memory}),
            "mamba": model.mamba.model_copy(update={"layers": mamba}),
            # All of it before the first layer, as every sample of the layers has one.
            "lexical": model.lexical.model_copy(update={"layers": (0,) * len(model.lexical.layers)}),
        }
    )
