"""The routes of the server: completions, the model's name, health."""

import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

from braingpt.errors import Failure, UserError
from braingpt.inference.text_stream import TextStream, generate_text
from braingpt.serving.connection import SharedDecoder, has_left
from braingpt.serving.handler import JsonHandler, error_body
from braingpt.serving.schemas import CompletionRequest, RequestError, parse_request
from braingpt.tokenizer.cleaning import Changes, check_valid, clean_counted

# Tokens of an answer where the request names no number.
DEFAULT_TOKENS = 64
METHODS = {
    "/health": "GET, HEAD, OPTIONS",
    "/v1/models": "GET, HEAD, OPTIONS",
    "/v1/completions": "POST, OPTIONS",
}


class Handler(JsonHandler):
    """One request for the model."""

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_OPTIONS = do_PUT = do_PATCH = do_DELETE = do_GET

    def _route(self) -> None:
        """Check who asks, and answer."""
        # Without a body the request is complete.
        self._complete = "Content-Length" not in self.headers and "Transfer-Encoding" not in self.headers
        try:
            self._check_access()
            path = self.path.partition("?")[0]
            if path.startswith("/v1/models/"):
                self._one_model(path.removeprefix("/v1/models/"))
            elif path not in METHODS:
                known = "POST /v1/completions, GET /v1/models and GET /health"
                raise RequestError(f"there is nothing at {path[:80]}; use {known}", 404)
            elif self.command not in METHODS[path].split(", "):
                message = f"{path} takes {METHODS[path]}, not {self.command}"
                raise RequestError(message, 405, headers={"Allow": METHODS[path]})
            elif self.command == "OPTIONS":
                self._preflight(METHODS[path])
            elif path == "/health":
                self._json(200, {"status": "ok", "model": self.server.name})
            elif path == "/v1/models":
                self._json(200, {"object": "list", "data": [self._model()]})
            else:
                self._completion()
        except RequestError as error:
            self._error(error)
        except OSError:
            # The client went away or stopped reading.
            raise
        except Failure as error:
            self._error(RequestError(str(error), 500))
        except Exception as error:
            self._error(RequestError(f"{type(error).__name__}: {error}", 500))
            raise

    def _preflight(self, methods: str) -> None:
        """Tell a browser what an allowed page may send."""
        wanted = self.headers.get("Access-Control-Request-Headers", "")
        self.send_response(204)
        self.send_header("Allow", methods)
        self.send_header("Access-Control-Allow-Methods", methods)
        if re.fullmatch(r"[\w\-, ]+", wanted, re.ASCII):
            self.send_header("Access-Control-Allow-Headers", wanted)
        self.end_headers()

    def _model(self) -> dict[str, Any]:
        name, created = self.server.name, self.server.started
        return {"id": name, "object": "model", "created": created, "owned_by": "braingpt"}

    def _one_model(self, name: str) -> None:
        if name != self.server.name:
            known = f"there is no model '{name[:80]}', only '{self.server.name}'"
            raise RequestError(known, 404, param="model", code="model_not_found")
        self._json(200, self._model())

    def _completion(self) -> None:
        request = parse_request(self._body())
        if not self.server.slots.acquire(blocking=False):
            message = f"the server answers {self.server.limits.requests} requests already; try again"
            wait = {"Retry-After": str(self.server.limits.retry_seconds)}
            raise RequestError(message, 503, code="overloaded", headers=wait)
        try:
            self._complete_text(request)
        finally:
            self.server.slots.release()

    def _complete_text(self, request: CompletionRequest) -> None:
        prompt, changes = _cleaned(request.prompt or "")
        text_stream = self._generate(request, prompt)
        head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.server.name,
            "cleaned": changes.as_dict(),
        }
        if request.stream:
            self._stream(head, text_stream, request.include_usage)
            return
        text = "".join(text_stream)
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": text_stream.finish}
        self._json(200, {**head, "choices": [choice], "usage": _usage(text_stream)})

    def _generate(self, request: CompletionRequest, prompt: str) -> TextStream:
        """The text to be generated, of a cleaned prompt that fits; nothing is computed yet."""
        limit = self.server.limits.context

        def generate(max_tokens: int) -> TextStream:
            return generate_text(
                self.server.model,
                self.server.tokenizer,
                prompt,
                language=request.language,
                max_new_tokens=max_tokens,
                temperature=request.temperature,
                top_k=request.top_k,
                top_p=request.top_p,
                min_p=request.min_p,
                repetition_penalty=request.repetition_penalty,
                seed=request.seed,
                stop=request.stop,
                decoder=SharedDecoder(
                    self.server.model, self.server.thread, lambda: has_left(self.connection)
                ),
            )

        try:
            text_stream = generate(DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens)
        except UserError as error:
            raise RequestError(str(error)) from None
        read, new = text_stream.prompt_tokens, text_stream.limit
        if read + (request.max_tokens or 0) > limit:
            raise RequestError(
                f"this server's maximum context length is {limit} tokens, and the request has {read + new} "
                f"({read} in the prompt, {new} for the completion); shorten one, or raise --max-context",
                param="prompt",
                code="context_length_exceeded",
            )
        # Without a number there is room for fewer tokens after a long prompt.
        return text_stream if read + new <= limit else generate(limit - read)

    def _stream(self, head: dict[str, Any], text_stream: TextStream, include_usage: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        # Of all events but the last, as OpenAI's API has it.
        no_usage = {"usage": None} if include_usage else {}
        try:
            for piece, finish in _with_finish(text_stream):
                choice = {"index": 0, "text": piece, "logprobs": None, "finish_reason": finish}
                self._event({**head, "choices": [choice], **no_usage})
            if include_usage:
                self._event({**head, "choices": [], "usage": _usage(text_stream)})
        except OSError:
            raise
        except Exception as error:
            # The status line is sent already: the error can only be an event.
            self._event(error_body(RequestError(f"{type(error).__name__}: {error}", 500)))
        self._write(b"data: [DONE]\n\n")


def _cleaned(prompt: str) -> tuple[str, Changes]:
    """The prompt as training texts are, and what was changed. Raises RequestError."""
    try:
        check_valid(prompt)
    except UserError as error:
        raise RequestError(str(error), param="prompt") from None
    return clean_counted(prompt)


def _with_finish(text_stream: TextStream) -> Iterator[tuple[str, str | None]]:
    """The pieces of a text, and an empty one with the reason why the text ended."""
    for piece in text_stream:
        yield piece, None
    yield "", text_stream.finish


def _usage(text_stream: TextStream) -> dict[str, int]:
    prompt, new = text_stream.prompt_tokens, len(text_stream.tokens)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
