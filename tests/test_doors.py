"""Files that somebody else made run no code, whichever door of the program they come through.

Each door gets a file that would leave a mark if it ran: a pickle, an object array, a YAML tag, a script
beside the data. Doors of lm-eval's task files are in `tests/evaluation/test_task_files.py`.
"""

import ast
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from braingpt.cli.console import guarded
from braingpt.cli.main import app
from tests.cli.conftest import workspace as workspace

PACKAGE = Path(__file__).parent.parent / "braingpt"
FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open", "dill.load",
    "joblib.load", "torch.load", "torch.jit.load", "torch.hub.load", "pandas.read_pickle", "yaml.unsafe_load",
    "yaml.full_load", "yaml.load_all", "jinja2.Environment", "jinja2.Template", "eval", "exec", "compile",
    "__import__", "os.system",
}  # fmt: skip


class Mark:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "MARK"


@pytest.fixture
def place(workspace, tmp_path, monkeypatch):
    """A copy of a folder as a user has it, as the current folder."""
    shutil.copytree(workspace, tmp_path / "place")
    (tmp_path / "place" / "text").mkdir()
    (tmp_path / "place" / "text" / "first.txt").write_text("A plain text of some words.\n" * 20)
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def pickled(mark: Path) -> bytes:
    return pickle.dumps(Mark(mark))


def torch_file(mark: Path) -> bytes:
    """A file as `torch.save` writes it, whose objects are a pickle of ours."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(mark))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def object_array(mark: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Mark(mark)], dtype=object), allow_pickle=True)
    return file.getvalue()


MAKERS = {"pickle": pickled, "torch file": torch_file, "object array": object_array}


def test_the_marks_would_be_left(mark):
    """Otherwise the tests below would test nothing."""
    import torch

    loads = {
        "pickle": pickle.loads,
        "torch file": lambda data: torch.load(io.BytesIO(data), weights_only=False),
        "object array": lambda data: np.load(io.BytesIO(data), allow_pickle=True),
    }
    for name, load in loads.items():
        load(MAKERS[name](mark))
        assert mark.exists(), name
        mark.unlink()


def ends_well_or_in_one_line(words: list[str], capsys) -> None:
    code = guarded(lambda: app(words, standalone_mode=False))
    errors = capsys.readouterr().err
    assert code in (0, 1, 2) and "Traceback" not in errors, errors
    assert code == 0 or errors.strip().splitlines()[-1].startswith("braingpt: "), errors


PREPARE = ["data", "prepare", "text", "text", "--workers", "1", "--out", "out"]
RUN = ["generate", "runs/nano-v2", "--max-new-tokens", "1", "--device", "cpu"]
CHECKPOINT = "runs/nano-v2/checkpoints/step-0000007"
# The file that somebody else made, and the command that reads it.
FILES = {
    "weights": (f"{CHECKPOINT}/model.safetensors", RUN),
    "state": (f"{CHECKPOINT}/state.json", RUN),
    "recipe": (f"{CHECKPOINT}/recipe.yaml", RUN),
    "tokenizer ranks": (f"{CHECKPOINT}/tokenizer/ranks.tiktoken", RUN),
    "tokenizer description": (f"{CHECKPOINT}/tokenizer/tokenizer.json", RUN),
    "a pickle beside the weights": (f"{CHECKPOINT}/pytorch_model.bin", RUN),
    "optimizer": (f"{CHECKPOINT}/optimizer.safetensors",
                  ["train", "--resume", CHECKPOINT, "--device", "cpu", "--plan"]),
    "memory": ("facts.memory", [*RUN, "--memory", "facts.memory"]),
    "manifest": ("data/sample/manifest.json", ["data", "info", "data/sample"]),
    "own recipe": ("mine.yaml", ["train", "--recipe", "mine.yaml", "--plan", "--device", "cpu"]),
    "quality rules": ("rules.yaml", [*PREPARE, "--quality", "rules.yaml"]),
    "text": ("text/a.txt", PREPARE),
    "parquet": ("text/a.parquet", PREPARE),
    "npy as text": ("text/a.npy", PREPARE),
    "pickle as text": ("text/a.pkl", PREPARE),
    "a script beside the texts": ("text/text.py", PREPARE),
    "tokenizer texts": ("text/b.jsonl", ["tokenizer", "encode", "a", "--tokenizer", "text"]),
}  # fmt: skip


@pytest.mark.parametrize("maker", list(MAKERS))
@pytest.mark.parametrize("door", list(FILES))
def test_a_file_in_place_of_another_runs_nothing(place, mark, capsys, door, maker):
    path, words = FILES[door]
    (place / path).parent.mkdir(parents=True, exist_ok=True)
    (place / path).write_bytes(
        f"open({str(mark)!r}, 'w')".encode() if path.endswith(".py") else MAKERS[maker](mark)
    )
    ends_well_or_in_one_line(words, capsys)
    assert not mark.exists()


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['touch {}']", "!!python/object/new:os.system ['touch {}']"]
)
@pytest.mark.parametrize("door", ["recipe", "own recipe", "quality rules"])
def test_yaml_tags_run_nothing(place, mark, capsys, door, tag):
    path, words = FILES[door]
    (place / path).write_text(f"base: nano-v2\nmodel: {tag.format(mark)}\n")
    ends_well_or_in_one_line(words, capsys)
    assert not mark.exists()


def test_a_setting_on_the_command_line_runs_nothing(place, mark, capsys):
    value = f"train.lr=!!python/object/apply:os.system ['touch {mark}']"
    ends_well_or_in_one_line(
        ["train", "--recipe", "nano-v2", "--set", value, "--plan", "--device", "cpu"], capsys
    )
    assert not mark.exists()


def test_a_parquet_file_with_a_pickled_type_runs_nothing(place, mark, capsys):
    """Arrow once unpickled a type that is named in the metadata of a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    field = pa.field(
        "text",
        pa.binary(),
        metadata={
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": pickled(mark),
        },
    )
    pq.write_table(
        pa.table([pa.array([b"one text of some words"] * 4)], schema=pa.schema([field])),
        place / "text" / "a.parquet",
    )
    ends_well_or_in_one_line(PREPARE, capsys)
    assert not mark.exists()


def test_templates_in_a_tokenizer_folder_run_nothing(place, mark, capsys):
    """Chat here has a fixed format: a template that comes with a tokenizer is not read."""
    template = f"{{{{ cycler.__init__.__globals__.os.system('touch {mark}') }}}}"
    folder = place / CHECKPOINT / "tokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    (folder / "chat_template.jinja").write_text(template)
    ends_well_or_in_one_line(RUN, capsys)
    assert not mark.exists()


def called(node: ast.Call) -> str:
    """The dotted name of what is called."""
    return ast.unparse(node.func)


def test_the_package_uses_no_reader_that_runs_code():
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name, given = called(node), {one.arg: ast.unparse(one.value) for one in node.keywords}
            unsafe = name in FORBIDDEN or given.get("trust_remote_code") == "True"
            unsafe |= name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False"
            unsafe |= name == "yaml.load" and given.get("Loader") not in ("_Loader", "yaml.SafeLoader")
            if unsafe:
                found.append(f"{path.name}:{node.lineno} {name}")
    assert not found


def test_our_yaml_loader_is_the_safe_one():
    import yaml

    from braingpt.recipes.loader import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
