"""Files as people have them: tables in any dialect, JSON in any layout, parquet of any type, any encoding."""

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.data.prepare.drop_counts import describe_losses
from braingpt.data.shards.reader import ShardSet
from braingpt.data.sources import local_files
from braingpt.data.sources.byte_reader import zstd_window
from braingpt.data.sources.document_stream import StreamEvents
from braingpt.data.sources.encodings import detect_encoding
from braingpt.data.sources.local_files import own_files
from braingpt.data.sources.read_options import BY_CONTENT, ReadOptions, checked_options
from braingpt.data.sources.row import encoding_hint
from braingpt.errors import UserError

TEXTS = [
    f"{place} 옆 가게에서 산 {thing}은 값이 {price:,}원이었고 생각보다 오래 썼다."
    for price, (place, thing) in enumerate(
        [
            (place, thing)
            for place in ("학교", "역", "시장", "공원", "도서관")
            for thing in ("연필", "우산", "빵")
        ],
        1_000,
    )
]
SEPARATED = {"tab": "\t", "comma": ",", "semicolon": ";", "bar": "|"}


def _read(
    path: Path, column: str | None = None, options: ReadOptions = BY_CONTENT
) -> tuple[list[str], dict[str, int], list[str]]:
    """Texts, what was broken, and notes; reading that continues at each place gives the same texts."""
    counts: Counter[str] = Counter()
    notes: list[str] = []
    events = StreamEvents(notes.append, lambda source, rule, sample: counts.update([rule]))
    stream = own_files([path], column, events, options=options)
    texts, positions = [], []
    for document in stream:
        texts.append(document.text)
        positions.append(json.loads(json.dumps(stream.position())))
    silent = StreamEvents(lambda line: None, lambda *broken: None)
    for number, position in enumerate(positions, 1):
        again = own_files([path], column, silent, options=options)
        again.resume(position)
        assert [document.text for document in again] == texts[number:]
    return texts, dict(counts), notes


def _write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


def _table(texts: list[str], delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
    writer.writerows([("id", "text", "label"), *((n, text, n % 2) for n, text in enumerate(texts))])
    return file.getvalue()


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("delimiter", SEPARATED.values(), ids=SEPARATED)
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("sep_line", [False, True])
def test_tables_of_every_dialect(
    tmp_path: Path, suffix: str, delimiter: str, quoting: int, sep_line: bool
) -> None:
    texts = [*TEXTS, '두 줄,\n그리고 "말"; 또|는']
    head = f"sep={delimiter}\r\n" if sep_line else ""
    path = _write(tmp_path / f"a{suffix}", head + _table(texts, delimiter, quoting))
    assert _read(path)[:2] == (texts, {})


@pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
@pytest.mark.parametrize("strays", [(5,), (5, 9), (0, 14), tuple(range(15))])
def test_a_stray_quote_is_text(tmp_path: Path, delimiter: str, strays: tuple[int, ...]) -> None:
    texts = [f'"{text}' if number in strays else text for number, text in enumerate(TEXTS)]
    rows = [f"{n}{delimiter}{text}{delimiter}{n % 2}" for n, text in enumerate(texts)]
    path = _write(tmp_path / "a.tsv", "\n".join([delimiter.join(("id", "text", "label")), *rows]) + "\n")
    assert _read(path)[:2] == (texts, {})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from('가나 a"'), min_size=1, max_size=6).map(lambda text: f"글{text}끝"),
        min_size=4,
    ),
    st.lists(st.sampled_from(["", '"']), min_size=4),
)
def test_quotes_anywhere_lose_no_row(tmp_path_factory, middles: list[str], opening: list[str]) -> None:
    """A table without quoting, of columns between tabs: a row stays a row, whatever quotes it has."""
    texts = [mark + text for mark, text in zip(opening, middles, strict=False)]
    rows = [f"{number}\t{text}\t1" for number, text in enumerate(texts)]
    path = _write(tmp_path_factory.mktemp("quotes") / "a.tsv", "\n".join(["id\ttext\tlabel", *rows]))
    assert _read(path)[:2] == (texts, {})


