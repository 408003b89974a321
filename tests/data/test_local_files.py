"""The user's own files: every format, every fault a file can have, and reading that continues anywhere."""

import bz2
import gzip
import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.data.document import Document
from braingpt.data.sources import byte_reader, local_files, row_reader
from braingpt.data.sources.document_stream import DocumentStream, StreamEvents
from braingpt.data.sources.local_files import own_files
from braingpt.data.sources.open_streams import StreamRequest, open_streams
from braingpt.errors import UserError

RIGHT_TO_LEFT = "مرحبا بالعالم \u200f\u202bשלום\u202c"
ZERO_WIDTH = "a\u200bb\u200d\ufeffc 한\u200c글"


class Counts(Counter):
    def broken(self, source: str, rule: str, sample: str) -> None:
        assert source == "text" and sample
        self[rule] += 1
        self.sample = sample


def _stream(path: Path | list[Path], column: str | None = None) -> tuple[DocumentStream, Counts]:
    counts = Counts()
    paths = path if isinstance(path, list) else [path]
    stream = own_files(paths, column, StreamEvents(note=lambda line: None, broken=counts.broken))
    return stream, counts


def _read(path: Path | list[Path], column: str | None = None) -> tuple[list[str], dict[str, int]]:
    stream, counts = _stream(path, column)
    return [document.text for document in stream], dict(counts)


def _write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def test_text(tmp_path: Path) -> None:
    assert _read(_write(tmp_path / "a.txt", "\ufeff안녕\n세상\n")) == (["안녕\n세상\n"], {})
    assert _read(_write(tmp_path / "b.md", "")) == ([], {})
    assert _read(_write(tmp_path / "c.txt.gz", gzip.compress("둘".encode()))) == (["둘"], {})
    assert _read(_write(tmp_path / "d.txt", f"{RIGHT_TO_LEFT}{ZERO_WIDTH}")) == (
        [f"{RIGHT_TO_LEFT}{ZERO_WIDTH}"],
        {},
    )


def test_a_text_beyond_the_bound_is_counted_in_a_parquet_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_reader, "MAX_LINE", 1_000)
    pyarrow.parquet.write_table(
        pyarrow.table({"text": ["한" * 334, "한" * 333, "short"]}), tmp_path / "a.parquet"
    )
    assert _read(tmp_path / "a.parquet") == (["한" * 333, "short"], {"line too long": 1})


def test_files_that_nobody_reads_are_noted(tmp_path: Path) -> None:
    for name in ("a.txt", "b.pdf", "below/c.PDF", "LICENSE", ".git/config", "d.jsonl.gz"):
        _write(tmp_path / name, "")
    notes: list[str] = []
    events = StreamEvents(notes.append, lambda *broken: None)
    open_streams(StreamRequest("text", ["ko"], paths=[tmp_path]), events)
    assert notes == ["files that hold no text braingpt reads are left out: 2 .pdf, 1 without a suffix"]
    assert local_files.describe_unread([tmp_path / "a.txt"]) is None


def test_other_encodings(tmp_path: Path) -> None:
    assert _read(_write(tmp_path / "a.txt", "한국어 글이다".encode("cp949"))) == (["한국어 글이다"], {})
    assert _read(_write(tmp_path / "b.txt", "déjà vu".encode("latin-1"))) == (["déjà vu"], {})
    for encoding in ("utf-16", "utf-16-be"):
        bom = b"\xfe\xff" if encoding == "utf-16-be" else b""
        assert _read(
            _write(tmp_path / "c.jsonl", bom + '{"text": "한글 🙂"}\n{"text": "둘"}\n'.encode(encoding))
        ) == (
            ["한글 🙂", "둘"],
            {},
        )
        assert _read(
            _write(tmp_path / "d.csv.gz", gzip.compress(bom + "n,text\n1,삼\n".encode(encoding)))
        ) == (["삼"], {})
    mixed = _write(
        tmp_path / "e.jsonl",
        b"\n".join([b'{"text": "one"}', '{"text": "둘"}'.encode("cp949"), '{"text": "셋"}'.encode()]),
    )
    stream, counts = _stream(mixed)
    assert ([document.text for document in stream], counts) == (["one", "셋"], {"not UTF-8": 1})
    assert '(CP949; --encoding cp949 reads all of a file so): {"text": "둘"}' in counts.sample
    with pytest.raises(UserError, match="not in the encoding it seems to be in"):
        _read(_write(tmp_path / "f.txt", b"\xff\xfea\x00b"))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["한국어 ", "word ", "\n", "\n\n", "🙂" * 40, "x" * 90]), max_size=300))
