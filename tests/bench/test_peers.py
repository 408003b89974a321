from types import SimpleNamespace

import pytest
import torch
from torch import nn

from braingpt.bench import peers
from braingpt.bench.peers import BUILDERS, Peer, build_peer, check_peer
from braingpt.errors import Failure, UserError
from braingpt.inference.engine import generate_batch
from braingpt.model.config import DenseConfig

LIKE = DenseConfig(layers=2, hidden=32, heads=4, vocab=97, mlp=128)


class Library(nn.Module):
    """A model as a library would hand it over: sums of embeddings so far, the sum being its cache."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(97, 32))

    def forward(self, ids_BL, cache=None, use_cache=False, logits_to_keep=0):
        x_BLD = self.weight[ids_BL].cumsum(1) + (0 if cache is None else cache["sum"][:, None])
        cache = {"sum": x_BLD[:, -1]} if use_cache else None
        return SimpleNamespace(logits=x_BLD[:, -logits_to_keep:] @ self.weight.T, cache=cache)


def contract(peer: Peer) -> None:
    """Step equals forward, alone equals batched, the loss is that of the logits, state is counted."""
    ids_BL = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(0))
    peer.eval()
    with torch.inference_mode():
        whole = peer(ids_BL).logits
        state = peer.new_state(2)
        torch.testing.assert_close(
            peer(ids_BL[:, :5], state=state, last=True).logits, whole[:, 4:5], rtol=1e-3, atol=1e-4
        )
        for t in range(5, 12):
            torch.testing.assert_close(peer.step(ids_BL[:, t], state), whole[:, t], rtol=1e-3, atol=1e-4)
        assert state.bytes() > 0
        torch.testing.assert_close(peer(ids_BL[:1]).logits, whole[:1], rtol=1e-3, atol=1e-4)
        each = peer(ids_BL, ids_BL, reduction="none").loss
    assert each.shape == ids_BL.shape and peer(ids_BL, ids_BL).loss.item() == pytest.approx(
        each.mean().item(), rel=1e-4
    )
    assert len(generate_batch(peer, [[1, 2, 3], [4, 5, 6]], 3, temperature=0)[1]) == 3
    peer.train()(ids_BL, ids_BL).loss.backward()
    assert all(p.grad is not None for p in peer.parameters() if p.requires_grad)


def test_a_librarys_model_takes_the_place_of_ours():
    contract(Peer(Library(), LIKE))


@pytest.mark.parametrize("name", list(BUILDERS))
def test_the_real_ones_do_too(name):
    pytest.importorskip("litgpt" if name == "litgpt" else "transformers")
    peer = build_peer(name, LIKE, total=40_000, positions=24)
    assert peer.parameters_total() == pytest.approx(40_000, rel=0.25)
    contract(peer)


def test_positions_that_end_are_told():
    peer = Peer(Library(), LIKE, positions=4)
    with pytest.raises(Failure, match="reads at most 4 tokens"):
        peer(torch.zeros(1, 5, dtype=torch.long), state=peer.new_state(1))
    with pytest.raises(Failure, match="reads at most 4 tokens"):
        peer(torch.zeros(1, 5, dtype=torch.long))


def test_a_peer_whose_library_is_not_there_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(peers, "import_module", missing)
    with pytest.raises(
        UserError, match=r"--peer gpt2-hf needs transformers .*pip install 'braingpt\[peers\]'"
    ):
        check_peer("gpt2-hf")
