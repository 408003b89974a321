"""The servers under test. Another server is put under the same tests by one more entry of `SERVERS`: a
context manager that starts it with the limits and names below, and yields what `Running` holds.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from braingpt.model.config import V2Config
from braingpt.serving.access import Access
from braingpt.serving.server import Limits, Server
from braingpt.tokenizer import Tokenizer
from tests.conftest import awake

# What all servers under test are started with. Times are short so that the tests are.
CONTEXT = 1200
BODY_BYTES = 1 << 20
HEAD_SECONDS = 1.0
BODY_SECONDS = 1.5
WRITE_SECONDS = 1.0
CONNECTIONS = 12
REQUESTS = 4
ALLOWED_HOST = "model.example.org"
ALLOWED_ORIGIN = "https://page.example.org"


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    host: str
    port: int
    model: str

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextlib.contextmanager
def standard_library() -> Iterator[Running]:
    """The server of `braingpt.serving.server`, in a thread."""
    config = V2Config(
        layers=1, hidden=32, heads=4, mamba={"state": 8, "head": 8}, columns={"count": 4, "width": 8}
    )
    limits = Limits(
        context=CONTEXT,
        body_bytes=BODY_BYTES,
        head_seconds=HEAD_SECONDS,
        body_seconds=BODY_SECONDS,
        write_seconds=WRITE_SECONDS,
        connections=CONNECTIONS,
        requests=REQUESTS,
    )
    access = Access.of("127.0.0.1", [ALLOWED_HOST], [ALLOWED_ORIGIN])
    tokenizer = Tokenizer.default()
    server = Server(("127.0.0.1", 0), awake(config).float(), tokenizer, "test-model", access, limits)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield Running("127.0.0.1", server.server_port, "test-model")
    server.shutdown()
    server.server_close()
    thread.join(5)


SERVERS = {"standard-library": standard_library}


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request) -> Iterator[Running]:
    with SERVERS[request.param]() as running:
        yield running
