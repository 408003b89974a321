"""One HTML page about a prepared folder: what is in it, how long its documents are, what was dropped and why,
how some of them look.

The page is complete in itself: style and plots are inline, and its content policy forbids loading anything.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from braingpt.data.shards.documents import (
    LENGTH_BINS,
    PER_OCTAVE,
    DocumentReader,
    StoredDocument,
    StreamStatistics,
)
from braingpt.data.shards.manifest import Manifest
from braingpt.html.bars import bars, histogram
from braingpt.html.page import page as whole_page
from braingpt.html.page import pairs, paragraphs, table, text
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.pieces import escaped, pieces
from braingpt.utils.formatting import byte_size
from braingpt.utils.terminal_text import visible

# Documents of each language that are shown, and the tokens of each.
SHOWN_DOCUMENTS, SHOWN_TOKENS = 3, 160
# Colours of neighbouring tokens, by day and by night, and of special tokens.
STYLE = """
:root { --t0: #cfe6ff; --t1: #d5f2d5; --t2: #ffdcdc; --t3: #fdf3b4 }
@media (prefers-color-scheme: dark) { :root { --t0: #1d3a5c; --t1: #1f4429; --t2: #592a30; --t3: #4d431a } }
.t0 { background: var(--t0) } .t1 { background: var(--t1) }
.t2 { background: var(--t2) } .t3 { background: var(--t3) }
.tokens .special { background: var(--ink); color: var(--paper) }
"""
MEANINGS = {
    "tokens / character": "what a character of the language costs; a model reads more text in one window, "
    "the fewer",
    "bytes / token": "UTF-8 bytes of text that a token covers",
    "byte fallback": "tokens that are only a part of a character, of all tokens",
}


def figures(stored: DocumentReader, counted: Sequence[StreamStatistics]) -> dict[str, Any]:
    """The page's numbers as plain values: totals, and figures by language and by stream.

    Characters and bytes are of the text.
    """
    languages = list(dict.fromkeys(one.stream.language for one in counted))
    return {
        "folder": str(stored.folder),
        "name": stored.manifest.name,
        "vocab_size": stored.manifest.tokenizer.vocab_size,
        **_sums(counted),
        "by_language": {
            language: _sums([one for one in counted if one.stream.language == language])
            for language in languages
        },
        "streams": [
            {
                "split": one.stream.split,
                "language": one.stream.language,
                "source": one.stream.source,
                **_sums([one]),
            }
            for one in counted
        ],
        "filters": stored.manifest.filters,
    }


def _sums(counted: Sequence[StreamStatistics]) -> dict[str, Any]:
    tokens, characters, size, documents = (
        sum(getattr(one, key) for one in counted) for key in ("tokens", "characters", "bytes", "documents")
    )
    lengths, ended = _lengths_of(counted), [one for one in counted if one.documents]
    shortest = min((one.shortest for one in ended), default=0)
    longest = max((one.longest for one in ended), default=0)
    return {
        "documents": documents,
        "tokens": tokens,
        "characters": characters,
        "bytes": size,
        "tokens_per_character": tokens / characters if characters else None,
        "bytes_per_token": size / tokens if tokens else None,
        "byte_fallback": sum(one.broken for one in counted) / tokens if tokens else None,
        "document_tokens": {
            "shortest": shortest if ended else None,
            "median": _quantile(lengths, 0.5, shortest, longest),
            "90 %": _quantile(lengths, 0.9, shortest, longest),
            "longest": longest if ended else None,
        },
    }


def _lengths_of(counted: Sequence[StreamStatistics]) -> np.ndarray:
    """Documents of all these streams, by length: int64 (LENGTH_BINS,)."""
    return sum((one.lengths for one in counted), np.zeros(LENGTH_BINS, dtype=np.int64))


def _quantile(lengths: np.ndarray, share: float, shortest: int, longest: int) -> int | None:
    """The length below which `share` of the documents lie, to within half a bin (a twelfth)."""
    if not lengths.sum():
        return None
    bin_number = int(np.searchsorted(lengths.cumsum(), share * lengths.sum()))
    # The middle of a bin may lie beyond the documents in it.
    return min(max(round(2 ** ((bin_number + 0.5) / PER_OCTAVE)), shortest), longest)


def page(stored: DocumentReader, counted: Sequence[StreamStatistics], facts: dict[str, Any]) -> str:
    """The page as HTML.

    Args:
        stored: The prepared folder.
        counted: Its streams' statistics.
        facts: From `figures`.
    """
    body = [
        _summary(stored, facts),
        "<h2>Languages</h2>",
        _languages(facts),
        "<h2>Streams</h2>",
        _streams(facts),
        "<h2>Length of documents</h2>",
        _lengths(counted, facts),
        "<h2>What was dropped</h2>",
        _drops(stored.manifest),
        "<h2>Documents</h2>",
        paragraphs(
            "Drawn at random. Each coloured piece is one token; ⟨n⟩ follows a character that took n tokens."
        ),
        *_documents(stored, list(facts["by_language"])),
    ]
    return whole_page(f"Prepared data: {stored.manifest.name}", body, STYLE)


def _summary(stored: DocumentReader, facts: dict[str, Any]) -> str:
    manifest = stored.manifest
    read, kept = (
        sum(int(report.get(key, 0)) for report in manifest.filters.values()) for key in ("read", "kept")
    )
    rows: dict[str, Any] = {
        "folder": str(stored.folder),
        "documents": facts["documents"],
        "tokens": facts["tokens"],
        "text": byte_size(facts["bytes"]),
    }
    if read:
        rows["filters"] = f"{read:,} documents read, {kept:,} kept ({100 * kept / read:.1f} %)"
    rows["vocabulary"] = f"{facts['vocab_size']:,} tokens, tokenizer {manifest.tokenizer.fingerprint[:12]}"
    rows["prepared"] = f"{manifest.created} by braingpt {manifest.braingpt}"
    given = {key: value for key, value in manifest.parameters.items() if value not in (None, [], False)}
    rows |= {
        key: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in given.items()
        if not isinstance(value, dict) and key not in ("inputs", "quality_files")
    }
    return pairs(rows)


def _languages(facts: dict[str, Any]) -> str:
    by_language = facts["by_language"]
    plot = bars(
        [(language, one["tokens"], f"{one['tokens']:,}") for language, one in by_language.items()],
        "Tokens by language",
        "tokens",
    )
    cost = [
        (language, one["tokens_per_character"] or 0, f"{one['tokens_per_character'] or 0:.3f}")
        for language, one in by_language.items()
    ]
    rows = [
        (
            language,
            one["documents"],
            one["tokens"],
            byte_size(one["bytes"]),
            _decimal(one["tokens_per_character"], 3),
            _decimal(one["bytes_per_token"], 2),
            f"{100 * (one['byte_fallback'] or 0):.1f} %",
        )
        for language, one in by_language.items()
    ]
    shown = table(
        ["language", "documents", "tokens", "text", "tokens / character", "bytes / token", "byte fallback"],
        rows,
    )
    cost_plot = bars(
        cost, "Cost of text by language", "tokens per character", caption="Lower: shorter for the model."
    )
    return shown + pairs(MEANINGS) + plot.html() + cost_plot.html()


def _streams(facts: dict[str, Any]) -> str:
    rows = [
        (
            one["split"],
            one["language"],
            one["source"],
            one["documents"],
            one["tokens"],
            byte_size(one["bytes"]),
            *one["document_tokens"].values(),
        )
        for one in facts["streams"]
    ]
    return table(
        [
            "split",
            "language",
            "source",
            "documents",
            "tokens",
            "text",
            "shortest",
            "median",
            "90 %",
            "longest",
        ],
        rows,
        words=3,
    )


def _lengths(counted: Sequence[StreamStatistics], facts: dict[str, Any]) -> str:
    """A histogram for each language, over one logarithmic scale."""
    lengths = {
        language: _lengths_of([one for one in counted if one.stream.language == language])
        for language in facts["by_language"]
    }
    used = np.flatnonzero(_lengths_of(counted))
    if not len(used):
        return paragraphs("No document ends here.")
    first, last = int(used[0]) // PER_OCTAVE * PER_OCTAVE, int(used[-1]) + 1
    edges = [
        f"{2 ** (place // PER_OCTAVE):,}" if place % (2 * PER_OCTAVE) == 0 else ""
        for place in range(first, last)
    ]
    parts = [
        paragraphs("Lengths are in tokens, marker and end of text included; their scale is logarithmic.")
    ]
    for language, one in lengths.items():
        median = facts["by_language"][language]["document_tokens"]["median"]
        if median:
            plot = histogram(
                one[first:last].tolist(),
                edges,
                f"Documents by length: {language}",
                "tokens",
                "documents",
                caption="Below each number begin the documents of this length.",
                mark=float(np.log2(median) * PER_OCTAVE - first),
                mark_label=f"median {median:,}",
            )
            parts.append(plot.html())
    return "".join(parts)


def _drops(manifest: Manifest) -> str:
    parts = []
    for source, report in manifest.filters.items():
        dropped = report.get("dropped", {})
        read, kept = report.get("read", 0), report.get("kept", 0)
        parts.append(f"<h3>{text(source)}: {read:,} read, {kept:,} kept</h3>")
        if dropped:
            rows = [(rule, facts["documents"], f"{facts['documents']:,}") for rule, facts in dropped.items()]
            parts.append(bars(rows, f"Dropped from {source}, by rule", "documents").html())
            parts.append(
                table(
                    ["rule", "such as"],
                    [(rule, "\n".join(facts.get("samples", []))) for rule, facts in dropped.items()],
                    words=2,
                )
            )
    return "".join(parts) or "<p>Nothing is recorded.</p>"


def _documents(stored: DocumentReader, languages: Iterable[str]) -> Iterable[str]:
    for language in languages:
        yield f"<h3>{text(language)}</h3>"
        for document in stored.draw(stored.streams(language=language), SHOWN_DOCUMENTS):
            length = f"{len(document.ids):,} tokens"
            where = f"{document.source}, {document.file} from token {document.start:,}: {length}"
            shown = _coloured(document, stored.tokenizer)
            yield (
                f'<p class="quiet">{text(where)}</p>'
                f'<div class="tokens" lang="{escape(language)}">{shown}</div>'
            )


def _coloured(document: StoredDocument, tokenizer: Tokenizer) -> str:
    parts = []
    for number, piece in enumerate(pieces(tokenizer, document.ids[:SHOWN_TOKENS])):
        shown = escape("\n".join(map(escaped, visible(piece.text).split("\n"))))
        several = f"⟨{len(piece.ids)}⟩" if len(piece.ids) > 1 else ""
        parts.append(
            f'<span class="{"special" if piece.special else f"t{number % 4}"}">{shown}</span>{several}'
        )
    more = len(document.ids) - SHOWN_TOKENS
    return "".join(parts) + (f" <small>and {more:,} more tokens</small>" if more > 0 else "")


def _decimal(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
