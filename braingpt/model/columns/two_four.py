"""2:4 weights as they are stored for inference: the kept half, and where it stood.

Loading makes ordinary weights of them again, so a stored form is all this is; how they are multiplied is
`kernels/two_four.py`'s matter.
"""

from torch import Tensor, nn

from braingpt.kernels.two_four import compress, expand
from braingpt.model.columns.columns import TwoFourLinear

# in place of a module's "weight" and "mask"
VALUES, PLACES = "two_four.values", "two_four.places"


def packed_two_four(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dictionary of the model with each 2:4 weight in compressed form, in place of weight and mask.

    What was pruned is lost.
    """
    packed = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, TwoFourLinear):
            weight, mask = packed.pop(f"{name}.weight"), packed.pop(f"{name}.mask")
            packed[f"{name}.{VALUES}"], packed[f"{name}.{PLACES}"] = compress(weight, mask)
    return packed


def unpacked_two_four(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `packed_two_four`; other dictionaries stay as they are."""
    whole = dict(state)
    for key in [key for key in state if key.endswith(f".{VALUES}")]:
        name = key.removesuffix(VALUES)
        whole[f"{name}weight"], whole[f"{name}mask"] = expand(whole.pop(key), whole.pop(f"{name}{PLACES}"))
    return whole
