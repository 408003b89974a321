"""Clients that talk to a server as browsers, libraries and attackers do; they know nothing of its insides."""

import http.client
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.serving.conftest import Running

JSON = {"Content-Type": "application/json"}
LONG = {"prompt": "a", "language": "en", "max_tokens": 200, "seed": 1}


@dataclass
class Answer:
    """A status, headers and a body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, whose shape is checked."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert "\n" not in error["message"] and 0 < len(error["message"]) < 600
        expected = "server_error" if self.status >= 500 else "invalid_request_error"
        assert error["type"] == expected and self.headers["content-type"].startswith("application/json")
        return error


def ask(
    server: Running,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    *,
    json_type: bool = True,
) -> Answer:
    """A request by Python's own client; `body` as it is, or as JSON."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    sent = {**(JSON if json_type and data is not None else {}), **(headers or {})}
    connection.request(method, path, data, sent)
    answer = connection.getresponse()
    found = Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
    connection.close()
    return found


def complete(server: Running, body: Any, headers: dict[str, str] | None = None) -> Answer:
    """A completion."""
    return ask(server, "POST", "/v1/completions", body, headers)


def raw(server: Running, data: bytes, timeout: float = 10) -> Answer:
    """The answer to bytes, as they are."""
    with socket.create_connection((server.host, server.port), timeout=timeout) as connection:
        connection.sendall(data)
        return received(connection)


def received(connection: socket.socket) -> Answer:
    """All that the server sends until it closes the connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())


def opened(server: Running, body: Any, receive_buffer: int | None = None) -> socket.socket:
    """A connection that has asked for a completion and reads nothing of it yet."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect((server.host, server.port))
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {server.host}:{server.port}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def soon(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether the condition becomes true in time."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def events(body: bytes) -> list[str]:
    """The data of server-sent events."""
    return [part.removeprefix("data: ") for part in body.decode().split("\n\n") if part]
