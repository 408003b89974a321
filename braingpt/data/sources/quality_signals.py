"""Quality signals that lie beside the documents in files of their own, line for line, as RedPajama-V2 keeps
them.

A line is `{"id": "2023-06/0000/en_head.json.gz/17", "quality_signals": {name: [[start, end, value], ...]}}`
(RedPajama: an Open Dataset for Training Large Language Models, arXiv 2411.12372, appendix B). A signal with
one span is about the document; those by line are left out.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from braingpt.data.sources.byte_reader import File
from braingpt.data.sources.row import Damaged, Row
from braingpt.data.sources.row_reader import RowReader


class QualitySignals:
    """Signals of the documents of one file, asked for in rising order."""

    def __init__(
        self, documents: File, rename: tuple[str, str, str, str], note: Callable[[str], None]
    ) -> None:
        """`rename`: (a, b, c, d), the file of signals has the name of the documents' with the last a as b and
        the ending c as d.
        """
        folder, folder_of_signals, ending, ending_of_signals = rename
        path, name = (
            _swap(text, folder, folder_of_signals, ending, ending_of_signals)
            for text in (documents.path, documents.name)
        )
        self._file, self._note = File(path, name), note
        self._rows: Iterator[Row] | None = None
        self._at = 0
        self._missing = False

    def of(self, number: int) -> dict[str, float]:
        """Signals of row `number`, counted from 1; empty where there are none.

        Raises the HTTP library's errors for a file on the hub.
        """
        if self._missing:
            return {}
        try:
            if self._rows is None:
                self._rows = RowReader(self._file).rows()
            for row in self._rows:
                self._at = row.number
                if row.number >= number:
                    return _numbers(row.values, number) if row.number == number and row.values else {}
            reason = f"ends at line {self._at}"
        except FileNotFoundError:
            reason = "is not there"
        except Damaged as error:
            reason = f"cannot be read after line {self._at} ({error})"
        self._missing = True
        self._note(f"{self._file.name} {reason}: documents from there on have no quality signals")
        return {}


def _swap(text: str, folder: str, other: str, ending: str, other_ending: str) -> str:
    head, _, tail = text.rpartition(folder)
    return head + other + tail.removesuffix(ending) + other_ending


def _numbers(values: Mapping[str, Any], number: int) -> dict[str, float]:
    """The signals about the whole document, and nothing where the line belongs to another one (ids count from
    0).
    """
    place = str(values.get("id", "")).rpartition("/")[2]
    if place.isdigit() and int(place) != number - 1:
        return {}
    signals = values.get("quality_signals")
    if isinstance(signals, str):
        signals = json.loads(signals)
    numbers = {}
    for name, spans in signals.items() if isinstance(signals, dict) else ():
        if (
            isinstance(spans, list)
            and len(spans) == 1
            and len(spans[0]) == 3
            and isinstance(spans[0][2], int | float)
        ):
            numbers[name] = float(spans[0][2])
    return numbers
