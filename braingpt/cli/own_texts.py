"""Texts of the user's own files, for the commands that only read them, with what could not be read
counted.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from braingpt.cli.cleaning import print_changes
from braingpt.cli.console import console, print_line

if TYPE_CHECKING:
    from braingpt.data.sources.read_options import ReadOptions


class OwnTexts:
    """(path given, text under it) of all readable texts.

    Attributes:
        read: Texts read so far.
        skipped: What could not become a text.
        changes: What cleaning changed in the texts.
    """

    def __init__(
        self, paths: list[Path], column: str | None, options: "ReadOptions", json_output: bool
    ) -> None:
        self._paths, self._column, self._options = paths, column, options
        from braingpt.tokenizer.cleaning import NO_CHANGES

        self._terminal = console(stderr=json_output)
        self.changes = NO_CHANGES
        self.read = self.skipped = 0
        self._reasons: Counter[str] = Counter()
        self._samples: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Raises UserError where there is no text."""
        from braingpt.data.sources import local_files
        from braingpt.data.sources.document_stream import StreamEvents
        from braingpt.errors import UserError
        from braingpt.tokenizer.cleaning import clean_counted

        if line := local_files.describe_unread(self._paths):
            self._note(line)
        events = StreamEvents(self._note, self._count)
        for path in self._paths:
            files = local_files.find_files([path], self._options)
            for document in local_files.own_files(files, self._column, events, options=self._options):
                self.read += 1
                text, changes = clean_counted(document.text)
                # Most texts are clean already.
                self.changes += changes
                yield str(path), text
        if not self.read:
            paths = ", ".join(map(str, self._paths))
            raise UserError(f"no text in {paths}" + (f"; {self._losses()}" if self.skipped else ""))
        print_changes(self.changes, "texts were", console(stderr=True))

    def print_skipped(self) -> None:
        """Say how much was skipped, the largest cause and one example."""
        if self.skipped:
            print_line(console(), self._losses())

    def _note(self, line: str) -> None:
        print_line(self._terminal, f"note: {line}")

    def _count(self, source: str, rule: str, sample: str) -> None:
        self.skipped += 1
        self._reasons[rule] += 1
        self._samples.setdefault(rule, sample)

    def _losses(self) -> str:
        [(rule, count)] = self._reasons.most_common(1)
        rows = self.read + self.skipped
        most = "" if count == self.skipped else f"{count:,} of them as {rule}, "
        return f"skipped {self.skipped:,} of {rows:,}, {most}the first: {rule}: {self._samples[rule]}"
