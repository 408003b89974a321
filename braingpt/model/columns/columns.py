"""Cortical columns: an MLP split into columns that compete for each token through lateral inhibition
(`model/columns/competition.py`).

`SparseColumns` (V2) computes the winners only; `SilencedColumns` (V1) computes all and silences the losers.

Legend: B batch, L tokens, N = B L tokens of all rows, E columns, A winners a token, P = N A pairs of token
and winner sorted by column, W neurons a column, F = E W neurons of all columns, D hidden.
"""

import torch
from torch import Tensor, nn

from braingpt.distributed.sharded_tensors import assign_full, full_tensor
from braingpt.kernels.columns.columns import columns as run_columns
from braingpt.kernels.pointwise import squared_relu
from braingpt.model.columns.competition import Competition
from braingpt.model.columns.two_four import TwoFourLinear
from braingpt.model.config import SharedColumnsConfig, SilencedColumnsConfig
from braingpt.model.int8 import Int8Columns, shape_only
from braingpt.model.layers import MLP, Linear
from braingpt.model.work_counters import CountedModule, WorkCounters

# Noise of a revived column, in units of the root mean square of the weights that it inherits.
VARIATION = 0.5


@torch.no_grad()
def revive(competition: Competition, dead: Tensor, up_EWD: Tensor, down_EWD: Tensor, seed: int) -> None:
    """Let dead columns start again as variations of those that win most, whose bias is lowest.

    Down weights start at zero, as in a fresh column. The optimizer's moments need no reset: without gradients
    they have faded.

    Args:
        competition: The competition of the columns, whose router, bias and idle counts are changed.
        dead: Numbers of the dead columns.
        up_EWD: Input weights of all columns, not sharded; changed in place.
        down_EWD: Output weights of all columns, not sharded; changed in place.
        seed: Seed of the noise, so that a resumed run draws the same.
    """
    donor = competition.bias.topk(len(dead), largest=False).indices
    generator = torch.Generator().manual_seed(seed)
    router_ED = full_tensor(competition.router.weight)
    # FSDP may keep weights on the host, and the competition's buffers on the device.
    to, source = dead.to(router_ED.device), donor.to(router_ED.device)
    for target in (router_ED, up_EWD):
        inherited = target[source]
        noise = torch.randn(inherited.shape, generator=generator).to(inherited)
        target[to] = inherited + VARIATION * inherited.square().mean(-1, keepdim=True).sqrt() * noise
    down_EWD[to] = 0
    assign_full(competition.router.weight, router_ED)
    competition.bias[dead] = competition.bias[donor]
    competition.idle[dead] = 0


