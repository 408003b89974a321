"""`braingpt inspect-sparsity`: its tables, files and mistakes."""

import json
import shutil

import pytest
import torch

from braingpt.checkpoint import listing
from braingpt.inspection.runner import TokenWindows
from braingpt.utils.hashed_json import check_hash, hashed


def test_everything_at_once(here, braingpt, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run = shutil.copytree(here / "runs" / "nano-v2", tmp_path / "run")
    shutil.copytree(run / "checkpoints" / "step-0000007", run / "checkpoints" / "step-0000014")
    state = run / "checkpoints" / "step-0000014" / "state.json"
    content = check_hash(json.loads(state.read_text()))
    state.write_text(json.dumps(hashed({**content, "step": 14})))
    (tmp_path / "t.txt").write_text("한강은 서울을 가로질러 흐른다. The river flows through the city.\n" * 8)
    out, page = tmp_path / "i.json", tmp_path / "i.html"
    options = [
        "--text",
        tmp_path / "t.txt",
        "--context",
        32,
        "--rounds",
        1,
        "--show",
        40,
        "--growth",
        "--device",
        "cpu",
    ]
    assert braingpt("inspect-sparsity", run, *options, "--json-file", out, "--html", page) == 0
    text, report = capsys.readouterr().out, json.loads(out.read_text())
    assert {
        "step",
        "layers",
        "total",
        "promised",
        "achieved",
        "specialisation",
        "depths",
        "loads",
        "spent",
        "growth",
    } <= report.keys()
    assert [one["step"] for one in report["growth"]] == [7, 14] and report["growth"][0]["computed"] == report[
        "total"
    ]["computed"]
    assert report["achieved"][-1]["part"] == "model" and report["promised"][
        "columns_active"
    ] == pytest.approx(3 / 17)
    assert sum(report["depths"]) == report["tokens"] and set(report["loads"]) >= {"ko", "en"}
    assert "compared with a dense twin" in text and "over training" in text and "█" in text
    html = page.read_text()
    assert "<svg" in html and "src=" not in html and html.count("<figure>") >= len(report["loads"])


def test_the_text_is_above_bars_of_its_own_width(here, braingpt, capsys, tmp_path, monkeypatch):
    from rich.cells import cell_len

    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "t.txt").write_text("한강은 서울을 가로질러 흐른다. 그리고 바다로 간다. " * 6)
    assert (
        braingpt(
            "inspect-sparsity", "runs/nano-v2", "--text", tmp_path / "t.txt", "--rounds", 0, "--device", "cpu"
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    bars = [number for number, line in enumerate(lines) if line and set(line) <= set("▁▂▃▄▅▆▇█")]
    assert len(bars) > 2
    for number in bars:
        assert cell_len(lines[number]) == cell_len(lines[number - 1]) <= 80
    assert sum(cell_len(lines[number]) > 70 for number in bars) >= len(bars) - 1


def test_a_memory_is_counted(here, braingpt, tmp_path):
    memory, out = tmp_path / "facts.memory", tmp_path / "i.json"
    assert (
        braingpt(
            "memory", "add", memory, "내 고양이 이름은 콩이예요.", "--run", "runs/nano-v2", "--device", "cpu"
        )
        == 0
    )
    (tmp_path / "t.txt").write_text("내 고양이 이름은 콩이예요.")
    common = ["--memory", memory, "--rounds", 0, "--device", "cpu", "--json-file", out]
    assert braingpt("inspect-sparsity", "runs/nano-v2", "--text", tmp_path / "t.txt", *common) == 0
    found = json.loads(out.read_text())["episodic"]
    assert (
        found["reads"] == found["tokens"]
        and found["entries_read"] == min(32, found["entries"])
        and 0 < found["surprising"] <= found["tokens"]
    )


def test_pictures_are_png_files(here, braingpt, tmp_path):
    options = ["--context", 32, "--rounds", 0, "--device", "cpu", "--png", tmp_path / "pictures"]
    assert braingpt("inspect-sparsity", "runs/nano-v2", *options) == 0
    files = sorted((tmp_path / "pictures").iterdir())
    assert [file.stem for file in files] == ["columns-en", "columns-ko", "depth", "specialisation"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_windows_are_of_one_language_and_hold_every_token_once():
    text = TokenWindows.of([("ko", list(range(70))), ("en", list(range(100, 110)))], 32)
    assert torch.cat([window.flatten() for window in text.windows]).tolist() == [*range(70), *range(100, 110)]
    assert text.languages == ["ko", "ko", "en"] and all(window.shape[1] <= 32 for window in text.windows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/none"], "there is no run runs/none"),
        (["--text", "none.txt"], "no text file none.txt"),
        (["--text", "empty.txt", "--device", "cpu"], "the text is empty"),
        (["--html", "data"], "--html data is a folder"),
        (["--growth", "--rounds", "0", "--device", "cpu"], "--growth needs a run with several checkpoints"),
        (["--memory", "none.memory", "--rounds", "0", "--device", "cpu"], "none.memory"),
    ],
)
def test_mistakes_are_one_line(here, braingpt, capsys, arguments, message):
    (here / "empty.txt").write_text("\n")
    assert braingpt("inspect-sparsity", *arguments) in (1, 2)
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1] and captured.out == ""


def test_letters_that_no_font_has_are_told_once(here, braingpt, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("braingpt.html.figure.Plot.letters_missing", lambda plot: True)
    options = ["--context", 32, "--rounds", 0, "--device", "cpu", "--png", tmp_path / "pictures"]
    assert braingpt("inspect-sparsity", "runs/nano-v2", *options) == 0
    assert capsys.readouterr().err.count("no installed font") == 1


def test_without_a_checkpoint_the_command_that_makes_one_is_named(tmp_path, braingpt, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("eval", "inspect-sparsity"):
        assert braingpt(command) == 2
        assert "braingpt quickstart" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no trained model"):
        listing.resolve(None)
