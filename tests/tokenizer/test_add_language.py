"""Adding a language: what is kept, what is refused."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.add_language import add_language
from braingpt.tokenizer.cleaning import clean_text
from braingpt.tokenizer.training import train

PORTUGUESE = [
    f"O tempo está muito bom esta manhã, e amanhã também não vai chover em Lisboa {n}. Não é?"
    for n in range(60)
]
JAPANESE = [
    f"今日はとてもいい天気です。明日も東京は雨が降らないでしょう。{n}番目の文章です。" for n in range(60)
]
OLD = Tokenizer.default()
PT = add_language(OLD, "pt", PORTUGUESE, 10)
BOTH = add_language(PT.tokenizer, "ja", JAPANESE, 12)
GROWN = BOTH.tokenizer

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(
        [*PORTUGUESE[0].split(" "), "天気です", "明日", " não", "안녕", "the ", "hã também", "é", "\n"]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(texts)
def test_the_new_encoding_joins_whole_old_tokens_and_comes_back(text):
    old, new = OLD.encode(text), GROWN.encode(text)
    assert GROWN.decode(new) == clean_text(text)
    ends = {0}
    for token in old:
        ends.add(max(ends) + len(OLD.token(token)))
    place = 0
    for token in new:
        place += len(GROWN.token(token))
        assert place in ends, "a new token ends inside an old one"
    assert len(new) <= len(old)


@settings(max_examples=60, deadline=None)
@given(texts, st.sampled_from(["pt", "ja", "ko", "auto", "split"]))
def test_every_way_to_encode_comes_back(text, language):
    assert GROWN.decode(GROWN.encode(text, language)) == clean_text(text)


def test_old_ids_keep_their_meaning():
    assert [
        GROWN.token(token, specials=True) for token in range(OLD.vocab_size) if token not in (16_394, 16_395)
    ] == [OLD.token(token, specials=True) for token in range(OLD.vocab_size) if token not in (16_394, 16_395)]
    assert (
        OLD.token(16_394, specials=True) == b"<|reserved_0|>"
        and GROWN.token(16_394, specials=True) == b"<|pt|>"
    )
    assert GROWN.markers == OLD.markers | {"pt": 16_394, "ja": 16_395} and GROWN.eot == OLD.eot
    assert (
        GROWN.vocab_size == OLD.vocab_size + len(GROWN.added)
        and len(GROWN.added) == len(set(GROWN.added)) == 22
    )
    assert not set(GROWN.added) & set(GROWN.entries)
    assert GROWN.added[:10] == PT.tokenizer.added, "a second language leaves the first one's ids alone"
    assert GROWN.token_bytes()[[16_394, OLD.vocab_size]].tolist() == [0, len(GROWN.added[0])]


def test_the_language_costs_less_and_others_what_they_did():
    assert PT.after < 0.8 * PT.before and BOTH.after < 0.8 * BOTH.before
    assert PT.characters == sum(map(len, PORTUGUESE[9::10])), "measured on every tenth text"
    korean = "대한민국의 수도는 서울이다."
    assert GROWN.encode(korean) == OLD.encode(korean)


def test_detection_markers_and_splitting_know_the_new_languages():
    assert PT.detectable and BOTH.detectable
    assert GROWN.encode(PORTUGUESE[0], "auto")[0] == GROWN.markers["pt"]
    assert OLD.encode(PORTUGUESE[0], "auto") == OLD.encode(PORTUGUESE[0])
    assert GROWN.encode("今日はとてもいい天気です。", "auto")[0] == GROWN.markers["ja"]
    ids = GROWN.encode("그는 웃으며 말했다. 今日はとてもいい天気ですね。 I will see you tomorrow.", "split")
    assert [token for token in ids if token in GROWN.markers.values()] == [
        GROWN.markers[code] for code in ("ko", "ja", "en")
    ]


def test_saved_loaded_and_pickled_are_the_same(tmp_path):
    GROWN.save(tmp_path)
    for other in (Tokenizer.load(tmp_path), pickle.loads(pickle.dumps(GROWN))):
        assert other.fingerprint == GROWN.fingerprint and other.markers == GROWN.markers
        assert other.encode(PORTUGUESE[3] + JAPANESE[3]) == GROWN.encode(PORTUGUESE[3] + JAPANESE[3])
    assert len({OLD.fingerprint, PT.tokenizer.fingerprint, GROWN.fingerprint}) == 3
    assert add_language(OLD, "pt", PORTUGUESE, 10).tokenizer.fingerprint == PT.tokenizer.fingerprint


def test_merges_go_on_where_the_old_ones_ended():
    """From a vocabulary of bytes alone, the trainer that goes on finds what the trainer that begins finds."""
    texts = ["abababab abab cdcdcd cd " * 5] * 9
    begun = train(texts, 262)
    grown = add_language(Tokenizer(begun.entries[:256]), "pt", texts, 6).tokenizer
    assert set(grown.added) == set(begun.entries[256:])


@pytest.mark.parametrize(
    ("code", "texts", "entries", "message"),
    [
        ("ko", PORTUGUESE, 10, "a marker for 'ko' already"),
        ("Portuguese", PORTUGUESE, 10, "not a language code"),
        ("pt", PORTUGUESE, 0, "at least 1"),
        ("pt", [], 10, "too few"),
        ("pt", ["um"], 10, "too few"),
    ],
)
def test_what_cannot_be_done_is_said(code, texts, entries, message):
    with pytest.raises(UserError, match=message):
        add_language(OLD, code, texts, entries)


def test_no_reserved_special_left():
    full = Tokenizer(OLD.entries, specials=[*OLD.specials[:10], *(f"<|x{n}|>" for n in range(54))])
    with pytest.raises(UserError, match="no reserved special token left"):
        add_language(full, "pt", PORTUGUESE, 10)


def test_a_language_the_detector_does_not_know():
    assert not add_language(OLD, "tlh", PORTUGUESE, 5).detectable


def test_a_folder_is_locked_while_a_language_is_added_to_it(tmp_path, monkeypatch) -> None:
    """Two processes that add to one folder would lose the language of one."""
    from braingpt.cli.main import app
    from braingpt.tokenizer import add_language as module
    from braingpt.utils.file_lock import file_lock

    folder, held = tmp_path / "t", []
    Tokenizer([bytes([value]) for value in range(256)]).save(folder)
    (tmp_path / "texts.txt").write_text("um texto, outro texto\n" * 20)
    add = module.add_language

    def watched(*given):
        with pytest.raises(UserError, match="busy"), file_lock(folder, busy="busy"):
            pass
        held.append(True)
        return add(*given)

    monkeypatch.setattr(module, "add_language", watched)
    for code in ("pt", "sv"):
        words = ["tokenizer", "add-language", code, tmp_path / "texts.txt", "--out", folder]
        app([*map(str, words), "--tokenizer", str(folder), "--entries", "4"], standalone_mode=False)
    assert held == [True, True] and Tokenizer.load(folder).marked[-2:] == ("pt", "sv")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
