"""`braingpt data list`: the corpora that can be prepared, and the folders that are prepared."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, print_json

if TYPE_CHECKING:
    from rich.table import Table

# Where `prepare` writes and `list` looks.
PREPARED = Path("data")


def list_corpora(json_output: Json = False) -> None:
    """List all corpora and the prepared folders. Languages, licence and size of each.

    Examples:
        braingpt data list
    """
    corpora, prepared = _corpora(), _prepared_folders()
    if json_output:
        print_json({"corpora": corpora, "prepared": prepared})
        return
    terminal = console()
    terminal.print(_corpus_table(corpora))
    if prepared:
        terminal.print(_folder_table(prepared))
    else:
        print_line(
            terminal,
            f"nothing is prepared under {PREPARED}/ yet; 'braingpt data prepare sample' takes seconds and "
            "needs no network",
        )


def _corpora() -> list[dict[str, Any]]:
    """Facts about every corpus, as in the JSON."""
    from braingpt.data.sources.catalog import DATASETS, PREPARATIONS, languages_of

    corpora = []
    for name, entry in PREPARATIONS.items():
        sets = [DATASETS[dataset] for dataset in entry.datasets]
        corpora.append(
            {
                "name": name,
                "languages": languages_of(name),
                "default_languages": list(entry.languages),
                "about": entry.about,
                "datasets": [dataset.id for dataset in sets],
                "licences": list(dict.fromkeys(dataset.licence for dataset in sets)),
                "sizes": [dataset.size for dataset in sets],
            }
        )
    return corpora


def _prepared_folders() -> list[dict[str, Any]]:
    """Facts about every prepared folder under data/, as in the JSON; `problem` where one cannot be read."""
    from braingpt.data.shards.manifest import NAME, read_manifest
    from braingpt.errors import UserError

    prepared = []
    for path in sorted(PREPARED.glob(f"*/{NAME}")):
        facts: dict[str, Any] = {"folder": str(path.parent), "problem": None}
        try:
            manifest = read_manifest(path.parent)
            facts |= {
                "name": manifest.name,
                "languages": manifest.languages(),
                "train_tokens": manifest.total("train"),
                "validation_tokens": manifest.total("validation"),
                "created": manifest.created,
            }
        except UserError as error:
            facts["problem"] = str(error)
        prepared.append(facts)
    return prepared


def _corpus_table(corpora: list[dict[str, Any]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="Corpora (braingpt data prepare NAME)",
        title_justify="left",
        box=None,
        show_header=False,
        padding=(0, 2, 0, 0),
    )
    for corpus in corpora:
        licences, sizes = ("; ".join(dict.fromkeys(corpus[key])) for key in ("licences", "sizes"))
        known = ("several licences",) if corpus["name"] == "all" else (sizes, licences)
        facts = " | ".join(filter(None, (" ".join(corpus["languages"]), *known)))
        table.add_row(corpus["name"], Text.assemble(corpus["about"], "\n", (facts, "dim")))
    return table


def _folder_table(prepared: list[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(title=f"Prepared under {PREPARED}/", title_justify="left")
    for column in ("folder", "corpus", "languages"):
        table.add_column(column)
    for column in ("tokens", "validation", "prepared"):
        table.add_column(column, justify="right")
    for facts in prepared:
        if facts["problem"]:
            table.add_row(facts["folder"], "damaged", "-", "-", "-", "-")
            continue
        table.add_row(
            facts["folder"],
            facts["name"],
            " ".join(facts["languages"]),
            f"{facts['train_tokens']:,}",
            f"{facts['validation_tokens']:,}",
            # The day of an ISO time.
            facts["created"][:10],
        )
    return table
