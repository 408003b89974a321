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
from braingpt.html import page as html
from braingpt.html.page import table
from braingpt.html.svg import bars, histogram
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.pieces import escaped, pieces

# Documents of each language that are shown, and the tokens of each.
SHOWN_DOCUMENTS, SHOWN_TOKENS = 3, 160
STYLE = """
.doc {
  border: 1px solid var(--line); padding: .6rem; white-space: pre-wrap; margin: .2rem 0 1rem; line-height: 1.8
}
.doc span { color: #111; border-radius: 2px }
.t0 { background: #afd7ff } .t1 { background: #d7ffd7 }
.t2 { background: #ffd7d7 } .t3 { background: #ffffaf }
.doc .s { background: #444; color: #fff; padding: 0 .3em }
"""


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
    lengths = _lengths_of(counted)
    return {
        "documents": documents,
        "tokens": tokens,
        "characters": characters,
        "bytes": size,
        "tokens_per_character": tokens / characters if characters else None,
        "bytes_per_token": size / tokens if tokens else None,
        "byte_fallback": sum(one.broken for one in counted) / tokens if tokens else None,
        "document_tokens": {
            "shortest": min((one.shortest for one in counted if one.documents), default=None),
            "median": _quantile(lengths, 0.5),
            "90 %": _quantile(lengths, 0.9),
            "longest": max((one.longest for one in counted if one.documents), default=None),
        },
    }


def _lengths_of(counted: Sequence[StreamStatistics]) -> np.ndarray:
    """Documents of all these streams, by length: int64 (LENGTH_BINS,)."""
    return sum((one.lengths for one in counted), np.zeros(LENGTH_BINS, dtype=np.int64))


def _quantile(lengths: np.ndarray, share: float) -> int | None:
    """The length below which `share` of the documents lie, to within half a bin (a twelfth)."""
    if not lengths.sum():
        return None
    bin_number = int(np.searchsorted(lengths.cumsum(), share * lengths.sum()))
    return round(2 ** ((bin_number + 0.5) / PER_OCTAVE))


def page(stored: DocumentReader, counted: Sequence[StreamStatistics], facts: dict[str, Any]) -> str:
    """The page as HTML.

    Args:
        stored: The prepared folder.
        counted: Its streams' statistics.
        facts: From `figures`.
    """
    body = [
        _summary(stored.manifest, facts),
        "<h2>Languages</h2>",
        _languages(facts),
        "<h2>Streams</h2>",
        _streams(facts),
        "<h2>Length of documents</h2>",
        _lengths(counted, facts),
        "<h2>What was dropped</h2>",
        _drops(stored.manifest),
        "<h2>Documents</h2>",
        '<p class="quiet">Drawn at random; each colour is one token, '
        "⟨n⟩ follows a character that took n of them.</p>",
        *_documents(stored, list(facts["by_language"])),
    ]
    return html.page(f"{stored.folder} ({stored.manifest.name})", body, STYLE)


def _summary(manifest: Manifest, facts: dict[str, Any]) -> str:
    read, kept = (
        sum(int(report.get(key, 0)) for report in manifest.filters.values()) for key in ("read", "kept")
    )
    size = f"{facts['bytes'] / 1e6:,.1f} MB"
    lines = [
        f"{facts['documents']:,} documents, {facts['tokens']:,} tokens, {size} of text",
        *([f"{read:,} documents read, {kept:,} kept ({100 * kept / read:.1f} %)"] if read else []),
        f"vocabulary of {facts['vocab_size']:,}, tokenizer {manifest.tokenizer.fingerprint[:12]}",
        f"prepared {manifest.created} by braingpt {manifest.braingpt}",
    ]
    given = {key: value for key, value in manifest.parameters.items() if value not in (None, [], False)}
    lines += [
        f"{key}: {value}"
        for key, value in given.items()
        if not isinstance(value, dict) and key not in ("inputs", "quality_files")
    ]
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _languages(facts: dict[str, Any]) -> str:
    by_language = facts["by_language"]
    plot = bars(
        [(language, one["tokens"], f"{one['tokens']:,}") for language, one in by_language.items()],
        "tokens by language",
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
            f"{one['bytes'] / 1e6:,.2f}",
            _decimal(one["tokens_per_character"], 3),
            _decimal(one["bytes_per_token"], 2),
            f"{100 * (one['byte_fallback'] or 0):.1f} %",
        )
        for language, one in by_language.items()
    ]
    shown = table(
        ["language", "documents", "tokens", "MB", "tokens / character", "bytes / token", "byte fallback"],
        rows,
    )
    cost_plot = bars(cost, "tokens per character by language")
    return f"<h3>Tokens</h3>{plot}<h3>Tokens per character</h3>{cost_plot}{shown}"


