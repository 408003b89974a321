"""One judge per worker: a document in, its cleaned text, language and segments out, or the name of the rule
that drops it.

    judge = Judge(load_quality(), ["ko", "en"], tokenizer.fingerprint)
    judged = judge.text(document)                     # cleaned, language found, rules on the text
    rule = judge.tokens(judged.language, ids)         # rules on the tokens: perplexity, educational value

A verdict depends on the document and the settings alone, never on other documents.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from braingpt.data.document import Document
from braingpt.data.quality.boilerplate import Boilerplate
from braingpt.data.quality.clean import clean, repair, tidy
from braingpt.data.quality.config import QualityConfig, at
from braingpt.data.quality.contamination import Contamination
from braingpt.data.quality.educational import Educational
from braingpt.data.quality.language_switches import Segmenter
from braingpt.data.quality.perplexity import Perplexity
from braingpt.data.quality.rules import Rule, rules_of
from braingpt.data.quality.text_stats import EXAMINED, HANGUL, JAMO, LATIN, UNCLEAN, Shape
from braingpt.tokenizer.language import LANGUAGES, detect_counted

_OTHER_VOCABULARY = "the {rule} model was trained on another tokenizer's ids and is left out; scripts/train_{rule}.py trains one for yours"


class Judged(NamedTuple):
    """`text`: cleaned. `segments`: (language or None, piece) of code-switched text; joined they are `text`.

    `rule`: what dropped it, or None.
    """

    text: str
    language: str | None
    segments: list[tuple[str | None, str]]
    rule: str | None


class Judge:
    """Cleans and judges. `languages`: the ones wanted, of those the tokenizer has `marked`.

    `fingerprint`: of the tokenizer whose ids `tokens` will see; the models are bound to it.

    `notes` says in a line each what is left out. UserError for a model or evaluation set that cannot be read.
    """

    def __init__(
        self,
        config: QualityConfig,
        languages: Collection[str],
        fingerprint: str,
        marked: Collection[str] = LANGUAGES,
    ) -> None:
        self.config = config
        self._marked = tuple(marked)
        self.languages = frozenset(languages)
        self.notes: list[str] = []
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
                    f"the educational classifier knows {', '.join(known)}; documents in {', '.join(unknown)} pass it"
                )

    def text(self, document: Document) -> Judged:
        """The document cleaned, its language found, and the rules on its text asked."""
        text, shape = _cleaned(repair(document.text) if self.config.normalise.mojibake else document.text)
        if not text:
            return Judged(text, document.language, [], "empty")
        language = document.language if self.config.language.trust_source else None
        if language is None:
            language = detect_counted(
                shape.text,
                shape.letters,
                shape.counts[HANGUL] + shape.counts[JAMO],
                shape.counts[LATIN],
                self._marked,
            )
        if language not in self.languages:
            return Judged(text, language, [], "language")
        if self._boilerplate:
            text, share = self._boilerplate.cut(text, shape, language)
            if share > at(self.config.boilerplate.share, language):
                return Judged(text, language, [], "boilerplate")
            if share:
                shape = Shape(text)
        for name, breaks in self._rules[language]:
            if breaks(shape):
                return Judged(text, language, [], name)
        if self._educational and self._educational.drops_by_scores(document.scores):
            return Judged(text, language, [], "educational")
        if self._contamination and self._contamination.drops(shape):
            return Judged(text, language, [], "contamination")
        return Judged(text, language, self._segmenter.cut(text, shape, language), None)

    def tokens(self, language: str, ids: Sequence[int], scores: dict[str, float] | None = None) -> str | None:
        """The rule that the tokens of a text break, or None.

        `scores`: those of the source, as in the document.
        """
        return self.tokens_of([language], [ids], [scores])[0]

    def tokens_of(
        self,
        languages: Sequence[str],
        ids: Sequence[Sequence[int]],
        scores: Sequence[dict[str, float] | None],
    ) -> list[str | None]:
        """`tokens` of many texts, faster."""
        rules: list[str | None] = [None] * len(ids)
        for number, drops in enumerate(self._perplexity.drops(languages, ids) if self._perplexity else ()):
            if drops:
                rules[number] = "perplexity"
        if self._educational:
            for number, facts in enumerate(zip(languages, ids, scores, strict=True)):
                if rules[number] is None and self._educational.drops(*facts):
                    rules[number] = "educational"
        return rules


def _cleaned(text: str) -> tuple[str, Shape]:
    """`clean(text)` and its shape.

    Most texts are clean, and counting characters tells so faster than searching for those to remove.
    """
    text = text.strip()
    try:
        shape = Shape(text)
    except UnicodeEncodeError:
        # a lone surrogate
        shape = None
    dirty = shape is None or len(text) > EXAMINED or shape.counts[UNCLEAN]
    tidied = clean(text) if dirty else tidy(text)
    return tidied, shape if shape and tidied == text else Shape(tidied)
