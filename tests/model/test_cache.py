"""The cache of chosen tokens: one row's entry at a time it holds what it holds for entries packed from a
batch.
"""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.model.cache import PackedCache


@settings(max_examples=20, deadline=None)
@given(prompt=st.integers(0, 70), steps=st.integers(1, 70), early=st.booleans())
def test_one_at_a_time_equals_packed_entries_over_growth(prompt, steps, early):
    ones, packed = PackedCache(1, torch.device("cpu")), PackedCache(1, torch.device("cpu"))
    k, v = torch.randn(2, 1, 2, prompt + steps, 3)
    if prompt:
        for cache in (ones, packed):
            cache.append(k[:, :, :prompt], v[:, :, :prompt], torch.tensor([prompt]))
    for i in range(prompt, prompt + steps):
        if early:
            ones.grow_early()
            assert i == 0 or ones.k.shape[2] > i
        found = ones.append_one(k[:, :, i : i + 1], v[:, :, i : i + 1])
        wanted = packed.append(k[:, :, i : i + 1], v[:, :, i : i + 1], torch.tensor([1]))
        for a, b in zip(found, wanted[:2], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    torch.testing.assert_close(found, (k, v), rtol=0, atol=0)
    assert (ones.longest, int(ones.count_B), ones.bytes()) == (
        packed.longest,
        int(packed.count_B),
        packed.bytes(),
    )
