"""What attention remembers between calls: keys and values, grown by doubling so that appending costs
amortised constant time.

Legend: B batch, H heads, L new tokens, T cached tokens, K channels a head.
"""

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every token, rows in step with each other; `valid` marks left padding once there is
    any.
    """

    def __init__(self) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None
        self.valid: Tensor | None = None
        self.length = 0

    def append(self, k_BHLK: Tensor, v_BHLK: Tensor, valid_BL: Tensor | None) -> tuple[Tensor, Tensor]:
        """Store the new keys and values; return all of them, (B, H, T, K) each."""
        new = k_BHLK.shape[2]
        self.reserve(k_BHLK, v_BHLK, valid_BL)
        self.k[:, :, self.length - new : self.length] = k_BHLK
        self.v[:, :, self.length - new : self.length] = v_BHLK
        return self.k[:, :, : self.length], self.v[:, :, : self.length]

    def reserve(self, k_BHLK: Tensor, v_BHLK: Tensor, valid_BL: Tensor | None) -> None:
        """Make room for new keys and values of these shapes; what stands there is written afterwards."""
        end = self.length + k_BHLK.shape[2]
        self.k, self.v = _room(self.k, k_BHLK, end), _room(self.v, v_BHLK, end)
        if valid_BL is not None or self.valid is not None:
            ones = torch.ones(k_BHLK.shape[0], 1, dtype=torch.bool, device=k_BHLK.device)
            old = self.valid if self.valid is not None else ones.expand(-1, self.length)
            new = valid_BL if valid_BL is not None else ones.expand(-1, end - self.length)
            self.valid = torch.cat([old, new], 1)
        self.length = end

    def forget(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        self.length = length
        self.valid = None if self.valid is None else self.valid[:, :length]

    def may_read(self, new: int) -> Tensor:
        """(B or 1, L, T), true where each of the `new` last tokens may look."""
        keys = torch.arange(self.length, device=self.k.device)
        queries = keys[self.length - new :, None]
        allowed = (keys <= queries)[None]
        return allowed if self.valid is None else (allowed & self.valid[:, None, :]) | (keys == queries)

    def bytes(self) -> int:
        """Bytes in use, over the whole batch."""
        return 0 if self.k is None else 2 * self.k[:, :, : self.length].numel() * self.k.element_size()


class SomeRows:
    """A cache as a few rows of the batch see it, with room reserved for their next tokens.

    Reading copies these rows.
    """

    def __init__(self, cache: KVCache, row: Tensor) -> None:
        self.cache, self.row = cache, row
        self.valid = None if cache.valid is None else cache.valid[row]

    def append(self, k_RHLK: Tensor, v_RHLK: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
        """Store in the room reserved; return all keys and values of these rows."""
        end, new = self.cache.length, k_RHLK.shape[2]
        self.cache.k[self.row, :, end - new : end] = k_RHLK
        self.cache.v[self.row, :, end - new : end] = v_RHLK
        return self.cache.k[self.row, :, :end], self.cache.v[self.row, :, :end]


class PackedCache:
    """Keys and values of selected tokens only: rows have counts of their own."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None
        self.count_B = torch.zeros(batch, dtype=torch.long, device=device)
        self.longest = 0

    def append(self, k_BHCK: Tensor, v_BHCK: Tensor, count_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Store the first `count` of the new entries of each row; return keys, values and, for each new
        entry, its slot (B, C).
        """
        new = k_BHCK.shape[2]
        self.k, self.v = _room(self.k, k_BHCK, self.longest + new), _room(self.v, v_BHCK, self.longest + new)
        slot_BC = self.count_B[:, None] + torch.arange(new, device=k_BHCK.device)
        # Entries past a row's count land beyond what it may read, and are overwritten by its next ones.
        where = slot_BC[:, None, :, None].expand_as(k_BHCK)
        self.k.scatter_(2, where, k_BHCK)
        self.v.scatter_(2, where, v_BHCK)
        reach = self.longest + new
        self.count_B = self.count_B + count_B
        self.longest = int(self.count_B.max())
        return self.k[:, :, :reach], self.v[:, :, :reach], slot_BC

    def make_room(self) -> None:
        """Grow now where one more entry would not fit, or just so: for a compiler growing, and reading a
        store that is full, are forms of their own.
        """
        if self.k is not None:
            self.k, self.v = (_room(store, store, self.longest + 2) for store in (self.k, self.v))

    def append_one(self, k_BHLK: Tensor, v_BHLK: Tensor) -> tuple[Tensor, Tensor]:
        """Store one new entry of every row, whose counts are equal; return all keys and values."""
        place = self.longest
        self.k, self.v = _room(self.k, k_BHLK, place + 1), _room(self.v, v_BHLK, place + 1)
        self.k[:, :, place : place + 1] = k_BHLK
        self.v[:, :, place : place + 1] = v_BHLK
        self.count_B, self.longest = self.count_B + 1, place + 1
        return self.k[:, :, : place + 1], self.v[:, :, : place + 1]

    def bytes(self) -> int:
        """Bytes in use, over the whole batch."""
        return (
            0
            if self.k is None
            else 2 * int(self.count_B.sum()) * self.k.shape[1] * self.k.shape[3] * self.k.element_size()
        )


def _room(store: Tensor | None, like_BHLK: Tensor, length: int) -> Tensor:
    """The store, or a copy at least twice as long where `length` no longer fits."""
    if store is not None and store.shape[2] >= length:
        return store
    batch, heads, _, channels = like_BHLK.shape
    grown = like_BHLK.new_zeros(batch, heads, max(64, length if store is None else 2 * length), channels)
    if store is not None:
        grown[:, :, : store.shape[2]] = store
    return grown
