"""A folder of task files from elsewhere runs no code unless the user trusts it."""

import json
import sys
from functools import partial

import pytest

pytest.importorskip("lm_eval")

from braingpt.errors import UserError
from braingpt.evaluation import lm_eval
from braingpt.evaluation.lm_eval import open_tasks
from tests.conftest import awake
from tests.tiny_runs import tiny

TASK = """
task: foreign
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{text}"
doc_to_target: "{{{{a}}}}"
metric_list: [{{metric: acc}}]
"""
INSIDES = "{{ cycler.__init__.__globals__.os.system('touch %s') }}"
# Lines that are added to a task, and files beside it; MARKER is made where the code runs.
DOORS = {
    "function beside": ("process_docs: !function tools.run",
                        {"tools.py": "open('MARKER', 'w')\ndef run(d): return d"}),
    "function of a module": ("process_docs: !function os.getcwd", {}),
    "class": ("class: !function tools.Task", {"tools.py": "open('MARKER', 'w')\nclass Task: pass"}),
    "nested": ("metadata: {deep: [1, {er: !function os.getcwd}]}", {}),
    "included": ("include: base.txt", {"base.txt": "process_docs: !function tools.run\n",
                                       "tools.txt": "open('MARKER', 'w')"}),
    "included twice": ("include: [a.inc]",
                       {"a.inc": "include: b.inc\n", "b.inc": "x: !function os.getcwd\n"}),
    "tag of YAML": ("metadata: !!python/object/apply:os.system ['touch MARKER']", {}),
    "own tag": ("metadata: !anything x", {}),
    "python file alone": ("", {"deep/er/helper.py": "open('MARKER', 'w')"}),
    "metric script": ("metric_list: [{metric: ./metric}]", {"metric/metric.txt": ""}),
    "metric of the hub": ("metric_list: [{metric: someone/metric}]", {}),
    "hf_evaluate": ("metric_list: [{metric: acc, hf_evaluate: true}]", {}),
    "other ending": ("", {"more.yml": "process_docs: !function os.getcwd"}),
}  # fmt: skip


def written(folder, lines="", files=None, text="{{q}}"):
    """A folder with one task."""
    rows = [{"q": f"land {i}", "a": f"city {i}"} for i in range(3)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "foreign.yaml").write_text(TASK.format(data=folder / "rows.jsonl", text=text) + lines + "\n")
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content.replace("MARKER", str(folder / "MARKER")))
    return folder


def run(folder, trust=False):
    model = awake(tiny("v2").model).float().eval()
    from braingpt.tokenizer import Tokenizer

    manager = open_tasks(["foreign"], files=folder, trust_code=trust)
    return lm_eval.run_tasks(
        model, Tokenizer.default(), manager, ["foreign"], context=32, sandboxed=not trust
    )


@pytest.mark.parametrize("door", list(DOORS))
def test_a_folder_that_names_code_is_refused(tmp_path, door):
    lines, files = DOORS[door]
    folder = written(tmp_path, lines, files)
    with pytest.raises(UserError, match="--trust-task-code") as found:
        run(folder)
    assert str(tmp_path) in str(found.value) and "\n" not in str(found.value)
    assert not (folder / "MARKER").exists()
    assert not [m for m in sys.modules.values() if str(folder) in str(getattr(m, "__file__", None))]


def test_with_trust_the_code_runs(tmp_path):
    lines, files = DOORS["function beside"]
    folder = written(tmp_path, lines, files)
    assert run(folder, trust=True).figures and (folder / "MARKER").exists()


def test_plain_folders_need_no_trust(tmp_path):
    assert len(run(written(tmp_path, "metadata: {version: 1.0}")).figures) == 1


@pytest.mark.parametrize("where", ["doc_to_text", "doc_to_target", "description"])
def test_templates_do_not_reach_pythons_insides(tmp_path, where):
    marker = tmp_path / "MARKER"
    template = INSIDES % marker
    folder = written(tmp_path, f'{where}: "{template}"' if where == "description" else "")
    file = folder / "foreign.yaml"
    old = {"doc_to_text": '"{{q}}"', "doc_to_target": '"{{a}}"'}.get(where)
    if old:
        file.write_text(file.read_text().replace(f"{where}: {old}", f'{where}: "{template}"'))
    with pytest.raises(UserError, match="Python's insides"):
        run(folder)
    assert not marker.exists()


def test_aliases_without_end_are_read_once(tmp_path):
    lines = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    written(tmp_path, "metadata: {version: 1.0}", {"other.yaml": lines, "loop.yaml": "include: loop.yaml"})
    from braingpt.evaluation.task_files import check_no_code

    check_no_code(tmp_path)


def test_a_file_is_no_name_of_a_task(tmp_path, monkeypatch):
    """lm-eval would take the path of a YAML file for a task, past the checks of a folder.

    Its own list, which takes ten seconds to read, says nothing of this and is left out.
    """
    monkeypatch.setattr(lm_eval, "TaskManager", partial(lm_eval.TaskManager, include_defaults=False))
    lines, files = DOORS["function beside"]
    (tmp_path / "foreign").mkdir()
    (tmp_path / "plain").mkdir()
    folder = written(tmp_path / "foreign", lines, files)
    plain = written(tmp_path / "plain")
    for name in (str(folder / "foreign.yaml"), str(folder)):
        with pytest.raises(UserError, match="unknown task"):
            open_tasks([name, "foreign"], files=plain)
    assert not (folder / "MARKER").exists()