class SparseColumns(CountedModule):
    """V2: columns that are computed only for the tokens they win, forward, backward and in generation; and a
    shared column.
    """

    # Columns revived so far, which seeds the noise of the next revival.
    revived: Tensor

    def __init__(self, hidden: int, columns: SharedColumnsConfig) -> None:
        super().__init__()
        self.columns = columns
        self.competition = Competition(hidden, columns)
        bound = (3 / hidden) ** 0.5
        # (E, 2, W, D): a column is one block of memory, its neurons' input weights before their output
        # weights.
        self.weight = nn.Parameter(torch.zeros(columns.count, 2, columns.width, hidden))
        with torch.no_grad():
            self.weight[:, 0].uniform_(-bound, bound)
        self.register_buffer("revived", torch.zeros((), dtype=torch.long))
        self.shared = MLP(hidden, columns.shared * columns.width) if columns.shared else None
        self.int8: Int8Columns | None = None

    def to_int8(self) -> None:
        """Hold the columns' weights as int8 from now on.

        The competition stays as it is, since rounding would change who wins.
        """
        self.int8 = Int8Columns(self.weight.detach())
        self.weight = shape_only(self.weight)

    def forward(self, x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
        """Run the columns that each token wins, and the shared column.

        Args:
            x_BLD: Normalised hidden states.
            valid_BL: False at padding, which costs nothing and gives zeros; None: there is none.

        Returns:
            Outputs (B, L, D).
        """
        x_ND = x_BLD.flatten(0, 1) if valid_BL is None else x_BLD[valid_BL]
        # Every weight still gets a gradient of zeros, because all processes reduce sharded weights together.
        if len(x_ND) == 0:
            return torch.zeros_like(x_BLD) + sum(0.0 * p.sum() for p in self.parameters())
        # Cast once for router, columns and shared column.
        if torch.is_autocast_enabled(x_ND.device.type):
            x_ND = x_ND.to(torch.get_autocast_dtype(x_ND.device.type))
        winner_NA, share_NA, pairs = self.competition(x_ND)
        if self.int8 is None:
            y_ND, act_PW = run_columns(x_ND, self.weight, winner_NA, share_NA, pairs)
        else:
            y_ND, act_PW = self.int8(x_ND, winner_NA, share_NA, pairs)
        if self.record is not None:
            self._count(self.record, winner_NA, act_PW)
        if self.shared is not None:
            y_ND = y_ND + self.shared(x_ND)
        if valid_BL is None:
            return y_ND.view_as(x_BLD)
        return torch.zeros_like(x_BLD, dtype=y_ND.dtype).masked_scatter(valid_BL[..., None], y_ND)

    @torch.no_grad()
    def after_step(self) -> None:
        """Revive dead columns. The number of revivals so far, which is saved, seeds the noise."""
        if len(dead := self.competition.dead()):
            weight_E2WD = full_tensor(self.weight)
            up_EWD, down_EWD = weight_E2WD.unbind(1)
            revive(self.competition, dead, up_EWD, down_EWD, int(self.revived))
            assign_full(self.weight, weight_E2WD)
            self.revived += len(dead)

    def _count(self, record: WorkCounters, winner_NA: Tensor, act_PW: Tensor) -> None:
        c, d, tokens = self.columns, self.weight.shape[-1], len(winner_NA)
        record.add_load(torch.bincount(winner_NA.flatten(), minlength=c.count))
        # The shared column's MLP counts its own neurons and operations.
        record.count(
            columns_active=tokens * (c.active + c.shared),
            columns=tokens * (c.count + c.shared),
            neurons=tokens * c.count * c.width,
            neurons_fired=int((act_PW > 0).sum()),
        )
        routing = self.competition.flops()
        record.add_flops(
            tokens * routing + 4 * act_PW.numel() * d, tokens * (routing + 4 * c.count * c.width * d)
        )

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        c = self.columns
        shared = self.shared.parameters_active() if self.shared else 0
        return self.competition.parameters_active() + 2 * c.active * c.width * self.weight.shape[-1] + shared

    def flops(self) -> int:
        """Forward operations a token."""
        c = self.columns
        shared = self.shared.flops() if self.shared else 0
        return self.competition.flops() + 4 * c.active * c.width * self.weight.shape[-1] + shared


class SilencedColumns(CountedModule):
    """V1: every column is computed, the losers are silenced, and only the winners' strongest neurons fire.

    The weights are optionally in 2:4 form.

    A neuron that does not fire gets no gradient, as below a ReLU (k-winners-take-all, Makhzani & Frey 2015,
    "Winner-take-all autoencoders").
    """

    # Columns revived so far, which seeds the noise of the next revival.
    revived: Tensor

    def __init__(self, hidden: int, columns: SilencedColumnsConfig, two_four: bool) -> None:
        super().__init__()
        self.columns = columns
        self.competition = Competition(hidden, columns)
        linear = TwoFourLinear if two_four else Linear
        self.up = linear(hidden, columns.count * columns.width)
        self.down = linear(columns.count * columns.width, hidden, zero_init=True)
        self.register_buffer("revived", torch.zeros((), dtype=torch.long))

    def forward(self, x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
        x_ND, width = x_BLD.flatten(0, 1), self.columns.width
        winner_NA, share_NA, _ = self.competition(x_ND, None if valid_BL is None else valid_BL.flatten())
        neuron_NAW = winner_NA[..., None] * width + torch.arange(width, device=x_ND.device)
        up_NF = self.up(x_ND)
        act_NAW = squared_relu(up_NF.gather(1, neuron_NAW.flatten(1))).view_as(neuron_NAW)
        act_NAW = act_NAW * share_NA[..., None].to(up_NF.dtype)
        strongest = act_NAW.flatten(1).topk(self.columns.most_firing, sorted=False)
        fires = neuron_NAW.flatten(1).gather(1, strongest.indices)
        act_NF = torch.zeros_like(up_NF).scatter(1, fires, strongest.values)
        if self.record is not None:
            self._count(self.record, x_ND.shape[0], winner_NA, act_NF)
        return self.down(act_NF).view_as(x_BLD)

    @torch.no_grad()
    def after_step(self) -> None:
        """Revive dead columns, as `SparseColumns` does; the 2:4 masks are renewed after this and follow."""
        if len(dead := self.competition.dead()):
            up_FD, down_DF = full_tensor(self.up.weight), full_tensor(self.down.weight)
            shape = (self.columns.count, self.columns.width)
            up_EWD, down_EWD = up_FD.unflatten(0, shape), down_DF.unflatten(1, shape).permute(1, 2, 0)
            revive(self.competition, dead, up_EWD, down_EWD, int(self.revived))
            assign_full(self.up.weight, up_FD)
            assign_full(self.down.weight, down_DF)
            self.revived += len(dead)

    def _count(self, record: WorkCounters, tokens: int, winner_NA: Tensor, act_NF: Tensor) -> None:
        c = self.columns
        record.add_load(torch.bincount(winner_NA.flatten(), minlength=c.count))
        record.count(
            columns_active=tokens * c.active,
            columns=tokens * c.count,
            neurons=act_NF.numel(),
            neurons_fired=int((act_NF > 0).sum()),
        )
        record.add_flops(tokens * self.flops())

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with: all, because losers are silenced after the product."""
        return self.competition.parameters_active() + self.up.weight.numel() + self.down.weight.numel()

    def flops(self) -> int:
        """Forward operations a token."""
        return self.competition.flops() + 2 * (self.up.weight.numel() + self.down.weight.numel())
