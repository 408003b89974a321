"""What one layer really did on real tokens, counted while it ran: the source of `inspect-sparsity` and of the
training metrics.
"""

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass
class WorkCounters:
    """Sums over the tokens seen while recording. Shares are ratios of two of them."""

    layer: int
    mixer: str
    # read by the model
    tokens: int = 0
    # of them, those that came as deep as this layer
    arrived: int = 0
    # tokens that query in the mixer
    attended: int = 0
    # query-key pairs that enter a softmax, per head
    keys_kept: int = 0
    # query-key pairs that causality allows, per head
    keys_possible: int = 0
    dendrites_open: int = 0
    dendrites: int = 0
    # shared ones included
    columns_active: int = 0
    columns: int = 0
    # (count,) tokens won by each competing column
    column_load: Tensor | None = None
    # heads of an associative memory that were asked, a token each
    memory_reads: int = 0
    # of them, those that bound more than half of what was new
    memory_writes: int = 0
    neurons_fired: int = 0
    neurons: int = 0
    # of the matrix products really computed in this layer
    flops: int = 0
    # the same layer with every token, key and column computed
    flops_dense: int = 0

    def count(self, **amounts: int) -> None:
        """Add to the named sums."""
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + int(amount))

    def products(self, done: int, dense: int | None = None) -> None:
        """Add floating-point operations: those done, and those a dense layer of the same shape would do (by
        default the same).
        """
        self.count(flops=done, flops_dense=done if dense is None else dense)

    def load(self, won_E: Tensor) -> None:
        """Add tokens won by each column."""
        self.column_load = won_E.clone() if self.column_load is None else self.column_load + won_E

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in values.items()}