def test_a_table_called_text_without_a_header_and_with_one_column(tmp_path: Path) -> None:
    assert _read(_write(tmp_path / "a.txt", _table(TEXTS, "\t")))[0] == TEXTS
    rows = "".join(f'{number},"{text}",1\n' for number, text in enumerate(TEXTS))
    texts, _, [note] = _read(_write(tmp_path / "b.csv", rows))
    assert texts == TEXTS and "without a header; column '2' is the text" in note
    assert _read(_write(tmp_path / "c.csv", "\n".join(["text", *TEXTS])))[:2] == (TEXTS, {})
    prose = "첫 줄\t탭이 있다\n둘째 줄\n셋째 줄\n넷째\n"
    assert _read(_write(tmp_path / "d.txt", prose))[0] == [prose]
    escaped = "\n".join(["id,text", *(f'{n},"그가 \\"{text}\\" 라고 했다"' for n, text in enumerate(TEXTS))])
    assert _read(_write(tmp_path / "e.csv", escaped))[0] == [f'그가 "{text}" 라고 했다' for text in TEXTS]


ROWS = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
LAYOUTS = {
    "lines": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "lines with commas": ",\n".join(json.dumps(row) for row in ROWS),
    "texts a line": "\n".join(json.dumps(text) for text in TEXTS),
    "list": json.dumps(ROWS),
    "pretty list": json.dumps(ROWS, indent=1),
    "list of texts": json.dumps(TEXTS, indent=2),
    "two lists": json.dumps(ROWS[:4]) + "\n" + json.dumps(ROWS[4:], indent=1),
    "pretty objects": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "objects on a line": "".join(json.dumps(row) for row in ROWS),
    "within": json.dumps({"version": "1", "tags": ["a", "b"], "data": ROWS, "count": 15}),
    "two within": json.dumps({"train": ROWS[:9], "info": {"a": [1]}, "test": ROWS[9:]}, indent=1),
    "deep": json.dumps({"data": [{"title": "글", "paragraphs": [{"context": row["text"]}]} for row in ROWS]}),
    "columns": json.dumps({"id": list(range(15)), "text": TEXTS}),
    "one column": json.dumps({"text": TEXTS}),
    "columns of pandas": json.dumps(
        {name: {str(n): r[name] for n, r in enumerate(ROWS)} for name in ROWS[0]}
    ),
    "split of pandas": json.dumps(
        {
            "columns": ["id", "text"],
            "index": list(range(15)),
            "data": [[row["id"], row["text"]] for row in ROWS],
        }
    ),
    "index of pandas": json.dumps({str(number): row for number, row in enumerate(ROWS)}),
    "rows as lists": json.dumps([[row["id"], row["text"]] for row in ROWS]),
}


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".txt"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_json_of_every_layout(tmp_path: Path, layout: str, suffix: str) -> None:
    if suffix == ".txt" and layout in (
        "lines with commas",
        "texts a line",
        "two lists",
        "pretty objects",
        "objects on a line",
    ):
        pytest.skip("a plain text is JSON only where all of it is one value, or each line an object")
    assert _read(_write(tmp_path / f"a{suffix}", LAYOUTS[layout]))[:2] == (TEXTS, {})


@pytest.mark.parametrize(
    "layout", ["list", "within", "columns", "columns of pandas", "index of pandas", "lines"]
)
def test_json_beyond_the_sample(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braingpt.data.sources.byte_reader.SAMPLE", 300)
    monkeypatch.setattr("braingpt.data.sources.row_reader.LARGE_SAMPLE", 600)
    assert _read(_write(tmp_path / "a.json", LAYOUTS[layout]))[:2] == (TEXTS, {})


def test_one_object_a_file_and_lists_in_a_column(tmp_path: Path) -> None:
    assert _read(_write(tmp_path / "a.json", json.dumps(ROWS[0], indent=2)))[0] == TEXTS[:1]
    for items, joined in (
        (TEXTS[:3], "\n".join(TEXTS[:3])),
        (["The", "cat", "sat"], "The cat sat"),
        (["가", "나", " ", "다"], "가나 다"),
    ):
        path = _write(tmp_path / "b.jsonl", "\n".join([json.dumps({"text": items})] * 3))
        assert _read(path)[0] == [joined] * 3


def test_the_text_column_is_chosen_from_many_rows(tmp_path: Path) -> None:
    def lines(rows: list[dict]) -> Path:
        return _write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows))

    answers = [{"q": text, "a": text if number > 60 else None} for number, text in enumerate(TEXTS * 6)]
    with pytest.raises(UserError, match="--column, one of q, a"):
        _read(lines(answers))
    empty = [{"text": None, "content": text} for text in TEXTS]
    assert _read(lines(empty))[0] == TEXTS
    assert _read(lines([{"text": "드물게", "content": TEXTS[0]}, *empty]))[0] == [TEXTS[0], *TEXTS]


