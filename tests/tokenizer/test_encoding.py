"""The encoding's promises: cleaned text comes back exactly, text is only text, streams equal whole decodes, a
damaged folder is refused in one line.
"""

import json
import pickle
import re

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.errors import Failure, UserError
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.cleaning import clean_text
from braingpt.tokenizer.language import LANGUAGES
from braingpt.tokenizer.storage import DESCRIPTION, RANKS
from braingpt.tokenizer.vocabulary import PATTERN

TOKENIZER = Tokenizer.default()
# Some of these are changed by cleaning.
HARD = [
    "",
    "\0\x07\x1b[31m\x7f\u0085",
    # NFD, Latin and Hangul
    "e\u0301 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "👩‍👩‍👧‍👦🏳️‍🌈🇰🇷👍🏽",
    "שלום עולם \u202eabc\u202c مرحبا",
    "a\u200bb\u200c\u200d\ufeffc\u2060",
    "\r\n\r \t\u00a0\u3000 \n\n  x",
    "한국어English섞어쓰기GPT4는㉠ⓐ漢字カナ",
    "𝔘𝔫𝔦 \U0010ffff \ufffd\ufffe",
    # Lone letters after a syllable: NFKC would join them to it.
    "감사ㄳ 너무ㄳ ㅋㅋ ㅠㅠ",
    "don't I'LL it's 12345678901234567890",
]


@pytest.mark.parametrize("text", HARD)
def test_hard_texts_come_back_cleaned_and_otherwise_exactly(text):
    for language in (None, "ko", "auto", "split"):
        assert TOKENIZER.decode(TOKENIZER.encode(text, language)) == clean_text(text)


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.sampled_from([None, "en", "auto", "split"]),
)
def test_any_text_comes_back_cleaned_and_otherwise_exactly(text, language):
    ids = TOKENIZER.encode(text, language)
    assert TOKENIZER.decode(ids) == clean_text(text)
    assert TOKENIZER.token_bytes()[ids].sum() == len(clean_text(text).encode())


PLAIN = tiktoken.Encoding("plain", pat_str=PATTERN, mergeable_ranks=TOKENIZER.ranks(), special_tokens={})


@settings(max_examples=500, deadline=None)
@given(
    st.text(
        st.one_of(
            st.sampled_from("aZ가1 .'sLl\r\n\t\u3000\u00a0/é\u0301İß漢😀"),
            st.characters(exclude_categories=["Cs"]),
        ),
        max_size=60,
    )
)
def test_the_grouped_pattern_cuts_as_the_plain_one_does(text):
    plain = PLAIN.encode_ordinary(clean_text(text))
    assert TOKENIZER.encode(text) == TOKENIZER.encode_array(text).tolist() == plain


@pytest.mark.parametrize("unit", [" ", "\n", "a", "가", "!", " \t", "\u00a0", "7", "\u0301", "aA"])
def test_a_million_times_the_same(unit):
    """Unbounded repeats of white space overflow the regex engine's stack."""
    text = unit * (1_000_000 // len(unit)) + "end"
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=40), st.booleans())
def test_stream_equals_decode(ids, specials):
    stream = TOKENIZER.stream(specials)
    parts = [stream.push(token) for token in ids]
    assert "".join(parts) + stream.flush() == TOKENIZER.decode(ids, specials)


@settings(max_examples=100, deadline=None)
@given(st.text("가뷁힣aé🤖👩‍👧 \n", max_size=30))
def test_stream_gives_only_whole_characters_and_gives_them_at_once(text):
    stream, seen, pushed = TOKENIZER.stream(), "", b""
    for token in TOKENIZER.encode(text):
        seen += stream.push(token)
        pushed += TOKENIZER.token(token)
        assert seen == pushed.decode("utf-8", errors="ignore")
    assert stream.flush() == "" and seen == text


def test_stream_ends_a_broken_character_visibly_and_starts_afresh():
    stream = TOKENIZER.stream()
    assert stream.push(0xED) == "" and stream.flush() == "\ufffd"
    assert stream.push(ord("a")) == "a"


def test_layout():
    assert TOKENIZER.vocab_size == 16_448
    assert [TOKENIZER.eot, TOKENIZER.pad, TOKENIZER.user, TOKENIZER.assistant] == [
        16_384,
        16_385,
        16_386,
        16_387,
    ]
    assert TOKENIZER.markers == {code: 16_388 + index for index, code in enumerate(LANGUAGES)}
    assert TOKENIZER.specials[-1] == "<|reserved_53|>" and len(TOKENIZER.specials) == 64
    sizes = TOKENIZER.token_bytes()
    assert sizes.dtype == np.int32 and sizes.shape == (16_448,)
    assert (sizes[:16_384] > 0).all() and (sizes[16_384:] == 0).all()


def test_specials_in_text_are_text():
    text = "".join(TOKENIZER.specials)
    ids = TOKENIZER.encode(text)
    assert max(ids) < 16_384 and TOKENIZER.decode(ids) == text
    assert TOKENIZER.encode_batch([text]) == [ids] == [TOKENIZER.encode_array(text).tolist()]


def test_specials_in_ids_are_dropped_or_spelled_out():
    ids = [TOKENIZER.markers["ko"], *TOKENIZER.encode("안녕"), TOKENIZER.eot]
    assert TOKENIZER.decode(ids) == "안녕"
    assert TOKENIZER.decode(ids, specials=True) == "<|ko|>안녕<|endoftext|>"
    assert TOKENIZER.decode(np.array(ids)) == "안녕"


