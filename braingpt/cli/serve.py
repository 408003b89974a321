"""`braingpt serve`: one model behind a small HTTP server."""

from typing import Annotated

import typer

from braingpt.cli.console import Json, console
from braingpt.cli.options import Device, Run, open_run


def serve(
    run: Run = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; there is no authentication, so keep it local.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 8000,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Serve a model over HTTP.

    POST /v1/completions (with server-sent events for "stream": true) and GET /health.
    """
    import json as encoder
    import os
    import signal
    import sys

    from braingpt.errors import UserError
    from braingpt.serving.server import Server

    say = console(json_output=True)
    model, tokenizer, recipe, _, folder = open_run(run, device, say)
    try:
        server = Server((host, port), model, tokenizer, recipe.name)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from None
    url = f"http://{host}:{server.server_port}"
    # a service manager's stop is as good as Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if json:
        print(
            encoder.dumps({"url": url, "model": recipe.name, "run": str(folder)}, ensure_ascii=False),
            flush=True,
        )
    else:
        say.print(f"serving {recipe.name} at {url}/v1/completions; Ctrl-C stops", soft_wrap=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say.print("stopped")
    finally:
        server.server_close()
    # A thread that is still answering would be unwound by the interpreter's end, through C++ code that aborts
    # the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
