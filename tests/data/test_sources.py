"""The table of corpora, and the quality signals that lie beside RedPajama's documents."""

import gzip
import json
from pathlib import Path

import pytest

from braingpt.data.sources.catalog import DATASETS, PREPARATIONS, check_languages, languages_of, preparation
from braingpt.data.sources.document_stream import StreamEvents
from braingpt.data.sources.open_streams import (
    StreamRequest,
    check_available,
    check_options,
    open_streams,
)
from braingpt.errors import UserError

MARKERS = dict.fromkeys(("ko", "en", "de", "fr", "es", "it"), 0)


def test_the_table_is_consistent() -> None:
    for name, entry in PREPARATIONS.items():
        assert set(entry.datasets) <= set(DATASETS), name
        if entry.datasets:
            assert all(
                any(DATASETS[dataset].configs_of(language) for dataset in entry.datasets)
                for language in entry.languages
            ), name
    used = {dataset for name, entry in PREPARATIONS.items() if name != "all" for dataset in entry.datasets}
    assert used == set(DATASETS) == set(PREPARATIONS["all"].datasets)
    for dataset in DATASETS.values():
        for language in dataset.languages:
            for part in dataset.configs_of(language):
                assert "{" not in f"{part.config}{part.columns}"
                assert part.columns
            assert dataset.configs_of(language)


def test_languages() -> None:
    assert DATASETS["wikipedia"].configs_of("ja")[0].config == "20231101.ja"
    assert DATASETS["fineweb2"].configs_of("de")[0].config == "deu_Latn"
    assert DATASETS["fineweb2"].configs_of("en") == []
    assert DATASETS["parallel"].configs_of("en")[0].columns == ("en",)
    check_languages("wikipedia", ["ko", "it"], MARKERS)
    check_languages("wikipedia", ["ja"], {**MARKERS, "ja": 1})
    with pytest.raises(
        UserError, match="tokenizer has no marker for language 'ja'; it has ko, en, de, fr, es, it"
    ):
        check_languages("wikipedia", ["ja"], MARKERS)
    with pytest.raises(UserError, match="'korean' has no language 'de'"):
        check_languages("korean", ["de"], MARKERS)
    assert languages_of("fineweb2")[:5] == ["ko", "de", "fr", "es", "it"]


def test_names() -> None:
    with pytest.raises(UserError, match="did you mean 'wikipedia'"):
        preparation("wikipeda")
    with pytest.raises(UserError, match="braingpt data prepare hub a/b"):
        preparation("a/b")


@pytest.mark.parametrize(
    ("name", "paths", "options", "words"),
    [
        ("hub", [], {}, "needs the id of one dataset"),
        ("text", [Path("x")], {"revision": "v1"}, "--revision is for datasets of the hub"),
        ("korean", [], {"revision": "v1"}, "--revision is for 'hub' and for corpora of one dataset"),
        ("wikipedia", [], {"config": "20231101.ja"}, "choose with --languages"),
        ("fineweb", [], {"split": "test"}, "--split is for 'hub'"),
        ("fineweb", [], {"column": "x"}, "--column is for"),
        ("hub", [Path("a/b")], {"revision": "v1", "source": Path()}, "one copy only"),
    ],
)
def test_options_that_do_not_go_together(name: str, paths: list[Path], options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_options(StreamRequest(name, [], paths, **options))


def _redpajama(root: Path, signals: bool) -> Path:
    home = root / "togethercomputer" / "RedPajama-Data-V2" / "sample"
    documents = home / "documents" / "2023-06" / "0000" / "de_head.json.gz"
    documents.parent.mkdir(parents=True)
    lines = [
        json.dumps({"raw_content": f"Text {n}", "language_score": 0.5, "perplexity": float(n)})
        for n in range(30)
    ]
    lines[7] = "{broken"
    documents.write_bytes(gzip.compress("\n".join(lines).encode()))
    if signals:
        beside = home / "quality_signals" / "2023-06" / "0000" / "de_head.signals.json.gz"
        beside.parent.mkdir(parents=True)
        rows = []
        # the last two are missing
        for n in range(28):
            values = {
                "rps_doc_word_count": [[0, 6, 2 + n]],
                "rps_lines_num_words": [[0, 3, 1], [3, 6, 1]],
                "rps_doc_ml_wikiref_score": [[0, 6, None]],
            }
            # a line that belongs to another document
            number = n if n != 5 else 99
            rows.append(
                json.dumps(
                    {
                        "id": f"2023-06/0000/de_head.json.gz/{number}",
                        "quality_signals": values if n % 2 else json.dumps(values),
                    }
                )
            )
        beside.write_bytes(gzip.compress("\n".join(rows).encode()))
    return root


def test_quality_signals_go_with_their_documents(tmp_path: Path) -> None:
    source = _redpajama(tmp_path, signals=True)
    notes: list[str] = []
    request = StreamRequest("redpajama", ["de"], source=source)
    events = StreamEvents(notes.append, lambda source, rule, sample: notes.append(rule))
    [head, middle] = open_streams(request, events)
    documents = list(head)
    assert [document.text for document in documents] == [f"Text {n}" for n in range(30) if n != 7]
    for document in documents:
        n = int(document.text.split()[1])
        expected = {"language_score": 0.5, "perplexity": float(n)}
        assert document.scores == (
            expected if n == 5 or n > 27 else {**expected, "rps_doc_word_count": float(2 + n)}
        )
    assert "broken row" in notes
    assert [note for note in notes if "ends at line 28" in note]
    assert list(middle) == [] and middle.available is False
    again = open_streams(request, events)[0]
    iterator = iter(again)
    first = [next(iterator) for _ in range(12)]
    later = open_streams(request, events)[0]
    later.resume(again.position())
    assert first + list(later) == documents


def test_without_signals(tmp_path: Path) -> None:
    notes: list[str] = []
    events = StreamEvents(notes.append, lambda *broken: None)
    request = StreamRequest("redpajama", ["de", "fr"], source=_redpajama(tmp_path, signals=False))
    streams = open_streams(request, events)
    assert len([document for stream in streams for document in stream]) == 29
    assert len([note for note in notes if "is not there" in note and "no quality signals" in note]) == 1
    assert [
        note
        for note in notes
        if "skipped: **/documents/*/*/de_middle.json.gz; **/documents/*/*/fr_head" in note
    ]
    check_available(streams, request)
    request = StreamRequest("c4", ["en"], source=tmp_path)
    nothing = open_streams(request, events)
    assert [list(stream) for stream in nothing] == [[]]
    with pytest.raises(UserError, match=r"nothing of 'c4' in en under .*; looked for allenai/c4"):
        check_available(nothing, request)
