"""A checkpoint that is not the one that was saved is refused in one line that names the file, and
`--resume auto` takes the one before.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from braingpt.checkpoint import checkpoint, listing
from braingpt.checkpoint.verify import is_finite, sha256
from braingpt.errors import Failure, UserError
from braingpt.train.loop import train
from braingpt.train.resume import RunState, find_start_checkpoint
from braingpt.utils.hashed_json import hashed
from tests.tiny_runs import tiny
from tests.train.test_loop import StopAt

NAN, INF = float("nan"), float("inf")
# Values that no key of state.json takes.
WRONG = (None, -1, 1.5, True, "x", [], {}, [1], {"a": 1})


@pytest.fixture(scope="module")
def run(tmp_path_factory, data) -> Path:
    """A run with checkpoints of the steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("state") / "run"
    recipe = tiny("dense", "train.steps=6", "train.save_every=2", "train.eval_every=6", "train.average=0.9")
    train(recipe, folder, [data], device="cpu")
    return folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def last(run: Path) -> Path:
    folder = listing.newest(run)
    assert folder is not None
    return folder


def change(folder: Path, values: dict, format: int = 2, drop: tuple[str, ...] = ()) -> None:
    """Write state.json with other values as somebody with an editor would; format 1 has no hash."""
    state = json.loads((folder / "state.json").read_text()) | values
    state = {key: value for key, value in state.items() if key not in drop}
    if format == 1:
        state = {key: value for key, value in state.items() if key != "sha256"} | {"format": 1}
    (folder / "state.json").write_text(json.dumps(state))


