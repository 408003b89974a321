"""Packages: pyproject.toml declares what the code imports, and extras that exclude each other."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from itertools import combinations
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
# Distributions of modules whose name differs, where the distribution may not be installed.
NAMES = {"fla": "flash-linear-attention", "lm_eval": "lm-eval", "mamba_ssm": "mamba-ssm", "yaml": "pyyaml"}
# Only for the type checker.
STUBS = {"_typeshed"}
# Modules of newer Pythons than this one.
NEWER = {"compression"}


def canonical(name: str) -> str:
    """A distribution's name as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(lines: list[str]) -> set[str]:
    return {canonical(Requirement(line).name) for line in lines}


REQUIRED = declared(PROJECT["project"]["dependencies"])
OPTIONAL = set().union(*(declared(lines) for name, lines in EXTRAS.items() if name != "dev"))


# It reads the files of every installed package.
installed = cache(packages_distributions)


def distributions(module: str) -> set[str]:
    """The distributions that provide a top-level module, as far as is known here."""
    return {canonical(name) for name in [NAMES.get(module, module), *installed().get(module, [])]}


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level modules that a file imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def foreign() -> dict[str, set[str]]:
    """Each module from outside the standard library, and the files that import it."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "braingpt").rglob("*.py")):
        for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
            if module not in sys.stdlib_module_names | STUBS | NEWER | {"braingpt"}:
                found.setdefault(module, set()).add(str(path.relative_to(ROOT)))
    return found


MODULES = foreign()


@pytest.mark.parametrize("module", MODULES)
def test_what_the_code_imports_is_declared(module):
    assert distributions(module) & (REQUIRED | OPTIONAL), (
        f"{module}, imported by {sorted(MODULES[module])}, is not declared in pyproject.toml"
    )


def test_the_test_of_imports_finds_what_is_not_declared():
    assert list(imported(ast.parse("def f():\n    import numpy.linalg\n    from yaml import x"))) == [
        "numpy",
        "yaml",
    ]
    assert {"torch", "pyarrow", "huggingface_hub", "lightning"} <= MODULES.keys()
    assert not distributions("setuptools") & (REQUIRED | OPTIONAL)


def test_what_is_required_is_imported():
    needed = {name for module in MODULES for name in distributions(module)}
    # Triton also serves torch.compile; the others are imported by name.
    assert needed >= REQUIRED


def test_extras_that_exclude_each_other_are_declared():
    pairs = {frozenset(entry["extra"] for entry in pair) for pair in PROJECT["tool"]["uv"]["conflicts"]}
    assert all(pair <= EXTRAS.keys() for pair in pairs)
    # Extras with different majors of one package are told apart by the resolver of `uv lock`; what is known
    # is that litgpt excludes all that bring a newer huggingface-hub.
    newer = {"transformers", "datatrove"}
    with_newer = {name for name, lines in EXTRAS.items() if declared(lines) & newer}
    assert pairs == {frozenset(pair) for pair in combinations(sorted(EXTRAS), 2) if "litgpt" in pair} & {
        frozenset({"litgpt", name}) for name in with_newer
    }


def test_the_dev_extra_has_all_that_tests_import():
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        found |= set(imported(ast.parse(path.read_text(encoding="utf-8"))))
    own = {"braingpt", "tests", "benchmarks", "scripts", "examples"}
    dev = declared(EXTRAS["dev"]) | declared(EXTRAS["lowbit"]) | REQUIRED
    missing = {
        module for module in found - sys.stdlib_module_names - own - NEWER if not distributions(module) & dev
    }
    assert missing <= {canonical(name) for name in OPTIONAL} | {"mamba_ssm", "fla", "lm_eval"}
