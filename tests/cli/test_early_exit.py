"""Early exit on the command line: `--draft-layers`, `--exit-threshold` and `braingpt calibrate`."""

import json

import pytest


def test_drafts_write_the_same_text(here, braingpt, capsys):
    results = []
    for extra in ([], ["--draft-layers", 1], ["--draft-layers", 1, "--exit-threshold", 0.001]):
        asked = ["--prompt", "안녕", "--max-new-tokens", 8, "--seed", 4, "--json", "--device", "cpu"]
        assert braingpt("generate", "runs/nano-v1", *asked, *extra) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert (
        results[0]["tokens"] == results[1]["tokens"] == results[2]["tokens"]
        and results[0]["layers_used"] == 1
    )
    assert (
        braingpt("generate", "runs/nano-v1", "--draft-layers", 1, "--max-new-tokens", 3, "--device", "cpu")
        == 0
    )
    assert "of the layers per token" in capsys.readouterr().err


def test_the_threshold_saves_layers_and_is_reported(here, braingpt, capsys):
    assert (
        braingpt(
            "generate",
            "runs/nano-v1",
            "--exit-threshold",
            0.00001,
            "--max-new-tokens",
            4,
            "--json",
            "--device",
            "cpu",
        )
        == 0
    )
    # all leave after the first of two layers
    assert json.loads(capsys.readouterr().out)["layers_used"] == 0.5
    assert (
        braingpt(
            "eval",
            "runs/nano-v1",
            "--exit-threshold",
            0.00001,
            "--windows",
            1,
            "--device",
            "cpu",
            "--json",
        )
        == 0
    )
    captured = capsys.readouterr()
    assert (
        json.loads(captured.out)["layers_used"] == 0.5
        and "a token passes through 50.0% of the layers on average" in captured.err
    )


def test_calibrate_names_a_threshold(here, braingpt, capsys, tmp_path):
    assert (
        braingpt(
            "calibrate", "runs/nano-v1", "--windows", 1, "--device", "cpu", "--json-file", tmp_path / "c.json"
        )
        == 0
    )
    result = json.loads((tmp_path / "c.json").read_text())
    assert result["settings"][0]["threshold"] is None and len(result["settings"]) == 12
    assert result["chosen"]["perplexity_cost"] <= 0.01 == result["budget"]
    assert "threshold" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--draft-layers", 1], "dense or v1"),
        (["generate", "--exit-threshold", 0.5], "is for v1"),
        (["generate", "runs/nano-v1", "--draft-layers", 2], "between 1 and 1, not 2"),
        (["generate", "runs/nano-v1", "--exit-threshold", 2], "above 0 and at most 1"),
        (["calibrate"], "has no early exits"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(here, braingpt, capsys, arguments, message):
    assert braingpt(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1] and captured.out == ""
