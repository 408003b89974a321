"""What one layer did on real tokens, counted while it ran: the source of `inspect-sparsity` and of the
training metrics.
"""

from dataclasses import dataclass, fields
from typing import TypeGuard

from torch import Tensor, nn


@dataclass
class WorkCounters:
    """Sums over the tokens seen while recording. Shares are ratios of two of them."""

    layer: int
    mixer: str
    # Tokens that the model read.
    tokens: int = 0
    # Of these, the tokens that came as deep as this layer.
    arrived: int = 0
    # Tokens that query in the mixer.
    attended: int = 0
    # Query-key pairs that enter a softmax, summed over heads.
    keys_kept: int = 0
    # Query-key pairs that causality allows, summed over heads.
    keys_possible: int = 0
    dendrites_open: int = 0
    dendrites: int = 0
    # Shared columns included.
    columns_active: int = 0
    columns: int = 0
    # (count,) tokens won by each competing column.
    column_load: Tensor | None = None
    # Heads of an associative memory that were read, summed over tokens.
    memory_reads: int = 0
    # Of these, the heads that bound more than half of what was new.
    memory_writes: int = 0
    neurons_fired: int = 0
    neurons: int = 0
    # Floating-point operations of the matrix products that this layer computed.
    flops: int = 0
    # The same with every token, key and column computed.
    flops_dense: int = 0

    def count(self, **amounts: float | Tensor) -> None:
        """Add to the named sums."""
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + int(amount))

    def add_flops(self, done: float, dense: float | None = None) -> None:
        """Add floating-point operations: those done, and those of a dense layer (by default the same)."""
        self.count(flops=done, flops_dense=done if dense is None else dense)

    def add_load(self, won_E: Tensor) -> None:
        """Add the tokens won by each column."""
        self.column_load = won_E.clone() if self.column_load is None else self.column_load + won_E

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in values.items()}


class CountedModule(nn.Module):
    """A module that adds what it does to `record`, while there is one."""

    record: WorkCounters | None = None


def counts_work(module: nn.Module) -> TypeGuard[CountedModule]:
    """Whether a module counts its work: a `CountedModule`, or any other with a `record`."""
    return hasattr(module, "record")


def count_tokens(records: list[WorkCounters]):
    """A hook before the model's forward pass that adds the tokens it reads."""

    def hook(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        ids_BL = args[0] if args else kwargs["ids_BL"]
        for record in records:
            record.count(tokens=ids_BL.numel())

    return hook


def count_arrivals(record: WorkCounters):
    """A hook before a block's forward pass that adds the tokens that come as deep as the block."""

    def hook(_module: nn.Module, args: tuple) -> None:
        x_BLD, layout = args[:2]
        record.count(arrived=x_BLD.shape[:2].numel() if layout.valid is None else layout.valid.sum())

    return hook
