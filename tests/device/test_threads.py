import time

import pytest
import torch

from braingpt.checkpoint import checkpoint, listing
from braingpt.device import threads
from braingpt.train import loop, preflight
from tests.tiny_runs import tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize("quicker", [1, 2])
def test_the_faster_number_is_taken(quicker):
    before = torch.get_num_threads()
    assert (
        threads.faster_thread_count(
            lambda: time.sleep(0.0 if torch.get_num_threads() == quicker else 0.01), 2
        )
        == quicker
    )
    assert torch.get_num_threads() == before


def test_no_trial_where_the_number_is_settled(monkeypatch):
    with threads.restore_thread_count():
        torch.set_num_threads(2)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert (
            threads.known_thread_count(CPU, None) is None
            and threads.known_thread_count(CPU, 1) == 1
            and threads.known_thread_count(CPU, 2) == 2
        )
        assert threads.known_thread_count(CPU, 9) is None, "saved on another machine"
        assert threads.known_thread_count(torch.device("cuda"), 1) == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert threads.known_thread_count(CPU, 1) == 2


def test_a_trial_changes_nothing_and_is_remembered(tmp_path, data, monkeypatch):
    """With early exit's dropped layers and thresholds that count: what a forward pass draws and counts is put
    back.
    """
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    recipe = tiny("v2", "train.steps=2", "model.depth.share=0.7", "model.depth.exits=[1]")
    tried = []
    with threads.restore_thread_count():
        torch.set_num_threads(2)
        monkeypatch.setattr(
            threads, "faster_thread_count", lambda work, max_threads: tried.append(work()) or 1
        )
        monkeypatch.setattr(preflight, "SHORT", 0.0)
        # one thread for both, or sums would round otherwise
        torch.set_num_threads(1)
        untried = loop.train(recipe, tmp_path / "one", [data], device="cpu")
        torch.set_num_threads(2)
        settled = loop.train(recipe, tmp_path / "settled", [data], device="cpu")
        assert torch.get_num_threads() == 2 and len(tried) == 1
        assert settled.loss == untried.loss
        assert checkpoint.read_state(listing.newest(tmp_path / "settled"))["threads"] == 1
        longer = recipe.model_copy(update={"train": recipe.train.model_copy(update={"steps": 3})})
        loop.train(longer, tmp_path / "settled", [data], resume="auto", device="cpu")
        assert len(tried) == 1, "the run has settled it"
