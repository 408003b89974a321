"""`braingpt tokenizer`: train, report, encode, with and without --json."""

import json

import pytest
from typer.testing import CliRunner

from braingpt.cli.tokenizer import app
from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer, named

KOREAN = "오늘은 날씨가 참 좋네요. 내일도 맑겠습니다.\n"


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text(KOREAN * 30, "utf-8")
    lines = [
        json.dumps({"text": "The weather is lovely this morning, is it not?"}),
        "{broken",
        json.dumps({"text": KOREAN}),
    ]
    (folder / "b.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


def test_train_writes_a_tokenizer_that_loads(corpus, tmp_path):
    result = json.loads(run("train", corpus, "--out", tmp_path / "own", "--vocab", 300, "--json"))
    tokenizer = Tokenizer.load(tmp_path / "own")
    assert (
        result["fingerprint"] == tokenizer.fingerprint and result["vocab_size"] == tokenizer.vocab_size == 364
    )
    assert result["texts"] == 3 and result["skipped"] == 1
    assert json.loads(run("encode", "내일", "--tokenizer", tmp_path / "own", "--json"))["tokens"]
    shown = run("train", corpus, "--out", tmp_path / "own", "--vocab", 300)
    assert "skipped 1 of 4, the first: broken row" in shown


def test_train_leaves_nothing_behind_when_it_fails(corpus, tmp_path):
    with pytest.raises(UserError, match="yields only"):
        run("train", corpus, "--out", tmp_path / "own", "--vocab", 9000)
    assert not (tmp_path / "own").exists()
    with pytest.raises(UserError, match="no file or folder"):
        run("train", tmp_path / "nowhere", "--out", tmp_path / "own")


def test_column_names_the_text_of_a_table(tmp_path):
    (tmp_path / "t.csv").write_text("question,answer\n날씨가 어때?,좋네요.\n", "utf-8")
    with pytest.raises(UserError, match="--column"):
        run("report", tmp_path)
    assert json.loads(run("report", tmp_path, "--column", "answer", "--json"))["rows"][0]["characters"] == 4


def test_report(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))
    result = json.loads(run("report", corpus, "--json"))
    assert {(row["language"], row["texts"]) for row in result["rows"]} == {("ko", 2), ("en", 1)}
    assert all(row["encodings"]["braingpt"]["characters_per_token"] > 1 for row in result["rows"])
    assert result["absent"] == ["gpt2", "cl100k_base", "o200k_base"] and result["skipped"] == 1
    shown = run("report", corpus)
    assert "ko" in shown and "not compared" in shown and "skipped 1" in shown


def test_the_report_fits_80_columns(corpus, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("report", corpus)
    # the last line names a file
    assert "…" not in shown and max(map(len, shown.splitlines()[:-1])) <= 80
    assert "corpus, ko, 0.00 MB" in shown and "characters/" in shown and "syllables" in shown


def test_what_cannot_be_done_is_reported_before_the_work(corpus, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for arguments in (("train", corpus, "--vocab", 300), ("add-language", "pt", corpus)):
        for out in ("file", "file/below"):
            with pytest.raises(UserError, match=r"file is a file; name another folder"):
                run(*arguments, "--out", tmp_path / out)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match=r"no text in .*empty\.txt"):
        run("report", tmp_path / "empty.txt")
    (tmp_path / "bytes.txt").write_bytes(b"bad \xff\xff\xff")
    with pytest.raises(UserError, match=r"no text in .*bytes\.txt; skipped 1 of 1, the first: not UTF-8"):
        run("train", tmp_path / "bytes.txt", "--out", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_encode_shows_ids_and_parts_of_characters():
    result = json.loads(run("encode", "뷁 [bold]x", "--language", "ko", "--json"))
    tokens = result["tokens"]
    assert tokens[0] == {"id": 16_388, "text": "<|ko|>"}
    assert Tokenizer.default().decode([token["id"] for token in tokens]) == "뷁 [bold]x"
    assert any(token["text"].startswith("<EB>") for token in tokens)
    assert "│ [ " in run("encode", "[bold]x")
    with pytest.raises(UserError, match="no marker"):
        run("encode", "x", "--language", "xx")


def test_report_beside_itself_and_the_unknown(corpus, tmp_path, monkeypatch):
    # what was loaded before needs no file any more
    named._named.cache_clear()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))
    with pytest.raises(
        UserError,
        match=r"cl100k_base: its rank file is not in tiktoken's cache.*get_encoding\('cl100k_base'\)",
    ):
        run("report", corpus, "--tokenizer", "cl100k_base")
    with pytest.raises(UserError, match="did you mean 'gpt2'"):
        run("encode", "x", "--tokenizer", "gpt-2")


def test_add_language(corpus, tmp_path):
    portuguese = tmp_path / "pt.jsonl"
    texts = [
        f"Não há nada melhor do que uma manhã de sol número {n}, porque então não chove em São Paulo."
        for n in range(40)
    ]
    portuguese.write_text("\n".join(json.dumps({"text": text}) for text in texts), "utf-8")
    said = run("add-language", "pt", portuguese, "--out", tmp_path / "seven", "--entries", 12)
    assert "<|pt|> is token 16394" in said and "held-out texts" in said and "prepared again" in said
    result = json.loads(
        run("add-language", "pt", portuguese, "--out", tmp_path / "again", "--entries", 12, "--json")
    )
    grown = Tokenizer.load(tmp_path / "seven")
    assert grown.fingerprint == result["fingerprint"] == Tokenizer.load(tmp_path / "again").fingerprint
    assert result["former_fingerprint"] == Tokenizer.default().fingerprint != grown.fingerprint
    assert (
        result["entries"] == 12
        and result["tokens_after"] < 0.7 * result["tokens_before"]
        and result["detectable"]
    )
    shown = json.loads(
        run("encode", texts[0], "--language", "auto", "--tokenizer", tmp_path / "seven", "--json")
    )["tokens"]
    assert shown[0] == {"id": 16_394, "text": "<|pt|>"}
