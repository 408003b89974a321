"""How many documents and tokens there are of each source in each language, and when there are enough:
`--max-samples` and `--max-tokens`.
"""

from collections import Counter
from typing import Any


class Limits:
    """Counts what is kept against `samples` documents and `tokens` tokens of each source and language; None:
    as many as there are.
    """

    def __init__(self, samples: int | None, tokens: int | None) -> None:
        self._most_samples, self._most_tokens = samples, tokens
        self._kept: Counter[tuple[str, str]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        # and the rule that names the cap
        self._full: dict[tuple[str, str], str] = {}

    def rule(self, source: str, language: str, tokens: int) -> str | None:
        """What drops a document of so many tokens.

        From the first one on that is beyond the cap, there is no room for others either.
        """
        key = source, language
        if (
            key not in self._full
            and self._most_tokens is not None
            and self._tokens[key] + tokens > self._most_tokens
        ):
            self._full[key] = "beyond --max-tokens"
        return self._full.get(key)

    def add(self, source: str, language: str, tokens: int) -> None:
        """A document is kept."""
        key = source, language
        self._kept[key] += 1
        self._tokens[key] += tokens
        if self._kept[key] == self._most_samples:
            self._full[key] = "beyond --max-samples"

    def full(self, source: str, language: str) -> bool:
        """Whether no document can be wanted any more."""
        return (source, language) in self._full

    def tokens(self) -> int:
        """Of all that is kept."""
        return self._tokens.total()

    def done(self, pairs: int) -> list[float]:
        """Of each cap the share that is met, where so many pairs of source and language are read."""
        caps = ((self._most_samples, self._kept), (self._most_tokens, self._tokens))
        return [min(1.0, counter.total() / (cap * pairs)) for cap, counter in caps if cap and pairs]

    def state(self) -> dict[str, Any]:
        """The counts as plain data."""
        counted = {"kept": self._kept, "tokens": self._tokens, "full": self._full}
        return {name: [[*key, value] for key, value in values.items()] for name, values in counted.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        kept, tokens, full = (
            {(source, language): value for source, language, value in state[name]}
            for name in ("kept", "tokens", "full")
        )
        self._kept, self._tokens, self._full = Counter(kept), Counter(tokens), full
