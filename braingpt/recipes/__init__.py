"""Recipes: YAML to checked settings.

    load_recipe("small-v2")                                     # shipped with the package
    load_recipe("my.yaml", ["train.lr=1e-3", "data.folders=[data/korean]"])

The resolved recipe is saved with every run (`save_recipe`) and loads again without its parents.
`schema.py` has the settings, `loader.py` reads them.
"""

from braingpt.recipes.loader import check_recipe, load_recipe, recipe_text, save_recipe, shipped
from braingpt.recipes.schema import DataConfig, LengthPhase, Recipe, Stage, TrainConfig

__all__ = [
    "DataConfig",
    "LengthPhase",
    "Recipe",
    "Stage",
    "TrainConfig",
    "check_recipe",
    "load_recipe",
    "recipe_text",
    "save_recipe",
    "shipped",
]
