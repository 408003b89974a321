"""Looking at a prepared folder: documents drawn and counted, `data sample`, `data report`, `data verify`."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from braingpt.cli.data import app, view
from braingpt.data.shards.documents import PER_OCTAVE, DocumentReader, bin_of
from braingpt.data.shards.manifest import Manifest, TokenizerFacts
from braingpt.data.shards.writer import FolderWriter
from braingpt.errors import Failure, UserError
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.pieces import pieces, readable
from tests.data.texts import korean

TOKENIZER = Tokenizer.default()
KOREAN = [
    "오늘은 날씨가 참 좋네요. 뷁!",
    "안녕하세요.\n둘째 줄입니다.",
    "<script>alert('1')</script> & 한국어",
    "사과는 맛있다. " * 150,
]
ENGLISH = ["The weather is lovely this morning.", "One, two, three.\u200c", "She said: [bold]yes[/bold]"]


def write(
    out: Path, documents: dict[tuple[str, str, str], list[list[int]]], file_bytes: int = 1 << 20, filters=None
) -> Path:
    """A prepared folder of these documents by (split, language, source), the shipped tokenizer in it."""
    with FolderWriter(out, "uint16", file_bytes) as writer:
        for (split, language, source), ids in documents.items():
            for one in ids:
                writer.add(split, language, source, one, int(TOKENIZER.token_bytes()[one].sum()))
        streams = writer.close()
        TOKENIZER.save(writer.root / "tokenizer")
        facts = TokenizerFacts(fingerprint=TOKENIZER.fingerprint, vocab_size=TOKENIZER.vocab_size)
        about = {
            "name": "text",
            "braingpt": "0",
            "created": "2026-01-01",
            "parameters": {"languages": ["ko", "en"]},
        }
        writer.publish(
            Manifest(**about, tokenizer=facts, dtype="uint16", streams=streams, filters=filters or {})
        )
    return out


def encoded(language: str, texts: list[str]) -> list[list[int]]:
    return [[*TOKENIZER.encode(text, language), TOKENIZER.eot] for text in texts]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    streams = {
        ("train", "ko", "news"): encoded("ko", KOREAN),
        ("train", "en", "web"): encoded("en", ENGLISH),
        ("validation", "ko", "news"): encoded("ko", ["시험용 문서입니다."]),
    }
    dropped = {
        "too short": {"documents": 7, "samples": ["<b>짧다</b>", "a"]},
        "lone jamo": {"documents": 2, "samples": ["ㅋㅋㅋㅋ"]},
    }
    return write(tmp_path / "own", streams, filters={"news": {"read": 14, "kept": 5, "dropped": dropped}})


def run(*arguments, **environment) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    count=st.integers(1, 40),
    seed=st.integers(0, 99),
    file_bytes=st.sampled_from([64, 500, 1 << 20]),
    cut=st.booleans(),
)
def test_drawn_documents_are_the_folders_own_and_different(
    tmp_path_factory, lengths, count, seed, file_bytes, cut
) -> None:
    documents = [[300 + number, *([1000] * length), TOKENIZER.eot] for number, length in enumerate(lengths)]
    if cut:
        # the end was taken for validation
        documents[-1] = documents[-1][:-1]
    stored = DocumentReader(
        write(tmp_path_factory.mktemp("drawn") / "own", {("train", "ko", "x"): documents}, file_bytes)
    )
    drawn = stored.draw(stored.streams(), count, seed)
    assert len(drawn) == min(count, len(documents))
    numbers = [int(document.ids[0]) - 300 for document in drawn]
    assert len(set(numbers)) == len(numbers)
    for number, document in zip(numbers, drawn, strict=True):
        assert document.ids.tolist() == documents[number]
        assert document.whole == (document.ids[-1] == TOKENIZER.eot)
    again = stored.draw(stored.streams(), count, seed)
    assert [(one.file, one.start) for one in again] == [(one.file, one.start) for one in drawn]
    counted = stored.count()[0]
    ended = [len(document) for document in documents if document[-1] == TOKENIZER.eot]
    assert (counted.documents, counted.tokens) == (len(ended), sum(map(len, documents)))
    if ended:
        assert (counted.shortest, counted.longest) == (min(ended), max(ended))
        assert (
            counted.lengths.tolist()
            == np.bincount(bin_of(np.array(ended)), minlength=40 * PER_OCTAVE).tolist()
        )


def test_long_documents_are_not_drawn_more_often(tmp_path: Path) -> None:
    documents = [
        [300 + number, *([1000] * (2000 if number % 10 == 0 else 5)), TOKENIZER.eot] for number in range(200)
    ]
    random = np.random.default_rng(0)
    random.shuffle(documents)
    stored = DocumentReader(write(tmp_path / "own", {("train", "ko", "x"): documents}))
    drawn = [stored.draw(stored.streams(), 1, seed)[0] for seed in range(300)]
    assert sum(len(document.ids) > 100 for document in drawn) < 75, (
        "a tenth of the documents, 98 % of the tokens"
    )


def test_more_documents_than_there_are_cost_no_more_draws(tmp_path: Path, monkeypatch) -> None:
    documents = [[300 + number, 1000, TOKENIZER.eot] for number in range(5)]
    stored = DocumentReader(write(tmp_path / "own", {("train", "ko", "x"): documents}))
    draws, find = [], stored._next_end

    def counted(ids, at):
        draws.append(at)
        assert len(draws) < 1_000
        return find(ids, at)

    monkeypatch.setattr(stored, "_next_end", counted)
    assert len(stored.draw(stored.streams(), 10**12)) == 5


def test_documents_longer_than_a_piece_are_counted_whole(tmp_path: Path, monkeypatch) -> None:
    documents = [[300, *([1000] * length), TOKENIZER.eot] for length in (5, 5000, 0, 2046, 3)]
    stored = DocumentReader(write(tmp_path / "own", {("train", "ko", "x"): documents}))
    whole = stored.count()[0]
    monkeypatch.setattr("braingpt.data.shards.documents.BLOCK", 64)
    pieces_of_64 = stored.count()[0]
    assert whole.lengths.tolist() == pieces_of_64.lengths.tolist() and pieces_of_64.longest == 5002
    assert [len(one.ids) for one in stored.draw(stored.streams(), 5)] and stored.draw(stored.streams(), 9)[
        0
    ].ids.size


def test_counts_are_those_of_the_text(folder: Path) -> None:
    korean = DocumentReader(folder).count()[0]
    ids = [token for document in encoded("ko", KOREAN) for token in document]
    assert (korean.documents, korean.tokens) == (len(KOREAN), len(ids))
    assert (korean.characters, korean.bytes) == (
        sum(map(len, KOREAN)),
        sum(len(text.encode()) for text in KOREAN),
    )
    assert (
        korean.broken
        == sum("\ufffd" in TOKENIZER.token(token).decode("utf-8", "replace") for token in ids)
        > 0
    )


def test_pieces_join_to_the_text_and_keep_every_id() -> None:
    for text in (*KOREAN, *ENGLISH, "👩‍👩‍👧‍👦 뷁é", ""):
        ids = TOKENIZER.encode(text, "ko")
        found = pieces(TOKENIZER, ids)
        assert "".join(piece.text for piece in found if not piece.special) == text
        assert [token for piece in found for token in piece.ids] == ids
        assert found[0] == ("<|ko|>", (TOKENIZER.markers["ko"],), True)
    assert len(pieces(TOKENIZER, TOKENIZER.encode("뷁"))) == 1 < len(TOKENIZER.encode("뷁"))
    assert pieces(TOKENIZER, TOKENIZER.encode("뷁")[:1])[0].text == "\ufffd", "a character that is cut off"
    assert readable(b" a\n\xea") == "<20> <61> <0A> <EA>" and readable(" 가\n".encode()) == "·가\\n"


def test_sample_without_colour_marks_boundaries(folder: Path) -> None:
    shown = run("sample", folder, "--count", 20, "--language", "ko", "--split", "train")
    assert "\x1b" not in shown and shown.count("<|endoftext|>") == 3, "the long one is not shown to its end"
    assert "<|ko|>│" in shown and "⟨2⟩" in shown and "하세요│.↵\n" in shown
    everything = run("sample", folder, "--count", 20, "--tokens", 0)
    assert everything.count("<|endoftext|>") == 8 and "more tokens" not in everything
    assert "[bold]" in everything.replace("│", "") and "\\u200c" in everything
    assert run("sample", folder, "--seed", 1) == run("sample", folder, "--seed", 1)


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_sample_on_a_terminal(folder: Path, monkeypatch, environment: dict[str, str], coloured: bool) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = Console(force_terminal=True, color_system="256", width=41, highlight=False)
    monkeypatch.setattr(view, "console", lambda json_output=False: terminal)
    with terminal.capture() as capture:
        view.sample(
            folder, count=20, language="ko", source=None, split=None, seed=0, tokens=0, json_output=False
        )
    shown = capture.get()
    assert ("\x1b[30;48;5;153m" in shown) is coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert ("│" in plain) is not coloured
    assert "사과는" in plain.replace("│", "")
    assert max(cell_len(line) for line in plain.splitlines() if not line.startswith("ko  ")) <= 41, (
        "Hangul counts as two cells"
    )


def test_sample_as_json(folder: Path) -> None:
    documents = json.loads(run("sample", folder, "--count", 20, "--tokens", 0, "--json"))
    assert sorted(one["text"] for one in documents) == sorted([*KOREAN, *ENGLISH, "시험용 문서입니다."])
    assert all(one["tokens"] == len(one["ids"]) == len(one["pieces"]) and one["whole"] for one in documents)
    assert len(json.loads(run("sample", folder, "--count", 1, "--tokens", 2, "--json"))[0]["ids"]) == 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--language", "kr"], "no language 'kr'; did you mean 'ko'"),
        (["--source", "new"], "no source 'new'; did you mean 'news'"),
        (["--split", "test"], "no split 'test'"),
        (["--language", "en", "--source", "news"], "holds no documents of language 'en' from 'news'"),
    ],
)
def test_what_is_missing_is_reported(folder: Path, asked: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run("sample", folder, *asked)
    with pytest.raises(UserError, match="does not exist"):
        run("sample", folder / "none")


class _Page(HTMLParser):
    """What a browser would find: tags, attributes, text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_page_that_loads_nothing(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("braingpt.data.shards.report.SHOWN_DOCUMENTS", 9)
    said = run("report", folder)
    path = tmp_path / "own-report.html"
    html = path.read_text("utf-8")
    assert "own-report.html: 8 documents" in said.replace("\n", "")
    found = _Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "b"} & set(found.tags)
    assert not {"src", "href", "onload", "onclick"} & found.attributes
    assert "url(" not in html and "@import" not in html and "default-src 'none'" in html
    # tokens, cost, lengths of two languages, drops
    assert found.tags.count("figure") == 2 + 2 + 1
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg)
    for expected in (
        "14 read, 5 kept",
        "too short",
        "<b>짧다</b>",
        "ㅋㅋㅋㅋ",
        "<script>alert",
        "<|ko|>",
        "뷁",
        "median",
        "ko, en",
    ):
        assert expected in found.text
    assert run("verify", folder), "the page lies beside the folder, not in it"


