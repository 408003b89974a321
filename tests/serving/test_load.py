"""Clients that are slow, silent, gone or many hold nobody else up, over the URL alone."""

import socket
import time
from contextlib import ExitStack

import pytest

from tests.serving.client import LONG, ask, complete, events, opened, received, soon
from tests.serving.conftest import BODY_SECONDS, CONNECTIONS, CONTEXT, HEAD_SECONDS, REQUESTS, WRITE_SECONDS

SHORT = {"prompt": "a", "language": "en", "max_tokens": 2}
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEAD += b"Content-Length: 50\r\n"


@pytest.fixture(autouse=True)
def idle(server):
    """Every test begins and ends with a server that has all its room."""
    yield
    assert soon(lambda: complete(server, SHORT).status == 200)


def seconds_of(server, asked) -> float:
    start = time.monotonic()
    assert complete(server, asked).status == 200
    return time.monotonic() - start


@pytest.mark.parametrize(
    ("sent", "dripped", "limit"),
    [
        (b"", b"", HEAD_SECONDS),
        (b"GET /health HT", b"", HEAD_SECONDS),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n", HEAD_SECONDS),
        (HEAD + b"\r\n{", b"", HEAD_SECONDS + BODY_SECONDS),
        (HEAD + b"\r\n{", b" ", HEAD_SECONDS + BODY_SECONDS),
    ],
)
def test_a_slow_sender_is_cut_off(server, sent, dripped, limit):
    start = time.monotonic()
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        connection.sendall(sent)
        assert complete(server, SHORT).status == 200
        connection.settimeout(0.05)
        answer = None
        while answer is None and time.monotonic() - start < limit + 5:
            try:
                connection.sendall(dripped)
                answer = connection.recv(10_000)
            except TimeoutError:
                continue
        assert time.monotonic() - start < limit + 2
        assert answer is not None and (answer == b"" if not sent else answer.split()[1] == b"408")


def test_many_slow_senders_do_not_keep_others_out_for_long(server):
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(socket.create_connection((server.host, server.port), timeout=10))
            connection.sendall(b"GET / HTTP/1.1\r\n")
        assert soon(lambda: ask(server, "GET", "/health").status == 200, HEAD_SECONDS + 3)


def test_connections_beyond_the_cap_are_told_to_come_again(server):
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection((server.host, server.port), timeout=10))
        for _ in range(5):
            answer = complete(server, SHORT)
            assert answer.status == 503 and int(answer.headers["retry-after"]) > 0
            assert answer.error["message"]


def test_requests_beyond_the_cap_are_told_to_come_again(server):
    with ExitStack() as stack:
        busy = [stack.enter_context(opened(server, {**LONG, "seed": seed})) for seed in range(REQUESTS)]
        # A short request that came before the last of these would have its place.
        time.sleep(0.3)
        assert soon(lambda: complete(server, SHORT).status == 503, 2)
        answer = complete(server, SHORT)
        assert answer.status == 503 and int(answer.headers["retry-after"]) > 0 and answer.error["message"]
        # Who asks for something else than a text is answered.
        assert ask(server, "GET", "/health").status == 200
        assert [received(connection).status for connection in busy] == [200] * REQUESTS


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("farewell", ["close", "reset", "half"])
def test_a_client_that_leaves_ends_its_text(server, stream, farewell):
    whole = seconds_of(server, LONG)
    left = []
    for seed in range(REQUESTS):
        connection = opened(server, {**LONG, "seed": seed, "stream": stream})
        left.append(connection)
    time.sleep(0.1)
    for connection in left:
        if farewell == "half":
            connection.shutdown(socket.SHUT_WR)
        elif farewell == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if farewell != "half":
            connection.close()
    start = time.monotonic()
    # Room is free again long before the texts could have been written.
    assert soon(lambda: complete(server, SHORT).status == 200, 10)
    assert time.monotonic() - start < max(0.5, whole)
    if farewell == "half":
        for connection in left:
            connection.close()


def test_a_client_that_leaves_while_its_prompt_is_read_ends_the_reading(server):
    prompt = {"prompt": "아 " * (CONTEXT // 3), "language": "ko", "max_tokens": 1}
    whole = seconds_of(server, prompt)
    for _ in range(3 * REQUESTS):
        opened(server, prompt).close()
    assert soon(lambda: complete(server, SHORT).status == 200, whole + 2)


def test_a_slow_reader_holds_nobody_up_and_is_cut_off(server):
    start = time.monotonic()
    with ExitStack() as stack:
        # What fits between the two sides is written before anybody waits, so the buffer is made small.
        slow = [
            stack.enter_context(
                opened(server, {**LONG, "max_tokens": 400, "stream": True, "seed": seed}, receive_buffer=1024)
            )
            for seed in range(REQUESTS - 1)
        ]
        for _ in range(5):
            assert complete(server, SHORT).status == 200
        # Nobody reads, and yet the room of all becomes free.
        waiting = {**SHORT, "max_tokens": 20}
        assert soon(lambda: complete(server, waiting).status == 200, WRITE_SECONDS + 5)
        for connection in slow:
            connection.settimeout(10)
            body = b""
            try:
                while block := connection.recv(1 << 16):
                    body += block
            except OSError:
                pass
            assert time.monotonic() - start < 60
            complete_answer = body.endswith(b"data: [DONE]\n\n")
            assert complete_answer or len(body) < 1 << 22


def test_texts_are_written_side_by_side(server):
    whole = seconds_of(server, LONG)
    with opened(server, {**LONG, "stream": True}) as connection:
        # A short text does not wait for the long one.
        assert seconds_of(server, SHORT) < max(0.5, whole / 2)
        answer = received(connection)
    assert answer.status == 200 and events(answer.body)[-1] == "[DONE]"


def test_an_early_answer_reaches_a_client_that_still_sends(server):
    for _ in range(5):
        answer = complete(server, b"[" * (8 << 20), {"Host": "evil.example"})
        assert answer.status == 403 and answer.error["message"]
