import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from braingpt.checkpoint import checkpoint, listing
from braingpt.errors import Failure, UserError
from braingpt.model.lm import build
from braingpt.optim.optimizer import build_optimizer
from braingpt.tokenizer import Tokenizer
from tests.tiny_runs import tiny


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.default()


def trained(recipe, seed=0):
    """A model after one step, and its optimizer."""
    model = build(recipe, seed=seed)
    optimizer = build_optimizer(model, recipe.train)
    ids = torch.arange(24).view(2, 12)
    model.train()
    model(ids, ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    model.after_step()
    return model, optimizer


def write(folder: Path, tokenizer, recipe=None, step=3, **more) -> Path:
    recipe = recipe or tiny()
    model, optimizer = trained(recipe)
    return checkpoint.save(
        folder,
        model=model,
        tokenizer=tokenizer,
        recipe=recipe,
        step=step,
        tokens=step * 128,
        optimizer=optimizer,
        **more,
    )


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_there_and_back_bit_for_bit(tmp_path, tokenizer, architecture):
    recipe = tiny(architecture)
    model, optimizer = trained(recipe)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            # controllers that have moved
            buffer.add_(0.25)
    folder = checkpoint.save(
        tmp_path / "c",
        model=model,
        tokenizer=tokenizer,
        recipe=recipe,
        step=7,
        tokens=9,
        optimizer=optimizer,
        extra={"best": None},
    )
    loaded, same_tokenizer, same_recipe, state = checkpoint.load_model(folder)
    assert same_recipe == recipe and same_tokenizer.fingerprint == tokenizer.fingerprint
    assert (state["step"], state["tokens"], state["best"]) == (7, 9, None)
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not list(tmp_path.glob(".*")), "no rest of the writing"
    other = build_optimizer(loaded, recipe.train)
    torch.manual_seed(1)
    checkpoint.load_training(loaded, other, folder)
    drawn = torch.rand(3)
    checkpoint.load_training(loaded, other, folder)
    assert torch.equal(drawn, torch.rand(3)), "the random generator goes on from where it was"


def test_a_table_stays_in_the_file_until_it_is_read_and_writing_changes_no_file(tmp_path, tokenizer):
    recipe = tiny("v2", "model.lexical.rows=5000")
    folder = write(tmp_path / "c", tokenizer, recipe)
    before = (folder / "model.safetensors").read_bytes()
    model, *_ = checkpoint.load_model(folder)
    copied = build(recipe)
    checkpoint.load_weights(copied, folder)
    assert model.lexical is not None and copied.lexical is not None
    assert torch.equal(model.lexical.table, copied.lexical.table)
    mapped = [is_in_file(t.lexical.table.data_ptr(), "model.safetensors") for t in (model, copied)]
    assert mapped == [True, False]
    model.lexical.table.data += 1
    optimizer, ids = build_optimizer(model, recipe.train), torch.arange(24).view(2, 12)
    model.train()(ids, ids).loss.backward()
    optimizer.step()
    assert (folder / "model.safetensors").read_bytes() == before


def is_in_file(address: int, name: str) -> bool:
    """Whether the memory at `address` is that of a file called `name`."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        if begin <= address < end:
            return line.endswith(name)
    raise AssertionError("the address belongs to no mapping")


def test_a_tied_tensor_is_stored_once_and_stays_tied(tmp_path, tokenizer):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(8, 4)
            self.head = nn.Linear(4, 8, bias=False)
            self.head.weight = self.embedding.weight

    model = Tied()
    folder = checkpoint.save(
        tmp_path / "c", model=model, tokenizer=tokenizer, recipe=tiny(), step=1, tokens=1
    )
    assert (folder / "model.safetensors").stat().st_size < 2 * 8 * 4 * 4
    other = Tied()
    checkpoint.load_weights(other, folder)
    assert (
        torch.equal(other.head.weight, model.embedding.weight) and other.head.weight is other.embedding.weight
    )


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.yaml", "tokenizer/tokenizer.json"])
def test_one_flipped_bit_is_found(tmp_path, tokenizer, name):
    folder = write(tmp_path / "c", tokenizer)
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(Failure, match=f"{name} is damaged"):
        checkpoint.load_model(folder)


def test_truncated_missing_and_garbled_files_are_found(tmp_path, tokenizer):
    folder = write(tmp_path / "run/checkpoints/step-0000003", tokenizer)
    other = write(tmp_path / "run/checkpoints/step-0000002", tokenizer)
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[:-9])
    with pytest.raises(Failure, match=f"damaged.*like {other}"):
        checkpoint.load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(Failure, match="is missing"):
        checkpoint.load_model(folder)
    (folder / "state.json").write_text('{"format": 1')
    with pytest.raises(Failure, match=r"state\.json is damaged"):
        checkpoint.load_model(folder)
    with pytest.raises(UserError, match="not a checkpoint"):
        checkpoint.load_model(tmp_path)


def test_weights_of_another_architecture_are_refused(tmp_path, tokenizer):
    folder = write(tmp_path / "c", tokenizer, tiny("v1"))
    with pytest.raises(Failure, match=r"safetensors does not match recipe\.yaml: the recipe has no 'blocks"):
        checkpoint.load_weights(build(tiny("dense")), folder)
    with pytest.raises(Failure, match=r"'blocks\.0\.mlp\..*' has shape \(.*\), the recipe needs \("):
        checkpoint.load_weights(build(tiny("v1", "model.columns.width=32")), folder)


def test_a_failed_save_leaves_the_old_one_and_no_rest(tmp_path, tokenizer, monkeypatch):
    folder = write(tmp_path / "c", tokenizer, step=3)

    class Full:
        def save(self, path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with pytest.raises(OSError, match="No space left"):
        write(folder, Full(), step=4)
    assert checkpoint.read_state(folder)["step"] == 3 and not list(tmp_path.glob(".*"))
    write(folder, tokenizer, step=5)
    assert checkpoint.read_state(folder)["step"] == 5 and not list(tmp_path.glob(".*"))
    checkpoint.verify(folder)


def test_inference_checkpoints_cannot_be_trained_on(tmp_path, tokenizer):
    recipe = tiny()
    model, optimizer = trained(recipe)
    folder = checkpoint.save(
        tmp_path / "c", model=model, tokenizer=tokenizer, recipe=recipe, step=1, tokens=1
    )
    with pytest.raises(UserError, match="without the optimizer"):
        checkpoint.load_training(model, optimizer, folder)


def fake(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / listing.name_of(step)
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    return folder


def test_newest_goes_by_number_and_skips_what_is_half_written(tmp_path):
    assert listing.newest(tmp_path) is None
    fake(tmp_path, 9_000_000)
    last = fake(tmp_path, 10_000_000)
    (tmp_path / "checkpoints" / ".step-0000099.tmp-1").mkdir()
    (tmp_path / "checkpoints" / "step-99999999").mkdir()
    assert listing.newest(tmp_path) == last
    listing.sweep(tmp_path)
    assert not list((tmp_path / "checkpoints").glob(".*")) and listing.newest(tmp_path) == last


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    steps = [fake(tmp_path, step) for step in (1, 2, 3, 4, 5, 6)]
    listing.prune(tmp_path, 3, [steps[1]])
    assert listing.list_checkpoints(tmp_path) == [steps[1], *steps[3:]]


def test_a_run_is_found_by_every_name(tmp_path):
    with pytest.raises(UserError, match="braingpt quickstart"):
        listing.resolve(None, tmp_path)
    old, new = fake(tmp_path / "a", 5), fake(tmp_path / "b", 2)
    os.utime(old / "state.json", (1, 1))
    assert listing.resolve(None, tmp_path) == new
    assert listing.resolve(old) == old and listing.resolve(tmp_path / "a") == old
    with pytest.raises(UserError, match="did you mean"):
        listing.resolve("a", tmp_path)
    with pytest.raises(UserError, match="braingpt train --recipe"):
        listing.resolve(tmp_path / "none")
    with pytest.raises(UserError, match="holds no checkpoint"):
        listing.resolve(tmp_path)
