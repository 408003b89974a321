"""A moving average of the weights: what is validated, saved and used, while training goes on from the weights
themselves.

Averaging along the way stands in for a falling learning rate (Sandler et al. 2023, "Training trajectories,
mini-batch losses and the curious role of the learning rate"). The average's memory grows with its age, so
that the first weights do not weigh on it: decay min(d, (1 + n) / (10 + n)) after n steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from braingpt.distributed.sharded_tensors import assign_full, local_rows


class Average:
    """The average of a model's parameters.

    Buffers are the model's own: they follow training slowly anyway.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.parameters = dict(model.named_parameters())
        self.values = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of one more step."""
        self.count += 1
        weight = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        ours, new = (
            [local_rows(tensor.detach()) for tensor in tensors.values()]
            for tensors in (self.values, self.parameters)
        )
        torch._foreach_lerp_(ours, new, weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged weights, and `values` the trained ones."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            trained = parameter.clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(trained)

    def take_over(self, shallower: "Average") -> None:
        """Go on from the average of a shallower model that has grown into this one.

        Its memory is again as young as the youngest weights.
        """
        for name, value in shallower.values.items():
            self.values[name].copy_(value)

    def restore(self, trained: dict[str, Tensor], count: int) -> None:
        """Go on after `count` steps: the model holds the average, as its checkpoint does, and takes the
        `trained` weights in exchange.
        """
        self.count = count
        for name, value in trained.items():
            assign_full(self.values[name], value)
        self._swap()
