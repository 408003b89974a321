"""The keys of all JSON that is printed or kept in files, found by running small commands."""

import json
import struct
from pathlib import Path
from typing import Any

from tests.frozen.calls import call, call_json, metrics, place, recorded
from tests.frozen.shapes import differences, keys_of

TEXT = "고양이의 이름은 콩이예요. The cat is called Biscuit."
CPU = ("--device", "cpu")
JSON = ("--json",)
SETTINGS = ("batch=2", "context=16", "steps=4", "warmup=1", "eval_windows=1", "eval_every=4", "save_every=2")


def all_keys(folder: Path) -> dict[str, list[str]]:
    """By command, the keys of what `--json` prints; by file, the keys of what is kept.

    Works in `folder`, a new one.

    Commands that take long are compared where they are tested, by `assert_keys`. `serve` never returns and is
    left out.
    """
    with place(folder) as root:
        found: dict[str, Any] = {}
        found |= _data(root)
        found |= _runs()
        found |= _models()
        return {name: keys_of(value) for name, value in found.items()} | _files(root) | _records()


def assert_keys(name: str, *values: Any) -> None:
    """The keys of the values taken together are those recorded for the command or file `name`."""
    assert_lines(name, keys_of(*values))


def assert_lines(name: str, found: list[str]) -> None:
    """The lines of `keys_of` are those recorded for `name`."""
    parted = differences(found, recorded("keys", name, found) or [])
    assert not parted, f"{name}: {'; '.join(parted)}. Where that is meant: python -m tests.frozen.record keys"


def _data(root: Path) -> dict[str, Any]:
    documents = call_json("data", "sample", "data/sample", "-n", 24, *JSON)
    lines = [json.dumps({"text": document["text"]}) for document in documents]
    (root / "documents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    prepare = ("data", "prepare", "text", "documents.jsonl", "--tokenizer", "tokenizer", "--workers", 1)
    first = call_json(*prepare, "--part", "1/1", "--out", "parts/1", *JSON)
    (root / "tables").mkdir()
    return {
        "data prepare": first,
        "data join": call_json("data", "join", "parts/1", "--out", "joined", *JSON),
        "data list": call_json("data", "list", *JSON),
        "data info": call_json("data", "info", "data/sample", *JSON),
        "data verify": call_json("data", "verify", "data/sample", *JSON),
        "data sample": documents,
        "data report": call_json("data", "report", "data/sample", *JSON),
        "tokenizer train": call_json(
            "tokenizer", "train", "texts.txt", "--out", "tables/t", "--vocab", 300, *JSON
        ),
        "tokenizer add-language": call_json(
            "tokenizer",
            "add-language",
            "pt",
            "texts.txt",
            "--out",
            "tables/a",
            "--entries",
            8,
            "--tokenizer",
            "tokenizer",
            *JSON,
        ),
        "tokenizer report": call_json("tokenizer", "report", "texts.txt", "--tokenizer", "tokenizer", *JSON),
        "tokenizer encode": call_json("tokenizer", "encode", TEXT, "--tokenizer", "tokenizer", *JSON),
    }


def _runs() -> dict[str, Any]:
    settings = [part for setting in SETTINGS for part in ("--set", f"train.{setting}")]
    run = ("train", "--recipe", "runs/dense/recipe.yaml", "--data", "data/sample", *settings, *CPU, *JSON)
    found = {
        "train --plan": call_json(*run, "--plan"),
        "train": call_json(*run, "--out", "runs/new"),
        "recipes show": call_json("recipes", "show", "nano-v2", *JSON),
        "runs list": call_json("runs", "list", *JSON),
        "runs show": call_json("runs", "show", "runs/v2", *JSON),
        "runs compare": call_json("runs", "compare", "runs/v1", "runs/v2", *JSON),
        "export": call_json("export", "runs/v1", "exported", *JSON),
        "doctor": call_json("doctor", *JSON),
    }
    # A learning rate that leaves no finite weight, so that the run goes back once and is given up
    try:
        changes = ("lr=1e30", "growth=null", "steps=24", "warmup=0", "rewinds=1", "save_every=1", "keep=1")
        call(*run, "--out", "runs/lost", *(f"--set=train.{change}" for change in changes))
    except Exception as error:
        assert "no usable gradient" in str(error), error
    return found


def _models() -> dict[str, Any]:
    tasks = ("--tasks", "perplexity,recall", "--limit", 2, "--windows", 1)
    talk = call("chat", "runs/dense", "--max-new-tokens", 2, *CPU, *JSON, stdin="The cat\n")
    add = call_json(
        "memory", "add", "new.memory", TEXT, "The dog is called Rex.", "--run", "runs/v2", *CPU, *JSON
    )
    return {
        "generate": call_json("generate", "runs/v2", "--prompt", TEXT, "--max-new-tokens", 2, *CPU, *JSON),
        "chat": json.loads(talk.splitlines()[-1]),
        "eval": call_json("eval", "runs/v2", *tasks, "--against", "runs/v2-memory", *CPU, *JSON),
        "calibrate": call_json("calibrate", "runs/v1", "--windows", 1, *CPU, *JSON),
        "inspect-sparsity": [
            call_json(
                "inspect-sparsity",
                f"runs/{run}",
                "--context",
                16,
                "--rounds",
                0,
                *CPU,
                *JSON,
            )
            for run in ("v1", "v2", "v2-memory")
        ],
        "memory add": add,
        "memory list": call_json("memory", "list", "new.memory", *JSON),
        "memory forget": call_json("memory", "forget", "new.memory", 1, *JSON),
    }


def _files(root: Path) -> dict[str, list[str]]:
    def read(pattern: str) -> list[str]:
        return keys_of(*(json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob(pattern))))

    memory = _header(root / "new.memory")
    content = json.loads(memory["__metadata__"].pop("content"))
    names = {
        name: {"dtype": tensor["dtype"], "dimensions": len(tensor["shape"])}
        for name, tensor in memory.items()
        if name != "__metadata__"
    }
    return {
        "manifest.json": read("data/sample/manifest.json"),
        "state.json": read("runs/new/checkpoints/*/state.json"),
        "best.json": read("runs/new/best.json"),
        "tokenizer.json": read("tokenizer/tokenizer.json"),
        "memory file": keys_of({"metadata": memory["__metadata__"], "content": content, "tensors": names}),
        "optimizer.safetensors, dense": sorted(
            _header(next(root.glob("runs/new/checkpoints/*4/optimizer.safetensors")))
        ),
    }


def _records() -> dict[str, list[str]]:
    """By kind, the keys of the records of all runs."""
    kinds: dict[str, list[Any]] = {}
    for run in ("dense", "v1", "v2", "v2-memory", "new", "lost"):
        for record in metrics(f"runs/{run}"):
            kinds.setdefault(record["kind"], []).append(record)
    return {f"metrics.jsonl, {kind}": keys_of(*records) for kind, records in kinds.items()}


def _header(path: Path) -> dict[str, Any]:
    """The head of a safetensors file."""
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
