"""`braingpt generate`, `chat`, `export` and `serve`."""

import io
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest


def piped(monkeypatch, raw: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))


def test_text_streams_out_and_the_run_in_use_is_named(here, braingpt, capsys):
    assert (
        braingpt("generate", "--prompt", "안녕", "--max-new-tokens", 5, "--seed", 1, "--device", "cpu") == 0
    )
    captured = capsys.readouterr()
    assert captured.out.startswith("안녕") and captured.out.endswith("\n")
    assert (
        captured.err.startswith("using runs/nano-v2/checkpoints/step-0000007\n5 tokens, ")
        and "first token after" in captured.err
    )
    assert braingpt("generate", "runs/nano-v1", "--max-new-tokens", 2, "--device", "cpu") == 0
    assert "using" not in capsys.readouterr().err


def test_json_carries_everything_and_the_seed_decides(here, braingpt, capsys):
    results = []
    for seed in (4, 4, 5):
        assert braingpt("generate", "--max-new-tokens", 8, "--seed", seed, "--json", "--device", "cpu") == 0
        results.append(json.loads(capsys.readouterr().out))
    one, same, other = results
    assert one["text"] == same["text"] and one["tokens"] == same["tokens"] != other["tokens"]
    assert (
        one["language"] == "ko" and one["prompt_tokens"] == 1 and one["step"] == 7 and len(one["tokens"]) <= 8
    )
    assert 0 < one["seconds_to_first_token"] <= one["seconds"]


