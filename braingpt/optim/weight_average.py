"""A moving average of the weights: training continues from the weights themselves, while the average is
validated, saved and used.

Averaging on the way replaces a falling learning rate (Sandler et al. 2023, "Training trajectories, mini-batch
losses and the curious role of the learning rate"). The average's memory grows with its age, so that the first
weights do not weigh on it: its decay after n steps is min(d, (1 + n) / (10 + n)).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from braingpt.distributed.sharded_tensors import assign_full, local_rows


class Average:
    """The average of a model's parameters.

    Buffers are not averaged: they follow training slowly anyway.

    Attributes:
        count: Steps averaged so far.
        values: The average of each parameter, by name.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.parameters = dict(model.named_parameters())
        self.values = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights of one more step to the average."""
        self.count += 1
        weight = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        averages = [local_rows(value.detach()) for value in self.values.values()]
        weights = [local_rows(parameter.detach()) for parameter in self.parameters.values()]
        torch._foreach_lerp_(averages, weights, weight)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the `with`, the model has the averaged weights, and `values` holds the trained ones."""
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
        """Continue from the average of the shallower model that has grown into this one.

        The count starts again: the average's memory is as young as the youngest weights.
        """
        for name, value in shallower.values.items():
            self.values[name].copy_(value)

    def restore(self, trained: dict[str, Tensor], count: int) -> None:
        """Continue after `count` steps from a checkpoint, whose model is the average.

        Args:
            trained: The trained weights by name, which the model takes in exchange.
            count: Steps in the average.
        """
        self.count = count
        for name, value in trained.items():
            assign_full(self.values[name], value)
        self._swap()