def test_the_reports_figures(folder: Path, tmp_path: Path) -> None:
    facts = json.loads(run("report", folder, "--out", tmp_path / "page.html", "--json"))
    assert facts["report"] == str(tmp_path / "page.html") and (tmp_path / "page.html").is_file()
    manifest = DocumentReader(folder).manifest
    assert facts["documents"] == 8 and facts["tokens"] == sum(stream.tokens for stream in manifest.streams)
    assert facts["bytes"] == sum(stream.bytes for stream in manifest.streams)
    english = facts["by_language"]["en"]
    assert english["tokens_per_character"] == pytest.approx(english["tokens"] / sum(map(len, ENGLISH)))
    lengths = sorted(len(document) for document in encoded("en", ENGLISH))
    assert (english["document_tokens"]["shortest"], english["document_tokens"]["longest"]) == (
        lengths[0],
        lengths[-1],
    )
    assert english["document_tokens"]["median"] == pytest.approx(lengths[1], rel=0.15)
    for facts_of in facts["by_language"].values():
        quantiles = list(facts_of["document_tokens"].values())
        assert quantiles == sorted(quantiles), "no quantile lies beyond the longest or before the shortest"
    with pytest.raises(UserError, match=r"--out .* no folder"):
        run("report", folder, "--out", tmp_path / "none" / "page.html")


