"""The work on a chunk of documents: clean, judge, tokenize, judge the tokens, hash.

    texts -> Judge.judge_text: cleaned text, language, segments
          -> tokens -> Judge.judge_token_batch -> keys of the kept documents

A worker is a pure function of the chunk, so that the result does not depend on how many processes there are
(`worker_pool.py`). Each process builds its judge and tokenizer once.
"""

from typing import NamedTuple

import numpy as np

from braingpt.data.dedup.content_hash import content_hash
from braingpt.data.dedup.index import KEYS
from braingpt.data.dedup.minhash import band_keys
from braingpt.data.document import Document
from braingpt.data.quality import Judge, QualityConfig
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.cleaning import NO_CHANGES, Changes

# What a worker is made from, in every process: the rules, the languages wanted, the tokenizer.
WorkerSettings = tuple[QualityConfig, list[str], Tokenizer]


class Outcome(NamedTuple):
    """A worker's result for N documents, of which K are good.

    Attributes:
        rules: The rule that drops each document; None for a good one.
        languages: Language of each document; None where it is unknown.
        keys: Keys of the good ones, uint64 (K, KEYS), see `dedup/index.py`.
        ids: Tokens of the good ones, one after the other.
        lengths: Number of tokens of each good one, int64 (K,).
        bytes: Bytes of text of each good one, int64 (K,).
        changes: What cleaning changed in the documents.
    """

    rules: list[str | None]
    languages: list[str | None]
    keys: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray
    bytes: np.ndarray
    changes: Changes


class Worker:
    """Judges and tokenizes."""

    def __init__(self, quality: QualityConfig, languages: list[str], tokenizer: Tokenizer) -> None:
        """Build judge and tokenizer; `languages` are the ones wanted."""
        self.judge = Judge(quality, languages, tokenizer.fingerprint, tokenizer.marked)
        self._tokenizer, self._near = tokenizer, quality.near_duplicates is not None
        self._dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32

    def __call__(self, documents: list[Document]) -> Outcome:
        """Judge and tokenize documents, as far as that needs no other document.

        Args:
            documents: The documents of a chunk.

        Returns:
            The rules, languages, tokens and keys of the documents, in their order.
        """
        self.judge.changes = NO_CHANGES
        judged = [self.judge.judge_text(document) for document in documents]
        rules = [one.rule for one in judged]
        # Numbers and languages of the documents whose text breaks no rule.
        passed = [(number, one.language or "") for number, one in enumerate(judged) if one.rule is None]
        encoded = [self._encode(judged[number].segments, language) for number, language in passed]
        token_rules = self.judge.judge_token_batch(
            [language for _, language in passed],
            [plain for _, plain in encoded],
            [documents[number].scores for number, _ in passed],
        )
        for (number, _), rule in zip(passed, token_rules, strict=True):
            rules[number] = rule
        texts = [one.text for one, rule in zip(judged, rules, strict=True) if rule is None]
        ids = [whole for (whole, _), rule in zip(encoded, token_rules, strict=True) if rule is None]
        keys = np.zeros((len(texts), KEYS), dtype=np.uint64)
        keys[:, 0] = [content_hash(text) for text in texts]
        if self._near:
            keys[:, 1:] = band_keys(texts)
        return Outcome(
            rules,
            [one.language for one in judged],
            keys,
            np.concatenate(ids) if ids else np.empty(0, dtype=self._dtype),
            np.array([len(one) for one in ids], dtype=np.int64),
            np.array([len(text.encode()) for text in texts], dtype=np.int64),
            self.judge.changes,
        )

    def _encode(self, segments: list[tuple[str | None, str]], language: str) -> tuple[np.ndarray, np.ndarray]:
        """(tokens with the document's marker before them, a marker at each switch of language and the end of
        text after them; the same tokens without these).
        """
        markers, encode = self._tokenizer.markers, self._tokenizer.encode_array
        if len(segments) == 1:
            encoded = encode(segments[0][1])
            whole = np.empty(len(encoded) + 2, dtype=self._dtype)
            whole[0], whole[1:-1], whole[-1] = markers[language], encoded, self._tokenizer.eot
            return whole, whole[1:-1]
        ids, plain, current = [], [], None
        for code, piece in segments:
            code = code if code in markers else current or language
            if code != current:
                ids.append([markers[code]])
                current = code
            plain.append(encode(piece))
            ids.append(plain[-1])
        ids.append([self._tokenizer.eot])
        return np.concatenate(ids).astype(self._dtype), np.concatenate(plain).astype(self._dtype)
