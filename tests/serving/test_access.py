"""Who may ask a server on the user's machine, over its URL alone."""

import shutil
import subprocess

import pytest

from tests.serving.client import ask, complete, raw
from tests.serving.conftest import ALLOWED_HOST, ALLOWED_ORIGIN, BODY_BYTES

ASKED = {"prompt": "a", "language": "en", "max_tokens": 1}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:{port}", "localhost", "LOCALHOST:{port}", "localhost.", "app.localhost:9000",
     "[::1]", "127.8.8.8", ALLOWED_HOST, f"{ALLOWED_HOST.upper()}:443"],
)  # fmt: skip
def test_own_names_are_answered(server, host):
    headers = {"Host": host.format(port=server.port)}
    assert ask(server, "GET", "/health", headers=headers).status == 200
    assert complete(server, ASKED, headers).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.nip.io", "localhost.evil.example", "notlocalhost",
     "0.0.0.0", "192.168.0.9", "[fe80::1]", "2130706433", "127.1", "", "localhost@evil.example",
     "evil.example/localhost",
     f"evil.{ALLOWED_HOST}", "localhost:80:80", "[::1", "local host", "localhost,evil.example"],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("POST", "/v1/completions"), ("GET", "/x")])
def test_other_names_are_refused_whatever_is_asked(server, host, method, path):
    answer = ask(
        server, method, path, ASKED if method == "POST" else None, {"Host": host.format(port=server.port)}
    )
    assert answer.status == 403 and "--allowed-host" in answer.error["message"]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\nOrigin: http://localhost\r\n",
        b"GET /health HTTP/1.1\r\nno header\r\nHost: evil.example\r\n",
        b"GET\r\n",
        b"GET /health HTTP/x\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    ],
)
def test_malformed_heads_are_refused(server, head):
    answer = raw(server, head + b"\r\n")
    assert answer.status == 400 and answer.error["message"]


def test_old_clients_without_a_host_are_answered(server):
    assert raw(server, b"GET /health HTTP/1.0\r\n\r\n").status == 200


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://evil.example:{port}", "null", "http://localhost:3000", "http://127.0.0.1",
     "https://127.0.0.1:{port}0", "file://", "", f"{ALLOWED_ORIGIN}.evil.example", f"{ALLOWED_ORIGIN}:8443",
     "http://page.example.org", "http://127.0.0.1:99999", "http://[", "app://127.0.0.1:{port}"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_pages_of_other_origins_are_refused(server, origin, method):
    path = "/v1/completions" if method != "GET" else "/health"
    headers = {"Origin": origin.format(port=server.port), "Access-Control-Request-Method": "POST"}
    answer = ask(server, method, path, ASKED if method == "POST" else None, headers)
    assert answer.status == 403 and "--allowed-origin" in answer.error["message"]
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_pages_of_the_server_and_of_allowed_origins_are_answered(server):
    own = f"http://127.0.0.1:{server.port}"
    for origin in (own, ALLOWED_ORIGIN):
        assert complete(server, ASKED, {"Origin": origin}).status == 200
    allowed = {"Origin": ALLOWED_ORIGIN}
    answer = complete(server, ASKED, allowed)
    assert (
        answer.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
        and "origin" in answer.headers["vary"].lower()
    )
    # The page may read errors as well.
    wrong = complete(server, {"n": 2}, allowed)
    assert wrong.status == 400 and wrong.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    preflight = {
        **allowed,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, authorization",
    }
    answer = ask(server, "OPTIONS", "/v1/completions", headers=preflight)
    assert answer.status in (200, 204) and "POST" in answer.headers["access-control-allow-methods"]
    assert "content-type" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "text/json", None,
     "json", "application/jsonx"],
)  # fmt: skip
def test_a_body_that_is_not_called_json_is_refused(server, kind):
    headers = {"Content-Type": kind} if kind else {}
    answer = ask(server, "POST", "/v1/completions", ASKED, headers, json_type=False)
    assert answer.status == 415 and "Content-Type: application/json" in answer.error["message"]


def test_json_with_a_charset_is_taken(server):
    kind = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert ask(server, "POST", "/v1/completions", ASKED, kind, json_type=False).status == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_needs_no_header(server):
    command = ["curl", "-s", f"{server.url}/v1/completions", "-d", '{"prompt": "a", "max_tokens": 1}']
    printed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert '"text_completion"' in printed
    refused = subprocess.run(
        [*command, "-H", "Origin: https://evil.example"], capture_output=True, text=True, timeout=30
    )
    assert "--allowed-origin" in refused.stdout


def test_paths_and_methods(server):
    assert complete(server, ASKED).status == 200
    for method, path, status in (
        ("GET", "/", 404),
        ("POST", "/v1/nothing", 404),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/completions", 405),
        ("POST", "/health", 405),
        ("GET", "/../etc/passwd", 404),
        ("GET", "//health/../", 404),
        ("BREW", "/health", 501),
    ):
        answer = ask(server, method, path, ASKED if method == "POST" else None)
        assert answer.status == status and answer.error["message"], (method, path, answer)
        assert status != 405 or answer.headers["allow"]


def test_sizes(server):
    assert complete(server, b" " * (BODY_BYTES + 1)).status == 413
    assert complete(server, b" " * (20 * BODY_BYTES)).error["message"].startswith("the body may hold at most")
    for length in (b"-1", b"+5", b"1_0", b"x", b"5\r\nContent-Length: 6", b"9" * 30):
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        answer = raw(server, head + b"Content-Length: " + length + b"\r\n\r\n")
        assert answer.status in (400, 411, 413) and answer.error["message"]
    chunked = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = raw(server, chunked + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert answer.status == 411 and answer.error["message"]


@pytest.mark.parametrize(
    "head",
    [b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
     b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000,
     b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n",
     b"GET /health HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"y" * 5000 + b"\r\n") * 50 + b"\r\n"],
)  # fmt: skip
def test_large_heads_are_refused(server, head):
    answer = raw(server, head)
    assert answer.status in (414, 431) and answer.error["message"]
