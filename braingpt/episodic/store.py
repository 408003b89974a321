"""An exact episodic store: for each surprising token of a taught text, the state of the model (the key) and
the token that came (the value).

Nothing is learned by gradient and nothing is averaged: an entry is written once and remains as it is until
its text is forgotten. Texts that share an entry (the same value at the same state) own it together, so
forgetting one text leaves the other complete. Keys are vectors of length 1 or less in float16; reading
multiplies a query with all of them.

Legend: N entries, D channels of a key, Q queries, K entries read, M (entry, text) pairs.
"""

import torch
from torch import Tensor

# Keys whose products differ by no more are one state: float16 and other batch shapes move a key by less.
SAME = 0.001
# A product that votes for nothing at any temperature in use, with finite gradients.
SILENT = -10.0
# Products computed at a time for many queries: 16 MB.
BLOCK = 1 << 22


class Store:
    """Entries in the order of writing, and the texts that own them.

    Keys are (N, D) float16, values (N,) int32, owners (M, 2) int64 pairs of entry and text number. A text's
    number counts from 1 and is never used again.
    """

    def __init__(self, channels: int) -> None:
        self.keys_ND = torch.zeros(0, channels, dtype=torch.float16)
        self.values_N = torch.zeros(0, dtype=torch.int32)
        self.owners_M2 = torch.zeros(0, 2, dtype=torch.int64)
        self.texts: dict[int, str] = {}
        self.last_number = 0
        self._wide_ND: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values_N)

    def number_of(self, text: str) -> int | None:
        """The number of this text, if exactly this text was taught."""
        return next((number for number, taught in self.texts.items() if taught == text), None)

    def entries_of(self, number: int) -> int:
        """Number of entries that the text owns, alone or with others."""
        return int((self.owners_M2[:, 1] == number).sum())

    def write(self, text: str, keys_ND: Tensor, values_N: Tensor) -> int:
        """Store a text's entries; an entry that exists already is shared.

        Args:
            text: The text.
            keys_ND: Keys of its entries.
            values_N: Tokens of its entries.

        Returns:
            The text's number.
        """
        self.last_number += 1
        self._write(self.last_number, text, keys_ND, values_N)
        return self.last_number

    def rewrite(self, number: int, text: str, keys_ND: Tensor, values_N: Tensor) -> None:
        """Replace a text and its entries, which keep their place among those of other texts.

        Args:
            number: The text's number.
            text: The text.
            keys_ND: Keys of its entries.
            values_N: Tokens of its entries.

        Raises:
            KeyError: There is no such text.
        """
        self.forget(number)
        self._write(number, text, keys_ND, values_N)
        self.texts = dict(sorted(self.texts.items()))
        # Entries lie in the order of writing: each where the first of its texts is.
        first_N = torch.full((len(self),), self.last_number)
        first_N = first_N.scatter_reduce(0, self.owners_M2[:, 0], self.owners_M2[:, 1], "amin")
        order_N = first_N.argsort(stable=True)
        self.keys_ND, self.values_N, self._wide_ND = self.keys_ND[order_N], self.values_N[order_N], None
        self.owners_M2[:, 0] = order_N.argsort()[self.owners_M2[:, 0]]

    def _write(self, number: int, text: str, keys_ND: Tensor, values_N: Tensor) -> None:
        self.texts[number] = text
        keys_ND, values_N = keys_ND.to("cpu", torch.float16), values_N.to("cpu", torch.int32)
        known_N = _find(keys_ND, values_N, self._wide(), self.values_N)
        # The first entry of the text itself that is the same state with the same token.
        first_N = _find(keys_ND, values_N, keys_ND.float(), values_N)
        while not torch.equal(first_N, first_N[first_N]):
            first_N = first_N[first_N]
        new_N = (known_N < 0) & (first_N == torch.arange(len(values_N)))
        entry_N = torch.where(known_N >= 0, known_N, len(self) + new_N.cumsum(0) - 1)
        entry_N = torch.where(known_N >= 0, known_N, entry_N[first_N])
        self.keys_ND = torch.cat([self.keys_ND, keys_ND[new_N]])
        self.values_N = torch.cat([self.values_N, values_N[new_N]])
        owned_M = entry_N.unique()
        self.owners_M2 = torch.cat(
            [self.owners_M2, torch.stack([owned_M, torch.full_like(owned_M, number)], 1)]
        )
        self._wide_ND = None

    def forget(self, number: int) -> None:
        """Drop a text, and the entries that no other text owns.

        Args:
            number: The text's number.

        Raises:
            KeyError: There is no such text.
        """
        del self.texts[number]
        self.owners_M2 = self.owners_M2[self.owners_M2[:, 1] != number]
        keep_N = torch.zeros(len(self), dtype=torch.bool)
        keep_N[self.owners_M2[:, 0]] = True
        moved_N = keep_N.cumsum(0) - 1
        self.keys_ND, self.values_N, self._wide_ND = self.keys_ND[keep_N], self.values_N[keep_N], None
        self.owners_M2[:, 0] = moved_N[self.owners_M2[:, 0]]

    def read(self, queries_QD: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The entries nearest to each query.

        Args:
            queries_QD: Keys to look up.
            count: Entries to read, at most.

        Returns:
            Products (Q, K), falling, and tokens (Q, K). Of several entries that are the nearest state, only
            the one written last counts; the products of the others are SILENT.
        """
        products, nearest = [], []
        for part_QD in queries_QD.float().split(max(1, BLOCK // max(1, len(self)))):
            top = (part_QD @ self._wide(queries_QD.device).T).topk(min(count, len(self)), dim=1)
            products.append(top.values)
            nearest.append(top.indices)
        product_QK, entry_QK = torch.cat(products), torch.cat(nearest)
        best_QK = product_QK >= product_QK[:, :1] - SAME
        newest_Q1 = entry_QK.masked_fill(~best_QK, -1).amax(1, keepdim=True)
        product_QK = product_QK.masked_fill(best_QK & (entry_QK != newest_Q1), SILENT)
        return product_QK, self.values_N.to(entry_QK.device)[entry_QK].long()

    def _wide(self, device: torch.device | str = "cpu") -> Tensor:
        """The keys in float32, on the device that reads them."""
        if self._wide_ND is None or self._wide_ND.device != torch.device(device):
            self._wide_ND = self.keys_ND.to(device, torch.float32)
        return self._wide_ND

    def bytes(self) -> int:
        """Bytes of the entries as they are stored."""
        return sum(t.numel() * t.element_size() for t in (self.keys_ND, self.values_N, self.owners_M2))


def _find(keys_QD: Tensor, values_Q: Tensor, among_ND: Tensor, tokens_N: Tensor) -> Tensor:
    """(Q,) the first of N entries that is the same state with the same token, or -1."""
    if len(among_ND) == 0:
        return torch.full((len(values_Q),), -1)
    first = [torch.full((0,), -1)]
    rows = max(1, BLOCK // len(among_ND))
    for part_QD, part_Q in zip(keys_QD.split(rows), values_Q.split(rows), strict=True):
        same_QN = _same(part_QD.float(), among_ND) & (part_Q[:, None] == tokens_N)
        first.append(torch.where(same_QN.any(1), same_QN.int().argmax(1), -1))
    return torch.cat(first)


def _same(queries_QD: Tensor, keys_ND: Tensor) -> Tensor:
    """(Q, N), true where query and key are one state: their squared distance is at most twice SAME."""
    square_Q1, square_N = queries_QD.square().sum(1, keepdim=True), keys_ND.square().sum(1)
    return square_Q1 + square_N - 2 * (queries_QD @ keys_ND.T) <= 2 * SAME
