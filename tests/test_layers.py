"""Imports go one way: every package imports only from packages below it, and nothing imports in a circle.

The order is the map of the house (CONTRIBUTING.md). Imports are read from the source, those inside functions
too; imports for the type checker alone (`if TYPE_CHECKING`) do not count.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "braingpt"

# From the ground up.
ORDER = (
    "errors",
    "utils",
    "html",
    "device",
    "distributed",
    "kernels",
    "tokenizer",
    "model",
    "data",
    "recipes",
    "optim",
    "checkpoint",
    "inference",
    "serving",
    "exchange",
    "episodic",
    "evaluation",
    "train",
    "bench",
    "inspection",
    "doctor",
    "cli",
    "__main__",
)

# The one import against the order, inside a function: `model.generate` is for the user's convenience.
AGAINST_THE_ORDER = {("braingpt.model.lm", "braingpt.inference.engine")}

# Where a module may import ours inside a function: commands, so that `braingpt --help` stays instant, and
# doctor, which reports an import that fails.
LATE = ("braingpt.cli", "braingpt.doctor")


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(name: str, tree: ast.Module) -> Iterator[tuple[str, str, bool]]:
    """(importing module, imported module, whether it happens inside a function), of our own modules."""

    def visit(node: ast.AST, late: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name} has a relative import"
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    yield (whole if whole in modules() else child.module or ""), late
            elif isinstance(child, ast.Import):
                yield from ((alias.name, late) for alias in child.names)
            else:
                yield from visit(child, late or isinstance(child, ast.FunctionDef | ast.Lambda))

    for target, late in visit(tree, False):
        if target.split(".")[0] == "braingpt" and target in modules() and target != name:
            yield name, target, late


@cache
def arrows() -> tuple[tuple[str, str, bool], ...]:
    return tuple(arrow for name, tree in modules().items() for arrow in imports(name, tree))


def circles(edges: set[tuple[str, str]]) -> list[str]:
    """What is left when everything that imports nothing of the rest is taken away again and again."""
    nodes = {node for edge in edges for node in edge}
    while True:
        importing = {source for source, target in edges if source in nodes and target in nodes}
        imported = {target for source, target in edges if source in nodes and target in nodes}
        if importing & imported == nodes:
            return sorted(nodes)
        nodes = importing & imported


def test_every_module_has_a_place_in_the_order() -> None:
    rooms = {name.split(".")[1] for name in modules() if "." in name}
    assert rooms == set(ORDER)


def test_packages_import_only_what_is_below_them() -> None:
    rank = {name: place for place, name in enumerate(ORDER)}
    wrong = {
        (source, target)
        for source, target, _ in arrows()
        if "." in source and "." in target and rank[source.split(".")[1]] < rank[target.split(".")[1]]
    }
    assert wrong == AGAINST_THE_ORDER


@pytest.mark.parametrize("depth", [2, 3, 9], ids=["packages", "sub-packages", "modules"])
def test_there_is_no_circle(depth: int) -> None:
    def room(name: str) -> str:
        return ".".join(name.split(".")[:depth])

    edges = {
        (room(source), room(target))
        for source, target, _ in arrows()
        if (source, target) not in AGAINST_THE_ORDER
    }
    assert circles({(source, target) for source, target in edges if source != target}) == []


def test_imports_inside_functions_are_for_commands_only() -> None:
    late = {(source, target) for source, target, inside in arrows() if inside and not source.startswith(LATE)}
    assert late == AGAINST_THE_ORDER


def test_the_check_finds_what_it_looks_for() -> None:
    assert circles({("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")}) == ["a", "b", "c"]
    assert circles({("a", "b"), ("b", "c"), ("a", "c")}) == []
    source = "if TYPE_CHECKING:\n    import braingpt.cli\ndef f():\n    from braingpt.model import lm"
    assert list(imports("x", ast.parse(source))) == [("x", "braingpt.model.lm", True)]
