"""What is done with a chunk of documents, in as many processes as wanted: clean, judge, tokenize, hash.

A pure function of the chunk, so that the result does not depend on how many processes there are; chunks come
back in their order. Each process builds its judge and tokenizer once. Processes are spawned, not forked: the
reader's libraries have threads.
"""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from braingpt.data.dedup.content_hash import content_hash
from braingpt.data.dedup.index import KEYS
from braingpt.data.dedup.minhash import band_keys
from braingpt.data.document import Document
from braingpt.data.quality import Judge, QualityConfig
from braingpt.errors import Failure

# seconds of work: processes take one or two to begin, each, and are not begun for less
WORTH = 3
# chunks under way per process, so that none waits for the reader
AHEAD = 2


class Chunk(NamedTuple):
    """Documents of one stream that follow each other.

    `broken`: (source, rule, sample) of rows among them that are none.

    `after`: the stream's position behind the last of them. `done`: share of the stream read by then, where
        known.
    """

    stream: int
    documents: list[Document]
    broken: list[tuple[str, str, str]]
    after: dict[str, Any]
    done: float | None


class Outcome(NamedTuple):
    """Of each of the N documents the rule that drops it and its language; of the K that no rule drops, in
    order: the rest.

    `keys`: uint64 (K, KEYS), see `index.py`. `ids`: their tokens, one after the other, `lengths` (K,) of
        each. `bytes`: (K,) of text.
    """

    rules: list[str | None]
    languages: list[str | None]
    keys: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray
    bytes: np.ndarray


