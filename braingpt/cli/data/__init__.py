"""`braingpt data`: prepare corpora for training, and list, check and view them. One file per command."""

import typer

from braingpt.cli.data.info import info
from braingpt.cli.data.join import join
from braingpt.cli.data.list import list_corpora
from braingpt.cli.data.prepare import prepare
from braingpt.cli.data.verify import verify
from braingpt.cli.data.view import report, sample

app = typer.Typer(
    help="Prepare corpora; list, check and view them.", no_args_is_help=True, rich_markup_mode=None
)
app.command()(prepare)
app.command()(join)
app.command("list")(list_corpora)
app.command()(info)
app.command()(verify)
app.command()(sample)
app.command()(report)
