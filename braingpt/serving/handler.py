"""One HTTP request, with any answer: who may ask, within which limits, and errors in one shape.

The base class parses the request. Around it every read has a deadline, every error is JSON, and an answer
that comes before the whole request reaches the client nevertheless.
"""

import io
import json
import re
import sys
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from braingpt.serving.access import split_host
from braingpt.serving.connection import ClientLeft, RequestReader, SlowClient, TooLarge, close_gently
from braingpt.serving.schemas import RequestError
from braingpt.utils.terminal_text import visible

if TYPE_CHECKING:
    from braingpt.serving.server import Server

# What is read and dropped after an early answer, such as one to a body that is too large.
DROPPED_BYTES = 64 << 20
DROPPED_SECONDS = 5
# `curl -d` and `wget --post-data` call JSON a form unless told otherwise. No web page can name itself so.
CALLS_JSON_A_FORM = ("curl/", "Wget/")
# What the parser of the headers leaves out of them.
MALFORMED = (MissingHeaderBodySeparatorDefect, FirstHeaderLineIsContinuationDefect)


def error_body(error: RequestError) -> dict[str, Any]:
    """Say an error in the shape of OpenAI's API.

    Args:
        error: The error.

    Returns:
        The body of the answer.
    """
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


class JsonHandler(BaseHTTPRequestHandler):
    """One connection with one request; the end of the connection is the end of a stream."""

    server: "Server"  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "braingpt", ""
    protocol_version = default_request_version = "HTTP/1.0"
    # Where the request ends before its first line was understood.
    requestline, request_version, command, path = "", "HTTP/1.0", "", ""

    def setup(self) -> None:
        super().setup()
        self._reader = RequestReader(self.connection)
        self._reader.allow(self.server.limits.head_seconds, self.server.limits.head_bytes)
        self.rfile = io.BufferedReader(self._reader)
        # Of the page that may read the answer.
        self._origin: str | None = None
        # Whether the whole request was read, and whether its answer has begun.
        self._complete = self._answered = False

    def handle(self) -> None:
        """Answer the request."""
        try:
            super().handle()
        except SlowClient:
            # Browsers open connections in advance, and send nothing.
            if self._reader.received and not self._answered:
                self._error(RequestError("the request did not arrive in time", 408))
            return
        except TooLarge:
            limit = self.server.limits.head_bytes
            self._error(RequestError(f"the headers may have at most {limit} bytes", 431))
        if not self._complete:
            close_gently(self.connection, DROPPED_SECONDS, DROPPED_BYTES)

    def _check_access(self) -> None:
        """Refuse requests that a web page of another origin caused; `access` says how they are known."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        malformed = any(isinstance(defect, MALFORMED) for defect in self.headers.defects)
        if malformed or len(hosts) > 1 or len(origins) > 1:
            raise RequestError("the request has malformed headers, or one of them twice", 400)
        host = hosts[0] if hosts else None
        if host is None and self.request_version != "HTTP/1.0":
            raise RequestError("the request has no Host header", 400)
        if host is not None:
            name = split_host(host)
            if name is None or not self.server.access.knows_host(name[0], self.connection.getsockname()[0]):
                raise RequestError(
                    f"Host '{host[:80]}' is none of this server's; --allowed-host adds one", 403
                )
        if origins:
            if not self.server.access.knows_origin(origins[0], host):
                message = (
                    f"pages of {origins[0][:80]} may not use this server; --allowed-origin adds an origin"
                )
                raise RequestError(message, 403)
            self._origin = origins[0]

    def _body(self) -> bytes:
        """The body, if it is JSON and no larger than allowed."""
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        by_tool = self.headers.get("User-Agent", "").startswith(CALLS_JSON_A_FORM)
        if kind != "application/json" and not (by_tool and kind == "application/x-www-form-urlencoded"):
            message = f"the body must be JSON: send Content-Type: application/json, not '{kind[:80]}'"
            raise RequestError(message, 415)
        length = self.headers.get_all("Content-Length", [])
        if (
            len(length) != 1
            or not re.fullmatch("[0-9]{1,15}", length[0])
            or "Transfer-Encoding" in self.headers
        ):
            raise RequestError("the request needs one Content-Length, and no Transfer-Encoding", 411)
        if int(length[0]) > self.server.limits.body_bytes:
            raise RequestError(f"the body may hold at most {self.server.limits.body_bytes} bytes", 413)
        self._reader.allow(self.server.limits.body_seconds, self.server.limits.body_bytes)
        body = self.rfile.read(int(length[0]))
        if len(body) < int(length[0]):
            raise ClientLeft
        self._complete = True
        return body

    def _event(self, value: dict[str, Any]) -> None:
        self._write(f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode())

    def _write(self, data: bytes) -> None:
        """Send data to a client that reads it in time."""
        self.connection.settimeout(self.server.limits.write_seconds)
        self.wfile.write(data)

    def _error(self, error: RequestError) -> None:
        self._json(error.status, error_body(error), error.headers)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer an error that the base class found, as all others.

        Args:
            code: The status.
            message: What is wrong.
            explain: Not used.
        """
        self._error(RequestError(visible(message or self.responses[code][0])[:200], code))

    def _json(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self._write(body)

    def end_headers(self) -> None:
        """Send the head of the answer, which lets the allowed page read it."""
        self._answered = True
        if self._origin is not None:
            self.send_header("Access-Control-Allow-Origin", self._origin)
            self.send_header("Vary", "Origin")
        self.connection.settimeout(self.server.limits.write_seconds)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Write requests to standard error, like the base class, but without looking up the client's name.

        Args:
            format: The message.
            args: Its values.
        """
        print(
            visible(f"{self.log_date_time_string()}  {format % args}").encode("utf-8", "replace").decode(),
            file=sys.stderr,
        )