def resealed(folder: Path, name: str) -> None:
    """Make state.json agree with a changed file."""
    state = checkpoint.read_state(folder)
    state.pop("sha256")
    path = folder / name
    state["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    (folder / "state.json").write_text(json.dumps(hashed(state)))


def test_every_key_of_state_json_is_protected(copy):
    folder = last(copy)
    original = (folder / "state.json").read_bytes()
    state = json.loads(original)
    assert {"step", "offset", "guard", "rewinds", "averaged", "validation", "files", "sha256"} <= set(state)
    for key in state:
        changed = {"x": 1} if state[key] != {"x": 1} else {}
        for values, drop in (({key: changed}, ()), ({}, (key,))):
            change(folder, values, drop=drop)
            with pytest.raises(Failure, match=r"state\.json is damaged: .*use another checkpoint, like "):
                checkpoint.read_state(folder)
            (folder / "state.json").write_bytes(original)
    for values in ({"step": 5}, {"offset": 1}, {"calm": False}, {"rewinds": 2}):
        change(folder, values)
        with pytest.raises(Failure, match=r"state\.json is damaged: it is not the file that was saved"):
            checkpoint.read_state(folder)
        (folder / "state.json").write_bytes(original)
    change(folder, {})
    assert checkpoint.read_state(folder) == state, "spaces and the order of keys do not count"


def test_an_older_checkpoint_is_checked_by_its_schema(copy):
    folder = last(copy)
    original = (folder / "state.json").read_bytes()
    change(folder, {}, format=1)
    assert checkpoint.load_model(folder)[3]["format"] == 1
    for key in ("step", "tokens", "files", "version"):
        (folder / "state.json").write_bytes(original)
        change(folder, {}, format=1, drop=(key,))
        with pytest.raises(Failure, match=rf"state\.json is damaged: '{key}' is missing"):
            checkpoint.read_state(folder)
    takes = {
        "step": (), "tokens": (), "version": ("x",), "files": (), "best": (None,), "seconds": (1.5,),
        "data": ("x",), "guard": (None,), "calm": (True,), "rewinds": (), "offset": (),
        "micro_batch": (None,), "threads": (None,), "averaged": (), "validation": ("x",),
    }  # fmt: skip
    for key, right in takes.items():
        for value in WRONG:
            if any(value is one or (value == one and type(value) is type(one)) for one in right):
                continue
            (folder / "state.json").write_bytes(original)
            change(folder, {key: value}, format=1)
            with pytest.raises(Failure, match=rf"state\.json is damaged: '{key}") as error:
                checkpoint.read_state(folder)
            assert "\n" not in str(error.value)
    (folder / "state.json").write_bytes(original)
    change(folder, {"step": 4}, format=1)
    with pytest.raises(Failure, match="its step is 4, the folder is that of step 6"):
        checkpoint.read_state(folder)
    for name in ("../../x", "/etc/passwd"):
        files = json.loads(original)["files"]
        change(folder, {"step": 6, "files": files | {name: files["recipe.yaml"]}}, format=1)
        with pytest.raises(Failure, match="is not a file of a checkpoint"):
            checkpoint.read_state(folder)


def test_a_later_format_names_the_version(copy):
    folder = last(copy)
    state = json.loads((folder / "state.json").read_text())
    state.pop("sha256")
    (folder / "state.json").write_text(json.dumps(hashed(state | {"format": 3})))
    with pytest.raises(UserError, match=r"has checkpoint format 3; braingpt .* reads 1 and 2"):
        checkpoint.read_state(folder)


def test_a_file_that_was_not_saved_is_not_read(copy):
    folder = last(copy)
    for name in ("final.yaml", "model/x.safetensors", "optimizer/x.safetensors"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(folder / ("recipe.yaml" if name.endswith("yaml") else "model.safetensors"), path)
        with pytest.raises(Failure, match=rf"{name} was not saved with the checkpoint; delete this file"):
            checkpoint.load_model(folder)
        path.unlink()
        if path.parent != folder:
            path.parent.rmdir()
    checkpoint.load_model(folder)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_nan_and_infinity_are_refused_in_weights_average_and_moments(copy, name, value):
    folder = last(copy)
    keys = [key for key, tensor in load_file(folder / name).items() if tensor.is_floating_point()]
    if name == "optimizer.safetensors":
        assert {key.split(".")[0] for key in keys} >= {"exp_avg", "exp_avg_sq", "step", "trained"}
        keys = [
            next(key for key in keys if key.startswith(kind)) for kind in ("exp_avg_sq", "trained", "step")
        ]
    else:
        keys = [keys[0], keys[-1]]
    original = {path: path.read_bytes() for path in (folder / name, folder / "state.json")}
    for key in keys:
        tensors = load_file(folder / name)
        tensors[key].view(-1)[-1] = value
        save_file(tensors, folder / name)
        resealed(folder, name)
        with pytest.raises(Failure, match=rf"{name} holds NaN or infinity in '{key}'; use another"):
            checkpoint.verify(folder)
        if name == "model.safetensors":
            with pytest.raises(Failure, match="holds NaN or infinity"):
                checkpoint.load_model(folder)
        for path, raw in original.items():
            path.write_bytes(raw)


def test_finite_is_decided_for_every_type():
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        assert is_finite(torch.tensor([1.0, -2.0], dtype=dtype)) and is_finite(torch.zeros(0, dtype=dtype))
        for bad in (NAN, INF, -INF):
            assert not is_finite(torch.tensor([1.0, bad], dtype=dtype))
    assert (
        is_finite(torch.tensor([1, 2])) and is_finite(torch.tensor([True])) and is_finite(torch.tensor(3.0))
    )


def test_a_vocabulary_larger_than_the_models_is_refused(copy):
    folder = last(copy)
    recipe = (folder / "recipe.yaml").read_text()
    assert "vocab: 16448" in recipe
    (folder / "recipe.yaml").write_text(recipe.replace("vocab: 16448", "vocab: 9000"))
    resealed(folder, "recipe.yaml")
    with pytest.raises(Failure, match=r"its tokenizer has 16,448 tokens, its model 9,000"):
        checkpoint.load_model(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def poison(path: Path) -> None:
    """A NaN that state.json agrees with."""
    name = path.name if path.suffix == ".safetensors" else "model.safetensors"
    tensors = load_file(path.with_name(name))
    next(tensor for tensor in tensors.values() if tensor.is_floating_point()).view(-1)[0] = NAN
    save_file(tensors, path.with_name(name))
    resealed(path.parent, name)


def retype(path: Path) -> None:
    change(path.parent, {"step": "6"}, format=1)


DAMAGES = [
    *((how, name) for how in (cut, flip, Path.unlink) for name in (
        "state.json", "model.safetensors", "optimizer.safetensors", "recipe.yaml",
        "tokenizer/tokenizer.json", "tokenizer/ranks.tiktoken",
    )),
    (poison, "model.safetensors"), (poison, "optimizer.safetensors"), (retype, "state.json"),
]  # fmt: skip


@pytest.mark.parametrize("how, name", DAMAGES, ids=[f"{how.__name__} {name}" for how, name in DAMAGES])
def test_resuming_takes_the_checkpoint_before_and_says_so(copy, how, name):
    folder, notes = last(copy), []
    how(folder / name)
    start = find_start_checkpoint(copy, "auto", notes.append)
    assert start == copy / "checkpoints/step-0000004"
    (note,) = notes
    assert str(folder) in note and "kept as" in note and "continuing from step-0000004" in note
    assert (copy / "checkpoints/damaged-step-0000006").is_dir()
    assert find_start_checkpoint(copy, "auto", notes.append) == start and len(notes) == 1


def test_a_run_goes_back_over_a_checkpoint_with_nan_and_ends_alike(copy, run, data):
    poison(last(copy) / "optimizer.safetensors")
    listener = StopAt(-1)
    train(tiny("dense", "train.steps=6", "train.save_every=2", "train.eval_every=6", "train.average=0.9"),
          copy, [data], resume="auto", reporter=listener, device="cpu")  # fmt: skip
    assert any("holds NaN or infinity" in note for note in listener.notes)
    one, two = (load_file(last(folder) / "model.safetensors") for folder in (copy, run))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_state_without_keys_of_training_takes_their_defaults():
    assert RunState.from_json({"step": 3, "tokens": 4}).best is None


def gone(file: Path) -> None:
    file.unlink()


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("how", [gone, a_folder])
def test_a_run_whose_checkpoints_lack_their_state_is_damaged_and_not_new(copy, how):
    every = listing.list_checkpoints(copy)
    for folder in every:
        how(folder / "state.json")
    for named in (copy, every[-1]):
        with pytest.raises(UserError, match=rf"{every[-1].name} is damaged: state\.json is missing"):
            listing.resolve(named)
    with pytest.raises(Failure, match=r"every checkpoint in .* is damaged"):
        find_start_checkpoint(copy, "auto", lambda note: None)
