"""Commands that use a model refuse in one line what cannot fit, before they begin."""

import types

import pytest
import torch

from braingpt.data.prepare.pipeline import Request, prepare
from braingpt.device.free_memory import Available
from braingpt.errors import UserError
from braingpt.inference.chat import Conversation
from braingpt.inference.engine import generate, generate_batch
from braingpt.model.lm import build
from braingpt.model.outline import outline
from braingpt.tokenizer import Tokenizer
from tests.tiny_runs import tiny

ROOM = Available(1 << 30, "the container's limit (cgroup)")
HERE = "1.1 GB are available (the container's limit (cgroup))"


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    for place in ("model.memory_limits", "bench.kernels.runner", "bench.fit"):
        monkeypatch.setattr(f"braingpt.{place}.available_memory", lambda device: ROOM)


@pytest.mark.parametrize(
    ("words", "needed", "fits"),
    [
        (["generate", "runs/nano-v1", "--max-new-tokens", "1000000000"], "new tokens", "at most"),
        (["generate", "runs/nano-v2", "--max-new-tokens", "1000000000000"], "new tokens", "at most"),
        (["eval", "runs/nano-v2", "--context", "1000000000"], "windows of 1,000,000,000", "--context "),
        (["inspect-sparsity", "runs/nano-v1", "--context", "1000000000"], "windows of", "--context "),
        (["bench", "kernels", "--context", "1000000000"], "1 x 1,000,000,000 tokens", "smaller --batch"),
        (["bench", "v1", "--data", "data/sample", "--batch", "1000000"], "1000000 x 128 tokens", "--batch "),
        (["bench", "v2", "--data", "data/sample", "--contexts", "9999999"], "9,999,999 tokens", "--contexts"),
        (["bench", "kernels", "--batch", "99999999"], "99,999,999 x 1,024 tokens", "smaller --batch"),
    ],
)
def test_one_line_before_the_work(words, needed, fits, here, capsys, braingpt):
    assert braingpt(*words, "--device", "cpu") == 2
    error = capsys.readouterr().err
    assert needed in error and fits in error and HERE in error and error.count("\n") == 1


def test_the_offered_number_of_tokens_fits():
    model = build(tiny("dense").model).eval()
    with pytest.raises(UserError, match=r"at most ([\d,]+) would fit") as caught:
        generate(model, [1, 2, 3], 10**10)
    offered = int(str(caught.value).rpartition("at most ")[2].split()[0].replace(",", ""))
    assert model.state_bytes(3 + offered) <= ROOM.bytes < model.state_bytes(2 * offered)
    with pytest.raises(UserError, match="new tokens need"):
        generate_batch(model, [[1], [2]], 10**10)
    assert len(generate(model, [1, 2, 3], 4)) == 4
    with pytest.raises(UserError, match="new tokens need"):
        Conversation(model, Tokenizer.default(), max_new_tokens=10**10).say("안녕")


@pytest.mark.parametrize("command", ["eval", "generate", "serve", "export", "inspect-sparsity"])
def test_weights_that_do_not_fit_are_not_loaded(command, here, capsys, braingpt, monkeypatch, tmp_path):
    monkeypatch.setattr("braingpt.model.memory_limits.CERTAINLY_FREE", 0)
    monkeypatch.setattr(
        "braingpt.model.memory_limits.available_memory", lambda device: ROOM._replace(bytes=10)
    )
    words = [str(tmp_path / "out")] if command == "export" else []
    assert braingpt(command, "runs/nano-v2", *words) == 2
    error = capsys.readouterr().err
    assert "the model's weights need" in error and "10 B are available" in error and error.count("\n") == 1


def test_an_export_that_does_not_fit_on_the_disk(here, capsys, braingpt, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=1000))
    assert braingpt("export", "runs/nano-v2", "out") == 2
    error = capsys.readouterr().err
    assert "out would take at least" in error and "1.0 kB free" in error and not (here / "out").exists()


def test_no_more_workers_than_processors(tmp_path, monkeypatch):
    monkeypatch.setattr("braingpt.data.prepare.preparer.processors", lambda: 4)
    started = []

    def outcomes(chunks, worker, settings, workers, fraction_done):
        started.append(workers)
        for chunk in chunks:
            yield chunk, worker(chunk.documents)

    monkeypatch.setattr("braingpt.data.prepare.preparer.outcomes", outcomes)
    text = "도서관 삼 층 창가 자리는 아침 햇빛이 들어와서 책을 읽기에 좋다.\n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    for number, asked in enumerate((24, 3)):
        request = Request("text", tmp_path / f"out{number}", [tmp_path / "a.txt"], workers=asked)
        notes = prepare(request, Tokenizer.default()).notes
        wanted = ["--workers 24 is more than the processors here; 4 are started"] if asked == 24 else []
        assert [note for note in notes if "--workers" in note] == wanted
    assert started == [4, 3]


@pytest.mark.parametrize("minutes", ["inf", "1e300", "nan", "0", "-1"])
def test_minutes_that_are_no_length_are_one_line(minutes, capsys, braingpt):
    assert braingpt("quickstart", "--minutes", minutes) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'--minutes'" in line


def test_sizes_beyond_any_tensor_are_one_line():
    config = tiny("dense").model.model_copy(update={"mlp": 1 << 62})
    with pytest.raises(UserError, match="more than 9 EB"):
        outline(config)
    assert torch.get_default_device().type == "cpu"
