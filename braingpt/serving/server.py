"""A small HTTP server over one model, in the shape of the completions protocol most clients speak.

Standard library only.

    POST /v1/completions   {"prompt": "...", "max_tokens": 64, "temperature": 0.8, "top_k": 50, "top_p": 0.9,
    "seed": 1,
                            "language": "ko", "stream": false}
    GET  /health           {"status": "ok", "model": "..."}

One lock: one text is written at a time, the next request waits. With `"stream": true` the answer comes as
server-sent events and ends with `data: [DONE]`. Meant for one's own machine: there is no authentication.
"""

import json
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from torch import nn

from braingpt.errors import UserError, did_you_mean
from braingpt.inference.text_stream import TextStream, generate_text

# bytes; a prompt longer than a megabyte is a mistake here
LARGEST_BODY = 1 << 20
# a request, so that one client cannot hold the lock for ever
MOST_TOKENS = 4096
KINDS = {
    "prompt": str,
    "max_tokens": int,
    "temperature": (int, float),
    "top_k": int,
    "top_p": (int, float),
    "seed": int,
    "language": str,
    "stream": bool,
    # accepted for clients that always send it; there is only one model
    "model": str,
}


class Server(ThreadingHTTPServer):
    """Serves `model` under `name` until `shutdown()`. Port 0 takes a free one; `server_port` says which."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], model: nn.Module, tokenizer: Any, name: str) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.lock = threading.Lock()
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no event; anything else is printed by the base class."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def settings(body: bytes) -> dict[str, Any]:
    """The request's settings, checked; UserError says what is wrong with it."""
    try:
        asked = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # not UTF-8, not JSON, endless digits, endless nesting
        raise UserError(f"the body is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise UserError("the body must be a JSON object")
    for key, value in asked.items():
        if key not in KINDS:
            raise UserError(f"unknown setting '{key}'{did_you_mean(key, KINDS)}")
        # True is an int to isinstance
        wrong_bool = isinstance(value, bool) and KINDS[key] is not bool
        if value is not None and (wrong_bool or not isinstance(value, KINDS[key])):
            raise UserError(
                f"'{key}' must be {_word(KINDS[key])}, not {json.dumps(value, ensure_ascii=False)}"
            )
    asked = {key: value for key, value in asked.items() if value is not None}
    if not 0 <= asked.get("max_tokens", 0) <= MOST_TOKENS:
        raise UserError(f"'max_tokens' must lie between 0 and {MOST_TOKENS}, not {asked['max_tokens']}")
    return asked


def _word(kind: Any) -> str:
    return {str: "a string", int: "an integer", bool: "true or false"}.get(kind, "a number")


class Handler(BaseHTTPRequestHandler):
    """One request. Errors the client can mend are 400 with a JSON message."""

    server: Server
    server_version = "braingpt"
    # the connection's end marks a stream's end
    protocol_version = "HTTP/1.0"
    # seconds of silence while a request is being read
    timeout = 60

    def do_GET(self) -> None:
        if self.path == "/health":
            self._json(200, {"status": "ok", "model": self.server.name})
        else:
            self._error(404, f"nothing at {self.path}; there are POST /v1/completions and GET /health")

    def do_POST(self) -> None:
        if self.path != "/v1/completions":
            self._error(404, f"nothing at {self.path}; there are POST /v1/completions and GET /health")
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            self._error(411, "the request needs a Content-Length")
            return
        if not 0 <= length <= LARGEST_BODY:
            self._discard(length)
            self._error(413, f"the body may hold at most {LARGEST_BODY} bytes")
            return
        try:
            asked = settings(self.rfile.read(length))
            with self.server.lock:
                self._complete(asked)
        except UserError as error:
            self._error(400, str(error))
        except OSError:
            # the client went away or stopped reading
            raise
        except Exception as error:
            self._error(500, f"{type(error).__name__}: {error}")
            raise

    def _discard(self, length: int) -> None:
        """Read on for a while: a client that is still sending would not hear the answer, but only that the
        line was cut.
        """
        left = min(length, 64 * LARGEST_BODY)
        while left > 0 and (block := self.rfile.read(min(left, 1 << 16))):
            left -= len(block)

    def _complete(self, asked: dict[str, Any]) -> None:
        written = generate_text(
            self.server.model,
            self.server.tokenizer,
            asked.get("prompt"),
            language=asked.get("language"),
            max_new_tokens=asked.get("max_tokens", 64),
            temperature=asked.get("temperature", 0.8),
            top_k=asked.get("top_k"),
            top_p=asked.get("top_p"),
            seed=asked.get("seed"),
        )
        head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.server.name,
        }
        if asked.get("stream"):
            self._stream(head, written)
            return
        text = "".join(written)
        usage = {"prompt_tokens": written.prompt_tokens, "completion_tokens": len(written.tokens)}
        usage["total_tokens"] = sum(usage.values())
        self._json(
            200,
            {
                **head,
                "choices": [{"index": 0, "text": text, "finish_reason": written.finish}],
                "usage": usage,
            },
        )

    def _stream(self, head: dict[str, Any], written: TextStream) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        try:
            for piece in written:
                self._event({**head, "choices": [{"index": 0, "text": piece, "finish_reason": None}]})
            self._event({**head, "choices": [{"index": 0, "text": "", "finish_reason": written.finish}]})
        except OSError:
            raise
        except Exception as error:
            # the status line has gone out: the error can only be an event
            self._event({"error": {"message": f"{type(error).__name__}: {error}", "type": "server_error"}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode())
        self.wfile.flush()

    def _error(self, status: int, message: str) -> None:
        self._json(
            status,
            {
                "error": {
                    "message": message,
                    "type": "invalid_request_error" if status < 500 else "server_error",
                }
            },
        )

    def _json(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests go to standard error, as the base class does, without the caller's name look-up."""
        print(
            f"{self.log_date_time_string()}  {format % args}".encode("utf-8", "replace").decode(),
            file=sys.stderr,
        )
