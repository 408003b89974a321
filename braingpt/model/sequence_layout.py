"""How the rows of a batch are divided into documents and padding, computed once a forward pass and read by
every mixer.

Legend: B batch, L tokens, K channels a head.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from braingpt.model.routing.token_selection import Selection


@dataclass
class Layout:
    """`valid` and `run` are None where every row is one document without padding, the common case, which then
    costs nothing.

    position: (B or 1, L) place of each token in its document.  valid: (B, L) false at padding.  run: (B, L)
        number of the token's document; padding carries that of the document before it.
    """

    position: Tensor
    valid: Tensor | None = None
    run: Tensor | None = None
    _rotary: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, ids_BL: Tensor, segments_BL: Tensor | None, seen_B: Tensor | None) -> "Layout":
        """From document numbers (B, L), non-decreasing, -1 at padding; `seen` counts the tokens a state has
        already read in each row.
        """
        length = ids_BL.shape[1]
        if segments_BL is None:
            if length == 1 and seen_B is not None:
                return cls(seen_B[:, None])
            position = torch.arange(length, device=ids_BL.device)[None]
            return cls(position if seen_B is None else position + seen_B[:, None])
        valid = segments_BL >= 0
        run = segments_BL.cummax(1).values.clamp(min=0)
        # among the row's real tokens
        nth = valid.cumsum(1) - 1
        earlier = torch.cat([torch.full_like(run[:, :1], -1), segments_BL.cummax(1).values[:, :-1]], 1)
        starts = torch.where(valid & (segments_BL != earlier), nth, 0).cummax(1).values
        position = (nth - starts).clamp(min=0)
        if seen_B is not None:
            position = position + seen_B[:, None]
        return cls(
            position, None if bool(valid.all()) else valid, None if bool((run == run[:, :1]).all()) else run
        )

    def packed(self, selection: Selection) -> "Layout":
        """The layout of the chosen tokens alone, packed to the front of each row; unused slots are padding."""
        batch = selection.index.shape[0]
        position = selection.pack(self.position.expand(batch, -1))
        run = None if self.run is None else (selection.pack(self.run) * selection.valid).cummax(1).values
        return Layout(position, None if bool(selection.valid.all()) else selection.valid, run)

    def rows(self, row: Tensor) -> "Layout":
        """The layout of these rows of the batch alone."""
        position = self.position if len(self.position) == 1 else self.position[row]
        valid, run = (None if t is None else t[row] for t in (self.valid, self.run))
        return Layout(position, valid, run, self._rotary if position is self.position else {})

    def tokens(self, batch: int) -> int:
        """How many of the places hold tokens."""
        return batch * self.position.shape[1] if self.valid is None else int(self.valid.sum())

    def pairs(self, batch: int) -> int:
        """How many pairs of a token and one not after it, in its document, there are: what causal attention
        of all tokens computes, a head.
        """
        reach_BL = (self.position + 1).expand(batch, -1)
        return int((reach_BL if self.valid is None else reach_BL * self.valid).sum())

    def rotary(self, channels: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin, each (B or 1, 1, L, K/2), of the rotary angles (Su et al. 2021, section 3.2)."""
        if channels not in self._rotary:
            exponent = (
                torch.arange(0, channels, 2, device=self.position.device, dtype=torch.float64) / channels
            )
            angle = self.position[:, None, :, None].double() * base**-exponent
            self._rotary[channels] = (angle.cos().to(dtype), angle.sin().to(dtype))
        return self._rotary[channels]

    def documents(self) -> Tensor | None:
        """(B, L) the number of each token's document, as `documents` gives it."""
        return documents(self.run, self.valid)

    def may_read(self) -> Tensor:
        """(B or 1, L, L), true where query l may see key t: not later, of its own document, no padding
        (padding sees only itself).
        """
        length = self.position.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=self.position.device).tril()[None]
        if self.run is not None:
            allowed = allowed & (self.run[:, :, None] == self.run[:, None, :])
        if self.valid is not None:
            itself = torch.eye(length, dtype=torch.bool, device=self.position.device)
            allowed = (allowed & self.valid[:, None, :]) | itself
        return allowed


def documents(run_BL: Tensor | None, valid_BL: Tensor | None) -> Tensor | None:
    """(B, L), alike where tokens are of one document, of which each reads what is not later; padding has
    numbers of its own. None: all are of one.
    """
    if valid_BL is None:
        return run_BL
    padding_L = -1 - torch.arange(valid_BL.shape[1], device=valid_BL.device)
    return torch.where(valid_BL, 0 if run_BL is None else run_BL, padding_L)
