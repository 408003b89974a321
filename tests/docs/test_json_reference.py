"""docs/reference/json.md names every key of the JSON that the commands print."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from braingpt.cli.console import guarded
from braingpt.cli.main import app
from tests.docs.places import SMALLER

PAGE = (Path(__file__).parent.parent.parent / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
# Keys below these are names of languages, sources, rules or vocabularies; what they hold is described.
NAMED = {"by_language", "epochs_by_language", "filters", "dropped", "encodings", "hangul_alone", "loads"}
# These hold whatever was asked for, or recipe keys.
OPEN = {"parameters", "revisions", "settings", "training_loss", "train", "samples"}
TRAIN = [
    f"--set=train.{item}"
    for item in ("steps=4", "batch=2", "context=32", "eval_every=2", "save_every=2", "eval_windows=2")
]
COMMANDS = {
    "data prepare": "data prepare text notes --out data/notes --json",
    "data list": "data list --json",
    "data info": "data info data/notes --json",
    "data verify": "data verify data/notes --json",
    "data sample": "data sample data/notes --json",
    "data report": "data report data/notes --json",
    "recipes": "recipes --json",
    "train": "train --recipe nano-v2 --data data/notes --json",
    "train --plan": "train --recipe nano-v2 --data data/notes --plan --json",
    "runs": "runs list --json",
    "generate": "generate --json --max-new-tokens 3",
    "memory": "memory list facts.memory --json",
    "eval": "eval --tasks perplexity,binding --limit 2 --windows 2 --against runs/nano-v2 --json",
    "inspect-sparsity": "inspect-sparsity --context 32 --rounds 1 --growth --memory facts.memory --json",
    "export": "export runs/nano-v2 exported --json",
    "doctor": "doctor --json",
    "tokenizer encode": "tokenizer encode 안녕 --json",
    "tokenizer report": "tokenizer report notes --json",
}


def described(command: str) -> set[str]:
    """The names in the section of a command, or in that of its group."""
    sections = dict(re.findall(r"^#{2,3} (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    names = re.findall(r"`([^`\n]+)`", sections[command.split()[0]])
    return {part for name in names for part in re.split(r"\[\]|\.", name)}


def keys(value: Any) -> set[str]:
    """All keys, names of languages and the like left out."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    found = set(value)
    for key, inner in value.items():
        if key in OPEN:
            continue
        inside = list(inner.values()) if key in NAMED and isinstance(inner, dict) else inner
        found |= keys(inside)
    return found


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each command printed, after a small training."""
    folder = tmp_path_factory.mktemp("json")
    (folder / "notes").mkdir()
    for number in range(40):
        sentence = f"오늘은 {number}번째 날이고, 나는 강가를 걸었다. 바람은 {number * 7}도만큼 따뜻했다. "
        (folder / "notes" / f"{number}.txt").write_text(sentence * 4, encoding="utf-8")
    found = {}
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(""))
        for name, value in SMALLER.items():
            patch.setattr(f"braingpt.{name}", value)
        for name, line in COMMANDS.items():
            if name == "memory":
                run("memory add facts.memory 고양이는콩이다. --json")
            words = line.split() + (TRAIN if line.startswith("train") else [])
            found[name] = json.loads(run(" ".join(words)))
    return found


def run(line: str) -> str:
    """What a command prints on standard output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = guarded(lambda: app(line.split(), standalone_mode=False))
    assert code == 0, line
    return out.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_is_described(printed: dict[str, Any], command: str) -> None:
    # `runs` holds validation records, which the section of `train` describes.
    known = described(command) | (described("train") if command == "runs" else set())
    found = keys(printed[command])
    assert found
    assert found <= known, found - known


def test_metrics_are_described() -> None:
    assert {"train", "validation", "incident", "growth", "rewind"} <= described("train")
