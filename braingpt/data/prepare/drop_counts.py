"""How many documents of a source were read, kept, and dropped by each rule, with the beginnings of a few
dropped ones.
"""

from collections import Counter
from typing import Any

from braingpt.data.sources.row import BROKEN_ROW, LINE_TOO_LONG, NOT_UTF8
from braingpt.tokenizer.pieces import escaped

# Samples kept for each rule.
SAMPLES = 3
# Rules that count what is wrong with a file and not with a text.
UNREAD = (BROKEN_ROW, NOT_UTF8, LINE_TOO_LONG, "broken file", "empty")
# Share of documents left out that is worth a line at the end.
TOLD_SHARE = 0.03
# Characters of a sample.
SAMPLE_LENGTH = 80


def excerpt(text: str) -> str:
    """The beginning of `text` on one line, fit for JSON and for a terminal: controls and marks of direction
    are escaped.
    """
    return escaped(" ".join(text[: 4 * SAMPLE_LENGTH].split())[:SAMPLE_LENGTH])


class DropCounts:
    """Counts of one source. `DropCounts(counts.report())` continues where the counts were."""

    def __init__(self, report: dict[str, Any] | None = None) -> None:
        report = report or {"read": 0, "kept": 0, "dropped": {}}
        self.read: int = report["read"]
        self.kept: int = report["kept"]
        self._documents = {rule: facts["documents"] for rule, facts in report["dropped"].items()}
        self._samples = {rule: list(facts["samples"]) for rule, facts in report["dropped"].items()}

    def keep(self) -> None:
        """Count a document that is written."""
        self.read += 1
        self.kept += 1

    def drop(self, rule: str, sample: str) -> None:
        """Count a document that is not written. `sample`: its beginning, from `excerpt`."""
        self.read += 1
        self._documents[rule] = self._documents.get(rule, 0) + 1
        samples = self._samples.setdefault(rule, [])
        if len(samples) < SAMPLES:
            samples.append(sample)

    def drop_kept(self, rule: str, sample: str) -> None:
        """Count as dropped one that was counted as kept."""
        self.read -= 1
        self.kept -= 1
        self.drop(rule, sample)

    def add(self, report: dict[str, Any]) -> None:
        """Count what another report counts."""
        self.read += report["read"]
        self.kept += report["kept"]
        for rule, facts in report["dropped"].items():
            self._documents[rule] = self._documents.get(rule, 0) + facts["documents"]
            samples = self._samples.setdefault(rule, [])
            samples += facts["samples"][: SAMPLES - len(samples)]

    def wants_sample(self, rule: str) -> bool:
        """Whether another sample of this rule would be kept."""
        return len(self._samples.get(rule, ())) < SAMPLES

    def report(self) -> dict[str, Any]:
        """`read`, `kept`, and `dropped` by rule, the most frequent first."""
        rules = sorted(self._documents.items(), key=lambda item: (-item[1], item[0]))
        dropped = {
            rule: {"documents": documents, "samples": self._samples[rule]} for rule, documents in rules
        }
        return {"read": self.read, "kept": self.kept, "dropped": dropped}


def describe_losses(name: str, reports: list[dict[str, Any]]) -> list[str]:
    """Lines on what of `name` gave no text and on what the rules left out, each where it is more than
    TOLD_SHARE of all, with the largest cause and an example.
    """
    read = sum(report["read"] for report in reports)
    dropped, samples = _totals(reports)
    unread = {rule: count for rule, count in dropped.items() if rule in UNREAD}
    unwanted = {rule: count for rule, count in dropped.items() if rule not in UNREAD}
    lines = []
    for counts, what in ((unread, "gave no text"), (unwanted, "was left out by the rules")):
        lost = sum(counts.values())
        if lost > TOLD_SHARE * read:
            worst = max(counts, key=lambda rule: counts[rule])
            most = "all" if counts[worst] == lost else f"{counts[worst]:,}"
            lines.append(
                f"{lost / read:.0%} of '{name}' {what} ({lost:,} of {read:,} documents), {most} as "
                f"'{worst}', such as '{samples[worst]}'"
            )
    return lines


def _totals(reports: list[dict[str, Any]]) -> tuple[Counter[str], dict[str, str]]:
    """Documents dropped by each rule, and an example of each."""
    dropped: Counter[str] = Counter()
    samples: dict[str, str] = {}
    for report in reports:
        for rule, facts in report["dropped"].items():
            dropped[rule] += facts["documents"]
            samples.setdefault(rule, next(iter(facts["samples"]), ""))
    return dropped, samples


def nothing_kept_message(name: str, reports: list[dict[str, Any]]) -> str:
    """The message for the preparation of `name` that would be empty: which rule dropped how much, and one
    example.
    """
    dropped, samples = _totals(reports)
    if not dropped:
        return f"'{name}' holds no documents; nothing was written"
    rules = ", ".join(f"{rule}: {count}" for rule, count in dropped.most_common())
    worst = dropped.most_common(1)[0][0]
    return (
        f"nothing of '{name}' is left to train on; dropped {rules} (such as '{samples[worst]}'); "
        "nothing was written"
    )
