"""Cortical columns: an MLP split into columns that compete for each token through lateral inhibition
(`model/columns/competition.py`).

`SparseColumns` (V2) computes the winners only; `SilencedColumns` (V1) computes all and silences the losers.

Legend: N tokens, E columns, A winners a token, P = N x A pairs sorted by column, W neurons a column, F = E x
W neurons of all, K that may fire, D hidden.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.distributed.sharded_tensors import assign_full, full_tensor, local_rows, sharded_like
from braingpt.kernels.columns.columns import columns as run_columns
from braingpt.kernels.pointwise import squared_relu
from braingpt.kernels.two_four import masked_weight, sparse_pays, two_four_mask
from braingpt.model.columns.competition import Competition
from braingpt.model.config import SharedColumnsConfig, SilencedColumnsConfig
from braingpt.model.int8 import Int8Columns, shape_only
from braingpt.model.layers import MLP, Linear

# of what a revived column inherits: its own noise, in units of the inherited weights' root mean square
VARIATION = 0.5


@torch.no_grad()
def revive(competition: Competition, dead: Tensor, up_EWD: Tensor, down_EWD: Tensor, seed: int) -> None:
    """Let `dead` columns start anew as variations of those that win most, whose bias is lowest.

    `up` and `down` are whole here, and written to.

    The noise is drawn from `seed`, so a resumed run draws the same. Down weights start at zero, as in a fresh
    column. The optimizer's moments need no reset: without gradients they have faded.
    """
    donor, generator = (
        competition.bias.topk(len(dead), largest=False).indices,
        torch.Generator().manual_seed(seed),
    )
    router_ED = full_tensor(competition.router.weight)
    # FSDP may keep weights on the host
    begun, begetter = dead.to(router_ED.device), donor.to(router_ED.device)
    for target in (router_ED, up_EWD):
        inherited = target[begetter]
        noise = torch.randn(inherited.shape, generator=generator).to(inherited)
        target[begun] = inherited + VARIATION * inherited.square().mean(-1, keepdim=True).sqrt() * noise
    down_EWD[begun] = 0
    assign_full(competition.router.weight, router_ED)
    competition.bias[dead] = competition.bias[donor]
    competition.idle[dead] = 0


class SparseColumns(nn.Module):
    """V2: the winners' neurons, and a shared column, are all that is computed, forward, backward and in
    generation.
    """

    def __init__(self, hidden: int, columns: SharedColumnsConfig) -> None:
        super().__init__()
        self.columns = columns
        self.competition = Competition(hidden, columns)
        bound = (3 / hidden) ** 0.5
        # (E, 2, W, D): a column is one block of memory, its neurons' input weights, then their output
        # weights.
        self.weight = nn.Parameter(torch.zeros(columns.count, 2, columns.width, hidden))
        with torch.no_grad():
            self.weight[:, 0].uniform_(-bound, bound)
        # columns so far: the seed of the next one's noise
        self.register_buffer("revived", torch.zeros((), dtype=torch.long))
        self.shared = MLP(hidden, columns.shared * columns.width) if columns.shared else None
        self.int8: Int8Columns | None = None
        self.record = None

    def to_int8(self) -> None:
        """Hold the columns' weights as int8 from now on; the competition stays as it is, since rounding would
        change who wins.
        """
        self.int8 = Int8Columns(self.weight.detach())
        self.weight = shape_only(self.weight)

    def forward(self, x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
        """(B, L, D); tokens that are not valid are packed away first, cost nothing and come out as zeros."""
        x_ND = x_BLD.flatten(0, 1) if valid_BL is None else x_BLD[valid_BL]
        # every weight still has a gradient, of zeros: sharded ones are reduced by all processes together
        if len(x_ND) == 0:
            return torch.zeros_like(x_BLD) + sum(0.0 * p.sum() for p in self.parameters())
        # once for router, columns and shared column
        if torch.is_autocast_enabled(x_ND.device.type):
            x_ND = x_ND.to(torch.get_autocast_dtype(x_ND.device.type))
        winner_NA, share_NA, pairs = self.competition(x_ND)
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
        """Revive dead columns. The count of revivals so far, which is saved, seeds the noise."""
        if len(dead := self.competition.dead()):
            weight_E2WD = full_tensor(self.weight)
            revive(self.competition, dead, *weight_E2WD.unbind(1), int(self.revived))
            assign_full(self.weight, weight_E2WD)
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
        self.record.products(
            tokens * choosing + 4 * act_PW.numel() * d, tokens * (choosing + 4 * c.count * c.width * d)
        )

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
    """V1: every column is computed, the losers' neurons are then silent, and of the winners' the strongest
    fire; weights optionally in 2:4 form.

    What does not fire gets no gradient, as below a ReLU (k-winners-take-all, Makhzani & Frey 2015,
    "Winner-take-all autoencoders").
    """

    def __init__(self, hidden: int, columns: SilencedColumnsConfig, two_four: bool) -> None:
        super().__init__()
        self.columns = columns
        self.competition = Competition(hidden, columns)
        linear = TwoFourLinear if two_four else Linear
        self.up = linear(hidden, columns.count * columns.width)
        self.down = linear(columns.count * columns.width, hidden, out=True)
        # columns so far: the seed of the next one's noise
        self.register_buffer("revived", torch.zeros((), dtype=torch.long))
        self.record = None

    def forward(self, x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
        x_ND, width = x_BLD.flatten(0, 1), self.columns.width
        winner_NA, share_NA, _ = self.competition(x_ND, None if valid_BL is None else valid_BL.flatten())
        neuron_NAW = winner_NA[..., None] * width + torch.arange(width, device=x_ND.device)
        up_NF = self.up(x_ND)
        act_NAW = squared_relu(up_NF.gather(1, neuron_NAW.flatten(1))).view_as(neuron_NAW) * share_NA[
            ..., None
        ].to(up_NF.dtype)
        strongest = act_NAW.flatten(1).topk(self.columns.most_firing, sorted=False)
        act_NF = torch.zeros_like(up_NF).scatter(
            1, neuron_NAW.flatten(1).gather(1, strongest.indices), strongest.values
        )
        if self.record is not None:
            self._count(x_ND.shape[0], winner_NA, act_NF)
        return self.down(act_NF).view_as(x_BLD)

    @torch.no_grad()
    def after_step(self) -> None:
        """Revive dead columns, as `SparseColumns` does; the 2:4 masks, whose turn is next, follow."""
        if len(dead := self.competition.dead()):
            (up_FD, down_DF), columns = (
                (full_tensor(self.up.weight), full_tensor(self.down.weight)),
                (self.columns.count, self.columns.width),
            )
            revive(
                self.competition,
                dead,
                up_FD.unflatten(0, columns),
                down_DF.unflatten(1, columns).permute(1, 2, 0),
                int(self.revived),
            )
            assign_full(self.up.weight, up_FD)
            assign_full(self.down.weight, down_DF)
            self.revived += len(dead)

    def _count(self, tokens: int, winner_NA: Tensor, act_NF: Tensor) -> None:
        c = self.columns
        self.record.load(torch.bincount(winner_NA.flatten(), minlength=c.count))
        self.record.count(
            columns_active=tokens * c.active,
            columns=tokens * c.count,
            neurons=act_NF.numel(),
            neurons_fired=int((act_NF > 0).sum()),
        )
        self.record.products(tokens * self.flops())

    def parameters_active(self) -> int:
        """Weights one token multiplies with: all of them, for silence here comes after the product."""
        return self.competition.parameters_active() + self.up.weight.numel() + self.down.weight.numel()

    def flops(self) -> int:
        """Forward operations a token."""
        return self.competition.flops() + 2 * (self.up.weight.numel() + self.down.weight.numel())


class TwoFourLinear(Linear):
    """A linear map whose weight has at most two non-zeros among every four inputs.

    The mask follows the weights, step by step.

    `flip_rate` is the share of the mask that changed after the last step: it should fall as training goes on
    (Hu et al. 2024, section 3).
    """

    def __init__(self, inputs: int, outputs: int, out: bool = False) -> None:
        super().__init__(inputs, outputs, out)
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))
        self.register_buffer("_pruned", None, persistent=False)
        self._pruned_version, self.flip_rate = -1, 0.0
        # what it makes of its weight while nothing trains
        self.keeps = True
        self._sparse: dict[torch.dtype, Tensor] = {}
        if not self.weight.is_meta:
            self.mask.copy_(two_four_mask(self.weight))

    @torch.no_grad()
    def after_step(self) -> None:
        """Choose the two largest of every four again."""
        # FSDP may keep weights on the host
        rows_OI = local_rows(self.weight).to(self.mask.device)
        chosen = full_tensor(sharded_like(two_four_mask(rows_OI), self.weight))
        # bytes are added three times as fast as floats are made of them
        flips = (chosen != self.mask).view(torch.uint8).sum(dtype=torch.int32)
        # a tensor: reading it would wait for the GPU
        self.flip_rate = flips / chosen.numel()
        self.mask.copy_(chosen)

    def forward(self, x: Tensor) -> Tensor:
        if (
            self.int8 is None
            and self.keeps
            and x.is_cuda
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
        ):
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
            with warnings.catch_warnings():
                # nothing a user could do
                warnings.filterwarnings("ignore", message=".*SparseSemiStructuredTensor is in prototype")
                self._sparse[dtype] = torch.sparse.to_sparse_semi_structured(weight_OI.to(dtype).contiguous())
        return self._sparse[dtype]

    def effective_weight(self) -> Tensor:
        """The weight that is multiplied with; pruned once and kept while nothing trains."""
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return masked_weight(self.weight, self.mask)
        # a step of generation: reading the prompt has renewed it
        if torch.compiler.is_compiling() and self._pruned is not None:
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
