"""What attention keeps between calls: keys and values, grown by doubling so that appending costs amortised
constant time.

Legend: B batch, R some of its rows, H heads, L new tokens, T cached tokens, C packed entries, K channels a
head.
"""

import torch
from torch import Tensor

# Tokens that a cache has space for at first.
FIRST_CAPACITY = 64


class KVCache:
    """Keys and values of every token; all rows have the same length.

    `valid` (B, T) is false at left padding, None as long as there was no padding.
    """

    def __init__(self) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None
        self.valid: Tensor | None = None
        self.length = 0

    def append(self, k_BHLK: Tensor, v_BHLK: Tensor, valid_BL: Tensor | None) -> tuple[Tensor, Tensor]:
        """Store the new keys and values; return all of them, (B, H, T, K) each."""
        new = k_BHLK.shape[2]
        k, v = self.reserve(k_BHLK, v_BHLK, valid_BL)
        k[:, :, self.length - new : self.length] = k_BHLK
        v[:, :, self.length - new : self.length] = v_BHLK
        return k[:, :, : self.length], v[:, :, : self.length]

    def reserve(self, k_BHLK: Tensor, v_BHLK: Tensor, valid_BL: Tensor | None) -> tuple[Tensor, Tensor]:
        """Lengthen the cache by tokens of these shapes, to be written afterwards; return both stores."""
        end = self.length + k_BHLK.shape[2]
        k, v = _with_capacity(self.k, k_BHLK, end), _with_capacity(self.v, v_BHLK, end)
        self.k, self.v = k, v
        if valid_BL is not None or self.valid is not None:
            ones = torch.ones(k_BHLK.shape[0], 1, dtype=torch.bool, device=k_BHLK.device)
            old = self.valid if self.valid is not None else ones.expand(-1, self.length)
            new = valid_BL if valid_BL is not None else ones.expand(-1, end - self.length)
            self.valid = torch.cat([old, new], 1)
        self.length = end
        return k, v

    def reserve_one(self, valid_BL: Tensor | None) -> tuple[Tensor, Tensor]:
        """Lengthen the cache by one token; return both stores.

        Raises ValueError for an empty cache, whose shapes are not known yet.
        """
        if self.k is None or self.v is None:
            raise ValueError("an empty cache has no shape to reserve a token for")
        return self.reserve(self.k[:, :, :1], self.v[:, :, :1], valid_BL)

    @property
    def entries(self) -> int:
        """Tokens stored."""
        return self.length

    def space_for_one(self, heads: int, channels: int) -> tuple[Tensor, Tensor]:
        """Both stores of a single row in float32, with space for one token more, which `count_one` counts."""
        self.k, self.v = _space_for_one(self.k, self.v, self.length, heads, channels)
        return self.k, self.v

    def count_one(self, length: int) -> None:
        """Count the token that was written to the space, so that there are `length`."""
        self.length = length

    def truncate(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        self.length = length
        self.valid = None if self.valid is None else self.valid[:, :length]

    def attention_mask(self, new: int, device: torch.device) -> Tensor:
        """(B or 1, L, T), true where each of the `new` last tokens may see a cached one."""
        keys = torch.arange(self.length, device=device)
        queries = keys[self.length - new :, None]
        allowed = (keys <= queries)[None]
        return allowed if self.valid is None else (allowed & self.valid[:, None, :]) | (keys == queries)

    def bytes(self) -> int:
        """Bytes in use, over the whole batch."""
        return 0 if self.k is None else 2 * self.k[:, :, : self.length].numel() * self.k.element_size()


class KVCacheRows:
    """Some rows of a cache that has reserved their next tokens; reading copies these rows."""

    def __init__(self, cache: KVCache, stores: tuple[Tensor, Tensor], row: Tensor) -> None:
        self.cache, self.stores, self.row = cache, stores, row
        self.valid = None if cache.valid is None else cache.valid[row]

    def append(self, k_RHLK: Tensor, v_RHLK: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
        """Store the reserved tokens of these rows; return all their keys and values."""
        end, new = self.cache.length, k_RHLK.shape[2]
        k, v = self.stores
        k[self.row, :, end - new : end] = k_RHLK
        v[self.row, :, end - new : end] = v_RHLK
        return k[self.row, :, :end], v[self.row, :, :end]


class PackedCache:
    """Keys and values of selected tokens only; each row has a count of its own."""

    # Only selected tokens are stored, and padding is not.
    valid = None

    def __init__(self, batch: int, device: torch.device) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None
        self.count_B = torch.zeros(batch, dtype=torch.long, device=device)
        self.longest = 0

    def append(self, k_BHCK: Tensor, v_BHCK: Tensor, count_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Store the first `count` of the new entries of each row.

        Args:
            k_BHCK: New keys; entries beyond the row's count are ignored.
            v_BHCK: New values.
            count_B: Entries to store of each row.

        Returns:
            All keys and values, (B, H, T, K) each, and the slot of each new entry, (B, C).
        """
        reach = self.longest + k_BHCK.shape[2]
        k, v = _with_capacity(self.k, k_BHCK, reach), _with_capacity(self.v, v_BHCK, reach)
        self.k, self.v = k, v
        slot_BC = self.count_B[:, None] + torch.arange(k_BHCK.shape[2], device=k_BHCK.device)
        # Entries past a row's count land beyond what the row may read, and its next entries overwrite them.
        where = slot_BC[:, None, :, None].expand_as(k_BHCK)
        k.scatter_(2, where, k_BHCK)
        v.scatter_(2, where, v_BHCK)
        self.count_B = self.count_B + count_B
        self.longest = int(self.count_B.max())
        return k[:, :, :reach], v[:, :, :reach], slot_BC

    def grow_early(self) -> None:
        """Grow now if one more entry would not fit, or would fill the store.

        Growing, and reading a full store, are shapes for which a compiled step would be compiled again.
        """
        if self.k is not None and self.v is not None:
            self.k = _with_capacity(self.k, self.k, self.longest + 2)
            self.v = _with_capacity(self.v, self.v, self.longest + 2)

    @property
    def entries(self) -> int:
        """Tokens stored, of the row with most."""
        return self.longest

    def space_for_one(self, heads: int, channels: int) -> tuple[Tensor, Tensor]:
        """As `KVCache.space_for_one`."""
        self.k, self.v = _space_for_one(self.k, self.v, self.longest, heads, channels)
        return self.k, self.v

    def count_one(self, length: int) -> None:
        """Count the token, if one was written, so that there are `length`."""
        if length != self.longest:
            self.longest, self.count_B = length, self.count_B + 1

    def append_one(self, k_BHLK: Tensor, v_BHLK: Tensor) -> tuple[Tensor, Tensor]:
        """Store one new entry of every row, whose counts are equal; return all keys and values."""
        place = self.longest
        k, v = _with_capacity(self.k, k_BHLK, place + 1), _with_capacity(self.v, v_BHLK, place + 1)
        self.k, self.v = k, v
        k[:, :, place : place + 1] = k_BHLK
        v[:, :, place : place + 1] = v_BHLK
        self.count_B, self.longest = self.count_B + 1, place + 1
        return k[:, :, : place + 1], v[:, :, : place + 1]

    def bytes(self) -> int:
        """Bytes in use, over the whole batch."""
        if self.k is None:
            return 0
        _, heads, _, channels = self.k.shape
        return 2 * int(self.count_B.sum()) * heads * channels * self.k.element_size()


def _space_for_one(
    k: Tensor | None, v: Tensor | None, length: int, heads: int, channels: int
) -> tuple[Tensor, Tensor]:
    if k is not None and v is not None and length < k.shape[2]:
        return k, v
    like = torch.empty(1, heads, 0, channels)
    return _with_capacity(k, like, length + 1), _with_capacity(v, like, length + 1)


def _with_capacity(store: Tensor | None, like_BHLK: Tensor, length: int) -> Tensor:
    """The store, or a copy at least twice as long where `length` does not fit."""
    if store is not None and store.shape[2] >= length:
        return store
    batch, heads, _, channels = like_BHLK.shape
    capacity = max(FIRST_CAPACITY, length if store is None else 2 * length)
    grown = like_BHLK.new_zeros(batch, heads, capacity, channels)
    if store is not None:
        grown[:, :, : store.shape[2]] = store
    return grown
