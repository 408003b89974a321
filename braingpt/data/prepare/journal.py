"""How far a preparation is, in one small file that describes complete chunks: after a kill, work continues
from there.

Everything that the journal names (token files, the index's log) is on the disk before the journal, and these
files only ever grow. So cutting them back to the sizes in the journal restores the state of that moment.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from braingpt import __version__
from braingpt.data.prepare.request import difference
from braingpt.data.shards.writer import JOURNAL, fsync_folder

# Seconds of work that a kill costs, at most.
SECONDS = 5


class Journal:
    """The journal in a work folder.

    Attributes:
        state: The state written last, or None.
    """

    def __init__(self, work: Path) -> None:
        self._path = work / JOURNAL
        self._written = time.monotonic()
        self.state: dict[str, Any] | None = _read(work)

    def due(self) -> bool:
        """Whether the last state is some seconds old."""
        return time.monotonic() - self._written >= SECONDS

    def write(self, state: dict[str, Any]) -> None:
        """Replace the former state; at any moment, the file holds one of the two completely."""
        state = {"braingpt": __version__, **state}
        temporary = self._path.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
        fsync_folder(self._path.parent)
        self.state, self._written = state, time.monotonic()

    def remove(self) -> None:
        """Remove the journal, so that nothing is continued from it."""
        self._path.unlink(missing_ok=True)
        self.state = None


def _read(work: Path) -> dict[str, Any] | None:
    """The state in a work folder; None where there is none that can be read."""
    try:
        return json.loads((work / JOURNAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def why_not_resumable(state: dict[str, Any], parameters: dict[str, Any]) -> str | None:
    """Why work of the state cannot be continued, in words; None when it can.

    A rule may have changed from one version of braingpt to the next, and no folder should be of two kinds.
    """
    parameter = difference(state["parameters"], parameters)
    if parameter:
        return f"with other parameters ({parameter})"
    version = state.get("braingpt")
    if version == __version__:
        return None
    author = f"braingpt {version}" if version else "an earlier braingpt"
    return f"by {author}, whose rules may differ from those of this one, {__version__}"