def test_verify_finds_strange_tokens_and_files(folder: Path) -> None:
    assert "as they were written" in run("verify", folder)
    (folder / "train" / "xx-more-00000.bin").write_bytes(b"\1\0")
    with pytest.raises(Failure, match=r"1 problem: .*xx-more-00000\.bin is not in the manifest"):
        run("verify", folder)
    odd = write(folder.parent / "odd", {("train", "ko", "x"): [[1, 2, 3, TOKENIZER.eot]]})
    from braingpt.data.shards.manifest import manifest_text, read_manifest, sha256_of

    manifest = read_manifest(odd)
    file = manifest.streams[0].files[0]
    (odd / file.path).write_bytes(np.array([1, 2, 60_000, 3], dtype="<u2").tobytes())
    file.sha256 = sha256_of(odd / file.path)
    (odd / "manifest.json").write_text(manifest_text(manifest))
    with pytest.raises(Failure, match="holds token 60000, beyond the vocabulary of 16448"):
        run("verify", odd)


def test_data_of_another_vocabulary_is_prepared_and_shown(ranks, tmp_path: Path) -> None:
    text = "오늘은 날씨가 참 좋네요. 내일도 맑겠습니다. 모레는 비가 온다고 합니다."
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": f"{korean(number)} {text}"}) + "\n" for number in range(30)), "utf-8"
    )
    out = tmp_path / "own"
    run("prepare", "text", tmp_path / "a.jsonl", "--out", out, "--tokenizer", "cl100k_base")
    stored = DocumentReader(out)
    assert (stored.manifest.dtype, stored.tokenizer.vocab_size, stored.tokenizer.eot) == (
        "uint32",
        100_341,
        100_277,
    )
    document = stored.draw(stored.streams(), 1)[0]
    assert document.ids[0] == stored.tokenizer.markers["ko"] and stored.tokenizer.decode(
        document.ids
    ).endswith(text)
    with pytest.raises(UserError, match=r"other parameters .*tokenizer"):
        run("prepare", "text", tmp_path / "a.jsonl", "--out", out)
    assert "characters per token" in run("report", out)
