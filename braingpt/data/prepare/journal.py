"""How far a preparation is, in one small file that describes complete chunks: after a kill, work continues
from there.

Everything that the journal names (token files, the index's log) is on the disk before the journal, and these
files only ever grow. So cutting them back to the sizes in the journal restores the state of that moment. The
journal has the hashes of what counts in these files and one of itself: work continues only from files that
still are what was written, and begins again from others.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from braingpt import __version__
from braingpt.data.dedup.index import RECORD
from braingpt.data.prepare.request import difference
from braingpt.data.shards.manifest import DOCUMENT_LOG, Count, FilterReport, Sha256, TokenDtype, first_problem
from braingpt.data.shards.stream_writer import StreamState, prefix_hash
from braingpt.data.shards.writer import JOURNAL
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.hashed_json import check_hash, hashed, read_object

# Seconds of work that a kill costs, at most.
SECONDS = 5
# Source, language, and what is counted of them.
_Counted = list[tuple[str, str, Count]]


class LimitState(BaseModel):
    """What counts against the limits (`limits.py`)."""

    model_config = ConfigDict(extra="forbid")

    kept: _Counted
    tokens: _Counted
    full: list[tuple[str, str, str]]


class JournalState(BaseModel):
    """The content of a journal.

    Attributes:
        braingpt: Version that wrote it.
        parameters: What distinguishes the preparation from others.
        dtype: Type of a token in the files.
        writer: The streams.
        documents: Records of the log of documents.
        log: SHA-256 of these records.
        counts: What was read, kept and dropped, by source.
        caps: What counts against the limits.
        positions: Position of each stream of documents after its last chunk; None where nothing was read.
        current: Number of the stream of documents that is read.
        bytes: Bytes of the text that is kept.
        held: Whether the splits are settled.
    """

    model_config = ConfigDict(extra="forbid")

    braingpt: str
    parameters: dict[str, Any]
    dtype: TokenDtype
    writer: list[StreamState]
    documents: Count
    log: Sha256
    counts: dict[str, FilterReport]
    caps: LimitState
    positions: list[dict[str, Any] | None]
    current: Annotated[int, Field(ge=0)]
    bytes: Count
    held: bool

    def problem(self, work: Path, root: Path, dtype: TokenDtype, streams: int) -> str | None:
        """What the files lack of this state, in words; None where work can continue from it.

        Args:
            work: The work folder, which has the log of documents.
            root: The folder of the token files.
            dtype: Type of a token in the files.
            streams: Number of streams of documents.
        """
        if len(self.positions) != streams or self.current >= max(1, streams) or self.dtype != dtype:
            return "it is of another preparation"
        kept = sum(report.kept for report in self.counts.values())
        if not kept == self.documents == sum(stream.documents for stream in self.writer):
            return "its counts do not agree"
        log, size = work / DOCUMENT_LOG, self.documents * RECORD.itemsize
        if size and (not log.is_file() or log.stat().st_size < size):
            return f"{DOCUMENT_LOG} is shorter than it was"
        if size and prefix_hash(log, size).hexdigest() != self.log:
            return f"{DOCUMENT_LOG} does not hold what was written"
        return next(filter(None, (stream.problem(root, dtype) for stream in self.writer)), None)


class Journal:
    """The journal in a work folder.

    Attributes:
        state: The state that was found; None where there is none, or it cannot be used.
        damage: Why there is no state although there is a journal; None otherwise.
    """

    def __init__(self, work: Path) -> None:
        self._path = work / JOURNAL
        self._written = time.monotonic()
        self._found: dict[str, Any] = {}
        self.state: JournalState | None = None
        self.damage: str | None = None
        if not self._path.exists():
            return
        try:
            self._found = read_object(self._path)
            self.state = JournalState.model_validate(check_hash(self._found))
        except ValidationError as error:
            self.damage = first_problem(error)
        except (OSError, ValueError) as error:
            self.damage = str(error)

    def due(self) -> bool:
        """Whether the last state is some seconds old."""
        return time.monotonic() - self._written >= SECONDS

    def write(self, state: dict[str, Any]) -> None:
        """Replace the former state; at any moment, the file holds one of the two completely."""
        write_atomically(self._path, json.dumps(hashed({"braingpt": __version__, **state})))
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the journal, so that nothing is continued from it."""
        self._path.unlink(missing_ok=True)
        self.state = None

    def why_not_ours(self, parameters: dict[str, Any]) -> str | None:
        """Whose work this is where it is not that of these parameters and this version, in words; None where
        it is, and where the journal cannot be read.

        A rule may have changed from one version of braingpt to the next, and no folder should be of two
        kinds.
        """
        before = self._found.get("parameters")
        if not isinstance(before, dict):
            return None
        parameter = difference(before, parameters)
        if parameter:
            return f"with other parameters ({parameter})"
        version = self._found.get("braingpt")
        if version == __version__:
            return None
        author = f"braingpt {version}" if version else "an earlier braingpt"
        return f"by {author}, whose rules may differ from those of this one, {__version__}"
