"""2:4 weights, at most two non-zeros among every four inputs: the linear map that trains them, and their
compressed form for storage.

The compressed form holds the kept half and its places; loading restores ordinary weights.
`kernels/two_four.py` multiplies the weights.

Legend: O outputs, I inputs.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.distributed.sharded_tensors import full_tensor, local_rows, sharded_like
from braingpt.kernels.two_four import compress, expand, masked_weight, sparse_pays, two_four_mask
from braingpt.model.layers import Linear

# Keys of the compressed form, instead of a module's "weight" and "mask".
VALUES, PLACES = "two_four.values", "two_four.places"


class TwoFourLinear(Linear):
    """A linear map whose weight has at most two non-zeros among every four inputs.

    The mask follows the weights from step to step.
    """

    mask: Tensor
    _pruned: Tensor | None
    # Share of the mask that changed after the last step; it should fall as training continues (Hu et al.
    # 2024, section 3). A tensor on the device, because reading it would wait for a GPU.
    flip_rate: Tensor | float

    def __init__(self, inputs: int, outputs: int, zero_init: bool = False) -> None:
        super().__init__(inputs, outputs, zero_init)
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))
        self.register_buffer("_pruned", None, persistent=False)
        self._pruned_version, self.flip_rate = -1, 0.0
        # Whether the pruned weight is kept while nothing trains; false for sharded weights.
        self.keeps = True
        self._sparse: dict[torch.dtype, Tensor] = {}
        if not self.weight.is_meta:
            self.mask.copy_(two_four_mask(self.weight))

    @torch.no_grad()
    def after_step(self) -> None:
        """Choose the two largest of every four again."""
        # FSDP may keep weights on the host.
        rows_OI = local_rows(self.weight).to(self.mask.device)
        chosen = full_tensor(sharded_like(two_four_mask(rows_OI), self.weight))
        # Adding bytes is three times as fast as casting them to float.
        flips = torch.ne(chosen, self.mask).view(torch.uint8).sum(dtype=torch.int32)
        self.flip_rate = flips / chosen.numel()
        self.mask.copy_(chosen)

    def forward(self, x: Tensor) -> Tensor:
        inference = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if self.int8 is None and self.keeps and x.is_cuda and inference:
            dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
            shape = (self.out_features, self.in_features)
            if sparse_pays(x.shape[:-1].numel(), shape, dtype, x.device):
                with torch.autocast("cuda", enabled=False):
                    return F.linear(x.to(dtype), self._semi_structured(dtype))
        return super().forward(x)

    def _semi_structured(self, dtype: torch.dtype) -> Tensor:
        """The weight in the form of sparse tensor cores, kept while nothing trains."""
        if self._pruned_version != self.weight._version:
            self._sparse.clear()
        weight_OI = self.effective_weight()
        if dtype not in self._sparse:
            with warnings.catch_warnings():
                # A user cannot do anything about this warning.
                warnings.filterwarnings("ignore", message=".*SparseSemiStructuredTensor is in prototype")
                self._sparse[dtype] = torch.sparse.to_sparse_semi_structured(weight_OI.to(dtype).contiguous())
        return self._sparse[dtype]

    def effective_weight(self) -> Tensor:
        """The pruned weight (outputs, inputs), kept while nothing trains."""
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return masked_weight(self.weight, self.mask)
        # A compiled step of generation: reading the prompt has renewed it.
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
        """As `Linear.to_int8`, of the pruned weight."""
        super().to_int8()
        self._pruned = None


def packed_two_four(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dictionary with each 2:4 weight in compressed form, instead of weight and mask.

    What the mask prunes is lost.
    """
    packed = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, TwoFourLinear):
            weight, mask = packed.pop(f"{name}.weight"), packed.pop(f"{name}.mask")
            packed[f"{name}.{VALUES}"], packed[f"{name}.{PLACES}"] = compress(weight, mask)
    return packed


def unpacked_two_four(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `packed_two_four`; other dictionaries stay as they are."""
    unpacked = dict(state)
    for key in [key for key in state if key.endswith(f".{VALUES}")]:
        name = key.removesuffix(VALUES)
        weight, mask = expand(unpacked.pop(key), unpacked.pop(f"{name}{PLACES}"))
        unpacked[f"{name}weight"], unpacked[f"{name}mask"] = weight, mask
    return unpacked
