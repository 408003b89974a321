"""MinHash signatures of texts, cut into bands: texts that share a band's key are candidates for near
duplicates.

A text is the set of its shingles: all runs of 5 characters after white space is removed and ASCII is lowered.
White space is removed because Korean writers space words differently. Characters are compared because Korean
words carry their particles. Of pairs with 2, 5 and 10 % of their words replaced, this finds 100, 98 and 73 %
in Korean and 100, 100 and 89 % in English (a script that was not kept).

Broder, "On the resemblance and containment of documents" (1997); banding: Leskovec, Rajaraman, Ullman,
"Mining of Massive Datasets", 3.4. rensa takes the minima. numpy hashes the shingles here, because cutting
them as Python strings cost ten times the minima. The shingles of many texts are hashed at once, because a
call of numpy costs as much as a thousand characters.
"""

from itertools import pairwise

import numpy as np
import rensa

# UTF-16 units of a shingle; characters beyond the basic plane are two.
SHINGLE = 5
BANDS = 16
# Pairs of Jaccard similarity s are found with probability 1 - (1 - s^ROWS)^BANDS: half of them at 0.58, 95 %
# at 0.75.
ROWS = 6
SEED = 42

# Odd constants of splitmix64 and of rrmxmx.
_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_32, _29 = np.uint64(32), np.uint64(29)


def band_keys(texts: list[str]) -> np.ndarray:
    """64-bit keys of each text, one for each band, uint64 (len(texts), BANDS).

    Keys of different bands differ, so that all bands can live in one table.
    """
    if not texts:
        return np.empty((0, BANDS), dtype=np.uint64)
    hashes, counts = shingles(texts)
    offsets = np.cumsum([0, *counts], dtype=np.uint64)
    # The wheel has no type stubs.
    minhash = rensa.RMinHash  # pyright: ignore[reportAttributeAccessIssue]
    matrix = minhash.digest_matrix_from_flat_token_hashes(hashes, offsets, BANDS * ROWS, SEED)
    signature = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(texts), BANDS, ROWS)
    keys = np.broadcast_to(np.arange(1, BANDS + 1, dtype=np.uint64) * _B, (len(texts), BANDS)).copy()
    for row in range(ROWS):
        keys = _mixed(keys ^ signature[:, :, row])
    return keys


def shingles(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """64-bit hashes of the shingles of the texts, with repetitions, uint64, and how many are each text's: at
    least one, however short it is.
    """
    joined = "".join(texts)
    units = np.frombuffer(joined.encode("utf-16-le", "surrogatepass"), dtype="<u2")
    sizes = [
        len(text) if len(units) == len(joined) else len(text.encode("utf-16-le", "surrogatepass")) // 2
        for text in texts
    ]
    visible = units > 32
    counts = np.array(
        [np.count_nonzero(visible[start:end]) for start, end in pairwise(np.cumsum([0, *sizes]).tolist())]
    )
    units = units[visible]
    missing = np.maximum(0, SHINGLE - counts)
    if missing.any():
        units, counts = np.insert(units, np.repeat(np.cumsum(counts), missing), 0), counts + missing
    units += (units - np.uint16(ord("A")) < 26) * np.uint16(32)
    # Each window holds four units.
    windows = np.empty(len(units) - 3, dtype=np.uint64)
    for phase in range(4):
        windows[phase::4] = units[phase : phase + (len(units) - phase) // 4 * 4].copy().view("<u8")
    hashes = windows[1:] * _B
    windows *= _A
    hashes += windows[:-1]
    del windows
    _mixed(hashes)
    # The last units of a text begin no shingle.
    if len(texts) > 1:
        begins = np.ones(len(units), dtype=bool)
        for back in range(1, SHINGLE):
            begins[np.cumsum(counts) - back] = False
        hashes = hashes[begins[: len(hashes)]]
    return hashes, counts - (SHINGLE - 1)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Mix nearly every bit of the input into every bit of the output (two rounds of multiply and shift), in
    place, because a document of 32 MB has as many values as letters.
    """
    values ^= values >> _32
    values *= _A
    values ^= values >> _29
    return values
