"""A text gives the same figures in whatever form it is given, to every command that reads one; one line says
what was changed.
"""

import io
import json
import sys
import unicodedata

import pytest

from braingpt.episodic.keys import surprising_entries
from braingpt.episodic.memory import EpisodicMemory
from braingpt.episodic.storage import load_memory, save_memory
from tests.cli.test_memory import here as memory_here  # noqa: F401

TEXT = "어제 저녁에는 동생과 함께 강가를 걸었다. The naïve café owner’s cat didn't mind."
FORMS = {
    "NFD": unicodedata.normalize("NFD", TEXT),
    "zero-width": "\u200b".join(TEXT),
    "fillers": "\u3164".join(TEXT) + "\u115f\u1160\uffa0",
    "Windows": "\ufeff" + TEXT.replace(". ", ".\u2060 ") + "\u200e",
}
# The words of each command. {} is a folder of the test, FORM the text, FILE a file with it.
COMMANDS = {
    "generate": ["generate", "--prompt", "FORM", "--max-new-tokens", "4", "--temperature", "0"],
    "generate -": ["generate", "--prompt", "-", "--max-new-tokens", "4", "--temperature", "0"],
    "chat": ["chat", "--max-new-tokens", "4", "--temperature", "0"],
    "eval": ["eval", "--text", "FILE"],
    "eval -": ["eval", "--text", "-"],
    "inspect-sparsity": ["inspect-sparsity", "--text", "FILE", "--rounds", "0"],
    "memory add": ["memory", "add", "{}/memory", "FORM"],
    "memory add --file": ["memory", "add", "{}/memory", "--file", "FILE"],
    "tokenizer encode": ["tokenizer", "encode", "FORM", "--language", "split"],
    "tokenizer report": ["tokenizer", "report", "FILE"],
    "tokenizer train": ["tokenizer", "train", "FILE", "--vocab", "256", "--out", "{}/tokenizer"],
    "tokenizer add-language": ["tokenizer", "add-language", "pt", "FILE", "--out", "{}/more"],
}
# What a clock, a folder or a file's size makes of a result.
ELSEWHERE = {
    "seconds",
    "seconds_to_first_token",
    "tokens_per_second",
    "mb_per_second",
    "file",
    "out",
    "name",
    "text",
}
ELSEWHERE |= {"cleaned", "achieved", "data"}


