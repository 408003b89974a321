"""docs/reference: the generated pages are up to date, and every key and command stands in them."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SPEC = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
assert SPEC and SPEC.loader
reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(reference)


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_committed_page_is_what_the_generator_writes(name: str) -> None:
    written = (reference.DOCS / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "python scripts/reference.py writes the pages again"


def test_every_key_of_a_shipped_recipe_is_described() -> None:
    from braingpt.recipes import load_recipe

    page = (reference.DOCS / "recipes.md").read_text(encoding="utf-8")
    for name in ("small-dense", "small-v1", "small-v2"):
        for key in _keys(load_recipe(name).model_dump()):
            assert f"`{key}`" in page or key == "model.architecture", key


def test_every_command_has_a_section_with_its_options() -> None:
    page = (reference.DOCS / "cli.md").read_text(encoding="utf-8")
    for command in (
        "train",
        "data prepare",
        "eval",
        "generate",
        "bench compare",
        "inspect-sparsity",
        "memory add",
    ):
        assert f"\n## braingpt {command}\n" in page
    assert "| `--set` | `KEY=VALUE` |" in page and "--no-json" not in page


def _keys(tree: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return found
