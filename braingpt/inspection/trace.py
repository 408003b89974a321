"""What becomes of each token: how deep it goes, where it is chosen to attend, which columns win it.

Seen from outside, by hooks.

The layers' own counters (`model.recording()`) know sums; this knows tokens, and takes nothing from those
counters, so that each checks the other.

Legend: B rows, L tokens of a row, N tokens of the text, A winners a token, E columns, D hidden.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from braingpt.device.eval_mode import eval_mode
from braingpt.model.columns.competition import Competition
from braingpt.model.routing.token_selection import Selection, Selector


@dataclass
class Trace:
    """arrived: (layers, N) whether the token came as deep.

    attended: (layers, N) whether it queried; all true where a mixer chooses none.
    winners: of each layer (N, A), -1 where a token did not arrive; None for a layer without columns. columns:
        E of each layer, 0 for none.
    """

    ids: list[int]
    arrived: Tensor
    attended: Tensor
    winners: list[Tensor | None]
    columns: list[int]

    def depth(self) -> Tensor:
        """(N,) layers that each token went through."""
        return self.arrived.sum(0)


def trace(model: nn.Module, windows: Sequence[Tensor]) -> Trace:
    """Follow the tokens of `windows`, (B, L) each, through the model."""
    total = sum(window.numel() for window in windows)
    layers = len(model.blocks)
    found = Trace(
        [],
        torch.zeros(layers, total, dtype=torch.bool),
        torch.ones(layers, total, dtype=torch.bool),
        [None] * layers,
        [0] * layers,
    )
    with eval_mode(model), _following(model, found) as follower:
        for window_BL in windows:
            follower.begin(window_BL, len(found.ids))
            found.ids += window_BL.flatten().tolist()
            # a loss in place of logits, which would be large
            model(window_BL.to(model.device), targets_BL=window_BL.to(model.device))
            follower.end()
    found.attended &= found.arrived
    return found


class _Follower:
    """Knows which tokens are in the tensors that pass by now: those that an exit lets go on are packed, in
    their order.
    """

    def __init__(self, model: nn.Module, found: Trace) -> None:
        self.model, self.found, self.token_BL, self.valid_BL = model, found, torch.empty(0), torch.empty(0)

    def begin(self, window_BL: Tensor, first: int) -> None:
        self.window = window_BL.shape, first
        self.token_BL = first + torch.arange(window_BL.numel()).view_as(window_BL)
        self.valid_BL = torch.ones_like(self.token_BL, dtype=torch.bool)

    def end(self) -> None:
        """Tokens of V1 that left early were computed on, in a whole sequence, but not changed: they count as
        gone no deeper.
        """
        early = self.model.early
        if early is not None and early.depths:
            (depth_BL,), (shape, first) = early.depths, self.window
            early.depths.clear()
            layer = torch.arange(len(self.found.arrived))[:, None]
            self.found.arrived[:, first : first + shape.numel()] = layer < depth_BL.flatten().cpu()

    def tokens(self) -> Tensor:
        return self.token_BL[self.valid_BL]

    def at_block(self, layer: int):
        def hook(_module: nn.Module, _args: Any) -> None:
            self.found.arrived[layer, self.tokens()] = True

        return hook

    def at_exit(self, _module: nn.Module, _args: Any, output: tuple[Tensor, Tensor]) -> None:
        packed = Selection.of(output[1].cpu())
        self.token_BL, self.valid_BL = packed.pack(self.token_BL), packed.valid

    def at_selector(self, layer: int):
        def hook(_module: nn.Module, _args: Any, output: tuple[Tensor, Tensor]) -> None:
            self.found.attended[layer, self.token_BL[self.valid_BL]] = output[1].cpu()[self.valid_BL]

        return hook

    def at_competition(self, layer: int):
        def hook(module: nn.Module, args: Any, output: tuple[Tensor, ...]) -> None:
            winner_NA, found = output[0].cpu(), self.found
            if found.winners[layer] is None:
                found.winners[layer] = torch.full((found.arrived.shape[1], winner_NA.shape[1]), -1)
                found.columns[layer] = len(module.bias)
            found.winners[layer][self.tokens()] = winner_NA

        return hook


@contextmanager
def _following(model: nn.Module, found: Trace) -> Iterator[_Follower]:
    follower = _Follower(model, found)
    hooks = [exit_.selector.register_forward_hook(follower.at_exit) for exit_ in model.exits]
    for layer, block in enumerate(model.blocks):
        hooks.append(block.register_forward_pre_hook(follower.at_block(layer)))
        for module in block.modules():
            if isinstance(module, Selector):
                hooks.append(module.register_forward_hook(follower.at_selector(layer)))
            if isinstance(module, Competition):
                hooks.append(module.register_forward_hook(follower.at_competition(layer)))
    if model.early is not None:
        model.early.depths = []
    try:
        yield follower
    finally:
        if model.early is not None:
            model.early.depths = None
        for hook in hooks:
            hook.remove()


def work_per_token(model: nn.Module, found: Trace, context: int) -> Tensor:
    """(N,) the arithmetic of the layers spent on each token, over that on one that goes through all of them
    and attends wherever there is attention.

    Means over a window of `context` tokens where the cost of a layer depends on the place; the head, the same
    for all, is left out.
    """
    done_N, whole = torch.zeros(len(found.ids), dtype=torch.float64), 0.0
    for layer, block in enumerate(model.blocks):
        mixer, mlp = block.mixer, block.mlp.flops()
        if isinstance(getattr(mixer, "selector", None), Selector):
            choosing = 2 * mixer.selector.weight.numel()
            # of a chosen token: the mean over all is `rate` of it
            attending = (mixer.flops(context) - choosing) / mixer.selector.rate
        else:
            choosing, attending = 0.0, float(mixer.flops(context))
        done_N += (
            found.arrived[layer].double() * (mlp + choosing) + found.attended[layer].double() * attending
        )
        whole += mlp + choosing + attending
    return done_N / whole
