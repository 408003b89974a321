"""Short causal depthwise convolution, as a sum of shifted products: on a CPU several times faster than torch's depthwise conv1d.

Legend: B batch, L tokens, E channels, K taps.
"""

import torch
from torch import Tensor


def causal_conv(x_BLE: Tensor, weight_EK: Tensor, past_BKE: Tensor | None = None, run_BL: Tensor | None = None) -> Tensor:
    """y_t = sum over k of weight[:, K-1-k] x_{t-k}. `past` holds the K-1 inputs before x (zeros if absent); taps stay in their document."""
    taps, length = weight_EK.shape[1], x_BLE.shape[1]
    if past_BKE is None:
        past_BKE = x_BLE.new_zeros(x_BLE.shape[0], taps - 1, x_BLE.shape[2])
    window = torch.cat([past_BKE, x_BLE], 1)
    if length == 1:  # a step of generation: fewer, smaller operations
        return (window * weight_EK.T).sum(1, keepdim=True)
    y_BLE = x_BLE * weight_EK[:, -1]
    for k in range(1, taps):
        tap = window[:, taps - 1 - k : taps - 1 - k + length] * weight_EK[:, taps - 1 - k]
        if run_BL is not None and length > k:
            same = torch.cat([torch.ones_like(run_BL[:, :k], dtype=torch.bool), run_BL[:, k:] == run_BL[:, :-k]], 1)
            tap = tap * same[..., None]
        y_BLE = y_BLE + tap
    return y_BLE


def carried(past_BKE: Tensor, x_BLE: Tensor, valid_BL: Tensor | None) -> Tensor:
    """What the taps of the next call reach back to: the last K-1 real inputs of each row, those of `past` included.

    Padding may stand on the left (as zeros, which count as nothing read) or on the right.
    """
    taps = past_BKE.shape[1]
    window = torch.cat([past_BKE, x_BLE], 1)
    if valid_BL is None:
        return window[:, window.shape[1] - taps :]
    places = torch.arange(1, x_BLE.shape[1] + 1, device=x_BLE.device)
    end_B = (valid_BL * places).amax(1)  # after the last real input
    index = end_B[:, None] + torch.arange(taps, device=x_BLE.device)
    return window.gather(1, index[..., None].expand(-1, -1, x_BLE.shape[2]))
