"""A model's weights as `kernels/step` takes them: structs of pointers, and the tensors that they point to."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from braingpt.kernels.step import library
from braingpt.model.arithmetic import ModelArithmetic
from braingpt.model.blocks import Block, SelectiveBlock
from braingpt.model.columns.columns import SparseColumns
from braingpt.model.columns.competition import Competition
from braingpt.model.config import DenseConfig, V2Config
from braingpt.model.heads.head import TiedHead
from braingpt.model.heads.softmax import TiedEmbedding
from braingpt.model.heads.vocabulary_columns import VocabularyColumns
from braingpt.model.int8 import Int8Columns, Int8Weight
from braingpt.model.layers import MLP, GroupedProjection, Linear
from braingpt.model.memory.delta_rule import DeltaMemory
from braingpt.model.memory.lexical import LexicalMemory, LexicalReader
from braingpt.model.mixers.attention import Attention
from braingpt.model.mixers.mamba2 import Mamba2
from braingpt.model.mixers.none import NoMixer
from braingpt.model.mixers.selective_attention import SelectiveAttention
from braingpt.model.routing.adaptive_depth import Exit
from braingpt.model.routing.token_selection import Selector

MIXERS = {
    Attention: library.ATTENTION,
    SelectiveAttention: library.SELECTIVE,
    Mamba2: library.MAMBA,
    DeltaMemory: library.MEMORY,
    NoMixer: library.NONE,
}
# All that the native step computes. A module of another type would be left out of its sums.
KNOWN = {
    *MIXERS,
    *(nn.ModuleList, TiedEmbedding, VocabularyColumns, Block, SelectiveBlock, Linear, GroupedProjection, MLP),
    *(LexicalMemory, LexicalReader, SparseColumns, Competition, Exit, Selector, Int8Weight, Int8Columns),
}


class NativeWeights:
    """A model in the structs of `kernels/step`, and all tensors that they point to."""

    def __init__(self, model: ModelArithmetic) -> None:
        self._kept: list[Tensor] = []
        config = model.config
        assert isinstance(config, DenseConfig | V2Config)
        layers = [self._layer(block) for block in model.blocks]
        lexical = model.lexical
        for place, reader in () if lexical is None else lexical.placed():
            layers[place].lexical_key = self._matrix(reader.key)
            layers[place].lexical_value = self._matrix(reader.value)
        exits = [
            library.Exit(
                layer=layer,
                selector=self._address(exit_.selector.weight),
                threshold=self._address(exit_.selector.level),
            )
            for exit_, layer in zip(model.exits, config.depth_exits, strict=True)
        ]
        self.model = library.Model(
            layers=len(layers),
            exits=len(exits),
            hidden=config.hidden,
            rope_base=config.rope_base,
            embedding=self._matrix(model.embedding),
            lexical=library.Lexical() if lexical is None else self._lexical(lexical),
            layer=(library.Layer * len(layers))(*layers),
            exit=(library.Exit * len(exits))(*exits),
        )
        head = model.embedding
        self.class_head = self._class_head(head) if isinstance(head, VocabularyColumns) else None
        # Inference tensors have no version and cannot change in place elsewhere.
        self.fingerprint = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in self._kept]

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor.detach().contiguous())
        return self._kept[-1].data_ptr()

    def _matrix(self, module: Linear | TiedHead) -> library.Matrix:
        assert isinstance(module, Linear | TiedEmbedding | VocabularyColumns)
        if module.int8 is not None:
            return self._int8(module.int8)
        weight = module.effective_weight() if isinstance(module, Linear) else module.weight
        return library.Matrix(self._address(weight), None, *weight.shape)

    def _int8(self, weight: Int8Weight) -> library.Matrix:
        *_, inputs = weight.values.shape
        return library.Matrix(
            self._address(weight.values), self._address(weight.scale), weight.scale.numel(), inputs
        )

    def _class_head(self, head: VocabularyColumns) -> library.ClassHead:
        if head.class_int8 is None:
            classes = library.Matrix(self._address(head.class_weight), None, *head.class_weight.shape)
        else:
            classes = self._int8(head.class_int8)
        bias, token = self._address(head.class_bias), self._address(head.tokens())
        return library.ClassHead(classes, bias, token, head.width, len(head.slot))

    def _lexical(self, memory: LexicalMemory) -> library.Lexical:
        if memory.int8 is None:
            table = library.Matrix(self._address(memory.table), None, *memory.table.shape)
        else:
            table = self._int8(memory.int8)
        lookups = memory.factors.shape[1]
        return library.Lexical(memory.config.past, lookups, table, self._address(memory.factors))

    def _layer(self, block: Block) -> library.Layer:
        fields = dict(self._mixer(block.mixer))
        if isinstance(block.mlp, MLP):
            fields |= {"up": self._matrix(block.mlp.up), "down": self._matrix(block.mlp.down)}
        else:
            assert isinstance(block.mlp, SparseColumns)
            fields |= self._columns(block.mlp)
        return library.Layer(mixer=MIXERS[type(block.mixer)], **fields)

    def _mixer(self, mixer: nn.Module) -> Iterator[tuple[str, Any]]:
        if isinstance(mixer, NoMixer):
            return
        if isinstance(mixer, Attention | SelectiveAttention):
            yield from {
                "heads": mixer.heads,
                "kv_heads": mixer.kv_heads,
                "channels": mixer.qkv.channels,
            }.items()
            into = mixer.qkv
            if isinstance(mixer, SelectiveAttention):
                yield "selector", self._address(mixer.selector.weight)
                yield "threshold", self._address(mixer.selector.level)
        else:
            assert isinstance(mixer, Mamba2 | DeltaMemory)
            config, into = mixer.config, mixer.into
            yield "taps", config.conv
            if isinstance(mixer, Mamba2):
                yield from {
                    "heads": mixer.heads,
                    "channels": mixer.config.head,
                    "state": mixer.config.state,
                }.items()
                yield "bias", self._address(mixer.dt_bias)
                yield "skip", self._address(mixer.skip)
            else:
                yield from {
                    "heads": mixer.config.heads,
                    "channels": mixer.config.value,
                    "state": mixer.config.key,
                }.items()
                yield "bias", self._address(mixer.decay_bias)
            for name in ("conv", "decay_log", "scale"):
                yield name, self._address(getattr(mixer, name))
        yield "into", self._matrix(into)
        yield "out", self._matrix(mixer.out)

    def _columns(self, mlp: SparseColumns) -> dict[str, Any]:
        columns, competition = mlp.columns, mlp.competition
        inhibition = competition.inhibition_weights()
        fields = {
            "columns": columns.count,
            "width": columns.width,
            "active": columns.active,
            "rounds": competition.rounds,
            "interneurons": inhibition.shape[2] if inhibition.ndim == 3 else 0,
            "router": self._matrix(competition.router),
            "inhibition": self._address(inhibition),
            "balance": self._address(competition.bias),
        }
        if mlp.int8 is not None:
            fields |= {"up": self._int8(mlp.int8.up), "down": self._int8(mlp.int8.down)}
        else:
            rows, inputs = mlp.weight.shape[:3].numel(), mlp.weight.shape[3]
            fields["up"] = library.Matrix(self._address(mlp.weight), None, rows, inputs)
        if mlp.shared is not None:
            fields |= {"shared_up": self._matrix(mlp.shared.up), "shared_down": self._matrix(mlp.shared.down)}
        return fields
