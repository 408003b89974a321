"""`braingpt serve`: one model behind a small HTTP server."""

import json
import os
import signal
import sys
from typing import Annotated

import typer

from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json
from braingpt.cli.options import Device, Run, open_run


def serve(
    run: Run = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. There is no authentication, so keep it local.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 chooses a free one.", min=0, max=65535)
    ] = 8000,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Serve a model over HTTP.

    POST /v1/completions (with server-sent events for "stream": true) and GET /health.
    """
    from braingpt.errors import UserError
    from braingpt.serving.server import Server

    messages = console(stderr=True)
    model, tokenizer, recipe, _, folder = open_run(run, device, messages)
    try:
        server = Server((host, port), model, tokenizer, recipe.name)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from None
    url = f"http://{host}:{server.server_port}"
    # A service manager stops a service with SIGTERM, which ends the server like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if json_output:
        print(
            json.dumps({"url": url, "model": recipe.name, "run": str(folder)}, ensure_ascii=False),
            flush=True,
        )
    else:
        print_line(messages, f"serving {recipe.name} at {url}/v1/completions; Ctrl-C stops the server")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        messages.print("stopped")
    finally:
        server.server_close()
    # At its end the interpreter would unwind a thread that still answers, through C++ code that aborts the
    # process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