class Worker:
    """Judges and tokenizes. `languages`: the ones wanted."""

    def __init__(self, quality: QualityConfig, languages: list[str], tokenizer: Any) -> None:
        self.judge = Judge(quality, languages, tokenizer.fingerprint, tokenizer.marked)
        self._tokenizer, self._near = tokenizer, quality.near_duplicates is not None
        self._dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32

    def __call__(self, documents: list[Document]) -> Outcome:
        """Everything about these documents that can be said without knowing the others."""
        judged = [self.judge.text(document) for document in documents]
        rules = [one.rule for one in judged]
        # with markers and the end of text
        whole: list[np.ndarray] = []
        plain: list[np.ndarray] = []
        good = [number for number, rule in enumerate(rules) if rule is None]
        for number in good:
            for tokens, found in zip(
                (whole, plain), self._encode(judged[number].segments, judged[number].language), strict=True
            ):
                tokens.append(found)
        late = self.judge.tokens_of(
            [judged[n].language for n in good], plain, [documents[n].scores for n in good]
        )
        for number, rule in zip(good, late, strict=True):
            rules[number] = rule
        texts = [one.text for one, rule in zip(judged, rules, strict=True) if rule is None]
        ids = [one for one, rule in zip(whole, late, strict=True) if rule is None]
        keys = np.zeros((len(texts), KEYS), dtype=np.uint64)
        keys[:, 0] = [content_hash(text) for text in texts]
        if self._near:
            keys[:, 1:] = band_keys(texts)
        return Outcome(
            rules,
            [one.language for one in judged],
            keys,
            np.concatenate(ids) if ids else np.empty(0, dtype=self._dtype),
            np.array([len(one) for one in ids], dtype=np.int64),
            np.array([len(text.encode()) for text in texts], dtype=np.int64),
        )

    def _encode(self, segments: list[tuple[str | None, str]], language: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens with the document's marker before it, a marker at each switch of language and the end of
        text behind; and without them.
        """
        markers, encode = self._tokenizer.markers, self._tokenizer.encode_array
        if len(segments) == 1:
            encoded = encode(segments[0][1])
            whole = np.empty(len(encoded) + 2, dtype=self._dtype)
            whole[0], whole[1:-1], whole[-1] = markers[language], encoded, self._tokenizer.eot
            return whole, whole[1:-1]
        ids, plain, current = [], [], None
        for code, piece in segments:
            code = code if code in markers else current or language
            if code != current:
                ids.append([markers[code]])
                current = code
            plain.append(encode(piece))
            ids.append(plain[-1])
        ids.append([self._tokenizer.eot])
        return np.concatenate(ids).astype(self._dtype), np.concatenate(plain).astype(self._dtype)


def outcomes(
    chunks: Iterable[Chunk],
    worker: Worker,
    settings: tuple[Any, ...],
    workers: int,
    whole: Callable[[Chunk], float | None],
) -> Iterator[tuple[Chunk, Outcome]]:
    """Each chunk with its outcome, in order.

    One worker: `worker`, here; more: processes that make their own from `settings`.

    They are begun when enough work is left to be worth it, as far as can be told; `whole`: the share of all
    work that is done behind a chunk. When reading fails, what was read before comes first. Failure when a
    process is gone, as one does that the system ends for its memory.
    """
    reading, begin = iter(chunks), time.monotonic()
    begin_of_stream, stream = begin, 0
    for chunk in reading:
        if chunk.stream != stream:
            begin_of_stream, stream = time.monotonic(), chunk.stream
        yield chunk, worker(chunk.documents)
        now = time.monotonic()
        left = max(_left(now - begin_of_stream, chunk.done), _left(now - begin, whole(chunk)))
        if workers > 1 and left > WORTH:
            yield from _together(reading, worker, settings, workers)


def _left(seconds: float, done: float | None) -> float:
    """Seconds of work to come where so many have brought the share that is done."""
    return seconds * (1 - done) / done if done else math.inf


def _together(
    reading: Iterator[Chunk], worker: Worker, settings: tuple[Any, ...], workers: int
) -> Iterator[tuple[Chunk, Outcome]]:
    """`outcomes` of what is left to read, by processes; until one of them has begun, `worker` goes on here."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, settings)
    waiting: deque[tuple[Chunk, Future[Outcome]]] = deque()
    failed: Exception | None = None
    begun = False

    def end() -> None:
        for process in set(multiprocessing.active_children()) - others:
            # one that is still beginning would find this process gone, and say so in a traceback
            process.terminate()

    try:
        with _undisturbed():
            beginning = [pool.submit(_begun) for _ in range(workers)]
        while True:
            try:
                chunk = next(reading, None) if failed is None else None
            except Exception as error:
                failed, chunk = error, None
            begun = begun or any(future.done() and future.result() for future in beginning)
            if chunk is not None and not begun:
                yield chunk, worker(chunk.documents)
                continue
            if chunk is not None:
                # it may begin a process
                with _undisturbed():
                    waiting.append((chunk, pool.submit(_work, chunk.documents)))
            if waiting and (chunk is None or len(waiting) > AHEAD * workers):
                first, future = waiting.popleft()
                yield first, future.result()
            elif chunk is None:
                break
        if not begun:
            end()
    except BrokenProcessPool:
        raise Failure(
            "a worker process has ended by itself, perhaps for want of memory; --workers takes a smaller number"
        ) from None
    except BaseException:
        end()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failed:
        raise failed


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, so that no process is left half begun.

    A terminal sends it to all processes, and it is the main one's to handle: what is blocked here stays
    blocked in a process begun meanwhile, from its first moment on. The handler is set aside as well, since
    another thread of this process may take the signal.
    """
    main, came = threading.current_thread() is threading.main_thread(), []
    former = signal.signal(signal.SIGINT, lambda *given: came.append(given)) if main else None
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if main:
            signal.signal(signal.SIGINT, former or signal.SIG_DFL)
    if came:
        signal.raise_signal(signal.SIGINT)


# of this process
_worker: Worker | None = None


def _begin(*settings: Any) -> None:
    """Of a process: when the main one is gone, however it went, so is this one."""
    global _worker
    # of the signatures; there are as many of us as are wanted
    os.environ["RAYON_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _worker = Worker(*settings)


def _begun() -> bool:
    return True


def _work(documents: list[Document]) -> Outcome:
    assert _worker is not None
    return _worker(documents)
