"""`python -m braingpt` is the `braingpt` command."""

from braingpt.cli.main import run

run()
