import json
import threading
import urllib.error
import urllib.request

import pytest

from braingpt.model.config import V2Config
from braingpt.serving.server import MAX_BODY_BYTES, Server
from braingpt.tokenizer import Tokenizer
from tests.conftest import awake

TOKENIZER = Tokenizer.default()


@pytest.fixture(scope="module")
def url():
    model = awake(
        V2Config(
            layers=1, hidden=32, heads=4, mamba={"state": 8, "head": 8}, columns={"count": 4, "width": 8}
        )
    ).float()
    server = Server(("127.0.0.1", 0), model, TOKENIZER, "test-model")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def post(url: str, body, path: str = "/v1/completions"):
    """(status, text) of a request; `body` as it is, or as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health(url):
    with urllib.request.urlopen(url + "/health", timeout=10) as answer:
        assert json.load(answer) == {"status": "ok", "model": "test-model"}


def test_a_completion_and_its_stream_are_the_same_text(url):
    asked = {
        "prompt": "안녕하세요",
        "max_tokens": 12,
        "temperature": 0.9,
        "top_p": 0.95,
        "top_k": 500,
        "seed": 5,
        "language": "ko",
    }
    status, text = post(url, asked)
    answer = json.loads(text)
    choice = answer["choices"][0]
    assert status == 200 and answer["object"] == "text_completion" and answer["model"] == "test-model"
    prompt = len(TOKENIZER.encode("안녕하세요", language="ko"))
    new = answer["usage"]["completion_tokens"]
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": new,
        "total_tokens": prompt + new,
    }
    assert (new == 12) == (choice["finish_reason"] == "length")
    status, stream = post(url, {**asked, "stream": True})
    events = [line.removeprefix("data: ") for line in stream.split("\n\n") if line]
    assert status == 200 and events[-1] == "[DONE]"
    chunks = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert "".join(chunk["text"] for chunk in chunks) == choice["text"]
    assert chunks[-1]["finish_reason"] == choice["finish_reason"] and {
        c["finish_reason"] for c in chunks[:-1]
    } == {None}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ([1], "must be a JSON object"),
        ({"promt": "a"}, "did you mean 'prompt'"),
        ({"prompt": 5}, "'prompt' must be a string"),
        ({"max_tokens": True}, "'max_tokens' must be an integer"),
        ({"max_tokens": -1}, "'max_tokens' must be between"),
        ({"max_tokens": 10**9}, "'max_tokens' must be between"),
        ({"temperature": -2}, "temperature must be between"),
        ({"top_p": 0}, "top-p must be above 0"),
        ({"language": "xx"}, "unknown language"),
        ({"prompt": "a\udcff"}, "lone surrogate"),
        ({"prompt": "a\udcff", "stream": True}, "lone surrogate"),
    ],
)
def test_what_the_client_got_wrong_is_a_400_that_says_so(url, body, message):
    status, text = post(url, body)
    assert status == 400 and message in json.loads(text)["error"]["message"]


def test_other_errors(url):
    assert post(url, {}, "/v1/nothing")[0] == 404
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url + "/", timeout=10)
    assert post(url, b" " * (MAX_BODY_BYTES + 1))[0] == 413


def test_requests_at_the_same_time_wait_for_each_other(url):
    asked = {"prompt": "Hello", "max_tokens": 10, "seed": 3, "language": "en"}
    expected = json.loads(post(url, asked)[1])["choices"]
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(post(url, asked))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [(status, json.loads(text)["choices"]) for status, text in answers] == [(200, expected)] * 4
