"""The public names: what `dir` and `help` show, what the reference page names, which errors there are."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import braingpt
from braingpt.model.interface import Output, State
from braingpt.model.lm import LanguageModel
from braingpt.tokenizer import StreamDecoder, Tokenizer

PACKAGE = Path(braingpt.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "reference" / "python-api.md").read_text(encoding="utf-8")
# What prints and ends processes: the command line, and modules that are processes of their own.
SPEAKING = (
    *("cli/", "__main__.py", "data/cluster.py", "data/prepare/cluster.py"),
    *("data/prepare/worker_pool.py", "bench/peak_memory.py", "bench/kernels/runner.py"),
)
# Exceptions that are caught inside and never leave.
INNER = {
    "Stopped",
    "ReaderLeft",
    "Damaged",
    "Absent",
    "_BrokenContext",
    "ClientLeft",
    "SlowClient",
    "TooLarge",
}
AT_IMPORT = """
import sys, os
before = dict(os.environ)
import braingpt
light = not {"torch", "numpy", "typer"} & set(sys.modules)
assert light, "import braingpt is instant"
import torch
def settings():
    return (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(),
            torch.initial_seed(), torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision())
state = settings()
import logging, random, signal, warnings
filters, level, draws = list(warnings.filters), logging.getLogger().level, random.getstate()
interrupt = signal.getsignal(signal.SIGINT)
for name in braingpt.__all__:
    getattr(braingpt, name)
import braingpt.data.shards.reader, braingpt.episodic.memory, braingpt.evaluation.perplexity
import braingpt.train.loop
assert state == settings()
assert level == logging.getLogger().level and draws == random.getstate()
assert interrupt is signal.getsignal(signal.SIGINT)
# The way in which threads wait is the one variable that must be set before torch is imported.
changed = {key for key in {**before, **os.environ} if before.get(key) != os.environ.get(key)}
assert changed <= {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "TRITON_CACHE_DIR"} | {
    key for key in changed if key.startswith(("KMP_", "TORCHINDUCTOR_"))}, changed
"""


def test_the_names_are_listed() -> None:
    assert set(braingpt.__all__) <= set(dir(braingpt))
    assert {"load", "build", "generate", "generate_text", "load_recipe", "Tokenizer"} <= set(braingpt.__all__)
    assert {"BraingptError", "UserError", "Failure"} <= set(braingpt.__all__)
    for name in braingpt.__all__:
        thing = getattr(braingpt, name)
        assert inspect.getdoc(thing), name
        assert name in (braingpt.__doc__ or ""), name
        assert f"`braingpt.{name}" in PAGE, name
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = braingpt.lod  # type: ignore[attr-defined]


def test_public_functions_say_what_they_take_and_raise() -> None:
    functions = [
        braingpt.load,
        braingpt.build,
        braingpt.generate,
        braingpt.generate_text,
        braingpt.load_recipe,
    ]
    for function in [*functions, LanguageModel.generate, LanguageModel.forward, Tokenizer.encode]:
        text = inspect.getdoc(function) or ""
        for section in ("Args:", "Returns:", "Raises:"):
            assert section in text, (function, section)


def test_every_call_of_the_reference_exists_with_these_parameters() -> None:
    owners = {"model": LanguageModel, "state": State, "Tokenizer": Tokenizer, "braingpt": braingpt}
    calls = re.findall(r"`(model|state|Tokenizer|braingpt)\.(\w+)\(([^`]*)\)`", PAGE)
    assert len(calls) > 15
    for owner, name, arguments in calls:
        known = inspect.signature(getattr(owners[owner], name)).parameters
        for keyword in re.findall(r"(\w+)=", arguments):
            assert keyword in known, (owner, name, keyword)
    for keyword in re.findall(r"`model\(ids, (\w+)=", PAGE):
        assert keyword in inspect.signature(LanguageModel.forward).parameters
    table = PAGE.partition("## Tokenizer")[2].partition("## Errors")[0]
    for name, arguments in re.findall(r"^\| `(\w+)\(([^`]*)\)`", table, re.MULTILINE):
        known = inspect.signature(getattr(Tokenizer, name)).parameters
        assert set(re.findall(r"(\w+)(?:=|,|$)", re.sub(r"=\w+", "", arguments))) <= set(known), name
    for field in ("logits", "loss", "state"):
        assert (field in Output._fields and f"`{field}`" in PAGE) or f"`Output.{field}`" in PAGE


def test_every_error_is_one_of_ours() -> None:
    found = set()
    for module in pkgutil.walk_packages([str(PACKAGE)], "braingpt."):
        if module.name.endswith("__main__"):
            continue
        try:
            content = vars(importlib.import_module(module.name))
        except ImportError:
            # Needs an optional package.
            continue
        found |= {
            kind
            for kind in content.values()
            if isinstance(kind, type)
            and issubclass(kind, Exception)
            and kind.__module__.startswith("braingpt.")
        }
    assert {kind.__name__ for kind in found} >= {"UserError", "Failure", "BraingptError"}
    foreign = {kind.__name__ for kind in found if not issubclass(kind, braingpt.BraingptError)}
    assert foreign <= INNER
    assert issubclass(braingpt.UserError, ValueError) and issubclass(braingpt.Failure, RuntimeError)


def test_the_library_neither_prints_nor_ends_the_process() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        place = str(path.relative_to(PACKAGE))
        if place.startswith(SPEAKING):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        main = [
            node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
        ]
        inside = {id(node) for block in main for node in ast.walk(block)}
        for node in ast.walk(tree):
            if id(node) in inside or not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            to_file = any(keyword.arg == "file" for keyword in node.keywords)
            if called in ("sys.exit", "exit", "quit", "os._exit") or (called == "print" and not to_file):
                wrong.append(f"{place}:{node.lineno} {called}")
    assert wrong == []


def test_an_import_changes_no_global_state() -> None:
    done = subprocess.run([sys.executable, "-c", AT_IMPORT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_decoder_is_public() -> None:
    assert isinstance(Tokenizer.default().stream(), StreamDecoder)
