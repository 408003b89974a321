"""The way of each token: how deep it goes, where it is chosen to attend, which columns win it.

Hooks see the model from outside. The layers' own counters (`model.recording()`) know sums; the hooks know
tokens and read none of those counters, so each checks the other.

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
from braingpt.model.lm import LanguageModel
from braingpt.model.routing.token_selection import Selection, Selector


@dataclass
class Trace:
    """The way of every token through the layers."""

    ids: list[int]
    # (layers, N) whether the token reached the layer.
    arrived: Tensor
    # (layers, N) whether the token queried: of those that arrive all where the mixer chooses no tokens, and
    # none where there is no mixer.
    attended: Tensor
    # Of each layer (N, A), -1 where a token did not arrive; None for a layer without columns.
    winners: list[Tensor | None]
    # Columns of each layer, 0 for none.
    columns: list[int]

    def depth(self) -> Tensor:
        """(N,) layers that each token went through."""
        return self.arrived.sum(0)


def trace(model: LanguageModel, windows: Sequence[Tensor]) -> Trace:
    """Follow tokens through the model.

    Args:
        model: Any of the three architectures.
        windows: (B, L) tokens each.

    Returns:
        The way of every token, in the order of the windows.
    """
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
            # A loss instead of logits, which would be large.
            model(window_BL.to(model.device), targets_BL=window_BL.to(model.device))
            follower.end()
    found.attended &= found.arrived
    found.attended[[block.mixer.kind == "none" for block in model.blocks]] = False
    return found


class _Follower:
    """Knows which tokens are in the tensors that pass: an exit packs those that continue, in their order."""

    def __init__(self, model: LanguageModel, found: Trace) -> None:
        self.model, self.found = model, found
        self.token_BL, self.valid_BL = torch.empty(0), torch.empty(0)

    def begin(self, window_BL: Tensor, first: int) -> None:
        """A window of tokens is read next; the text's token `first` is the first of them."""
        self.window = window_BL.shape, first
        self.token_BL = first + torch.arange(window_BL.numel()).view_as(window_BL)
        self.valid_BL = torch.ones_like(self.token_BL, dtype=torch.bool)

    def end(self) -> None:
        """Correct where V1's tokens went.

        In a whole sequence V1 continues to compute tokens that left early, without changing them. They count
        as not arrived in deeper layers.
        """
        early = self.model.early
        if early is not None and early.depths:
            (depth_BL,), (shape, first) = early.depths, self.window
            early.depths.clear()
            layer = torch.arange(len(self.found.arrived))[:, None]
            self.found.arrived[:, first : first + shape.numel()] = layer < depth_BL.flatten().cpu()

    def tokens(self) -> Tensor:
        """Numbers of the tokens that pass."""
        return self.token_BL[self.valid_BL]

    def at_block(self, layer: int):
        def hook(_module: nn.Module, _args: tuple[Any, ...]) -> None:
            self.found.arrived[layer, self.tokens()] = True

        return hook

    def at_exit(self, _module: nn.Module, _args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        packed = Selection.of(output[1].cpu())
        self.token_BL, self.valid_BL = packed.pack(self.token_BL), packed.valid

    def at_selector(self, layer: int):
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
            self.found.attended[layer, self.token_BL[self.valid_BL]] = output[1].cpu()[self.valid_BL]

        return hook

    def at_competition(self, layer: int):
        def hook(module: Competition, _args: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            winner_NA, found = output[0].cpu(), self.found
            won_NA = found.winners[layer]
            if won_NA is None:
                won_NA = torch.full((found.arrived.shape[1], winner_NA.shape[1]), -1)
                found.winners[layer], found.columns[layer] = won_NA, len(module.bias)
            won_NA[self.tokens()] = winner_NA

        return hook


@contextmanager
def _following(model: LanguageModel, found: Trace) -> Iterator[_Follower]:
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


def work_per_token(model: LanguageModel, found: Trace, context: int) -> Tensor:
    """The arithmetic that the layers spent on each token.

    Where the cost of a layer depends on the token's place, the mean over a window counts. The head costs the
    same for all tokens and is left out.

    Args:
        model: The model traced.
        found: The trace.
        context: Tokens a window.

    Returns:
        (N,) arithmetic over that of a token that passes all layers and attends wherever there is attention.
    """
    done_N, whole = torch.zeros(len(found.ids), dtype=torch.float64), 0.0
    for layer, block in enumerate(model.blocks):
        mixer, mlp = block.mixer, block.mlp.flops()
        selector = getattr(mixer, "selector", None)
        if isinstance(selector, Selector):
            choosing = 2 * selector.weight.numel()
            # The cost of a chosen token: the mean over all tokens is `rate` times that.
            attending = (mixer.flops(context) - choosing) / selector.rate
        else:
            choosing, attending = 0.0, float(mixer.flops(context))
        done_N += (
            found.arrived[layer].double() * (mlp + choosing) + found.attended[layer].double() * attending
        )
        whole += mlp + choosing + attending
    return done_N / whole
