"""What a model counts about itself: parameters, operations and bytes by formula, and work on real tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from braingpt.model.blocks import Block
from braingpt.model.columns.two_four import TwoFourLinear
from braingpt.model.heads.head import TiedHead
from braingpt.model.interface import CausalModel
from braingpt.model.memory.lexical import LexicalMemory
from braingpt.model.routing.adaptive_depth import Exit, arrival_shares
from braingpt.model.work_counters import (
    CountedModule,
    WorkCounters,
    count_arrivals,
    count_tokens,
    counts_work,
)
from braingpt.utils.arguments import whole_number


class ModelArithmetic(CausalModel):
    """The counts of a `LanguageModel`, by formula at the trained mean depth, or as recorded."""

    embedding: TiedHead
    # Both are nn.ModuleList, whose stubs do not know the type of its elements.
    blocks: Sequence[Block]
    exits: Sequence[Exit]
    lexical: LexicalMemory | None
    # Share of the tokens that continue at each exit.
    depth_rate: float
    # The layers between exits: first layer, and the one after the last.
    spans: list[tuple[int, int]]

    def arriving(self) -> list[float]:
        """The share of the tokens that reaches each layer, at the trained mean depth."""
        return arrival_shares(self.depth_rate, self.config.depth_exits, len(self.blocks))

    def parameters_total(self) -> int:
        """Count all parameters.

        Returns:
            Number of weights, the tied embedding counted once.
        """
        return sum(p.numel() for p in self.parameters())

    def parameters_active(self) -> int:
        """Count the parameters that one token's forward pass multiplies with, at the trained mean depth.

        Returns:
            Number of weights: the head is included, the rows looked up in the embedding and in the lexical
            memory are not. Of vocabulary columns it is the classes and the words of one class.
        """
        share = self.arriving()
        blocks = sum(part * block.parameters_active() for part, block in zip(share, self.blocks, strict=True))
        exits = sum(
            share[begin] * exit_.parameters_active()
            for exit_, (begin, _) in zip(self.exits, self.spans, strict=False)
        )
        lexical = self.lexical.parameters_active() if self.lexical is not None else 0
        return self.embedding.parameters_active() + lexical + round(blocks + exits)

    def flops_per_token(self, context: int) -> float:
        """Count the operations of a forward pass, at the trained mean depth.

        Args:
            context: Tokens of the window over which the count is averaged.

        Returns:
            Floating-point operations a token; a multiplication and an addition are two.
        """
        context = whole_number("the context", context, 1)
        share = self.arriving()
        blocks = sum(
            part * (block.mixer.flops(max(1, part * context)) + block.mlp.flops())
            for part, block in zip(share, self.blocks, strict=True)
        )
        exits = sum(
            2 * share[begin] * exit_.parameters_active()
            for exit_, (begin, _) in zip(self.exits, self.spans, strict=False)
        )
        lexical = self.lexical.flops() if self.lexical is not None else 0
        return 2 * self.embedding.parameters_active() + lexical + blocks + exits

    def state_bytes(self, length: int) -> int:
        """Count the memory of the state that generation carries, at the trained mean depth.

        Args:
            length: Tokens that the sequence has read.

        Returns:
            Bytes for one sequence, in float32.
        """
        length = whole_number("the length", length)
        share = self.arriving()
        layers = sum(
            block.mixer.state_bytes(round(part * length))
            for part, block in zip(share, self.blocks, strict=True)
        )
        return layers + (self.lexical.state_bytes() if self.lexical is not None else 0)

    def flip_rate(self) -> float | None:
        """Share of all 2:4 masks that the last `after_step` changed; None for a model without masks.

        On a GPU this waits for the device.
        """
        linears = [module for module in self.modules() if isinstance(module, TwoFourLinear)]
        if not linears:
            return None
        flips = sum(module.flip_rate * module.mask.numel() for module in linears)
        return float(flips) / sum(module.mask.numel() for module in linears)

    @contextmanager
    def recording(self) -> Iterator[list[WorkCounters]]:
        """Count what each layer does in the forward passes inside the `with`; one record a layer."""
        records = [WorkCounters(i, block.mixer.kind) for i, block in enumerate(self.blocks)]
        counted: list[tuple[CountedModule, WorkCounters]] = []
        hooks = [self.register_forward_pre_hook(count_tokens(records), with_kwargs=True)]
        for block, record in zip(self.blocks, records, strict=True):
            counted += [(module, record) for module in block.modules() if counts_work(module)]
            hooks.append(block.register_forward_pre_hook(count_arrivals(record)))
        for exit_, (_, end) in zip(self.exits, self.spans, strict=False):
            counted.append((exit_, records[end]))
        if self.lexical is not None:
            counted += [(reader, records[layer]) for layer, reader in self.lexical.placed()]
        for module, record in counted:
            module.record = record
        try:
            yield records
        finally:
            for module, _ in counted:
                module.record = None
            for hook in hooks:
                hook.remove()
