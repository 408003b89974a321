"""How the rows of a batch are divided into documents and padding, computed once a forward pass for all
mixers.

Legend: B batch, L tokens, K channels a head, I numbers that a token looks up.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Layout:
    """Positions, padding and documents of the rows of a batch.

    `valid` and `segment` are None where every row is one document without padding: the common case costs
    nothing.
    """

    # (B or 1, L) place of each token in its document.
    position: Tensor
    # (B, L) false at padding.
    valid: Tensor | None = None
    # (B, L) number of the token's document; padding carries that of the document before it.
    segment: Tensor | None = None
    # (B, L, I) what the lexical memory has looked up for each token; None in a model without one.
    lexical_BLI: Tensor | None = None
    _rotary: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, ids_BL: Tensor, segments_BL: Tensor | None, seen_B: Tensor | None) -> "Layout":
        """The layout of a batch.

        Args:
            ids_BL: Token ids, for their shape and device.
            segments_BL: Document numbers, which do not fall along a row, -1 at padding; None: each row is one
                document.
            seen_B: Tokens that a state has already read in each row; None: none.
        """
        length = ids_BL.shape[1]
        if segments_BL is None:
            if length == 1 and seen_B is not None:
                return cls(seen_B[:, None])
            position = torch.arange(length, device=ids_BL.device)[None]
            return cls(position if seen_B is None else position + seen_B[:, None])
        valid = segments_BL >= 0
        segment = segments_BL.cummax(1).values.clamp(min=0)
        # Each token's place among the row's real tokens.
        nth = valid.cumsum(1) - 1
        earlier = torch.cat([torch.full_like(segment[:, :1], -1), segments_BL.cummax(1).values[:, :-1]], 1)
        starts = torch.where(valid & (segments_BL != earlier), nth, 0).cummax(1).values
        position = (nth - starts).clamp(min=0)
        if seen_B is not None:
            position = position + seen_B[:, None]
        padded = not bool(valid.all())
        several = not bool((segment == segment[:, :1]).all())
        return cls(position, valid if padded else None, segment if several else None)

    def rows(self, row: Tensor) -> "Layout":
        """The layout of these rows of the batch alone."""
        position = self.position if len(self.position) == 1 else self.position[row]
        valid, segment = (None if t is None else t[row] for t in (self.valid, self.segment))
        rotary = self._rotary if position is self.position else {}
        return Layout(position, valid, segment, _rotary=rotary)

    def tokens(self, batch: int) -> int:
        """Number of tokens, padding excluded."""
        return batch * self.position.shape[1] if self.valid is None else int(self.valid.sum())

    def pairs(self, batch: int) -> int:
        """Number of query-key pairs that causal attention among all tokens computes for a head."""
        reach_BL = (self.position + 1).expand(batch, -1)
        return int((reach_BL if self.valid is None else reach_BL * self.valid).sum())

    def rotary(self, channels: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each (B or 1, 1, L, K/2), of the rotary angles (Su et al. 2021, section 3.2)."""
        if channels not in self._rotary:
            exponent = (
                torch.arange(0, channels, 2, device=self.position.device, dtype=torch.float64) / channels
            )
            angle = self.position[:, None, :, None].double() * base**-exponent
            self._rotary[channels] = (angle.cos().to(dtype), angle.sin().to(dtype))
        return self._rotary[channels]

    def documents(self) -> Tensor | None:
        """(B, L) a number for each token, as the function `documents` gives it."""
        return documents(self.segment, self.valid)

    def attention_mask(self) -> Tensor:
        """(B or 1, L, L), true where the query may see the key: not later, of its document, not padding.

        Padding sees only itself.
        """
        length = self.position.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=self.position.device).tril()[None]
        if self.segment is not None:
            allowed = allowed & (self.segment[:, :, None] == self.segment[:, None, :])
        if self.valid is not None:
            itself = torch.eye(length, dtype=torch.bool, device=self.position.device)
            allowed = (allowed & self.valid[:, None, :]) | itself
        return allowed


def documents(segment_BL: Tensor | None, valid_BL: Tensor | None) -> Tensor | None:
    """(B, L) equal for tokens of one document, and another number for each padding; None: all are of one
    document.
    """
    if valid_BL is None:
        return segment_BL
    padding_L = -1 - torch.arange(valid_BL.shape[1], device=valid_BL.device)
    return torch.where(valid_BL, 0 if segment_BL is None else segment_BL, padding_L)
