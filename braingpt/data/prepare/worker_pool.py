"""Chunks to outcomes, in several processes; outcomes come in the order of the chunks.

The first chunks are worked on in this process. Others begin when enough work is left, and this
process continues until the first of them has begun. Processes are spawned, not forked: the reader's libraries
have threads.
"""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from braingpt.data.document import Document
from braingpt.data.prepare.chunk_reader import Chunk
from braingpt.data.prepare.worker import Outcome, Worker, WorkerSettings
from braingpt.errors import Failure
from braingpt.utils.child import safe_path

# Seconds of work that are worth more processes: each takes one or two to begin.
MIN_SECONDS = 3
# Chunks under way per process, so that none waits for the reader.
CHUNKS_AHEAD = 2


def processors() -> int:
    """Processors that this process may use."""
    # Absent outside Linux.
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def outcomes(
    chunks: Iterable[Chunk],
    worker: Worker,
    settings: WorkerSettings,
    workers: int,
    fraction_done: Callable[[Chunk], float | None],
) -> Generator[tuple[Chunk, Outcome], None, None]:
    """Each chunk with its outcome, in order.

    Args:
        chunks: The chunks. Where reading fails, the chunks read before come first.
        worker: Works in this process.
        settings: What workers of other processes are made from.
        workers: Processes at most; 1 for this one alone.
        fraction_done: Share of all work, 0 to 1, that is done after a chunk; None where unknown.

    Raises:
        Failure: A worker process has ended, for example because memory ran out.
    """
    reading, begin = iter(chunks), time.monotonic()
    begin_of_stream, stream = begin, 0
    for chunk in reading:
        if chunk.stream != stream:
            begin_of_stream, stream = time.monotonic(), chunk.stream
        yield chunk, worker(chunk.documents)
        now = time.monotonic()
        left = max(
            _seconds_left(now - begin_of_stream, chunk.fraction_read),
            _seconds_left(now - begin, fraction_done(chunk)),
        )
        if workers > 1 and left > MIN_SECONDS:
            yield from _outcomes_of_processes(reading, worker, settings, workers)


def _seconds_left(seconds: float, done: float | None) -> float:
    """Seconds of work to come where `seconds` have brought the share `done`."""
    return seconds * (1 - done) / done if done else math.inf


def _outcomes_of_processes(
    reading: Iterator[Chunk], worker: Worker, settings: WorkerSettings, workers: int
) -> Iterator[tuple[Chunk, Outcome]]:
    """`outcomes` of what is left to read, by processes; `worker` continues until one of them has begun."""
    others = set(multiprocessing.active_children())
    # The pool's locks begin a process too, which watches over them.
    with safe_path():
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_process, settings)
    submitted: deque[tuple[Chunk, Future[Outcome]]] = deque()
    failed: Exception | None = None
    begun = False

    def end_processes() -> None:
        for process in set(multiprocessing.active_children()) - others:
            # A process that is still starting would find this one gone, and print a traceback.
            process.terminate()

    try:
        with _interrupts_blocked(), safe_path():
            beginning = [pool.submit(_has_begun) for _ in range(workers)]
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
                # `submit` may begin a process.
                with _interrupts_blocked(), safe_path():
                    submitted.append((chunk, pool.submit(_work, chunk.documents)))
            if submitted and (chunk is None or len(submitted) > CHUNKS_AHEAD * workers):
                first, future = submitted.popleft()
                yield first, future.result()
            elif chunk is None:
                break
        if not begun:
            end_processes()
    except BrokenProcessPool:
        raise Failure(
            "a worker process was ended, perhaps because memory ran out; use a smaller number of --workers"
        ) from None
    except BaseException:
        end_processes()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failed:
        raise failed


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, so that no process is left half begun.

    A terminal sends it to all processes, and it is the main one's to handle: what is blocked here stays
    blocked in a process begun meanwhile, from its first moment on. The handler is set aside as well, since
    another thread of this process may take the signal.
    """
    main, received = threading.current_thread() is threading.main_thread(), []
    former = signal.signal(signal.SIGINT, lambda *given: received.append(given)) if main else None
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if main:
            signal.signal(signal.SIGINT, former or signal.SIG_DFL)
    if received:
        signal.raise_signal(signal.SIGINT)


# The worker of this process, where it is one of the pool.
_worker: Worker | None = None


def _begin_process(*settings: Any) -> None:
    """Make this process a worker; when the main one is gone, however it went, so is this one."""
    global _worker
    # MinHash signatures would use all processors in each of the processes.
    os.environ["RAYON_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _worker = Worker(*settings)


def _has_begun() -> bool:
    return True


def _work(documents: list[Document]) -> Outcome:
    assert _worker is not None
    return _worker(documents)
