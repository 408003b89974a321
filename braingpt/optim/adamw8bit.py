"""AdamW with moments in 8 bits, a quarter of their bytes (Dettmers et al. 2021, arXiv 2110.02861).

The optimizer is torchao's, an extra of the package.

A block of 256 moments shares a scale. A checkpoint holds codes and scales as they are, so a run continues
exactly. Sharded weights are the exception: the blocks end where a process's rows end, so a checkpoint holds
the moments in float32, and continuing rounds them once more.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from braingpt.device.compile import check_compiler
from braingpt.distributed.sharded_tensors import is_sharded, local_rows, sharded_like
from braingpt.errors import UserError
from braingpt.utils.library_logs import without_log_lines

# Moments that share a scale.
BLOCK = 256
# Fewest moments of a parameter that torchao quantises.
LEAST = 4096
# The moments, and whether they have a sign.
SIGNED = {"exp_avg": True, "exp_avg_sq": False}


def adamw8bit(device: torch.device) -> Callable[..., torch.optim.Optimizer]:
    """torchao's optimizer.

    Args:
        device: Where the parameters are.

    Raises:
        UserError: torchao, or the compiler it needs, is not installed.
    """
    try:
        with without_log_lines():
            from torchao.optim import AdamW8bit
    except ImportError:
        raise UserError(
            "train.optimizer=adamw8bit needs torchao: pip install 'braingpt[lowbit]', "
            "or --set train.optimizer=adamw"
        ) from None
    check_compiler(device, "train", "train.optimizer=adamw8bit")
    # torch warns of torchao's hash, which costs one more compilation.
    warnings.filterwarnings("ignore", message=".*_stable_hash_for_caching")
    return AdamW8bit


def in_8_bits(name: str) -> bool:
    """Whether the moments of the parameter called `name` tolerate 8 bits.

    The embedding's do not. A row's gradients are large when its token occurs and a thousandth of that
    otherwise: second moments round to zero beside first moments that do not, and the next step is their
    quotient. Training diverged at once where the rate rose fast.
    """
    return name != "embedding.weight"


def is_quantised(count: int) -> bool:
    """Whether torchao keeps the moments of `count` weights in 8 bits; small parameters stay in float32."""
    return count >= LEAST and count % BLOCK == 0


def as_plain_tensors(key: str, value: Tensor) -> dict[str, Tensor]:
    """The state `key` of a parameter as plain tensors, by the names a checkpoint gives them."""
    rows = local_rows(value)
    codes, scale = getattr(rows, "codes", None), getattr(rows, "scale", None)
    if codes is None or scale is None:
        return {key: value}
    if is_sharded(value):
        return {key: sharded_like(rows.dequantize(), value)}
    return {f"{key}_codes": codes, f"{key}_scale": scale}


def pop_state(tensors: dict[str, Tensor], key: str, name: str, in_8_bits: bool) -> Tensor | None:
    """Take the state `key` of the parameter `name` out of a checkpoint's `tensors`; None where there is none.

    `in_8_bits`: quantised codes stay so; otherwise they become float32.
    """
    codes = tensors.pop(f"{key}_codes.{name}", None)
    if codes is None:
        return tensors.pop(f"{key}.{name}", None)
    value = _from_codes(codes, tensors.pop(f"{key}_scale.{name}"), SIGNED[key])
    return value if in_8_bits else value.dequantize()


def quantise_state(optimizer: torch.optim.Optimizer) -> None:
    """Quantise the moments that a checkpoint held in float32."""
    for parameter, state in optimizer.state.items():
        for key, signed in SIGNED.items():
            rows = local_rows(state[key])
            if is_quantised(rows.numel()) and not hasattr(rows, "codes"):
                codes = torch.zeros_like(rows, dtype=torch.uint8)
                scale = torch.zeros(rows.numel() // BLOCK, device=rows.device)
                quantised = _from_codes(codes, scale, signed).copy_(rows)
                state[key] = sharded_like(quantised, parameter)


def _from_codes(codes: Tensor, scale: Tensor, signed: bool) -> Tensor:
    """torchao's tensor of these codes and block scales."""
    from torchao.optim.subclass_8bit import OptimState8bit

    levels = OptimState8bit.zeros((BLOCK,), signed, BLOCK, codes.device).qmap
    return OptimState8bit(codes, scale, levels, signed, torch.float32)
