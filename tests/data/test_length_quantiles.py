"""Quantiles of document lengths, which are counted in bins."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from braingpt.data.shards.documents import StreamStatistics
from braingpt.data.shards.manifest import TokenStream
from braingpt.data.shards.report import _sums

STREAM = TokenStream(split="train", language="ko", source="s", documents=0, tokens=0, bytes=0, files=[])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=40))
@example([17])
@example([1])
@example([16, 16, 16])
def test_quantiles_lie_between_the_shortest_and_the_longest(lengths: list[int]) -> None:
    counted = StreamStatistics(STREAM)
    counted.count_lengths(np.array(lengths))
    found = _sums([counted])["document_tokens"]
    assert [found["shortest"], found["longest"]] == [min(lengths), max(lengths)]
    assert found["shortest"] <= found["median"] <= found["90 %"] <= found["longest"]
