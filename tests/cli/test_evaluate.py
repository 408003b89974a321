"""`braingpt eval`: tasks, comparisons with another checkpoint, mistakes."""

import hashlib
import json
import shutil
import sys

import pytest

from braingpt.cli import options
from braingpt.train.loop import train
from braingpt.utils.hashed_json import check_hash, hashed
from tests.tiny_runs import tiny


def test_tasks_against_another_run_with_intervals_json_and_page(
    here, braingpt, capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    out, page = tmp_path / "e.json", tmp_path / "e.html"
    common = [
        "--tasks",
        "perplexity,binding,recall",
        "--windows",
        4,
        "--limit",
        8,
        "--device",
        "cpu",
        "--lang",
        "ko",
    ]
    assert (
        braingpt(
            "eval",
            "runs/nano-v2",
            "--against",
            "runs/nano-v1",
            *common,
            "--context",
            64,
            "--json-file",
            out,
            "--html",
            page,
        )
        == 0
    )
    text = capsys.readouterr().out
    assert "…" not in text
    # These lines name folders and files, which may be long.
    named = ("compared with ", "page: ")
    assert [line for line in text.splitlines() if len(line) > 80 and not line.startswith(named)] == []
    result = json.loads(out.read_text())
    binding = next(figure for figure in result["figures"] if figure["task"] == "binding")
    assert (
        binding["units"] == 8
        and binding["language"] == "ko"
        and binding["chance"] == 0.25
        and binding["low"] <= binding["value"]
    )
    pool = next(c for c in result["comparisons"] if (c["language"], c["metric"]) == ("all", "bits_per_byte"))
    assert (
        pool["difference"] == pytest.approx(pool["value"] - pool["against"])
        and pool["low"] <= pool["difference"] <= pool["high"]
    )
    assert (
        pool["value"] == pytest.approx(result["bits_per_byte"]) and result["against"]["recipe"] == "nano-v1"
    )
    html = page.read_text()
    assert (
        "<svg" in html
        and "src=" not in html
        and "http" not in html.replace("http-equiv", "")
        and "binding ko" in html
    )


def test_a_run_does_not_differ_from_itself(here, braingpt, tmp_path):
    out = tmp_path / "e.json"
    assert (
        braingpt(
            "eval",
            "runs/nano-v2",
            "--against",
            "runs/nano-v2",
            "--windows",
            3,
            "--device",
            "cpu",
            "--json-file",
            out,
        )
        == 0
    )
    comparisons = json.loads(out.read_text())["comparisons"]
    assert len(comparisons) == 6 and all(
        c["difference"] == 0 and c["p"] == 1 and c["low"] == c["high"] == 0 for c in comparisons
    )


def other(source, target, *changes):
    """A copy of a checkpoint whose recipe says something else."""
    folder = shutil.copytree(source, target)
    recipe = (folder / "recipe.yaml").read_text()
    state = check_hash(json.loads((folder / "state.json").read_text()))
    for old, new in changes:
        assert old in recipe
        recipe = recipe.replace(old, new)
    (folder / "recipe.yaml").write_text(recipe)
    state["files"]["recipe.yaml"] = {
        "bytes": len(recipe.encode()),
        "sha256": hashlib.sha256(recipe.encode()).hexdigest(),
    }
    (folder / "state.json").write_text(json.dumps(hashed(state)))
    return folder


def test_the_other_run_is_measured_on_the_first_ones_text(here, braingpt, tmp_path):
    source, out = here / "runs" / "nano-v1" / "checkpoints" / "step-0000007", tmp_path / "e.json"
    folder = other(
        source, tmp_path / "other", ("context: 32", "context: 16"), ("data/sample", "data/elsewhere")
    )
    assert (
        braingpt(
            "eval", "runs/nano-v2", "--against", folder, "--windows", 3, "--device", "cpu", "--json-file", out
        )
        == 0
    )
    result = json.loads(out.read_text())
    assert (
        result["against"]["context"] == 32
        and result["against"]["data"] == "data/sample"
        and len(result["comparisons"]) == 6
    )


def test_a_sharded_checkpoint_is_evaluated(here, braingpt, tmp_path):
    """With `train.parallel: fsdp` the weights are a folder; all its parts make the key of cached answers."""
    out = tmp_path / "e.json"
    recipe = tiny("dense", "train.steps=2", "train.parallel=fsdp", "train.offload=true")
    train(recipe, tmp_path / "run", [here / "data" / "sample"], device="cpu")
    assert not list((tmp_path / "run").rglob("model.safetensors"))
    arguments = ("--data", "data/sample", "--windows", 1, "--device", "cpu", "--json-file", out)
    assert braingpt("eval", tmp_path / "run", *arguments) == 0
    assert json.loads(out.read_text())["step"] == 2


def test_texts_longer_than_the_context_are_named(here, braingpt, capsys):
    assert braingpt("eval", "--tasks", "classify", "--limit", 4, "--context", 16, "--device", "cpu") == 0
    assert "classify ko: 16 texts are longer than 16 tokens and were cut" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", ","], "names no task"),
        (["--tasks", "recall", "--text", "x"], "--tasks perplexity,recall"),
        (["--tasks", "recall", "--lang", "ko", "--task-files", "x"], "names none of them"),
        (["--tasks", "mine", "--task-files", "nowhere"], "there is no folder --task-files nowhere"),
        (["--tasks", "binding", "--lang", "de", "--device", "cpu"], "in ko and en, not in 'de'"),
        (["--html", "data"], "--html data is a folder; name a file"),
        (["--html", "none/x.html"], "--html none/x.html: there is no folder none"),
        (["runs/none"], "there is no run runs/none"),
        (["--against", "runs/none", "--windows", "1", "--device", "cpu"], "there is no run runs/none"),
        (["--text", "empty.txt", "--device", "cpu"], "the text is empty"),
    ],
)
def test_mistakes_are_one_line(here, braingpt, capsys, arguments, message):
    (here / "empty.txt").write_text(" \n")
    assert braingpt("eval", *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1] and captured.out == ""


def test_an_unknown_task_is_reported_with_and_without_lm_eval(here, braingpt, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert braingpt("eval", "--tasks", "bindng") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "unknown task 'bindng'; did you mean 'binding'?" in line and "pip install 'braingpt[eval]'" in line


@pytest.mark.parametrize("command", ["eval", "inspect-sparsity"])
@pytest.mark.parametrize(("written", "message"), [("v9", "'v9'"), ("dense", "lacks 'model.mlp'")])
def test_a_checkpoint_of_another_architecture_is_one_line(
    here, braingpt, capsys, tmp_path, command, written, message
):
    source = here / "runs" / "nano-v2" / "checkpoints" / "step-0000007"
    folder = other(source, tmp_path / "odd", ("architecture: v2", f"architecture: {written}"))
    assert braingpt(command, folder, "--device", "cpu") in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{folder} holds a model that braingpt" in line and message in line


def test_texts_and_windows_beyond_memory_are_one_line(here, braingpt, capsys, tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_text("The river flows. " * 50)
    monkeypatch.setattr("braingpt.device.free_memory.free_memory", lambda device: 1000)
    assert braingpt("eval", "--text", tmp_path / "t.txt") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "GB of text" in line and "braingpt data prepare text" in line

    def gives_up(*_arguments, **_more):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("braingpt.evaluation.perplexity.evaluate", gives_up)
    assert braingpt("eval", "--context", 64, "--device", "cpu") == 2
    assert "windows of 64 tokens do not fit into memory" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(RuntimeError, match="another"), options.explain_out_of_memory(8):
        raise RuntimeError("another error")
