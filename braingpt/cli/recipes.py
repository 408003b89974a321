"""`braingpt recipes`: the shipped recipes, and the complete values of one."""

from typing import Annotated, Any

import typer

from braingpt.cli import completion
from braingpt.cli.command import Command, Group
from braingpt.cli.console import console
from braingpt.cli.json_output import Json, print_json

app = typer.Typer(
    cls=Group,
    help="""List the shipped recipes, or show all values of one.

    Examples:
        braingpt recipes
        braingpt recipes show tiny-v2
    """,
    invoke_without_command=True,
)

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a recipe value, for example `train.lr=1e-3`; may be repeated.",
        autocompletion=completion.recipe_keys,
    ),
]


@app.callback()
def recipes(context: typer.Context, json_output: Json = False) -> None:
    """List the shipped recipes with their shape and size."""
    if context.invoked_subcommand:
        return
    from rich.table import Table

    from braingpt.utils.formatting import short_count

    rows = [_row(name) for name in _shipped()]
    if json_output:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    for column in ("layers", "hidden", "heads", "params", "active", "context", "steps"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        figures = [str(row[key]) for key in ("layers", "hidden", "heads")]
        size = [short_count(row[key]) for key in ("parameters_total", "parameters_active")]
        table.add_row(row["name"], *figures, *size, str(row["context"]), f"{row['steps']:,}")
    console().print(table)


@app.command(cls=Command)
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A shipped recipe or a YAML file.", autocompletion=completion.recipes
        ),
    ],
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Print a recipe with everything it inherits, as a run saves it.

    Examples:
        braingpt recipes show tiny-v2
        braingpt recipes show tiny-v2 --set model.columns.active=4
    """
    from braingpt.recipes import load_recipe, recipe_text

    recipe = load_recipe(name, overrides)
    if json_output:
        print_json(recipe.model_dump(mode="json"))
    else:
        print(recipe_text(recipe), end="")


def _shipped() -> list[str]:
    from braingpt.recipes import shipped

    return shipped()


def _row(name: str) -> dict[str, Any]:
    """Shape and size of one recipe, whose model is built without memory."""
    from braingpt.recipes import load_recipe
    from braingpt.train.plan.plan import build_plan

    recipe = load_recipe(name)
    plan = build_plan(recipe, None)
    shape = {key: getattr(recipe.model, key) for key in ("architecture", "layers", "hidden", "heads")}
    return {
        "name": name,
        **shape,
        "parameters_total": plan.parameters_total,
        "parameters_active": plan.parameters_active,
        "context": recipe.train.context,
        "steps": recipe.train.steps,
    }
