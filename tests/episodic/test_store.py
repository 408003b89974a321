"""The exact store: one-shot writes, shared entries, forgetting, and the newest of equals."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.episodic.store import SILENT, Store

KEYS = F.normalize(torch.randn(12, 16, generator=torch.Generator().manual_seed(0)), dim=1)


def taught(*texts: list[tuple[int, int]]) -> Store:
    """A store of texts given as (key number, token) entries."""
    store = Store(16)
    for number, entries in enumerate(texts):
        store.write(
            f"text {number}", KEYS[[key for key, _ in entries]], torch.tensor([value for _, value in entries])
        )
    return store


def contents(store: Store, number: int) -> set[tuple[int, int]]:
    """The (key number, token) entries a text owns."""
    entries = store.owners_M2[store.owners_M2[:, 1] == number, 0]
    nearest = (store.keys_ND[entries].float() @ KEYS.T).argmax(1)
    return set(zip(nearest.tolist(), store.values_N[entries].tolist(), strict=True))


def test_what_was_written_once_is_read():
    store = taught([(0, 5), (1, 6)], [(2, 7)])
    cosine, token = store.read(KEYS[:3], 2)
    assert token[:, 0].tolist() == [5, 6, 7]
    torch.testing.assert_close(cosine[:, 0], torch.ones(3), rtol=0, atol=1e-3)
    # no more than there is
    assert store.read(KEYS[:1], 10)[1].shape == (1, 3)


def test_of_equal_states_the_newest_speaks():
    store = taught([(0, 5)], [(0, 6)], [(1, 7)])
    cosine, token = store.read(KEYS[:1], 3)
    assert dict(zip(token[0].tolist(), (cosine[0] == SILENT).tolist(), strict=True)) == {
        5: True,
        6: False,
        7: False,
    }
    store.forget(2)
    # the older one is heard again
    assert store.read(KEYS[:1], 1)[1].item() == 5


entries = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3)), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(entries, min_size=1, max_size=6), st.data())
def test_texts_own_what_they_wrote_whatever_is_forgotten(texts, data):
    store = taught(*texts)
    # each once, however often it was written
    assert len(store) == len({entry for text in texts for entry in text})
    for number in data.draw(st.lists(st.sampled_from(range(1, len(texts) + 1)), unique=True)):
        store.forget(number)
    for number in store.texts:
        assert contents(store, number) == set(texts[number - 1])
    assert len(store) == len({entry for number in store.texts for entry in texts[number - 1]})
    # a number is never given twice
    assert store.write("another", KEYS[:1], torch.tensor([1])) == len(texts) + 1


def test_a_number_that_is_not_there():
    with pytest.raises(KeyError):
        taught([(0, 1)]).forget(2)


def test_262144_entries():
    draw = torch.Generator().manual_seed(1)
    store, count = Store(16), 262_144
    store.keys_ND = F.normalize(torch.randn(count, 16, generator=draw), dim=1).half()
    store.values_N, store.owners_M2 = (
        torch.arange(count, dtype=torch.int32),
        torch.stack([torch.arange(count), torch.ones(count).long()], 1),
    )
    asked = torch.tensor([0, 131_072, count - 1])
    cosine, token = store.read(store.keys_ND[asked].float(), 4)
    own = (token == asked[:, None]) & (cosine > 0.99)
    assert own.any(1).all() and store.bytes() == count * (16 * 2 + 4 + 16)
