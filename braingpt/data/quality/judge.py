"""One judge per worker: a document in, its cleaned text, language and segments out, or the name of the rule
that drops it.

    judge = Judge(load_quality(), ["ko", "en"], tokenizer.fingerprint)
    # Cleaned, language found, rules on the text.
    judged = judge.judge_text(document)
    # Rules on the tokens: perplexity, educational value.
    rule = judge.judge_tokens(judged.language, ids)

A verdict depends on the document and the settings alone, never on other documents.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from braingpt.data.document import Document
from braingpt.data.quality.boilerplate import Boilerplate
from braingpt.data.quality.clean import repair, tidy
from braingpt.data.quality.config import QualityConfig
from braingpt.data.quality.contamination import Contamination
from braingpt.data.quality.educational import Educational
from braingpt.data.quality.language_switches import Segmenter
from braingpt.data.quality.perplexity import Perplexity
from braingpt.data.quality.rules import Rule, rules_of
from braingpt.data.quality.text_stats import EXAMINED, HANGUL, JAMO, LATIN, UNCLEAN, TextStats
from braingpt.tokenizer.cleaning import NO_CHANGES, Changes, clean_counted, compose
from braingpt.tokenizer.language import LANGUAGES, detect_counted

_OTHER_VOCABULARY = (
    "the {rule} model was trained on another tokenizer's ids and is left out; "
    "scripts/train_{rule}.py trains one for yours"
)


class Judged(NamedTuple):
    """The judge's result for a document.

    Attributes:
        text: The cleaned text.
        language: Its language; None where it is unknown.
        segments: (language or None, piece) of code-switched text; joined, the pieces are `text`.
        rule: The rule that drops it, or None.
    """

    text: str
    language: str | None
    segments: list[tuple[str | None, str]]
    rule: str | None


class Judge:
    """Cleans and judges.

    Attributes:
        notes: A line for each model that is left out, and why.
        changes: What cleaning changed in all the documents so far.
    """

    def __init__(
        self,
        config: QualityConfig,
        languages: Collection[str],
        fingerprint: str,
        marked: Collection[str] = LANGUAGES,
    ) -> None:
        """A judge by some rules.

        Args:
            config: The rules.
            languages: The languages wanted.
            fingerprint: Fingerprint of the tokenizer whose ids `judge_tokens` reads; models belong to one
                tokenizer.
            marked: The languages that the tokenizer can mark, `languages` among them.

        Raises:
            UserError: A model or an evaluation set cannot be read.
        """
        self.config = config
        self._marked = tuple(marked)
        self.languages = frozenset(languages)
        self.notes: list[str] = []
        self.changes = NO_CHANGES
        self._rules: dict[str, list[tuple[str, Rule]]] = {
            language: rules_of(config, language) for language in languages
        }
        self._segmenter = Segmenter(config.stop_word_lists, self._marked)
        self._boilerplate = Boilerplate(config.boilerplate) if config.boilerplate else None
        self._contamination = Contamination(config.contamination) if config.contamination else None
        self._perplexity = Perplexity(config.perplexity) if config.perplexity else None
        self._educational = Educational(config.educational) if config.educational else None
        if self._perplexity and self._perplexity.fingerprint != fingerprint:
            self._perplexity = None
            self.notes.append(_OTHER_VOCABULARY.format(rule="perplexity"))
        if (
            self._educational
            and self._educational.classifier
            and self._educational.classifier.fingerprint != fingerprint
        ):
            self._educational.classifier = None
            self.notes.append(_OTHER_VOCABULARY.format(rule="educational"))
        if self._educational and self._educational.classifier:
            known = self._educational.classifier.languages()
            if unknown := [language for language in languages if language not in known]:
                self.notes.append(
                    f"the educational classifier knows {', '.join(known)}; "
                    f"documents in {', '.join(unknown)} pass it"
                )

    def judge_text(self, document: Document) -> Judged:
        """Clean the document, find its language and apply the rules on its text.

        Args:
            document: The document as its source gives it.

        Returns:
            The cleaned text, its language and segments, and the rule that drops it, if any.
        """
        text = repair(document.text) if self.config.normalise.mojibake else document.text
        text, stats, changes = _cleaned(text)
        if changes:
            self.changes += changes
        if not text:
            return Judged(text, document.language, [], "empty")
        language = document.language if self.config.language.trust_source else None
        if language is None:
            language = detect_counted(
                stats.text,
                stats.letters,
                stats.counts[HANGUL] + stats.counts[JAMO],
                stats.counts[LATIN],
                self._marked,
            )
        if language not in self.languages:
            return Judged(text, language, [], "language")
        if self._boilerplate:
            text, share = self._boilerplate.cut(text, stats, language)
            if share > self._boilerplate.allowed_share(language):
                return Judged(text, language, [], "boilerplate")
            if share:
                stats = TextStats(text)
        for name, breaks in self._rules[language]:
            if breaks(stats):
                return Judged(text, language, [], name)
        if self._educational and self._educational.drops_by_scores(document.scores):
            return Judged(text, language, [], "educational")
        if self._contamination and self._contamination.drops(stats):
            return Judged(text, language, [], "contamination")
        return Judged(text, language, self._segmenter.cut(text, stats, language), None)

    def judge_tokens(
        self, language: str, ids: Sequence[int] | np.ndarray, scores: dict[str, float] | None = None
    ) -> str | None:
        """The rule that the tokens of a text break, or None.

        `scores`: those of the source, as in the document.
        """
        return self.judge_token_batch([language], [ids], [scores])[0]

    def judge_token_batch(
        self,
        languages: Sequence[str],
        ids: Sequence[Sequence[int] | np.ndarray],
        scores: Sequence[dict[str, float] | None],
    ) -> list[str | None]:
        """`judge_tokens` of many texts, faster."""
        rules: list[str | None] = [None] * len(ids)
        for number, drops in enumerate(self._perplexity.drops(languages, ids) if self._perplexity else ()):
            if drops:
                rules[number] = "perplexity"
        if self._educational:
            for number, facts in enumerate(zip(languages, ids, scores, strict=True)):
                if rules[number] is None and self._educational.drops(*facts):
                    rules[number] = "educational"
        return rules


def _cleaned(text: str) -> tuple[str, TextStats, Changes]:
    """`clean(text)`, its statistics, and what was changed but the white space.

    Most texts are clean, and counting characters shows it faster than searching for those to remove.
    """
    text = text.strip()
    try:
        stats = TextStats(text)
    except UnicodeEncodeError:
        # The text holds a lone surrogate.
        stats = None
    dirty = stats is None or len(text) > EXAMINED or stats.counts[UNCLEAN]
    cleaned, changes = clean_counted(text) if dirty or compose(text) is not text else (text, NO_CHANGES)
    tidied = tidy(cleaned)
    return tidied, stats if stats and tidied == text else TextStats(tidied), changes