def _streams(facts: dict[str, Any]) -> str:
    rows = [
        (
            one["split"],
            one["language"],
            one["source"],
            one["documents"],
            one["tokens"],
            f"{one['bytes'] / 1e6:,.2f}",
            *one["document_tokens"].values(),
        )
        for one in facts["streams"]
    ]
    return table(
        ["split", "language", "source", "documents", "tokens", "MB", "shortest", "median", "90 %", "longest"],
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
        return "<p>No document ends here.</p>"
    first, last = int(used[0]) // PER_OCTAVE * PER_OCTAVE, int(used[-1]) + 1
    edges = [
        f"{2 ** (place // PER_OCTAVE):,}" if place % (2 * PER_OCTAVE) == 0 else ""
        for place in range(first, last)
    ]
    parts = [
        '<p class="quiet">Documents by length in tokens, marker and end of text included; '
        "the scale is logarithmic.</p>"
    ]
    for language, one in lengths.items():
        median = facts["by_language"][language]["document_tokens"]["median"]
        if median:
            mark = np.log2(median) * PER_OCTAVE - first
            plot = histogram(
                one[first:last].tolist(),
                edges,
                f"document lengths, {language}",
                float(mark),
                f"median {median:,}",
            )
            parts.append(f"<h3>{escape(language)}</h3>{plot}")
    return "".join(parts)


def _drops(manifest: Manifest) -> str:
    parts = []
    for source, report in manifest.filters.items():
        dropped = report.get("dropped", {})
        read, kept = report.get("read", 0), report.get("kept", 0)
        parts.append(f"<h3>{escape(source)}: {read:,} read, {kept:,} kept</h3>")
        if dropped:
            parts.append(
                bars(
                    [
                        (rule, facts["documents"], f"{facts['documents']:,}")
                        for rule, facts in dropped.items()
                    ],
                    f"dropped from {source}",
                )
            )
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
        yield f"<h3>{escape(language)}</h3>"
        for document in stored.draw(stored.streams(language=language), SHOWN_DOCUMENTS):
            length = f"{len(document.ids):,} tokens"
            where = f"{document.source}, {document.file} from token {document.start:,}: {length}"
            text = _coloured(document, stored.tokenizer)
            yield f'<small>{escape(where)}</small><div class="doc" lang="{escape(language)}">{text}</div>'


def _coloured(document: StoredDocument, tokenizer: Tokenizer) -> str:
    parts = []
    for number, piece in enumerate(pieces(tokenizer, document.ids[:SHOWN_TOKENS])):
        text = escape("\n".join(map(escaped, piece.text.split("\n"))))
        several = f"⟨{len(piece.ids)}⟩" if len(piece.ids) > 1 else ""
        parts.append(f'<span class="{"s" if piece.special else f"t{number % 4}"}">{text}</span>{several}')
    more = len(document.ids) - SHOWN_TOKENS
    return "".join(parts) + (f' <small class="quiet">and {more:,} tokens more</small>' if more > 0 else "")


def _decimal(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
