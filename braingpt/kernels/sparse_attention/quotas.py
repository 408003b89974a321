"""How many keys each query may read, and how many of them it keeps.

Every backend of sparse attention counts by these two functions, so all keep the same keys.

Legend: B batch, L queries (the last L of the T tokens), T keys.
"""

import torch
from torch import Tensor


def reach(document_BT: Tensor | None, length: int, keys: int, device: torch.device) -> Tensor:
    """How many keys each query may read: those of its own document up to itself, wherever they are.

    Args:
        document_BT: Number of each key's document; None where every row is one document.
        length: Queries, the last ones of the row.
        keys: Keys in a row.
        device: Where the result is made.

    Returns:
        Counts (B, L), or (1, L) without documents.
    """
    place_BT = torch.arange(keys, device=device)[None]
    if document_BT is None:
        return place_BT[:, keys - length :] + 1
    by_document_BT, order_BT = document_BT.sort(dim=1, stable=True)
    first_BT = torch.ones_like(by_document_BT, dtype=torch.bool)
    first_BT[:, 1:] = by_document_BT.diff(dim=1) != 0
    start_BT = (place_BT * first_BT).cummax(1).values
    return torch.empty_like(order_BT).scatter_(1, order_BT, place_BT - start_BT + 1)[:, keys - length :]


def quotas(reach_BL: Tensor, keep: float, floor: int) -> Tensor:
    """How many keys each query keeps.

    Args:
        reach_BL: Result of `reach`.
        keep: Share of those keys that is kept, rounded up.
        floor: Keys that are kept at least, where there are so many.

    Returns:
        Counts of `reach_BL`'s shape.
    """
    # In exact arithmetic 0.05 * 20 is 1, not a hair above it: hence the margin.
    wanted_BL = torch.ceil(reach_BL.double() * keep - 1e-6).long()
    return torch.minimum(wanted_BL.clamp(min=floor), reach_BL)
