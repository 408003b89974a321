"""`braingpt serve`: one model behind a small HTTP server."""

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from braingpt.cli.command import SERVER
from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json
from braingpt.cli.options import Device, Run, open_run

if TYPE_CHECKING:
    from braingpt.serving.server import Server


def serve(
    run: Run = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. There is no authentication, so keep it local.",
            rich_help_panel=SERVER,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            help="Port to listen on; 0 chooses a free one.", min=0, max=65535, rich_help_panel=SERVER
        ),
    ] = 8000,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another name of this server, for example behind a proxy; may be repeated.",
            show_default=False,
            rich_help_panel=SERVER,
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Web pages that may use the server, such as https://example.org; may be repeated.",
            show_default=False,
            rich_help_panel=SERVER,
        ),
    ] = None,
    max_context: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Tokens of a prompt and its answer. [default: 8192, or the model's context if larger]",
            show_default=False,
            min=1,
            rich_help_panel=SERVER,
        ),
    ] = None,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Serve a model over HTTP.

    POST /v1/completions (with server-sent events for "stream": true), GET /v1/models and GET /health.

    Examples:
        braingpt serve
        braingpt serve runs/nano-v2 --port 8080
    """
    from braingpt.errors import UserError
    from braingpt.serving.access import Access
    from braingpt.serving.server import Limits, Server

    access = Access.of(host, allowed_host, allowed_origin)
    messages = console(stderr=True)
    model, tokenizer, recipe, _, folder = open_run(run, device, messages)
    limits = Limits(context=max_context or max(Limits.context, recipe.train.context))
    try:
        server = Server((host, port), model, tokenizer, recipe.name, access, limits)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from None
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    if json_output:
        first = json.dumps({"url": url, "model": recipe.name, "run": str(folder)})
    else:
        first = f"serving {recipe.name} at {url}/v1/completions; Ctrl-C stops the server"
    try:
        # A service manager stops a service with SIGTERM, which ends the server like Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if json_output:
            print(first, flush=True)
        else:
            print_line(messages, first)
        server.serve_forever()
    except KeyboardInterrupt:
        _stop(server)


def _stop(server: "Server") -> None:
    """End the process as Ctrl-C asks for, which is how a server ends well."""
    # A second Ctrl-C would end in a traceback instead.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server.server_close()
    print_line(console(stderr=True), "stopped")
    # At its end the interpreter would unwind a thread that still answers, through C++ code that aborts the
    # process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
