"""The limits on documents and tokens of each source and language (`--max-samples`, `--max-tokens`), and what
counts against them.
"""

from collections import Counter
from typing import Any


class Limits:
    """Counts what is kept of each source and language, and drops what is beyond the limits."""

    def __init__(self, max_samples: int | None, max_tokens: int | None) -> None:
        """`max_samples` documents and `max_tokens` tokens of each source and language; None for no limit."""
        self._max_samples, self._max_tokens = max_samples, max_tokens
        self._kept: Counter[tuple[str, str]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        # Source and language with enough -> the rule that drops what is beyond.
        self._full: dict[tuple[str, str], str] = {}

    def rule(self, source: str, language: str, tokens: int) -> str | None:
        """The rule that drops a document of so many tokens; None where it is within the limits.

        After the first document beyond the limit, all others are beyond it too, however short.
        """
        key = source, language
        if (
            key not in self._full
            and self._max_tokens is not None
            and self._tokens[key] + tokens > self._max_tokens
        ):
            self._full[key] = "beyond --max-tokens"
        return self._full.get(key)

    def add(self, source: str, language: str, tokens: int) -> None:
        """Count a document that is kept."""
        key = source, language
        self._kept[key] += 1
        self._tokens[key] += tokens
        if self._kept[key] == self._max_samples:
            self._full[key] = "beyond --max-samples"

    def is_full(self, source: str, language: str) -> bool:
        """Whether no further document of the source and language is wanted."""
        return (source, language) in self._full

    def tokens(self) -> int:
        """Tokens of all documents that are kept."""
        return self._tokens.total()

    def fractions(self, pairs: int) -> list[float]:
        """For each limit the share that is used up, when `pairs` of source and language are read."""
        limits = ((self._max_samples, self._kept), (self._max_tokens, self._tokens))
        return [min(1.0, counter.total() / (limit * pairs)) for limit, counter in limits if limit and pairs]

    def state(self) -> dict[str, Any]:
        """The counts as plain data."""
        counts = {"kept": self._kept, "tokens": self._tokens, "full": self._full}
        return {name: [[*key, value] for key, value in values.items()] for name, values in counts.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        kept, tokens, full = (
            {(source, language): value for source, language, value in state[name]}
            for name in ("kept", "tokens", "full")
        )
        self._kept, self._tokens, self._full = Counter(kept), Counter(tokens), full