def test_a_long_text_is_cut_and_nothing_is_lost(tmp_path_factory, parts: list[str]) -> None:
    path = _write(tmp_path_factory.mktemp("cut") / "a.txt", "".join(parts))
    before, row_reader.PIECE = row_reader.PIECE, 200
    try:
        found = [row.values["text"] for row in row_reader.RowReader(byte_reader.local_file(path)).rows()]
    finally:
        row_reader.PIECE = before
    assert "".join(found) == "".join(parts)
    assert all(len(text.encode()) <= 400 for text in found)


def test_json_rows(tmp_path: Path) -> None:
    # ids may repeat
    whole = [json.dumps({"id": 7, "text": f"글 {n}"}, ensure_ascii=False).encode() for n in range(3)]
    bad = [
        b"{",
        b"",
        b'{"text": 3}',
        b"[1]",
        b'{"text": "\xff"}',
        b'{"other": "x"}',
        b'{"text": "\\ud800"}',
        b'{"text": " "}',
    ]
    path = _write(tmp_path / "a.jsonl", b"\n".join([whole[0], *bad, *whole[1:]]))
    assert _read(path) == (["글 0", "글 1", "글 2"], {"broken row": 4, "not UTF-8": 2, "empty": 1})
    for name, pack in (("b.jsonl.gz", gzip.compress), ("c.jsonl.zst", _zstd), ("d.jsonl.bz2", bz2.compress)):
        assert _read(_write(tmp_path / name, pack(path.read_bytes()))) == _read(path)
    two_members = _write(tmp_path / "e.jsonl.gz", gzip.compress(whole[0] + b"\n") + gzip.compress(whole[1]))
    assert _read(two_members) == (["글 0", "글 1"], {})
    stream, _ = _stream(path)
    assert len({document.id for document in stream}) == 3
    assert _read(path, "id") == ([], {"broken row": 9, "not UTF-8": 1})


def test_a_list_in_json(tmp_path: Path) -> None:
    texts = ["하나", "two 🙂", "three, [not] the end"] * 3
    for indent in (None, 2):
        content = json.dumps([{"n": 1, "text": text} for text in texts], ensure_ascii=False, indent=indent)
        assert _read(_write(tmp_path / "a.json", "\ufeff " + content)) == (texts, {})
    assert _read(_write(tmp_path / "b.json", json.dumps(texts))) == (texts, {})
    assert _read(_write(tmp_path / "c.json", '[{"text": "one"}, 3, {"text": "two"}]')) == (
        ["one", "two"],
        {"broken row": 1},
    )
    assert _read(_write(tmp_path / "d.json", '[{"text": "one"}, {"text": ')) == (["one"], {"broken file": 1})
    assert _read(_write(tmp_path / "e.json", "[]")) == ([], {})


