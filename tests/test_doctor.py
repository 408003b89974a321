import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from braingpt import doctor
from braingpt.checkpoint import checkpoint
from tests.conftest import awake
from tests.tiny_runs import prepared, tiny

ROOT = Path(__file__).parents[1]


def by_topic(findings):
    return {finding.topic: finding for finding in findings}


def test_a_fresh_folder_has_no_problem(tmp_path):
    found = by_topic(doctor.examine(tmp_path))
    assert {
        "python",
        "torch",
        "cpu",
        "tokenizer",
        "disk",
        "data",
        "runs",
        "triton",
        "compiler",
        "lm-eval",
    } <= found.keys()
    assert any(topic.startswith("kernel ") for topic in found)
    assert (
        found["data"].state == found["runs"].state == "note" and "braingpt data prepare" in found["data"].text
    )
    assert [f for f in found.values() if f.state == "problem"] == []
    assert not list(tmp_path.iterdir())


def test_data_and_runs_are_found_and_broken_ones_named(tmp_path):
    from braingpt.tokenizer import Tokenizer

    prepared(tmp_path / "data" / "good", 12)
    shutil.copytree(tmp_path / "data" / "good", tmp_path / "data" / "bad")
    (tmp_path / "data" / "bad" / "manifest.json").write_text("{")
    recipe = tiny("v2")
    model = awake(recipe.model).float()
    for run in ("good", "bad"):
        folder = tmp_path / "runs" / run / "checkpoints" / "step-0000003"
        checkpoint.save(folder, model=model, tokenizer=Tokenizer.default(), recipe=recipe, step=3, tokens=9)
    (folder / "state.json").write_text("[]")
    findings = doctor.examine(tmp_path)
    texts = {(f.topic, f.state): f.text for f in findings if f.topic in ("data", "run")}
    assert (
        "good" in texts["data", "ok"] and "ko en" in texts["data", "ok"] and "bad" in texts["data", "problem"]
    )
    assert "good: step 3" in texts["run", "ok"] and "bad" in texts["run", "problem"]


def test_each_extra_is_named_with_its_command(tmp_path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = by_topic(doctor.examine(tmp_path))
    assert {extra for _, _, extra in doctor.OPTIONAL.values()} == extras.keys() - {"dev"}
    for module, (distribution, _, extra) in doctor.OPTIONAL.items():
        assert module and any(Requirement(line).name == distribution for line in extras[extra])
        missing = f"pip install 'braingpt[{extra}]'"
        assert found[distribution].state == "ok" or missing in found[distribution].text


def test_a_required_package_that_is_missing_or_too_old_is_a_problem(monkeypatch):
    needed = [
        "numpy>=999",
        "no-such-package>=1.5,<2",
        "rich",
        "not-needed-here; python_version < '3'",
        "none; extra == 'dev'",
    ]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: needed)
    monkeypatch.setattr(doctor, "_install", lambda: "pip install")
    found = by_topic(doctor._requirements())
    assert found.keys() == {"numpy", "no-such-package"} and {f.state for f in found.values()} == {"problem"}
    assert found["numpy"].text.endswith("is outside >=999; pip install 'numpy>=999'")
    assert found["no-such-package"].text == "not installed; pip install 'no-such-package<2,>=1.5'"
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: ["rich"])
    assert [f.state for f in doctor._requirements()] == ["ok"]


@pytest.mark.parametrize("installer", ["pip install", "uv pip install"])
@pytest.mark.parametrize(
    ("cuda", "driver", "said"),
    [
        (None, False, "torch was built without CUDA"),
        (None, True, "torch was built without CUDA; with CUDA: {installer} "),
        ("13.0", False, "no NVIDIA driver; a smaller torch: {installer} "),
        ("13.0", True, "a newer driver"),
    ],
)
def test_the_build_of_torch_and_the_command_for_the_other(monkeypatch, cuda, driver, said, installer):
    import torch

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/nvidia-smi" if driver else None)
    monkeypatch.setattr(doctor, "_install", lambda: installer)
    assert (f"CUDA {cuda} build" if cuda else "CPU build") in next(doctor._torch()).text
    gpu = by_topic(doctor._device())["gpu"]
    assert gpu.state == "note" and said.format(installer=installer) in gpu.text
    if "install" in gpu.text:
        assert ("cpu" in gpu.text) == (cuda is not None) and "+" not in gpu.text


def test_a_package_that_breaks_on_import_is_a_line(tmp_path, monkeypatch):
    (tmp_path / "mamba_ssm.py").write_text("raise OSError('libcudart.so.12: cannot open\\nshared object')")
    (tmp_path / "wandb.py").write_text("import sys\nsys.exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mamba_ssm", "wandb"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = by_topic(doctor.examine(tmp_path))
    assert (
        found["mamba-ssm"].state == "note"
        and "installed but broken: OSError: libcudart.so.12: cannot open shared" in found["mamba-ssm"].text
    )
    assert found["wandb"].state == "note" and "installed but broken" in found["wandb"].text


def test_a_check_that_fails_is_a_problem_and_the_others_go_on(tmp_path, monkeypatch):
    def broken() -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("braingpt.tokenizer.Tokenizer.default", broken)
    found = by_topic(doctor.examine(tmp_path))
    assert found["tokenizer"].state == "problem" and "RuntimeError: two lines" in found["tokenizer"].text
    assert found["disk"].state == "ok"


def test_a_folder_one_cannot_write_in(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    found = by_topic(doctor.examine(tmp_path))
    assert found["disk"].state == "problem" and "cannot write" in found["disk"].text


def test_no_torch_is_needed_to_import_the_module():
    import subprocess

    code = "import sys, braingpt.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
