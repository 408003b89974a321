"""Cortical columns: an MLP split into columns that compete for each token through lateral inhibition (`model/competition.py`).

`SparseColumns` (V2) computes the winners only; `SilencedColumns` (V1) computes all and silences the losers.

Legend: N tokens, E columns, A winners a token, P = N x A pairs sorted by column, W neurons a column, D hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels.columns import columns as run_columns
from braingpt.kernels.pointwise import squared_relu
from braingpt.kernels.two_four import masked_weight, sparse_pays, two_four_mask
from braingpt.model.competition import Competition
from braingpt.model.config import ColumnsConfig, SharedColumnsConfig
from braingpt.model.int8 import Int8Columns, shape_only
from braingpt.model.parts import MLP, Linear
from braingpt.model.sharding import held, put, sharded_like, whole

REVIVE_AFTER = 100  # steps without a win after which a column starts anew
VARIATION = 0.5  # of what a revived column inherits: its own noise, in units of the inherited weights' root mean square


class SparseColumns(nn.Module):
    """V2: the winners' neurons, and a shared column, are all that is computed, forward, backward and in generation."""

    def __init__(self, hidden: int, columns: SharedColumnsConfig) -> None:
        super().__init__()
        self.columns = columns
        self.competition = Competition(hidden, columns)
        bound = (3 / hidden) ** 0.5
        # (E, 2, W, D): a column is one block of memory, its neurons' input weights, then their output weights.
        self.weight = nn.Parameter(torch.zeros(columns.count, 2, columns.width, hidden))
        with torch.no_grad():
            self.weight[:, 0].uniform_(-bound, bound)
        self.register_buffer("revived", torch.zeros((), dtype=torch.long))  # columns so far: the seed of the next one's noise
        self.shared = MLP(hidden, columns.shared * columns.width) if columns.shared else None
        self.int8: Int8Columns | None = None
        self.record = None

    def to_int8(self) -> None:
        """Hold the columns' weights as int8 from now on; the competition stays as it is, since rounding would change who wins."""
        self.int8 = Int8Columns(self.weight.detach())
        self.weight = shape_only(self.weight)

    def forward(self, x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
        """(B, L, D); tokens that are not valid are packed away first, cost nothing and come out as zeros."""
        x_ND = x_BLD.flatten(0, 1) if valid_BL is None else x_BLD[valid_BL]
        if len(x_ND) == 0:  # every weight still has a gradient, of zeros: sharded ones are reduced by all processes together
            return torch.zeros_like(x_BLD) + sum(0.0 * p.sum() for p in self.parameters())
        winner_NA, share_NA, pairs = self.competition(x_ND)
        if torch.is_autocast_enabled(x_ND.device.type):
            x_ND = x_ND.to(torch.get_autocast_dtype(x_ND.device.type))
        if self.int8 is None:
            y_ND, act_PW = run_columns(x_ND, self.weight, winner_NA, share_NA, pairs)
        else:
            y_ND, act_PW = self.int8(x_ND, winner_NA, share_NA, pairs)
        if self.record is not None:
            self._count(winner_NA, act_PW)
        if self.shared is not None:
            y_ND = y_ND + self.shared(x_ND)
        if valid_BL is None:
            return y_ND.view_as(x_BLD)
        return torch.zeros_like(x_BLD, dtype=y_ND.dtype).masked_scatter(valid_BL[..., None], y_ND)

    @torch.no_grad()
    def after_step(self) -> None:
        """Columns that have not won for long start anew as variations of those that win most, whose bias is lowest.

        The noise is drawn from the count of revivals so far, which is saved, so a resumed run draws the same. Down weights start at zero, as
        in a fresh column. The optimizer's moments need no reset: without gradients they have faded.
        """
        dead = (self.competition.idle >= REVIVE_AFTER).nonzero()[:, 0]
        if len(dead) == 0:
            return
        competition = self.competition
        donor = competition.bias.topk(len(dead), largest=False).indices
        generator = torch.Generator().manual_seed(int(self.revived))
        router_ED, weight_E2WD = whole(competition.router.weight), whole(self.weight)
        begun, begetter = dead.to(router_ED.device), donor.to(router_ED.device)  # FSDP may keep weights on the host
        for target in (router_ED, weight_E2WD[:, 0]):
            inherited = target[begetter]
            noise = torch.randn(inherited.shape, generator=generator).to(inherited)
            target[begun] = inherited + VARIATION * inherited.square().mean(-1, keepdim=True).sqrt() * noise
        weight_E2WD[begun, 1] = 0
        put(competition.router.weight, router_ED)
        put(self.weight, weight_E2WD)
        competition.bias[dead] = competition.bias[donor]
        competition.idle[dead] = 0
        self.revived += len(dead)

    def _count(self, winner_NA: Tensor, act_PW: Tensor) -> None:
        c, d, tokens = self.columns, self.weight.shape[-1], len(winner_NA)
        self.record.load(torch.bincount(winner_NA.flatten(), minlength=c.count))
        # The shared columns' MLP counts its own neurons and products.
        self.record.count(
            columns_active=tokens * (c.active + c.shared),
            columns=tokens * (c.count + c.shared),
            neurons=tokens * c.count * c.width,
            neurons_fired=int((act_PW > 0).sum()),
        )
        choosing = self.competition.flops()
        self.record.products(tokens * choosing + 4 * act_PW.numel() * d, tokens * (choosing + 4 * c.count * c.width * d))

    def parameters_active(self) -> int:
        """Weights one token multiplies with."""
        c = self.columns
        shared = self.shared.parameters_active() if self.shared else 0
        return self.competition.parameters_active() + 2 * c.active * c.width * self.weight.shape[-1] + shared

    def flops(self) -> int:
        """Forward operations a token."""
        c = self.columns
        shared = self.shared.flops() if self.shared else 0
        return self.competition.flops() + 4 * c.active * c.width * self.weight.shape[-1] + shared


class SilencedColumns(nn.Module):
    """V1: every column is computed, the losers' neurons are then silent; weights optionally in 2:4 form."""

    def __init__(self, hidden: int, columns: ColumnsConfig, two_four: bool) -> None:
        super().__init__()
        self.columns = columns
        self.competition = Competition(hidden, columns)
        linear = TwoFourLinear if two_four else Linear
        self.up = linear(hidden, columns.count * columns.width)
        self.down = linear(columns.count * columns.width, hidden, out=True)
        self.record = None

    def forward(self, x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
        x_ND = x_BLD.flatten(0, 1)
        winner_NA, share_NA, _ = self.competition(x_ND, None if valid_BL is None else valid_BL.flatten())
        share_NE = x_ND.new_zeros(x_ND.shape[0], self.columns.count).scatter(1, winner_NA, share_NA.to(x_ND.dtype))
        act_NEW = squared_relu(self.up(x_ND)).unflatten(-1, (self.columns.count, -1)) * share_NE[..., None]
        if self.record is not None:
            self._count(x_ND.shape[0], winner_NA, act_NEW)
        return self.down(act_NEW.flatten(1)).view_as(x_BLD)

    def _count(self, tokens: int, winner_NA: Tensor, act_NEW: Tensor) -> None:
        c = self.columns
        self.record.load(torch.bincount(winner_NA.flatten(), minlength=c.count))
        self.record.count(
            columns_active=tokens * c.active,
            columns=tokens * c.count,
            neurons=act_NEW.numel(),
            neurons_fired=int((act_NEW > 0).sum()),
        )
        self.record.products(tokens * self.flops())

    def parameters_active(self) -> int:
        """Weights one token multiplies with: all of them, for silence here comes after the product."""
        return self.competition.parameters_active() + self.up.weight.numel() + self.down.weight.numel()

    def flops(self) -> int:
        """Forward operations a token."""
        return self.competition.flops() + 2 * (self.up.weight.numel() + self.down.weight.numel())


class TwoFourLinear(Linear):
    """A linear map whose weight has at most two non-zeros among every four inputs. The mask follows the weights, step by step.

    `flip_rate` is the share of the mask that changed after the last step: it should fall as training goes on (Hu et al. 2024, section 3).
    """

    def __init__(self, inputs: int, outputs: int, out: bool = False) -> None:
        super().__init__(inputs, outputs, out)
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))
        self.register_buffer("_pruned", None, persistent=False)
        self._pruned_version, self.flip_rate = -1, 0.0
        self.keeps = True  # what it makes of its weight while nothing trains
        self._sparse: dict[torch.dtype, Tensor] = {}
        if not self.weight.is_meta:
            self.mask.copy_(two_four_mask(self.weight))

    @torch.no_grad()
    def after_step(self) -> None:
        """Choose the two largest of every four again."""
        rows_OI = held(self.weight).to(self.mask.device)  # FSDP may keep weights on the host
        chosen = whole(sharded_like(two_four_mask(rows_OI), self.weight))
        self.flip_rate = (chosen != self.mask).float().mean()  # a tensor: reading it would wait for the GPU
        self.mask.copy_(chosen)

    def forward(self, x: Tensor) -> Tensor:
        if self.int8 is None and self.keeps and x.is_cuda and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
            if sparse_pays(x.shape[:-1].numel(), tuple(self.weight.shape), dtype, x.device):
                with torch.autocast("cuda", enabled=False):
                    return F.linear(x.to(dtype), self._semi_structured(dtype))
        return super().forward(x)

    def _semi_structured(self, dtype: torch.dtype) -> Tensor:
        """The weight as sparse tensor cores read it; made once and kept while nothing trains."""
        if self._pruned_version != self.weight._version:
            self._sparse.clear()
        weight_OI = self.effective_weight()
        if dtype not in self._sparse:
            self._sparse[dtype] = torch.sparse.to_sparse_semi_structured(weight_OI.to(dtype).contiguous())
        return self._sparse[dtype]

    def effective_weight(self) -> Tensor:
        """The weight that is multiplied with; pruned once and kept while nothing trains."""
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return masked_weight(self.weight, self.mask)
        if torch.compiler.is_compiling() and self._pruned is not None:  # a step of generation: reading the prompt has renewed it
            return self._pruned
        if not self.keeps:
            return self.weight * self.mask
        if self._pruned is None or self._pruned_version != self.weight._version:
            self._pruned = self.weight.detach() * self.mask
            self._pruned_version = self.weight._version
        return self._pruned

    @torch.no_grad()
    def to_int8(self) -> None:
        super().to_int8()
        self._pruned = None
