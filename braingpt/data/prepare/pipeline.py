"""One preparation from end to end: documents -> judged, tokenized -> deduplicated -> shards.

    streams --chunks--> workers --outcomes, in order--> deduplication -> token files
       ^ position                                            |
       +------------------------- journal <------------------+

A text on its way to a shard, and where each step is:

    1. `sources/open_streams.py` opens the streams of a corpus; `sources/document_stream.py` reads files
       (`row_reader.py`, `byte_reader.py`) and makes documents of their rows.
    2. `chunk_reader.py` cuts the streams into chunks of documents.
    3. `worker.py`, in the processes of `worker_pool.py`, cleans and judges a chunk (`quality/judge.py`),
       makes tokens of it, and computes the keys by which duplicates are found (`dedup/minhash.py`).
    4. `preparer.py` takes the outcomes in the order of reading and decides all that depends on the documents
       before: duplicates (`dedup/deduplicator.py`), limits (`limits.py`), the split
       (`dedup/content_hash.py`).
    5. `shards/writer.py` writes the tokens; `journal.py` notes every few seconds how far the work is.

Memory is bounded by a few chunks. The result is a pure function of the inputs and the parameters: the number
of workers and interruptions leave no trace in it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from braingpt.data.prepare.preparer import Preparer, Progress
from braingpt.data.prepare.request import Request, check_request, existing_manifest
from braingpt.data.shards.manifest import Manifest
from braingpt.data.shards.writer import FolderWriter, settle_work
from braingpt.tokenizer import Tokenizer


@dataclass
class Prepared:
    """What `prepare` returns.

    Attributes:
        manifest: The manifest of the folder.
        fresh: False when the folder already existed, prepared with the same parameters.
        seconds: Wall-clock time.
        notes: The lines given to the user on the way.
    """

    manifest: Manifest
    fresh: bool
    seconds: float
    notes: list[str]


def prepare(
    request: Request,
    tokenizer: Tokenizer,
    *,
    note: Callable[[str], None] = lambda line: None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Prepared:
    """Prepare a folder of tokens; continue where an interrupted preparation of the same folder stopped.

    Whatever is raised, `request.out` is complete or unchanged. An interruption or a failure leaves its work
    in `.NAME.partial` beside it, and the next call continues from there.

    Args:
        request: What to prepare, and where.
        tokenizer: Makes tokens of the texts; a copy of it is saved in the folder.
        note: Called with a line for the user.
        progress: Called at the beginning and after every chunk.

    Returns:
        The manifest and the notes. A folder that was prepared with the same parameters stays as it is.

    Raises:
        UserError: The request is wrong, nothing was found or kept, or the folder exists with other
            parameters.
        Failure: The hub or a file cannot be read.
        OSError: The disk is full.
    """
    start = time.monotonic()
    checked = check_request(request, tokenizer)
    settle_work(request.out)
    manifest = existing_manifest(request, checked.parameters)
    if manifest:
        return Prepared(manifest, False, 0.0, [])
    with FolderWriter(request.out, "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32") as writer:
        work = Preparer(request, checked, tokenizer, writer, note, progress)
        try:
            work.fill()
            manifest = work.finish()
        except BaseException:
            if writer.keep:
                work.note(f"finished work is kept in {writer.work}; the same command continues from there")
            raise
        finally:
            work.close()
    return Prepared(manifest, True, time.monotonic() - start, work.notes)