def test_csv(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", '\ufeffid,본문\n1,"여러 줄,\n그리고 쉼표"\n2\n3,끝\n4,x,y\n')
    assert _read(path) == (["여러 줄,\n그리고 쉼표", "끝"], {"broken row": 1, "empty": 1})
    assert _read(_write(tmp_path / "b.tsv", "a\ttext\n1\tx y\n")) == (["x y"], {})
    assert _read(_write(tmp_path / "c.csv", b"text\ngood\n\xffbad\n")) == (["good"], {"not UTF-8": 1})
    assert _read(_write(tmp_path / "d.csv", "text,n\n" + "x" * 300_000 + ",1\n"))[0] == ["x" * 300_000]
    assert _read(_write(tmp_path / "e.csv", "")) == ([], {})
    assert _read(_write(tmp_path / "g.csv", "n;text\n1;a, b\n")) == (["a, b"], {})
    two = _write(tmp_path / "f.csv", "question,answer\nwhy,because\n")
    with pytest.raises(UserError, match="--column, one of question, answer"):
        _read(two)
    assert _read(two, "answer") == (["because"], {})
    with pytest.raises(UserError, match="did you mean 'answer'"):
        _read(two, "anser")


def test_an_open_quote_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_reader, "MAX_LINE", 1000)
    lines = ["first", '"never closed', *["line"] * 300, "the end"]
    assert _read(_write(tmp_path / "a.csv", "\n".join(["text", *lines]))) == (lines, {})


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2, 3], "body": ["하나", None, "셋"]}), path)
    assert _read(path) == (["하나", "셋"], {"empty": 1})
    with pytest.raises(UserError, match="no column 'text'"):
        _read(path, "text")
    with pytest.raises(UserError, match="not a readable parquet"):
        _read(_write(tmp_path / "b.parquet", "PAR1 not really"))
    pyarrow.parquet.write_table(pyarrow.table({"id": [1]}), tmp_path / "c.parquet")
    with pytest.raises(UserError, match="no text column; its columns are id"):
        _read(tmp_path / "c.parquet")
    with pytest.raises(UserError, match=r"no text column; it has no columns$"):
        _read(_write(tmp_path / "e.json", "{}"))
    bad = pyarrow.StringArray.from_buffers(
        2, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pyarrow.py_buffer(b"ok\xff\xff")
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": bad}), tmp_path / "d.parquet")
    assert _read(tmp_path / "d.parquet") == (["ok"], {"not UTF-8": 1})
    pyarrow.parquet.write_table(
        pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "e.parquet"
    )
    assert _read(tmp_path / "e.parquet") == ([], {})
    whole = path.read_bytes()
    with pytest.raises(UserError, match="not a readable parquet"):
        _read(_write(tmp_path / "cut.parquet", whole[: len(whole) // 2]))


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".zst", _zstd), (".bz2", bz2.compress)]
)
def test_a_damaged_archive_keeps_what_comes_before(tmp_path: Path, suffix: str, pack) -> None:
    lines = [
        json.dumps({"text": f"the document with number {n * n * 7919 % 10007} and {n}"})
        for n in range(60_000)
    ]
    whole = pack("\n".join(lines).encode())
    after = _write(tmp_path / "z.txt", "the next file")
    with pytest.raises(UserError, match="cannot be read"):
        _read(_write(tmp_path / f"a.jsonl{suffix}", b"no archive at all"))
    cut = _write(tmp_path / f"b.jsonl{suffix}", whole[: len(whole) * 3 // 4])
    texts, counts = _read([cut, after])
    assert texts[-1] == "the next file"
    assert texts[:-1] == [json.loads(line)["text"] for line in lines[: len(texts) - 1]]
    assert len(texts) > 1000
    assert counts == {"broken file": 1}


def test_a_parquet_file_damaged_within(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"the document with the number {n * 7919 % 10007}" for n in range(4000)]
    pyarrow.parquet.write_table(
        pyarrow.table({"text": texts}), path, row_group_size=1000, use_dictionary=False, compression="none"
    )
    content = bytearray(path.read_bytes())
    begin = pyarrow.parquet.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    content[begin : begin + 40] = b"\xff" * 40
    _write(path, bytes(content))
    assert _read(path) == (texts[:2000], {"broken file": 1})


def test_a_line_of_a_hundred_megabytes(tmp_path: Path) -> None:
    """It costs itself alone, and no more memory than the longest line allowed and its copy as text."""
    long = b'{"text": "' + b"x" * 100_000_000 + b'"}\n'
    path = _write(tmp_path / "a.jsonl", b'{"text": "one"}\n' + long + b'{"text": "two"}\n')
    table = _write(tmp_path / "b.csv", b"text\none\n" + b"x" * 100_000_000 + b"\ntwo\n")
    plain = _write(tmp_path / "c.txt", b"y" * 100_000_000)
    del long
    tracemalloc.start()
    try:
        for one in (path, table):
            assert _read(one) == (["one", "two"], {"line too long": 1})
        stream, counts = _stream(plain)
        assert sum(len(document.text) for document in stream) == 100_000_000
        assert not counts
        assert tracemalloc.get_traced_memory()[1] < 3 * byte_reader.MAX_LINE
    finally:
        tracemalloc.stop()


def _variety(folder: Path) -> list[Path]:
    """A file of every kind, each with broken rows among whole ones."""
    objects = [
        json.dumps({"n": n, "text": f"문서 {n}" if n % 3 else ""}, ensure_ascii=False) for n in range(7)
    ]
    lines = "\n".join([*objects[:3], "{broken", "", *objects[3:]]).encode()
    table = "n,text\n" + "".join(f'{n},"문서,\n{n}"\n' if n % 3 else f"{n}\n" for n in range(7))
    made = {
        "a.jsonl": lines,
        "b.jsonl.gz": gzip.compress(lines),
        "c.jsonl.zst": _zstd(lines),
        "d.json": f"[{', '.join(objects)}, 5]".encode(),
        "e.csv": table.encode(),
        "f.csv.gz": gzip.compress(table.encode("utf-16")),
        "g.txt": ("가나다 abc\n\n" * 40).encode() + b"\xff\n\n" + "끝\n".encode(),
        "i.txt": b"",
    }
    paths = [_write(folder / name, content) for name, content in made.items()]
    paths.append(folder / "h.parquet")
    rows_ = pyarrow.table({"text": [f"글 {n}" if n % 3 else None for n in range(11)], "n": range(11)})
    pyarrow.parquet.write_table(rows_, paths[-1], row_group_size=4)
    return sorted(paths)


def test_reading_continues_at_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped behind any document and continued there: the same documents, every broken row counted once."""
    monkeypatch.setattr(row_reader, "PIECE", 100)
    paths = _variety(tmp_path)
    whole, counts = _stream(paths)
    expected = list(whole)
    assert (
        len(expected) > 30 and counts["broken row"] == 4 and counts["empty"] > 10 and counts["not UTF-8"] == 1
    )
    assert whole.fraction_read() == 1.0
    shares = []
    for stop in range(len(expected)):
        first, before = _stream(paths)
        iterator = iter(first)
        documents: list[Document] = [next(iterator) for _ in range(stop)]
        shares.append(first.fraction_read())
        position, at_stop = json.loads(json.dumps(first.position())), Counter(before)
        iterator.close()
        second, after = _stream(paths)
        second.resume(position)
        assert documents + list(second) == expected
        assert at_stop + after == counts
    assert shares[1:] == sorted(shares[1:])


def test_find(tmp_path: Path) -> None:
    for name in ("b.txt", "sub/a.MD", "c.jsonl.gz", "f.json.zst", "d.bin", ".hidden/e.txt"):
        _write(tmp_path / name, "x")
    assert [path.name for path in local_files.find_files([tmp_path, tmp_path / "b.txt"])] == [
        "b.txt",
        "c.jsonl.gz",
        "f.json.zst",
        "a.MD",
    ]
    with pytest.raises(UserError, match="no file or folder"):
        local_files.find_files([tmp_path / "nothing"])
    with pytest.raises(UserError, match="not a kind of file"):
        local_files.find_files([tmp_path / "d.bin"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="files in"):
        local_files.find_files([tmp_path / "empty"])


def test_stamp_changes_with_the_files(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.txt", "one")
    before = local_files.stamp([path])
    assert local_files.stamp([path]) == before
    _write(path, "three")
    assert local_files.stamp([path]) != before
