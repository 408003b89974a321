"""The settings of a request for a completion, checked, and the errors of a request.

The fields are those of OpenAI's completions, vLLM's `top_k`, `min_p` and `repetition_penalty`, and our own
`language`. A field that asks for something this server does not do is refused, with one exception:
values that ask for nothing, which many clients always send, such as `"n": 1`.
"""

import json
from dataclasses import dataclass
from typing import Any

from braingpt.errors import UserError, did_you_mean

# Tokens of an answer.
MAX_TOKENS = 4096
# Stop strings of a request, and characters of each.
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
# Characters of a client's own words that an error repeats.
QUOTED = 80

NUMBER = (int, float)
SETTINGS: dict[str, type | tuple[type, ...]] = {
    "prompt": (str, list),
    "max_tokens": int,
    "temperature": NUMBER,
    "top_k": int,
    "top_p": NUMBER,
    "min_p": NUMBER,
    "repetition_penalty": NUMBER,
    "seed": int,
    "language": str,
    "stream": bool,
    "stream_options": dict,
    "stop": (str, list),
    # Accepted for clients that always send it; there is only one model.
    "model": str,
    # Names the client's own user.
    "user": str,
}
# Values that ask for nothing; others are refused.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "echo": (False,),
    "logit_bias": ({},),
    "logprobs": (),
    "suffix": ("",),
}
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
_TYPE_NAMES = {str: "a string", int: "an integer", bool: "true or false", dict: "an object"}


class RequestError(UserError):
    """What a client got wrong, with the status that says so.

    Args:
        message: One line for the client.
        status: The HTTP status.
        param: The field that is wrong.
        code: OpenAI's word for the error.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers or {}


@dataclass(frozen=True)
class CompletionRequest:
    """The settings of one completion."""

    prompt: str | None = None
    # None: the default, or less where the context has less room.
    max_tokens: int | None = None
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None
    language: str | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    # Whether a stream ends with an event of the tokens used.
    include_usage: bool = False


def parse_request(body: bytes) -> CompletionRequest:
    """Check the body of a request.

    Args:
        body: JSON.

    Returns:
        The settings.

    Raises:
        RequestError: The body is not JSON, or a field is wrong.
    """
    try:
        request = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # Not UTF-8, not JSON, too many digits, or nested too deeply.
        raise RequestError(f"the body is not JSON: {_short(str(error))}") from None
    if not isinstance(request, dict):
        raise RequestError("the body must be a JSON object")
    # null is the same as no field.
    given = {key: value for key, value in request.items() if value is not None}
    for key, value in request.items():
        _check_field(key, value)
    if not 0 <= given.get("max_tokens", 0) <= MAX_TOKENS:
        raise RequestError(
            f"'max_tokens' must be between 0 and {MAX_TOKENS}, not {_quoted(given['max_tokens'])}",
            param="max_tokens",
        )
    # Clients send 0 where they want none.
    if given.get("min_p") == 0:
        del given["min_p"]
    settings = {key: given[key] for key in ("max_tokens", *SAMPLING) if key in given}
    return CompletionRequest(
        prompt=_prompt(given.get("prompt")),
        language=given.get("language"),
        stop=_stops(given.get("stop", [])),
        stream=given.get("stream", False),
        include_usage=_include_usage(given.get("stream_options", {})),
        **settings,
    )


def _check_field(key: str, value: Any) -> None:
    """Check the name and the type of one field."""
    if key in NEUTRAL:
        # True equals 1 in Python.
        neutral = any(value == one and type(value) in (type(one), float) for one in NEUTRAL[key])
        if value is not None and not neutral:
            wanted = " or ".join(["null", *map(json.dumps, NEUTRAL[key])])
            raise RequestError(
                f"'{key}' is not supported: leave it out or send {wanted}, not {_quoted(value)}", param=key
            )
        return
    if key not in SETTINGS:
        name = _short(key)
        raise RequestError(f"unknown setting '{name}'{did_you_mean(name, SETTINGS)}", param=name)
    # isinstance takes True for an int.
    wrong_bool = isinstance(value, bool) and SETTINGS[key] is not bool
    if value is not None and (wrong_bool or not isinstance(value, SETTINGS[key])):
        raise RequestError(f"'{key}' must be {_type_name(key)}, not {_quoted(value)}", param=key)


def _prompt(value: Any) -> str | None:
    """The prompt: a string, or a list of one string as clients of batches send it."""
    if not isinstance(value, list):
        return value
    if len(value) != 1 or not isinstance(value[0], str):
        what = f"{len(value)} prompts" if all(isinstance(one, str) for one in value) else "token ids"
        raise RequestError(f"'prompt' must be a string or a list of one string, not {what}", param="prompt")
    return value[0]


def _stops(value: str | list[Any]) -> tuple[str, ...]:
    """The strings that end the text."""
    stops = [value] if isinstance(value, str) else value
    if len(stops) > MAX_STOPS:
        raise RequestError(f"'stop' may hold at most {MAX_STOPS} strings, not {len(stops)}", param="stop")
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_LENGTH:
            raise RequestError(
                f"'stop' must be strings of 1 to {MAX_STOP_LENGTH} characters, not {_quoted(stop)}",
                param="stop",
            )
    return tuple(stops)


def _include_usage(options: dict[str, Any]) -> bool:
    """Whether `stream_options` asks for the tokens used; its padding against eavesdroppers is not needed."""
    for key, value in options.items():
        if key not in ("include_usage", "include_obfuscation") or not isinstance(value, bool | None):
            raise RequestError(
                f"'stream_options' takes \"include_usage\": true or false, not {_quoted({key: value})}",
                param="stream_options",
            )
    return bool(options.get("include_usage"))


def _type_name(key: str) -> str:
    """The JSON type of a setting in words."""
    kind = SETTINGS[key]
    if kind == (str, list):
        return "a string or a list of strings"
    return "a number" if isinstance(kind, tuple) else _TYPE_NAMES[kind]


def _quoted(value: Any) -> str:
    """A client's value for an error, shortened."""
    return _short(json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}..."
