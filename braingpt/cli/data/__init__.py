"""`braingpt data`: prepare corpora for training, and list, check and view them. One file per command."""

import typer

from braingpt.cli.command import Command, Group
from braingpt.cli.data.info import info
from braingpt.cli.data.join import join
from braingpt.cli.data.list import list_corpora
from braingpt.cli.data.prepare import prepare
from braingpt.cli.data.verify import verify
from braingpt.cli.data.view import report, sample

app = typer.Typer(
    cls=Group,
    help="""Prepare corpora; list, check and view them.

    Examples:
        braingpt data list
        braingpt data prepare sample
        braingpt data info data/sample
    """,
    no_args_is_help=True,
)
app.command(cls=Command)(prepare)
app.command(cls=Command)(join)
app.command("list", cls=Command)(list_corpora)
app.command(cls=Command)(info)
app.command(cls=Command)(verify)
app.command(cls=Command)(sample)
app.command(cls=Command)(report)