def test_parquet_of_every_type(tmp_path: Path) -> None:
    array = pyarrow.array(TEXTS)
    columns = {
        "binary": array.cast(pyarrow.binary()),
        "large binary": array.cast(pyarrow.large_binary()),
        "view": array.cast(pyarrow.string_view()),
        "dictionary": array.dictionary_encode(),
        "binary dictionary": array.cast(pyarrow.binary()).dictionary_encode(),
        "list": pyarrow.array([[text] for text in TEXTS]),
        "json": pyarrow.ExtensionArray.from_storage(
            pyarrow.json_(), pyarrow.array([json.dumps(text) for text in TEXTS])
        ),
    }
    path = tmp_path / "a.parquet"
    for name, column in columns.items():
        pyarrow.parquet.write_table(pyarrow.table({"id": range(15), "text": column}), path)
        assert _read(path)[:2] == (TEXTS, {}), name
    for inner in (pyarrow.string(), pyarrow.binary()):
        struct = pyarrow.array(
            [{"body": text.encode() if inner == pyarrow.binary() else text} for text in TEXTS],
            pyarrow.struct({"body": inner}),
        )
        pyarrow.parquet.write_table(pyarrow.table({"doc": struct, "none": pyarrow.nulls(15)}), path)
        assert _read(path)[:2] == (TEXTS, {})
        assert _read(path, "doc.body")[0] == TEXTS
    with_number = [*map(json.dumps, TEXTS), "3"]
    stored = pyarrow.ExtensionArray.from_storage(pyarrow.json_(), pyarrow.array(with_number))
    pyarrow.parquet.write_table(pyarrow.table({"text": stored}), path)
    assert _read(path)[:2] == (TEXTS, {"broken row": 1})
    pyarrow.parquet.write_table(pyarrow.table({"text": array}), tmp_path / "b.jsonl")
    assert _read(tmp_path / "b.jsonl")[0] == TEXTS


ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp949", "euc-kr", "johab")


@pytest.mark.parametrize(
    ("text", "encoding", "hinted"),
    [
        ("\n".join(TEXTS), "cp949", True),
        ("버스가 늦게 와서 회의 시작 시간을 십 분이나 넘기고 말았다.", "cp949", True),
        ("昨日の夜、弟と一緒に川辺をゆっくり歩きながら話をした。今日は雨です。", "shift-jis", False),
        ("昨天晚上我和弟弟在河边慢慢地散步，一边走一边聊天，今天下雨了。", "gb18030", False),
        ("Die Straße führt über die Brücke zum schönen Gärtchen.", "latin-1", False),
    ],
)
def test_the_korean_encoding_is_named_for_korean_alone(text: str, encoding: str, hinted: bool) -> None:
    hint = encoding_hint(text.encode(encoding))
    assert ("--encoding cp949" in hint) == hinted
    assert (text[:12] in hint) == hinted