def test_the_prompt_may_come_from_a_pipe(here, braingpt, capsys, monkeypatch):
    piped(monkeypatch, b"The quick brown fox jumps")
    assert braingpt("generate", "--prompt", "-", "--max-new-tokens", 1, "--json", "--device", "cpu") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["prompt"] == "The quick brown fox jumps" and result["language"] == "en"
    piped(monkeypatch, b"a\xffb")
    assert braingpt("generate", "--prompt", "-") == 2
    assert (
        capsys.readouterr().err == "braingpt: standard input is not UTF-8 text (byte 1); convert it first\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "temperature must be between 0 (greedy) and 100"),
        (["--top-k", "0"], "top-k must be at least 1"),
        (["--top-p", "2"], "top-p must be above 0"),
        (["--min-p", "2"], "min-p must be above 0"),
        (["--repetition-penalty", "0.5"], "repetition penalty must be between 1 (none) and 100"),
        (["--seed", "-3"], "seed must be"),
        (["--lang", "kr"], "unknown language 'kr'"),
        (["--max-new-tokens", "-1"], "at least 0"),
        (["--prompt", "a\udcffb"], "lone surrogate (U+DCFF) at character 1"),
        (["--device", "tpu"], "unknown device"),
        (["nowhere"], "there is no run nowhere"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(here, braingpt, capsys, arguments, message):
    assert braingpt("generate", *arguments) == 2
    captured = capsys.readouterr()
    assert (
        captured.out == ""
        and message in captured.err.splitlines()[-1]
        and captured.err.count("braingpt:") == 1
    )


def test_broken_bytes_on_a_real_command_line(here):
    command = [
        sys.executable.encode(),
        b"-m",
        b"braingpt",
        b"generate",
        b"--device",
        b"cpu",
        b"--prompt",
        b"a\xff\xfe",
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (
        done.returncode == 2
        and b"Traceback" not in done.stderr
        and b"is not UTF-8" in done.stderr.splitlines()[-1]
    )


def test_without_a_run_the_command_that_makes_one_is_named(tmp_path, monkeypatch, braingpt, capsys):
    monkeypatch.chdir(tmp_path)
    for command in ("generate", "chat", "eval", "inspect-sparsity", "serve"):
        assert braingpt(command) == 2
        assert "braingpt quickstart" in capsys.readouterr().err


def test_chat_reads_a_pipe_and_explains_base_models(here, braingpt, capsys, monkeypatch):
    piped(monkeypatch, "안녕\n\nHow are you?\n/new\nagain\n/quit\nnever\n".encode())
    assert braingpt("chat", "--max-new-tokens", 3, "--seed", 1, "--json", "--device", "cpu") == 0
    captured = capsys.readouterr()
    turns = [json.loads(line) for line in captured.out.splitlines()]
    assert [turn["user"] for turn in turns] == ["안녕", "How are you?", "again"]
    assert (
        turns[1]["tokens_read"] > turns[0]["tokens_read"]
        and turns[2]["tokens_read"] < turns[1]["tokens_read"]
    )
    assert "base model" in captured.err and "continue" in captured.err
    piped(monkeypatch, b"\xff\xff\n")
    assert braingpt("chat", "--device", "cpu") == 0
    assert "this line is left out" in capsys.readouterr().err.splitlines()[-1]


def test_export_writes_a_folder_that_generates(here, braingpt, capsys, tmp_path):
    assert braingpt("export", "runs/nano-v2", tmp_path / "out", "--dtype", "bfloat16", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bytes_after"] < result["bytes_before"] and result["dtype"] == "bfloat16"
    assert braingpt("generate", tmp_path / "out", "--max-new-tokens", 2, "--device", "cpu") == 0
    assert braingpt("export", "runs/nano-v2", tmp_path / "out") == 2
    assert "already exists" in capsys.readouterr().err


def test_serve_answers_and_stops_on_a_signal(here):
    import signal
    import urllib.request

    command = [sys.executable, "-m", "braingpt", "serve", "--port", "0", "--device", "cpu", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        said = SimpleNamespace(**json.loads(server.stdout.readline()))
        with urllib.request.urlopen(f"{said.url}/health", timeout=20) as answer:
            assert json.load(answer)["model"] == said.model == "nano-v2"
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=20)
    assert server.returncode == 0 and errors.endswith("stopped\n"), errors


@pytest.mark.parametrize(
    ("number", "delay"), [pytest.param("SIGINT", 0, marks=pytest.mark.slow), ("SIGTERM", 0.002)]
)
def test_a_signal_right_after_the_first_line_ends_serve_well(here, number, delay):
    """The line is printed before the loop begins, and a service manager may stop a service at any moment."""
    import signal

    command = [sys.executable, "-m", "braingpt", "serve", "--port", "0", "--device", "cpu", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert "url" in json.loads(server.stdout.readline())
        time.sleep(delay)
        server.send_signal(getattr(signal, number))
        _, errors = server.communicate(timeout=20)
    assert server.returncode == 0 and errors.endswith("stopped\n"), errors


def test_ctrl_c_between_the_first_line_and_the_loop_ends_serve_well(here, braingpt, capsys, monkeypatch):
    """The same, at the very moment."""
    from braingpt.cli import serve
    from braingpt.serving.server import Server

    ended = []
    monkeypatch.setattr(serve.os, "_exit", ended.append)
    monkeypatch.setattr(serve.signal, "signal", lambda *_: None)
    for place in ((serve, "print_line"), (Server, "serve_forever")):
        with monkeypatch.context() as moment:
            calls = []
            original = getattr(*place)

            def once(*arguments, original=original, calls=calls, **more):
                calls.append(arguments)
                if len(calls) == 1:
                    raise KeyboardInterrupt
                return original(*arguments, **more)

            moment.setattr(*place, once)
            braingpt("serve", "--port", 0, "--device", "cpu")
        assert capsys.readouterr().err.endswith("stopped\n")
    assert ended == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--allowed-host", "http://a"], "--allowed-host takes a name"),
        (["--allowed-host", "*"], "--allowed-host takes a name"),
        (["--allowed-origin", "a.example"], "--allowed-origin takes an origin"),
        (["--allowed-origin", "https://a.example/"], "--allowed-origin takes an origin"),
        (["--allowed-origin", "*"], "--allowed-origin takes an origin"),
        (["--host", "256.0.0.1"], "choose another --host"),
        (["--max-context", 0], "--max-context"),
    ],
)
def test_wrong_options_of_serve_are_one_line(here, braingpt, capsys, options, message):
    assert braingpt("serve", "--port", 0, "--device", "cpu", *options) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("braingpt: ") and message in last


def test_a_port_in_use_is_reported(here, braingpt, capsys):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert braingpt("serve", "--port", taken.getsockname()[1], "--device", "cpu") == 2
    assert "choose another --host or --port" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("command", [
    "generate --temperature", "generate --top-p", "generate --min-p", "generate --effort",
    "generate --exit-threshold",
    "chat --repetition-penalty", "chat --temperature", "chat --top-p",
    "calibrate --budget", "quickstart --minutes", "bench --minutes",
    "eval --effort", "inspect-sparsity --exit-threshold", "data prepare sample --validation",
])  # fmt: skip
def test_no_number_of_an_option_is_nan_or_infinite(here, braingpt, capsys, command, value):
    *words, option = command.split()
    assert braingpt(*words, f"{option}={value}") == 2
    out, err = capsys.readouterr()
    assert len(err.strip().splitlines()[-1:]) == 1 and "Traceback" not in err and not out