def test_languages():
    plain = TOKENIZER.encode("Wie geht es dir heute, mein Freund?")
    assert TOKENIZER.encode("Wie geht es dir heute, mein Freund?", "de") == [TOKENIZER.markers["de"], *plain]
    assert TOKENIZER.encode("Wie geht es dir heute, mein Freund?", "auto") == [
        TOKENIZER.markers["de"],
        *plain,
    ]
    assert TOKENIZER.encode("123", "auto") == TOKENIZER.encode("123")
    ids = TOKENIZER.encode("그는 웃으며 말했다. I will see you tomorrow. 그리고 떠났다.", "split")
    assert [token for token in ids if token >= 16_384] == [
        TOKENIZER.markers[code] for code in ("ko", "en", "ko")
    ]
    with pytest.raises(UserError, match=r"'kr'; did you mean 'ko'\?"):
        TOKENIZER.encode("안녕", "kr")


def test_no_token_holds_hangul_and_latin():
    both = re.compile("[가-힣ㄱ-ㆎ].*[A-Za-zÀ-ÿ]|[A-Za-zÀ-ÿ].*[가-힣ㄱ-ㆎ]", re.DOTALL)
    assert not [entry for entry in TOKENIZER.entries if both.search(entry.decode("utf-8", "replace"))]
    ids = TOKENIZER.encode("한글abc한글")
    assert ids == TOKENIZER.encode("한글") + TOKENIZER.encode("abc") + TOKENIZER.encode("한글")


@pytest.mark.parametrize(
    "method", [TOKENIZER.encode, TOKENIZER.encode_array, lambda text: TOKENIZER.encode_batch(["a", text])]
)
def test_lone_surrogate_is_refused_with_its_place(method):
    with pytest.raises(UserError, match=r"lone surrogate \(U\+D800\) at character 2"):
        method("가나\ud800다")


@pytest.mark.parametrize("token", [-1, 16_448, 100_000])
def test_foreign_id_is_refused(token):
    with pytest.raises(UserError, match="not in this vocabulary of 16448"):
        TOKENIZER.decode([token])


def test_encode_batch_is_encode_of_each():
    assert TOKENIZER.encode_batch(HARD) == [TOKENIZER.encode(text) for text in HARD]
    assert TOKENIZER.encode_batch([]) == []


def test_saved_loaded_and_pickled_are_the_same(tmp_path):
    TOKENIZER.save(tmp_path / "deep" / "folder")
    loaded = Tokenizer.load(tmp_path / "deep" / "folder")
    assert sorted(path.name for path in (tmp_path / "deep" / "folder").iterdir()) == [RANKS, DESCRIPTION]
    # fits a pipe
    assert pickle.loads(pickle.dumps(TOKENIZER)) is TOKENIZER and len(pickle.dumps(TOKENIZER)) < 1000
    for other in (loaded, pickle.loads(pickle.dumps(loaded))):
        assert other.fingerprint == TOKENIZER.fingerprint and other.markers == TOKENIZER.markers
        assert [other.encode(text) for text in HARD] == [TOKENIZER.encode(text) for text in HARD]


def test_fingerprint_covers_entries_pattern_and_specials():
    entries = [bytes([value]) for value in range(256)]
    one = Tokenizer(entries)
    assert re.fullmatch("[0-9a-f]{64}", one.fingerprint)
    others = [
        Tokenizer([*entries, b"ab"]),
        Tokenizer(entries, pattern=r"\S+|\s+"),
        Tokenizer(entries, marked=("ko", "en")),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 4


def damage(folder, how):
    ranks, description = folder / RANKS, folder / DESCRIPTION
    content = json.loads(description.read_text("utf-8"))
    if how == "cut":
        ranks.write_bytes(ranks.read_bytes()[:5000])
    elif how == "flipped":
        lines = ranks.read_bytes().splitlines(keepends=True)
        ranks.write_bytes(b"".join(lines[:-1]) + b"QUJD 16383\n")
    elif how == "garbage":
        ranks.write_bytes(b"\xff\xfe no ranks")
    elif how == "no ranks":
        ranks.unlink()
    elif how == "not json":
        description.write_text("{")
    elif how == "not utf-8":
        description.write_bytes(b'{"format": "\xff"}')
    else:
        description.write_text(json.dumps(content | how, ensure_ascii=False))


@pytest.mark.parametrize(
    "how",
    [
        "cut",
        "flipped",
        "garbage",
        "no ranks",
        "not json",
        "not utf-8",
        {"pattern": "x"},
        {"specials": None},
        {"languages": ["xx"]},
    ],
    ids=str,
)
def test_damaged_folder_is_refused_in_one_line(tmp_path, how):
    TOKENIZER.save(tmp_path)
    damage(tmp_path, how)
    with pytest.raises(Failure, match="damaged") as error:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(error.value)


def test_foreign_or_missing_folder_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="tokenizer train"):
        Tokenizer.load(tmp_path)
    (tmp_path / DESCRIPTION).write_text('{"version": "1.0", "model": {"type": "BPE"}}')
    with pytest.raises(UserError, match="not a braingpt tokenizer"):
        Tokenizer.load(tmp_path)
    TOKENIZER.save(tmp_path)
    damage(tmp_path, {"version": 3})
    with pytest.raises(UserError, match="format version 3"):
        Tokenizer.load(tmp_path)
