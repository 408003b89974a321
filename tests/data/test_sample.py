"""The sample corpus: the same everywhere, in its shares, without repeats, and right in grammar where a rule
can say so.
"""

import hashlib
import itertools
import re
import unicodedata
from collections import Counter

import pytest

from braingpt.data.document import Document
from braingpt.data.sample import DEFAULT_BYTES, documents
from braingpt.data.sample.english_grammar import article
from braingpt.data.sample.texts import table

FIRST_100_KB = "15fac7413c19447a2ad6d49d71441752b98bccac68239d2ef88a3a03666c5ce7"


@pytest.fixture(scope="module")
def corpus() -> list[Document]:
    return list(documents())


def _digest(size_bytes: int) -> str:
    text = "\n".join(document.text for document in documents(size_bytes=size_bytes))
    return hashlib.sha256(text.encode()).hexdigest()


def test_same_bytes_for_the_same_seed() -> None:
    """A change here means that everybody's sample corpus changes: state it in the commit, then renew the
    digest.
    """
    assert _digest(100_000) == FIRST_100_KB


def test_another_seed_gives_another_corpus_and_a_smaller_one_is_its_beginning() -> None:
    small, large, other = (
        list(documents(seed, size)) for seed, size in ((0, 20_000), (0, 40_000), (1, 20_000))
    )
    assert large[: len(small)] == small
    assert not {document.text for document in small} & {document.text for document in other}


def test_size_and_shares(corpus: list[Document]) -> None:
    spent = Counter()
    for document in corpus:
        spent[document.language] += len(document.text.encode())
    total = sum(spent.values())
    assert DEFAULT_BYTES <= total < DEFAULT_BYTES + 4000
    shares = {"ko": 0.40, "en": 0.30, "de": 0.075, "fr": 0.075, "es": 0.075, "it": 0.075}
    assert {language: spent[language] / total for language in shares} == pytest.approx(shares, abs=0.003)
    switched = sum(
        len(d.text.encode()) for d in corpus if d.language == "ko" and re.search(r"[a-z]{3}", d.text)
    )
    assert 0.02 < switched / total < 0.03


def test_documents_are_named_and_never_repeat(corpus: list[Document]) -> None:
    assert len({document.id for document in corpus}) == len(corpus)
    assert len({document.text for document in corpus}) == len(corpus)
    assert {document.source for document in corpus} == {"sample"}
    assert all(re.fullmatch(rf"sample-{document.language}-\d+", document.id) for document in corpus)


def test_texts_are_clean(corpus: list[Document]) -> None:
    for document in corpus:
        text = document.text
        assert not re.search(r"[{}\[\]<>|¶*_]| {2}|\n\n|^\s|\s$|[ ]\n", text), text
        assert not re.search(r"\.\.|,\.|\.,|[?!]\.(?!»|\w)", text.replace("?».", "").replace("!».", "")), text
        assert unicodedata.is_normalized("NFC", text)


def test_opened_quotes_are_closed(corpus: list[Document]) -> None:
    pairs = {"ko": '""', "en": '""', "de": "„“", "fr": "«»", "es": "«»", "it": "«»"}
    for document in corpus:
        opened, closed = pairs[document.language]
        for line in document.text.split("\n"):
            if opened == closed:
                assert line.count(opened) % 2 == 0, line
            else:
                assert line.count(opened) == line.count(closed), line


def test_sentences_open_with_a_capital(corpus: list[Document]) -> None:
    for document in corpus:
        if document.language != "ko":
            assert not re.search(
                r"(?:^|[.?!] |\n)[a-zà-ÿ]", re.sub(r"[»“\"][,]? [^.]*", "", document.text)
            ), document.text


def test_korean_narration_keeps_one_style(corpus: list[Document]) -> None:
    for document in corpus:
        if document.language == "ko" and "날씨: " not in document.text:
            told = "".join(document.text.split('"')[::2])
            polite_ends = re.findall(r"[가-힣]{2}[요]\.", told)
            plain_ends = [end for end in re.findall(r"[가-힣]{2}다\.", told) if not end.endswith("니다.")]
            assert not (polite_ends and plain_ends), document.text


def test_english_articles_in_the_corpus(corpus: list[Document]) -> None:
    for document in corpus:
        if document.language == "en":
            for found, word in re.findall(r"\b([Aa]n?) (\w+)", document.text):
                assert found.lower() == article(word), f"{found} {word}"


@pytest.mark.parametrize(
    ("language", "never"),
    [
        (
            "fr",
            r"\b(?:le|la|de|que|je|ne|se|du|au) (?:[aâeéèêiîoôu]|homme|herbe|heure|hiver)\w*|\b(?:à|de) "
            r"les?\b|\bsa [aeiouéè]",
        ),
        ("es", r"\b(?:de|a) el\b|\by (?:i|hi)[^ae]\w*|\b(?:la|una) (?:agua|águila)\b"),
        (
            "it",
            r"\b(?:il|un|del|al|nel|sul) (?:z|gn|ps|s[^aeiou ])\w*|\b(?:il|dello|della|del|nel|una) "
            r"[aeiou]\w*|\b(?:di|a|da|in) (?:il|lo|gli|i)\b",
        ),
        ("de", r"\b(?:ein|kein|sein|ihr) \w+e (?:Ball|Buch|Schal)\b|\b(?:mit|von) (?:den|die|das) "),
    ],
)
def test_forms_that_no_sentence_may_have(corpus: list[Document], language: str, never: str) -> None:
    for document in corpus:
        if document.language == language:
            found = re.search(never, document.text)
            assert not found, (found, document.text)


def test_capitals_are_the_same_in_every_language(corpus: list[Document]) -> None:
    rows = table("world", "capitals")
    assert all(len(row) == 13 for row in rows)
    for language, column, pattern in (
        ("en", 3, r"The capital of (.+?) is (.+?)\."),
        ("es", 9, r"La capital (?:de la|del|de) (.+?) es (.+?)\."),
    ):
        known = {(re.sub(r"^(la|el) ", "", row[column]), row[column + 1]) for row in rows}
        told = {pair for d in corpus if d.language == language for pair in re.findall(pattern, d.text)}
        assert told <= known and len(told) > 30


def test_sums_are_right(corpus: list[Document]) -> None:
    patterns = {
        "ko": r"(\d+) 더하기 (\d+)[은는] (\d+)",
        "en": r"(\d+) plus (\d+) is (\d+)",
        "de": r"(\d+) plus (\d+) ist (\d+)",
    }
    patterns |= {
        "fr": r"(\d+) plus (\d+) égale (\d+)",
        "es": r"(\d+) más (\d+) son (\d+)",
        "it": r"(\d+) più (\d+) fa (\d+)",
    }
    for document, (language, pattern) in itertools.product(corpus, patterns.items()):
        if document.language == language:
            assert all(int(a) + int(b) == int(c) for a, b, c in re.findall(pattern, document.text))
