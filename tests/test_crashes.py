"""Commands stopped at every change of the file system they make (`crash.py`): nothing is lost or damaged, the
same command works afterwards, and no rest stays.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from braingpt.checkpoint import checkpoint
from braingpt.data.prepare import journal
from braingpt.data.prepare.join import join
from braingpt.data.prepare.pipeline import Request, prepare
from braingpt.data.shards.manifest import read_manifest, verify
from braingpt.episodic.gate import FEATURES, Gate
from braingpt.episodic.keys import KeyMaker
from braingpt.episodic.memory import EpisodicMemory
from braingpt.episodic.storage import load_memory, save_memory
from braingpt.episodic.store import Store
from braingpt.tokenizer import Tokenizer
from braingpt.train.loop import train
from braingpt.train.run.folder import read_metrics
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.file_lock import file_lock
from tests.conftest import awake
from tests.crash import at_every_change, hidden
from tests.data.folders import ByteTokenizer
from tests.fixed_texts import documents
from tests.tiny_runs import tiny


def fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def small_tokenizer(*more: bytes) -> Tokenizer:
    return Tokenizer([*(bytes([value]) for value in range(256)), b"ab", *more])


def test_a_file_is_the_old_or_the_new_one(tmp_path) -> None:
    place = tmp_path / "place"

    def begin() -> None:
        fresh(place)
        (place / "file").write_text("old")

    def check() -> None:
        assert (place / "file").read_text() in ("old", "new")

    assert at_every_change(begin, lambda: write_atomically(place / "file", "new"), check) >= 2
    assert os.listdir(place) == ["file"]


@pytest.mark.parametrize("before", ["nothing", "empty folder", "tokenizer", "tokenizer beside others"])
def test_a_tokenizer_folder_is_the_old_or_the_new_one(tmp_path, before) -> None:
    place, old, new = tmp_path / "place", small_tokenizer(), small_tokenizer(b"abc")
    out = place / "out"

    def begin() -> None:
        fresh(place)
        if before == "empty folder":
            out.mkdir()
        if before.startswith("tokenizer"):
            old.save(out)
        if before.endswith("others"):
            (out / "notes.txt").write_text("mine")

    def check() -> None:
        if before.startswith("tokenizer") or (out / "tokenizer.json").exists():
            assert Tokenizer.load(out).fingerprint in (old.fingerprint, new.fingerprint)
        else:
            assert not out.exists() or before == "empty folder"
        if before.endswith("others"):
            assert (out / "notes.txt").read_text() == "mine"

    assert at_every_change(begin, lambda: new.save(out), check) >= 6
    assert Tokenizer.load(out).fingerprint == new.fingerprint and hidden(place) == []


def test_a_tokenizer_of_another_kind_after_a_stop(tmp_path) -> None:
    """What a stopped writer left does not confuse a writer of a third tokenizer."""
    place, old = tmp_path / "out", small_tokenizer()
    new, third = small_tokenizer(b"x1"), small_tokenizer(b"y1")

    def begin() -> None:
        shutil.rmtree(place, ignore_errors=True)
        old.save(place)

    def check() -> None:
        fingerprint = Tokenizer.load(place).fingerprint
        assert fingerprint in (old.fingerprint, new.fingerprint)
        third.save(place)
        assert Tokenizer.load(place).fingerprint == third.fingerprint and hidden(place) == []
        old.save(place)

    at_every_change(begin, lambda: new.save(place), check)


def memory_of(*texts: str) -> EpisodicMemory:
    store = Store(4)
    gate = Gate(torch.zeros(FEATURES), torch.tensor(1.0))
    memory = EpisodicMemory("weights", KeyMaker(torch.zeros(4), torch.eye(4)), gate, store, {})
    for number, text in enumerate(texts):
        store.write(text, torch.full((1, 4), 0.5 / (number + 1)), torch.tensor([number]))
    return memory


def test_a_memory_is_the_old_or_the_new_one(tmp_path) -> None:
    place = tmp_path / "place"
    file = place / "memory"

    def begin() -> None:
        fresh(place)
        save_memory(memory_of("one"), file)

    def work() -> None:
        with file_lock(file):
            memory = load_memory(file)
            if memory.store.number_of("two") is None:
                memory.store.write("two", torch.full((1, 4), 0.1), torch.tensor([7]))
            save_memory(memory, file)

    def check() -> None:
        assert list(load_memory(file).store.texts.values()) in (["one"], ["one", "two"])

    assert at_every_change(begin, work, check) >= 4
    assert os.listdir(place) == ["memory"]


def test_a_checkpoint_that_replaces_another_is_the_old_or_the_new_one(tmp_path) -> None:
    recipe, place = tiny("dense", "model.layers=1"), tmp_path / "place"
    model, tokenizer, out = awake(recipe.model).float(), small_tokenizer(), place / "out"

    def save(step: int) -> None:
        checkpoint.save(out, model=model, tokenizer=tokenizer, recipe=recipe, step=step, tokens=1)

    def begin() -> None:
        fresh(place)
        save(1)

    def check() -> None:
        state = checkpoint.read_state(out)
        checkpoint.verify(out, state)
        assert state["step"] in (1, 2)

    assert at_every_change(begin, lambda: save(2), check, points=12) >= 8
    assert checkpoint.read_state(out)["step"] == 2 and hidden(place) == []


@pytest.fixture
def texts(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(journal, "SECONDS", 0)
    folder = tmp_path / "texts"
    folder.mkdir()
    for language in ("ko", "en"):
        lines = [json.dumps({"text": text}) for text in documents(language, 12)]
        (folder / f"{language}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("before", ["nothing", "another preparation"])
def test_a_prepared_folder_is_the_old_or_the_new_one(tmp_path, texts, before) -> None:
    place, former = tmp_path / "place", tmp_path / "former"
    out = place / "out"
    files = [texts / "ko.jsonl", texts / "en.jsonl"]
    force = before != "nothing"
    prepare(Request("text", former, files[:1], validation=0.2), ByteTokenizer())

    def begin() -> None:
        fresh(place)
        if force:
            shutil.copytree(former, out)

    def work() -> None:
        prepare(Request("text", out, files, validation=0.2, force=force), ByteTokenizer())

    def check() -> None:
        if force or out.exists():
            assert verify(out, read_manifest(out)) == []

    assert at_every_change(begin, work, check, points=8) >= 20
    assert hidden(place) == [] and read_manifest(out).languages() == ["ko", "en"]


def test_a_training_continues_and_leaves_nothing(tmp_path, data) -> None:
    recipe = tiny("dense", "model.layers=1", "train.steps=4", "train.save_every=2", "train.eval_every=2")
    place = tmp_path / "place"
    run = place / "run"

    def work() -> None:
        train(recipe, run, [data], resume="auto", device="cpu")

    def check() -> None:
        for folder in run.glob("checkpoints/step-*"):
            checkpoint.verify(folder)

    assert at_every_change(lambda: fresh(place), work, check, points=8) >= 30
    steps = [record["step"] for record in read_metrics(run) if record["kind"] == "train"]
    assert steps == [1, 2, 3, 4] and hidden(place) == ["run/.lock"]


def test_joined_parts_are_there_whole_or_not(tmp_path, texts) -> None:
    place, parts = tmp_path / "place", []
    for number, name in enumerate(("ko", "en")):
        parts.append(tmp_path / name)
        request = Request("text", parts[-1], [texts / "ko.jsonl", texts / "en.jsonl"], part=(number + 1, 2))
        prepare(request, Tokenizer.default())

    def begin() -> None:
        fresh(place)
        join(parts, place / "out")

    def check() -> None:
        assert verify(place / "out", read_manifest(place / "out")) == []

    assert at_every_change(begin, lambda: join(parts, place / "out", force=True), check, points=6) >= 15
    assert hidden(place) == []
