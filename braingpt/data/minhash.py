"""MinHash signatures of texts, cut into bands: texts that share a band's key are candidates for near duplicates.

A text is the set of its shingles: all runs of 5 characters after white space is taken out and ASCII is lowered. Without spaces, because
Korean is spaced as one likes; characters, because words of Korean carry their particles. Of pairs with 2, 5 and 10 % of their words
replaced, this finds 100, 98 and 73 % in Korean and 100, 100 and 89 % in English (benchmarks/near_duplicates.py).

Broder, "On the resemblance and containment of documents" (1997); banding: Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4.
The minima are taken by rensa; the shingles are hashed here, in numpy, because cutting them as Python strings cost ten times the minima.
"""

import numpy as np
import rensa

SHINGLE = 5  # UTF-16 units: characters, but for the rare ones beyond the basic plane
BANDS = 16
ROWS = 6  # pairs of Jaccard similarity s are found with probability 1 - (1 - s^ROWS)^BANDS: half of them at 0.58, 95 % at 0.75
SEED = 42

_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)  # odd constants of splitmix64 and of rrmxmx
_32, _29 = np.uint64(32), np.uint64(29)


def band_keys(texts: list[str]) -> np.ndarray:
    """64-bit keys, uint64 (len(texts), BANDS). Each key knows its band, so all bands can live in one table."""
    if not texts:
        return np.empty((0, BANDS), dtype=np.uint64)
    hashes = [shingles(text) for text in texts]
    offsets = np.cumsum([0, *map(len, hashes)], dtype=np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(hashes), offsets, BANDS * ROWS, SEED)
    signature = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(texts), BANDS, ROWS)
    keys = np.broadcast_to(np.arange(1, BANDS + 1, dtype=np.uint64) * _B, (len(texts), BANDS)).copy()
    for row in range(ROWS):
        keys = _mixed(keys ^ signature[:, :, row])
    return keys


def shingles(text: str) -> np.ndarray:
    """64-bit hashes of the shingles of `text`, uint64, with repetitions; at least one, however short the text."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")
    units = units[units > 32]
    units = np.where((units >= 65) & (units <= 90), units | 32, units)
    if len(units) < SHINGLE:
        units = np.concatenate([units, np.zeros(SHINGLE - len(units), dtype="<u2")])
    windows = np.ndarray(len(units) - 3, dtype="<u8", buffer=np.ascontiguousarray(units, dtype="<u2"), strides=(2,))  # four units each
    count = len(units) - SHINGLE + 1
    hashes = windows[:count] * _A
    hashes += windows[SHINGLE - 4 : SHINGLE - 4 + count] * _B
    return _mixed(hashes)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Every bit of the input in every bit of the output, nearly (two rounds of multiply and shift)."""
    mixed = values >> _32  # in place from here on: a document of 32 MB has as many values as bytes / 3
    mixed ^= values
    mixed *= _A
    mixed ^= mixed >> _29
    return mixed
