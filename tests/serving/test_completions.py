"""What a server answers to completions, over its URL alone."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from braingpt.tokenizer import Tokenizer
from tests.serving.client import ask, complete, events
from tests.serving.conftest import CONTEXT

TOKENIZER = Tokenizer.default()
KOREAN = {"prompt": "이 영화는", "max_tokens": 4, "seed": 5}
SAMPLED = {
    "prompt": "안녕하세요",
    "max_tokens": 12,
    "temperature": 0.9,
    "top_p": 0.95,
    "top_k": 500,
    "seed": 5,
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_and_the_model(server, method):
    health = ask(server, method, "/health?probe=1")
    models = ask(server, method, "/v1/models")
    assert health.status == models.status == 200
    if method == "HEAD":
        assert health.body == models.body == b"" and int(health.headers["content-length"]) > 0
        return
    assert health.json == {"status": "ok", "model": server.model}
    (model,) = models.json["data"]
    assert model["id"] == server.model and model["object"] == "model" and models.json["object"] == "list"
    assert ask(server, "GET", f"/v1/models/{server.model}").json == model
    unknown = ask(server, "GET", "/v1/models/gpt-9")
    assert unknown.status == 404 and unknown.error["code"] == "model_not_found"


def test_a_completion_and_its_stream_are_the_same_text(server):
    asked = {**SAMPLED, "language": "ko"}
    answer = complete(server, asked)
    choice = answer.json["choices"][0]
    assert answer.status == 200 and answer.json["object"] == "text_completion"
    prompt = len(TOKENIZER.encode("안녕하세요", language="ko"))
    new = answer.json["usage"]["completion_tokens"]
    usage = {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
    assert answer.json["usage"] == usage and answer.json["model"] == server.model
    assert (new == 12) == (choice["finish_reason"] == "length")
    stream = complete(server, {**asked, "stream": True, "stream_options": {"include_usage": True}})
    assert stream.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(stream.body)
    *chunks, last = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]" and last["choices"] == [] and last["usage"] == usage
    assert all(chunk["usage"] is None and chunk["model"] == server.model for chunk in chunks)
    pieces = [chunk["choices"][0] for chunk in chunks]
    assert "".join(piece["text"] for piece in pieces) == choice["text"]
    assert [piece["finish_reason"] for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1]["finish_reason"] == choice["finish_reason"]


@pytest.mark.parametrize(
    "more",
    [
        {"stop": None, "suffix": None, "logit_bias": None, "logprobs": None, "top_k": None, "stream": None},
        {
            "n": 1,
            "best_of": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0.0,
            "user": "u",
            "model": "gpt-9",
        },
        {"echo": False, "logit_bias": {}, "suffix": "", "min_p": 0, "repetition_penalty": 1.0, "stop": []},
        {"prompt": ["이 영화는"]},
        {"stream_options": {"include_usage": True}},
    ],
)
def test_fields_that_ask_for_nothing_change_nothing(server, more):
    answer = complete(server, {**KOREAN, **more})
    assert answer.status == 200, answer.body
    assert answer.json["choices"] == complete(server, KOREAN).json["choices"]


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b"{", "not JSON", None),
        (b"", "not JSON", None),
        (b"\xff\xfe", "not JSON", None),
        (b"[" * 100_000, "not JSON", None),
        ([1], "must be a JSON object", None),
        ({"promt": "a"}, "did you mean 'prompt'", "promt"),
        ({"p" * 100_000: 1}, "unknown setting", None),
        ({"prompt": 5}, "'prompt' must be a string", "prompt"),
        ({"prompt": []}, "list of one string", "prompt"),
        ({"prompt": ["a", "b"]}, "not 2 prompts", "prompt"),
        ({"prompt": [1, 2]}, "not token ids", "prompt"),
        ({"prompt": ["a", 1]}, "list of one string", "prompt"),
        ({"max_tokens": True}, "'max_tokens' must be an integer", "max_tokens"),
        ({"max_tokens": 1.5}, "'max_tokens' must be an integer", "max_tokens"),
        ({"max_tokens": -1}, "'max_tokens' must be between", "max_tokens"),
        ({"max_tokens": 10**9}, "'max_tokens' must be between", "max_tokens"),
        ({"max_tokens": 10**4000}, "'max_tokens' must be between", "max_tokens"),
        ({"temperature": -2}, "temperature must be between", None),
        (b'{"temperature": NaN}', "temperature must be between", None),
        (b'{"top_p": 1e999}', "top-p must be above 0", None),
        ({"top_p": 0}, "top-p must be above 0", None),
        ({"min_p": 1.5}, "min-p must be above 0 and at most 1, not 1.5", None),
        ({"min_p": "a"}, "'min_p' must be a number", "min_p"),
        ({"repetition_penalty": 0.5}, "repetition penalty must be between 1 (none) and 100, not 0.5", None),
        ({"seed": -1}, "seed must be between", None),
        ({"language": "xx"}, "unknown language", None),
        ({"prompt": "a\udcff"}, "lone surrogate", None),
        ({"prompt": "a\udcff", "stream": True}, "lone surrogate", None),
        ({"n": 2}, "'n' is not supported: leave it out or send null or 1, not 2", "n"),
        ({"n": True}, "'n' is not supported", "n"),
        ({"best_of": 3}, "'best_of' is not supported", "best_of"),
        ({"echo": True}, "'echo' is not supported", "echo"),
        ({"logprobs": 0}, "'logprobs' is not supported", "logprobs"),
        ({"presence_penalty": 0.5}, "'presence_penalty' is not supported", "presence_penalty"),
        ({"logit_bias": {"5": -100}}, "'logit_bias' is not supported", "logit_bias"),
        ({"suffix": "end"}, "'suffix' is not supported", "suffix"),
        ({"user": 5}, "'user' must be a string", "user"),
        ({"stream": "yes"}, "'stream' must be true or false", "stream"),
        ({"stream_options": {"include_usage": 1}}, "'stream_options' takes", "stream_options"),
        ({"stream_options": {"other": True}}, "'stream_options' takes", "stream_options"),
        ({"stream_options": []}, "'stream_options' must be an object", "stream_options"),
        ({"stop": ["a", ""]}, "'stop' must be strings of 1 to", "stop"),
        ({"stop": [1]}, "'stop' must be strings of 1 to", "stop"),
        ({"stop": {"a": 1}}, "'stop' must be a string or a list", "stop"),
        ({"stop": ["a"] * 10_000}, "'stop' may hold at most 16 strings, not 10000", "stop"),
        ({"stop": "a" * 100_000}, "'stop' must be strings of 1 to 256", "stop"),
    ],
)
def test_what_the_client_got_wrong_is_a_400_that_says_so(server, body, message, param):
    answer = complete(server, body)
    assert answer.status == 400 and message in answer.error["message"], answer.body
    assert param is None or answer.error["param"] == param


def text_of(server, **more) -> tuple[str, str, int]:
    """The text, why it ended, and its number of tokens."""
    answer = complete(server, {"prompt": "the", "language": "en", "max_tokens": 24, "seed": 3, **more}).json
    choice = answer["choices"][0]
    return choice["text"], choice["finish_reason"], answer["usage"]["completion_tokens"]


def test_stop_strings_end_the_text_before_them(server):
    whole, _, tokens = text_of(server)
    for start in range(5, len(whole) - 12, 19):
        stop = whole[start : start + 5]
        expected = whole[: whole.index(stop)]
        text, reason, used = text_of(server, stop=[stop, "never written"])
        assert (text, reason) == (expected, "stop") and used < tokens
        assert text_of(server, stop=stop)[0] == expected
        *chunks, _ = events(complete(server, {"prompt": "the", "language": "en", "max_tokens": 24, "seed": 3,
                                              "stop": stop, "stream": True}).body)  # fmt: skip
        pieces = [json.loads(chunk)["choices"][0] for chunk in chunks]
        assert "".join(piece["text"] for piece in pieces) == expected
        assert pieces[-1]["finish_reason"] == "stop"
    # What only begins like a stop string is not lost.
    assert text_of(server, stop=whole[-3:] + "\x00") == (whole, *text_of(server)[1:])


def test_a_prompt_that_is_too_long_is_refused_with_its_number_of_tokens(server):
    for words in (CONTEXT, 40_000):
        prompt = "아 " * words
        tokens = len(TOKENIZER.encode(prompt, language="ko"))
        answer = complete(server, {"prompt": prompt, "language": "ko", "max_tokens": 7})
        assert answer.status == 400 and answer.error["code"] == "context_length_exceeded"
        assert answer.error["param"] == "prompt"
        assert (
            f"{CONTEXT} tokens" in answer.error["message"]
            and f"{tokens} in the prompt" in answer.error["message"]
        )
    streamed = complete(server, {"prompt": prompt, "stream": True})
    assert streamed.status == 400 and streamed.error["code"] == "context_length_exceeded"


def test_a_prompt_that_just_fits_is_answered(server):
    prompt = "아 " * 500
    tokens = len(TOKENIZER.encode(prompt, language="ko"))
    asked = {"prompt": prompt, "language": "ko", "temperature": 0}
    fits = complete(server, {**asked, "max_tokens": CONTEXT - tokens - 1100 if tokens < 90 else 3})
    assert fits.status == 200 and fits.json["usage"]["prompt_tokens"] == tokens
    too_many = complete(server, {**asked, "max_tokens": CONTEXT - tokens + 1})
    assert too_many.status == 400 and too_many.error["code"] == "context_length_exceeded"


def test_requests_at_the_same_time_get_the_texts_they_get_alone(server):
    asked = [{**SAMPLED, "seed": seed, "max_tokens": 30} for seed in range(4)]
    alone = [complete(server, one).json["choices"] for one in asked]
    with ThreadPoolExecutor(4) as pool:
        together = [answer.json["choices"] for answer in pool.map(lambda one: complete(server, one), asked)]
    assert together == alone


def test_the_openai_client(server):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == [server.model]
    asked = {"model": server.model, "prompt": "이 영화는", "max_tokens": 6, "seed": 2, "temperature": 0.7}
    answer = client.completions.create(**asked, n=1, user="me", stop=["never written"])
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    stream = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in stream[:-1]) == answer.choices[0].text
    assert stream[-1].usage == answer.usage
    with pytest.raises(openai.BadRequestError, match="'n' is not supported") as found:
        client.completions.create(**asked, n=3)
    assert found.value.param == "n" and found.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match="there is nothing at"):
        client.chat.completions.create(model=server.model, messages=[{"role": "user", "content": "a"}])
