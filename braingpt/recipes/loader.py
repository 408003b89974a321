"""Recipes from YAML: one `extends`, dotted overrides, unknown keys refused with the nearest known name."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from braingpt.data.shards.manifest import NAME as MANIFEST
from braingpt.errors import UserError, did_you_mean
from braingpt.recipes.keys import ARCHITECTURES, suggest_key
from braingpt.recipes.schema import Recipe
from braingpt.utils.arguments import path_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# Recipes lie inside the package in a wheel, beside it in a source checkout.
_PACKAGED = Path(__file__).parent.parent / "_recipes"
_CHECKOUT = Path(__file__).parent.parent.parent / "recipes"
RECIPES = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
# A longer chain of parents is taken for a circle.
MOST_PARENTS = 8
# What a key takes, by the type of pydantic's error.
WANTED = {
    "model_type": "a group of settings",
    "model_attributes_type": "a group of settings",
    "tuple_type": "a list, like [a, b]",
}


def shipped() -> list[str]:
    """Names of the recipes of the package; files whose name starts with `_` are bases for others."""
    return sorted(p.stem for p in RECIPES.glob("*.yaml") if not p.stem.startswith("_"))


def load_recipe(name: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        name: A shipped recipe's name (`braingpt recipes list`), or the path of a YAML file.
        overrides: Single values to replace, in order, such as `train.lr=1e-3` or `data.folders=[data/ko]`.

    Returns:
        The resolved recipe, which no longer needs the one it extends.

    Raises:
        UserError: The recipe or a key is unknown, a value is out of range, or settings contradict each other.
    """
    if isinstance(overrides, str):
        raise UserError(f"overrides are a list, like ['{overrides}']")
    path = _locate(str(path_of("the recipe", name)))
    tree = _read(path)
    for override in overrides or []:
        _override(tree, override)
    recipe = check_recipe(tree)
    found = tuple(_find_data(folder, path) for folder in recipe.data.folders)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"folders": found})})


def _find_data(folder: str, recipe: Path) -> str:
    """Where a data folder of a recipe file is.

    `~` is the home folder. A relative folder is looked for in the current folder, then in the folder of the
    recipe file and in those above it: a run and its data are found from any current folder.
    """
    path = Path(folder).expanduser() if folder.startswith("~") else Path(folder)
    if path.is_absolute() or path.exists() or ".." in path.parts or recipe.parent == RECIPES:
        return str(path)
    above = (*recipe.parents, *recipe.absolute().parents)
    return next((str(place / path) for place in above if (place / path / MANIFEST).is_file()), folder)


def check_recipe(tree: dict[str, Any]) -> Recipe:
    """Check the settings of a recipe.

    Args:
        tree: Plain nested dictionaries, as from YAML.

    Returns:
        The recipe, with every default filled in.

    Raises:
        UserError: A key is unknown or its value wrong; the message names the key.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error.errors()[0])) from None


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as YAML, keys in the order of their definition.

    Args:
        recipe: The recipe.
        path: The file to write.
    """
    path.write_text(recipe_text(recipe), encoding="utf-8")


def recipe_text(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _locate(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        if not path.is_file():
            raise UserError(f"there is no recipe file {path}")
        return path
    if name not in shipped() and not name.startswith("_"):
        raise UserError(f"unknown recipe '{name}'{did_you_mean(name, shipped())}")
    return RECIPES / f"{name}.yaml"


def _read(path: Path, depth: int = 0) -> dict[str, Any]:
    """The file's settings over those it extends. A parent beside the file comes before a shipped one."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        # A ValueError: a byte that is not UTF-8, or a date that there is not.
        raise UserError(f"cannot read recipe {path}: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"recipe {path} is not a mapping of settings")
    parent = tree.pop("extends", None)
    if parent is not None:
        if depth == MOST_PARENTS:
            raise UserError(f"recipe {path}: 'extends' forms a circle; remove one 'extends'")
        beside = path.parent / f"{parent}.yaml"
        inherited = _read(beside if beside.is_file() else _locate(str(parent)), depth + 1)
        tree = _merge(inherited, {"name": path.stem, **tree})
    return {"name": path.stem, **tree}


class _Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number, which YAML 1.1 takes for a string because it has no dot."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, group by group; a mixture is replaced as a whole."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and key != "mixture"
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _override(tree: dict[str, Any], override: str) -> None:
    """Set the value that `key=value` names."""
    if not isinstance(override, str):
        raise UserError(f"an override is a text like 'train.lr=1e-3', not {override!r}")
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set takes KEY=VALUE, like train.lr=1e-3, not '{override}'")
    try:
        value = yaml.load(text, Loader=_Loader)
    except (ValueError, RecursionError, yaml.YAMLError):
        raise UserError(f"--set {key}: cannot read the value '{text}'") from None
    *groups, last = key.strip().split(".")
    for group in groups:
        if not isinstance(tree.get(group, {}), dict):
            raise UserError(f"--set {key}: '{group}' is a single value, not a group")
        tree = tree.setdefault(group, {})
    tree[last] = value


def _explain(error: "ErrorDetails") -> str:
    """One line for the first mistake that pydantic found."""
    path = [str(part) for part in error["loc"] if part not in ARCHITECTURES]
    key, kind, given = ".".join(path), error["type"], error.get("input")
    if kind == "extra_forbidden":
        return f"unknown recipe key '{key}'{suggest_key(error['loc'])}"
    if kind == "missing":
        return f"the recipe lacks '{key}'"
    if kind.startswith("union_tag"):
        architecture = given.get("architecture") if isinstance(given, dict) else given
        return f"model.architecture is '{architecture}'; it is one of {', '.join(ARCHITECTURES)}"
    if kind == "string_pattern_mismatch":
        return (
            f"{key} takes letters, digits and the signs _ . + -, and begins with a letter or digit; "
            f"it is {given!r}"
        )
    if kind in WANTED:
        return f"{key} is {WANTED[kind]}, not {given!r}"
    message = error["msg"].removeprefix("Value error, ")
    if message.startswith(("model.", "train.", "data.")):
        return message
    # A whole section would bury the message.
    return f"{key}: {message}" if isinstance(given, dict) else f"{key}: {message} (it is {given!r})"