@pytest.fixture
def told(here, braingpt, capsys, monkeypatch, tmp_path, calibrated):
    """The result and the lines on standard error of a command that reads a text."""
    monkeypatch.setattr("braingpt.episodic.memory.calibrate", lambda *_: (calibrated.maker, calibrated.gate))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))

    def run(name: str, text: str, *more: str) -> tuple[dict, list[str]]:
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        folder.mkdir()
        (folder / "text.txt").write_text(text * (40 if "add-language" in name else 1), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
        names = {"FORM": text, "FILE": str(folder / "text.txt")}
        words = [names.get(word, word).replace("{}", str(folder)) for word in COMMANDS[name]]
        device = [] if words[0] == "tokenizer" else ["--device", "cpu"]
        assert braingpt(*words, *device, "--json", *more) == 0
        printed = capsys.readouterr()
        return json.loads(printed.out), printed.err.splitlines()

    return run


def figures(value):
    """The result without what differs from call to call."""
    if isinstance(value, dict):
        return {key: figures(one) for key, one in value.items() if key not in ELSEWHERE}
    return [figures(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", COMMANDS)
def test_every_form_gives_the_same_figures_and_one_note(name, told) -> None:
    plain, lines = told(name, TEXT)
    assert set(plain["cleaned"].values()) == {0} and not any("cleaned" in line for line in lines)
    for form, text in FORMS.items():
        result, lines = told(name, text)
        assert figures(result) == figures(plain), form
        notes = [line for line in lines if "cleaned as training texts are" in line]
        assert len(notes) == 1 and notes[0].startswith("note: "), (form, lines)
        kind = {"NFD": "composed", "fillers": "fillers"}.get(form, "invisible")
        assert result["cleaned"][kind] > 0, (form, result["cleaned"])


BROKEN = {
    "generate": ["generate", "--prompt", "가\udceb"],
    "chat --lang": ["chat", "--lang", "\udceb"],
    "eval": ["eval", "--text", "broken.txt"],
    "eval name": ["eval", "--text", "\udceb"],
    "inspect-sparsity": ["inspect-sparsity", "--text", "broken.txt"],
    "memory add": ["memory", "add", "memory", "가\udceb"],
    "memory add second": ["memory", "add", "memory", "가", "나\udceb"],
    "memory add --file": ["memory", "add", "memory", "--file", "broken.txt"],
    "memory forget": ["memory", "forget", "memory", "\udceb"],
    "tokenizer encode": ["tokenizer", "encode", "가\udceb"],
    "tokenizer report": ["tokenizer", "report", "\udceb"],
    "generate run": ["generate", "\udceb"],
    "train": ["train", "--recipe", "\udceb"],
    "set": ["train", "--recipe", "nano-v2", "--set", "\udceb"],
    "data": ["data", "prepare", "\udceb"],
    "data info": ["data", "info", "\udceb"],
    "runs show": ["runs", "show", "\udceb"],
    "command": ["\udceb"],
}


@pytest.mark.parametrize("name", BROKEN)
def test_bytes_that_are_no_text_are_one_line(name, here, braingpt, capfd, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(here / "runs")
    (tmp_path / "broken.txt").write_bytes("가나".encode()[:-1])
    assert braingpt(*BROKEN[name]) == 2
    printed = capfd.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("using ")]
    assert printed.out == "" and len(lines) == 1 and lines[0].startswith("braingpt: "), printed.err
    assert not (tmp_path / "memory").exists()


def test_a_broken_line_costs_a_dialogue_that_line(here, braingpt, capsys, monkeypatch) -> None:
    raw = (
        "안녕하세요\n오늘 ".encode()
        + b"\xeb\x82"
        + "씨가 좋네요\n\u200b\n".encode()
        + "다시\u3164\n가\u200b\n/quit".encode()
    )
    for mode in ("strict", "surrogateescape"):
        stdin = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", errors=mode)
        monkeypatch.setattr(sys, "stdin", stdin)
        assert braingpt("chat", "--max-new-tokens", 3, "--seed", 1, "--json", "--device", "cpu") == 0
        printed = capsys.readouterr()
        turns = [json.loads(line) for line in printed.out.splitlines()]
        assert [turn["user"] for turn in turns] == ["안녕하세요", "다시", "가"]
        assert [turn["cleaned"]["fillers"] for turn in turns] == [0, 1, 0]
        assert turns[1]["tokens_read"] > turns[0]["tokens_read"]
        left_out = [line for line in printed.err.splitlines() if "left out" in line]
        assert len(left_out) == 1 and "0xEB is not UTF-8" in left_out[0]
        assert printed.err.count("cleaned as training texts are") == 1


FACT = "지난주에 우리 집에 온 작은 고양이의 이름은 콩이예요."
PROMPT = "지난주에 우리 집에 온 작은 고양이의 이름은"


@pytest.mark.parametrize("taught", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_a_fact_taught_in_one_form_is_recalled_in_the_other(
    taught,
    asked,
    memory_here,  # noqa: F811
    braingpt,
    capsys,
) -> None:
    file = memory_here / "memory"
    fact, prompt = unicodedata.normalize(taught, FACT), unicodedata.normalize(asked, PROMPT)
    assert braingpt("memory", "add", file, fact, "--device", "cpu") == 0
    assert capsys.readouterr().out.startswith(f"1  {FACT}  (")
    assert recalled(braingpt, capsys, file, prompt) == " 콩이예요."
    assert braingpt("memory", "add", file, unicodedata.normalize(asked, FACT), "--device", "cpu") == 0
    assert "already in the memory" in capsys.readouterr().out


def test_a_memory_of_former_versions_is_read_again(memory_here, loaded, calibrated, braingpt, capsys) -> None:  # noqa: F811
    """Its texts were taught as they were typed."""
    from braingpt.episodic.store import Store

    model, tokenizer, weights = loaded
    file, other = memory_here / "former", "The little cat that came last week is called Biscuit."
    store = Store(calibrated.store.keys_ND.shape[1])
    memory = EpisodicMemory(weights, calibrated.maker, calibrated.gate, store, calibrated.about)
    for text in (unicodedata.normalize("NFD", FACT), other):
        ids = [tokenizer.markers["ko"], *tokenizer._bpe.encode_ordinary(text), tokenizer.eot]
        store.write(text, *surprising_entries(model, memory.maker, ids))
    save_memory(memory, file)
    before = file.read_bytes()
    assert recalled(braingpt, capsys, file, PROMPT) == " 콩이예요."
    assert file.read_bytes() == before
    assert braingpt("memory", "add", file, FACT, "--device", "cpu", "--json") == 0
    printed = capsys.readouterr()
    assert f"note: 1 text of {file} read again" in printed.err
    added = json.loads(printed.out)
    assert [(one["number"], one["text"], one["new"]) for one in added["texts"]] == [(1, FACT, False)]
    kept = load_memory(file, weights)
    assert list(kept.store.texts.items()) == [(1, FACT), (2, other)]
    assert kept.renew(model, tokenizer) == 0
    # The entries of the later text still come later.
    first, second = (kept.store.owners_M2[kept.store.owners_M2[:, 1] == n, 0] for n in (1, 2))
    assert first.max() < second.max()
    assert recalled(braingpt, capsys, file, PROMPT) == " 콩이예요."


def recalled(braingpt, capsys, file, prompt: str) -> str:
    """What the model with the memory of the file writes after the prompt."""
    words = ["generate", "--prompt", prompt, "--temperature", 0, "--max-new-tokens", 12]
    assert braingpt(*words, "--memory", file, "--device", "cpu", "--json") == 0
    return json.loads(capsys.readouterr().out)["text"]
