"""A small HTTP server for one model, with the completions protocol that most clients support.

    POST /v1/completions   {"prompt": "...", "max_tokens": 64, "temperature": 0.8, "top_k": 50, "top_p": 0.9,
                            "seed": 1, "language": "ko", "stream": false}
    GET  /health           {"status": "ok", "model": "..."}

It generates one text at a time, and the next request waits. With `"stream": true` the answer comes as
server-sent events and ends with `data: [DONE]`. It needs the standard library only. It is meant for your own
machine: there is no authentication.
"""

import json
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from braingpt.errors import UserError, did_you_mean
from braingpt.inference.text_stream import TextStream, generate_text
from braingpt.model.interface import CausalModel
from braingpt.utils.terminal_text import visible

if TYPE_CHECKING:
    from braingpt.tokenizer import Tokenizer

# Bytes of a request's body; a longer prompt is a mistake.
MAX_BODY_BYTES = 1 << 20
# Tokens of a request, so that one client cannot hold the lock forever.
MAX_TOKENS = 4096
# Bytes read at a time of a body that is not used.
DISCARD_BYTES = 1 << 16
UNKNOWN_PATH = "there is nothing at {}; use POST /v1/completions and GET /health"
SETTINGS = {
    "prompt": str,
    "max_tokens": int,
    "temperature": (int, float),
    "top_k": int,
    "top_p": (int, float),
    "seed": int,
    "language": str,
    "stream": bool,
    # Accepted for clients that always send it; there is only one model.
    "model": str,
}


class Server(ThreadingHTTPServer):
    """Serves a model until `shutdown()`.

    Args:
        address: Host and port; port 0 takes a free one, which `server_port` names.
        model: The model.
        tokenizer: Its tokenizer.
        name: The model's name in answers.
    """

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], model: CausalModel, tokenizer: "Tokenizer", name: str
    ) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.lock = threading.Lock()
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up; the base class prints all other errors."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def parse_request(body: bytes) -> dict[str, Any]:
    """The checked settings of a request. Raises UserError that says what is wrong with it."""
    try:
        request = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # Not UTF-8, not JSON, too many digits, or nested too deeply.
        raise UserError(f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise UserError("the body must be a JSON object")
    for key, value in request.items():
        if key not in SETTINGS:
            raise UserError(f"unknown setting '{key}'{did_you_mean(key, SETTINGS)}")
        # isinstance takes True for an int.
        wrong_bool = isinstance(value, bool) and SETTINGS[key] is not bool
        if value is not None and (wrong_bool or not isinstance(value, SETTINGS[key])):
            raise UserError(
                f"'{key}' must be {_type_name(SETTINGS[key])}, not {json.dumps(value, ensure_ascii=False)}"
            )
    request = {key: value for key, value in request.items() if value is not None}
    if not 0 <= request.get("max_tokens", 0) <= MAX_TOKENS:
        raise UserError(f"'max_tokens' must be between 0 and {MAX_TOKENS}, not {request['max_tokens']}")
    return request


def _type_name(kind: type | tuple[type, ...]) -> str:
    """The JSON type in words."""
    return {str: "a string", int: "an integer", bool: "true or false"}.get(kind, "a number")


class Handler(BaseHTTPRequestHandler):
    """One request. Errors that the client can correct are 400 with a JSON message."""

    server: Server
    server_version = "braingpt"
    # The end of the connection is the end of a stream.
    protocol_version = "HTTP/1.0"
    # Seconds without data while a request is read.
    timeout = 60

    def do_GET(self) -> None:
        if self.path == "/health":
            self._json(200, {"status": "ok", "model": self.server.name})
        else:
            self._error(404, UNKNOWN_PATH.format(self.path))

    def do_POST(self) -> None:
        if self.path != "/v1/completions":
            self._error(404, UNKNOWN_PATH.format(self.path))
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            self._error(411, "the request needs a Content-Length")
            return
        if not 0 <= length <= MAX_BODY_BYTES:
            self._discard(length)
            self._error(413, f"the body may hold at most {MAX_BODY_BYTES} bytes")
            return
        try:
            request = parse_request(self.rfile.read(length))
            with self.server.lock:
                self._complete(request)
        except UserError as error:
            self._error(400, str(error))
        except OSError:
            # The client went away or stopped reading.
            raise
        except Exception as error:
            self._error(500, f"{type(error).__name__}: {error}")
            raise

    def _discard(self, length: int) -> None:
        """Read and drop a body, up to a limit.

        A client that is still sending would only see a lost connection instead of the answer.
        """
        left = min(length, 64 * MAX_BODY_BYTES)
        while left > 0 and (block := self.rfile.read(min(left, DISCARD_BYTES))):
            left -= len(block)

    def _complete(self, request: dict[str, Any]) -> None:
        text_stream = generate_text(
            self.server.model,
            self.server.tokenizer,
            request.get("prompt"),
            language=request.get("language"),
            max_new_tokens=request.get("max_tokens", 64),
            temperature=request.get("temperature", 0.8),
            top_k=request.get("top_k"),
            top_p=request.get("top_p"),
            seed=request.get("seed"),
        )
        head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.server.name,
        }
        if request.get("stream"):
            self._stream(head, text_stream)
            return
        text = "".join(text_stream)
        usage = {"prompt_tokens": text_stream.prompt_tokens, "completion_tokens": len(text_stream.tokens)}
        usage["total_tokens"] = sum(usage.values())
        self._json(
            200,
            {
                **head,
                "choices": [{"index": 0, "text": text, "finish_reason": text_stream.finish}],
                "usage": usage,
            },
        )

    def _stream(self, head: dict[str, Any], text_stream: TextStream) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        try:
            for piece in text_stream:
                self._event({**head, "choices": [{"index": 0, "text": piece, "finish_reason": None}]})
            self._event({**head, "choices": [{"index": 0, "text": "", "finish_reason": text_stream.finish}]})
        except OSError:
            raise
        except Exception as error:
            # The status line is sent already: the error can only be an event.
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
        """Write requests to standard error, like the base class, but without looking up the client's name."""
        print(
            visible(f"{self.log_date_time_string()}  {format % args}").encode("utf-8", "replace").decode(),
            file=sys.stderr,
        )
