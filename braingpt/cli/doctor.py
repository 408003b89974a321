"""`braingpt doctor`: what is installed, what works, what is missing, and why."""

from typing import Annotated

import typer

from braingpt.cli.console import console
from braingpt.cli.json_output import Json, print_json

# The mark of each state, and its colour.
MARKS = {"ok": ("ok", "green"), "note": ("--", "yellow"), "problem": ("!!", "red")}


def doctor(
    json_output: Json = False,
    strict: Annotated[bool, typer.Option(help="Exit with 1 when there is a problem.")] = False,
) -> None:
    """Check this installation.

    Python, torch, device, kernels, optional packages, data and runs.

    Examples:
        braingpt doctor
        braingpt doctor --strict
    """
    from braingpt.doctor import examine

    findings = examine()
    problems = sum(finding.state == "problem" for finding in findings)
    if json_output:
        print_json({"problems": problems, "findings": [finding.as_dict() for finding in findings]})
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for finding in findings:
            table.add_row(Text(*MARKS[finding.state]), finding.topic, finding.text)
        out = console()
        out.print(table)
        out.print(
            "no problem found"
            if not problems
            else f"{problems} problem{'s' if problems > 1 else ''} found, marked !!"
        )
    if strict and problems:
        raise typer.Exit(1)