def test_korean_after_a_part_in_utf8_gets_no_hint_that_would_spoil_it() -> None:
    assert "--encoding" not in encoding_hint("\n".join(TEXTS).encode() + TEXTS[0].encode("cp949"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding(tmp_path: Path, encoding: str) -> None:
    text = "\n".join(TEXTS)
    assert _read(_write(tmp_path / "a.txt", text, encoding))[0] == [text.removeprefix("\ufeff")]
    assert _read(_write(tmp_path / "b.csv", _table(TEXTS, "\t"), encoding))[:2] == (TEXTS, {})
    assert _read(_write(tmp_path / "c.jsonl", LAYOUTS["lines"], encoding))[:2] == (TEXTS, {})
    if encoding != "utf-8-sig":
        assert _read(tmp_path / "a.txt", options=checked_options(None, encoding, None))[0] == [text]


def test_european_letters_and_what_is_no_text(tmp_path: Path) -> None:
    french = "Été comme hiver, la forêt près du château où j'ai grandi reste très calme."
    assert detect_encoding([french.encode("cp1252")]) == "cp1252"
    assert detect_encoding([french.encode() * 9 + b"\xff"]) == "utf-8"
    for beginning in (b"PK\x03\x04....", b"%PDF-1.7", bytes(range(256)) * 9 + bytes(999)):
        (tmp_path / "a.csv").write_bytes(beginning)
        with pytest.raises(UserError, match="which is no text"):
            _read(tmp_path / "a.csv")


def test_line_ends_of_old_macs(tmp_path: Path) -> None:
    assert _read(_write(tmp_path / "a.csv", _table(TEXTS, ",").replace("\r\n", "\r")))[:2] == (TEXTS, {})
    assert _read(_write(tmp_path / "b.jsonl", LAYOUTS["lines"].replace("\n", "\r")))[:2] == (TEXTS, {})


def test_options_are_not_questioned(tmp_path: Path) -> None:
    content = "id|a,text\n1|x,둘\n"
    assert _read(_write(tmp_path / "a.csv", content), options=ReadOptions(delimiter=","))[0] == ["둘"]
    assert _read(tmp_path / "a.csv", options=ReadOptions(format="text"))[0] == [content]
    data = _write(tmp_path / "b.dat", LAYOUTS["lines"])
    assert local_files.find_files([data], ReadOptions(format="jsonl")) == [data]
    assert _read(data, options=ReadOptions(format="jsonl"))[0] == TEXTS
    for wrong in (("xlsx", None, None), (None, "hangul", None), (None, "base64", None), (None, None, "::")):
        with pytest.raises(UserError, match="--"):
            checked_options(*wrong)


def test_what_was_decided_is_said(tmp_path: Path) -> None:
    assert _read(_write(tmp_path / "a.jsonl", LAYOUTS["lines"]))[2] == []
    assert _read(_write(tmp_path / "a.csv", _table(TEXTS, "|"), "cp949"))[2] == [
        "a.csv is read as a table with bars between columns, in CP949; column 'text' is the text"
    ]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    corpus, other = tmp_path / "corpus", tmp_path / "other"
    for folder, name in ((corpus, "a.txt"), (other, "b.txt"), (corpus / "own", "c.txt")):
        folder.mkdir(exist_ok=True)
        _write(folder / name, name)
    os.symlink("../other", corpus / "a-link")
    os.symlink("..", other / "up")
    os.symlink("own", corpus / "again")
    os.symlink("nowhere", corpus / "lost")
    assert sorted(path.name for path in local_files.find_files([corpus])) == ["a.txt", "b.txt", "c.txt"]
    assert "1 links to nothing" in (local_files.describe_unread([corpus]) or "")


def test_losses_are_told_above_a_few_per_cent() -> None:
    def report(kept: int, **dropped: int) -> dict:
        rules = {
            name.replace("_", " "): {"documents": n, "samples": [f"a {name}"]} for name, n in dropped.items()
        }
        return {"read": kept + sum(dropped.values()), "kept": kept, "dropped": rules}

    assert describe_losses("text", [report(97, broken_row=3)]) == []
    assert describe_losses("text", [report(90, broken_row=7, empty=3)]) == [
        "10% of 'text' gave no text (10 of 100 documents), 7 as 'broken row', such as 'a broken_row'"
    ]
    assert len(describe_losses("text", [report(80, broken_row=10, language=10)])) == 2


def test_the_window_of_a_zstd_frame() -> None:
    """Headers as `zstd` writes them: a window of 2^31, of 2^21, and a single segment of 1 MB."""
    assert zstd_window(bytes.fromhex("28b52ffd04a88d38007a")) == 1 << 31
    assert zstd_window(bytes.fromhex("28b52ffd04580000000000")) == 1 << 21
    assert zstd_window(bytes.fromhex("28b52ffda400001000aa")) == 1 << 20


def test_languages_without_a_window_of_validation_text_are_named() -> None:
    shards = object.__new__(ShardSet)
    shards._files = {("train", "ko"): [], ("validation", "ko"): [], ("train", "en"): [], ("train", "de"): []}
    shards._starts = {("validation", "ko"): [0, 65], ("validation", "en"): [0, 64]}
    line = "not measured, with less validation text than a window of 64 tokens: en (64 tokens), de (0 tokens)"
    assert shards.unmeasured(64) == line
    assert shards.unmeasured(65) != line and "ko (65 tokens)" in (shards.unmeasured(65) or "")
