"""AdamW with moments in 8 bits: a quarter of their bytes (Dettmers et al.

2021, arXiv 2110.02861). torchao does it, an extra of the package.

Blocks of 256 moments share a scale. A checkpoint holds codes and scales as they are, so a run goes on
exactly. Where weights are spread over processes it holds the moments in float32, for the blocks end where a
process's rows do: going on then rounds them once more.
"""

import warnings

import torch
from torch import Tensor

from braingpt.device.compile import check_compiler
from braingpt.distributed.sharded_tensors import is_sharded, local_rows, sharded_like
from braingpt.errors import UserError

BLOCK = 256
# the moments, and whether they have a sign
SIGNED = {"exp_avg": True, "exp_avg_sq": False}


def adamw8bit(device: torch.device) -> type[torch.optim.Optimizer]:
    """torchao's optimizer. UserError where it, or the compiler that it asks for, is not installed."""
    try:
        from torchao.optim import AdamW8bit
    except ImportError:
        raise UserError(
            "train.optimizer=adamw8bit needs torchao: pip install 'braingpt[lowbit]'; or --set train.optimizer=adamw"
        ) from None
    check_compiler(device, "train", "train.optimizer=adamw8bit")
    # of torch about torchao, which costs a compilation
    warnings.filterwarnings("ignore", message=".*_stable_hash_for_caching")
    return AdamW8bit


def in_8_bits(name: str) -> bool:
    """Whether the moments of the parameter called `name` bear 8 bits.

    The embedding's do not: a row's gradients are large when its token comes and a thousandth of that
    otherwise, so that second moments round to zero beside first ones that do not, and the next step is their
    quotient. It diverged at once where the rate rose fast.
    """
    return name != "embedding.weight"


def quantised(count: int) -> bool:
    """Whether the moments of so many weights are kept in 8 bits; of few torchao keeps them as they are."""
    return count >= 4096 and count % BLOCK == 0


def stored(key: str, value: Tensor) -> dict[str, Tensor]:
    """The state `key` of a parameter as plain tensors, by the names they are saved under."""
    rows = local_rows(value)
    if not hasattr(rows, "codes"):
        return {key: value}
    if is_sharded(value):
        return {key: sharded_like(rows.dequantize(), value)}
    return {f"{key}_codes": rows.codes, f"{key}_scale": rows.scale}


def restored(tensors: dict[str, Tensor], key: str, name: str, in_8_bits: bool) -> Tensor | None:
    """The state `key` of the parameter `name`, taken out of `tensors`; in float32 unless 8 bits are asked for.

    None where there is none.
    """
    codes = tensors.pop(f"{key}_codes.{name}", None)
    if codes is None:
        return tensors.pop(f"{key}.{name}", None)
    value = _of_codes(codes, tensors.pop(f"{key}_scale.{name}"), SIGNED[key])
    return value if in_8_bits else value.dequantize()


def requantised(optimizer: torch.optim.Optimizer) -> None:
    """Put the moments that were loaded in float32 into 8 bits."""
    for parameter, state in optimizer.state.items():
        for key, signed in SIGNED.items():
            rows = local_rows(state[key])
            if quantised(rows.numel()) and not hasattr(rows, "codes"):
                scale = torch.zeros(rows.numel() // BLOCK, device=rows.device)
                state[key] = sharded_like(
                    _of_codes(torch.zeros_like(rows, dtype=torch.uint8), scale, signed).copy_(rows), parameter
                )


def _of_codes(codes: Tensor, scale: Tensor, signed: bool) -> Tensor:
    from torchao.optim.subclass_8bit import OptimState8bit

    levels = OptimState8bit.zeros((BLOCK,), signed, BLOCK, codes.device).qmap
    return OptimState8bit(codes, scale, levels, signed, torch.float32)
