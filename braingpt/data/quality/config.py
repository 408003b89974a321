"""The settings of the quality rules: YAML to checked values, laid over the defaults that come with the
package.

    load_quality()                       # default.yaml
    load_quality("mine.yaml")            # the file's settings over the defaults

A rule that is `false` is off; a mapping tunes it. Every bound is a number, or a mapping of languages to
numbers with `default` for the others, so that a new language needs no code. Unknown keys are refused with the
nearest known name.
"""

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from braingpt.errors import UserError, did_you_mean
from braingpt.model.settings import Settings

DEFAULT = Path(__file__).parent / "default.yaml"


def _by_language(value: Any) -> Any:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not re.fullmatch("default|[a-z]{2,3}", key):
                raise ValueError(
                    f"{key!r} is not a language code such as ko; "
                    "one that YAML reads as something else needs quotes"
                )
        if "default" not in value:
            raise ValueError("a bound by language needs 'default', for the languages that it does not name")
        return value
    return {"default": value}


def _off(value: Any) -> Any:
    return None if value is False else {} if value is True else value


Share = Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], BeforeValidator(_by_language)]
Count = Annotated[dict[str, Annotated[int, Field(ge=0)]], BeforeValidator(_by_language)]
Length = Annotated[dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_by_language)]


class Normalise(Settings):
    """How text is cleaned. `mojibake`: undo UTF-8 read as Latin-1, with ftfy."""

    mojibake: bool


class Language(Settings):
    """`trust_source`: a language that the source names is believed; otherwise the language is detected."""

    trust_source: bool


class Short(Settings):
    """A document has at least this many visible characters."""

    characters: Count


class MinimumShare(Settings):
    """At least this share."""

    share: Share


class MaximumShare(Settings):
    """At most this share."""

    share: Share


class WordLength(Settings):
    """The mean length of words (by white space), in characters, of texts of so many `words` and more."""

    least: Length
    most: Length
    words: Count


class Symbols(Settings):
    """The greatest share of symbols, neither letter, digit nor ordinary punctuation; and of `#hashtags` and
    ellipses per word.
    """

    share: Share
    per_word: Share


class StopWords(Settings):
    """At least this share of the words are in the language's `stop_word_lists`; of texts of so many `words`;
    languages without a list pass.
    """

    share: Share
    words: Count


class Endings(Settings):
    """At least this share of the stretches of Hangul end in a particle or ending, by their last syllable; of
    texts of so many `stretches`.
    """

    share: Share
    stretches: Count
    syllables: str


class Lines(Settings):
    """At most this share of the lines, of texts of so many `lines` and more."""

    share: Share
    lines: Count


class ShortLines(Lines):
    """At most this share of the lines has fewer than so many `characters` (FineWeb)."""

    characters: Count


class Ngrams(Settings):
    """The greatest shares of the words that are in runs of 5 and of 10 words which occurred before (Gopher;
    there shares of characters).
    """

    five: Share
    ten: Share
    words: Count


class TopNgram(Settings):
    """The greatest share of the words that the most frequent pair of words takes (Gopher; there of
    characters).
    """

    share: Share
    words: Count


class Boilerplate(Settings):
    """Lines of up to `characters` that hold one of the `phrases` (by language, case aside) are removed;
    greatest share of them in a document.
    """

    share: Share
    characters: int = Field(ge=1)
    phrases: dict[str, list[str]]


class Placeholder(Settings):
    """Documents that hold one of these, case aside, are dropped."""

    phrases: list[str]


class Perplexity(Settings):
    """Documents less likely than this `percentile` of clean text of their language, by the shipped model or
    one of `scripts/train_perplexity.py`.

    `margin`: so much of the way from there to gibberish (shuffled characters) is still allowed; 0 cuts at the
    percentile itself. At most `tokens` of a document are scored, in stretches spread over it; documents of
    fewer than `least` tokens pass.
    """

    percentile: Annotated[dict[str, Annotated[float, Field(gt=50, lt=100)]], BeforeValidator(_by_language)]
    margin: Share
    tokens: int = Field(ge=64)
    least: int = Field(ge=2)
    model: str | None = None


class Educational(Settings):
    """The least educational value, from 0 to 1.

    `scores`: least values of scores that come with the source, by their name there. A document without them
    is judged by the classifier, where `classifier` is not false: at least this score, by the shipped `model`
    or one of `scripts/train_educational.py`.
    """

    scores: dict[str, float] = Field(default_factory=dict)
    classifier: Annotated[Share | None, BeforeValidator(lambda value: None if value is False else value)] = (
        None
    )
    model: str | None = None


class Contamination(Settings):
    """Documents that share a stretch of so many letters and digits with an evaluation set are dropped.

    `files`: the sets (txt, jsonl, parquet, also .gz), or lists that `prepare_list` wrote (.npy).
    `characters`: for Korean (`ko`) and the others.
    """

    files: list[str] = Field(default_factory=list)
    characters: Annotated[dict[str, Annotated[int, Field(ge=8, le=500)]], BeforeValidator(_by_language)] = (
        Field(default_factory=lambda: {"default": 40, "ko": 20})
    )


class NearDuplicates(Settings):
    """Of documents whose token trigrams have at least this Jaccard similarity, only the first is kept.

    Documents of the same text are always one.
    """

    similarity: float = Field(gt=0, le=1)


_Rule = TypeVar("_Rule", bound=Settings)
# A rule's settings; `false` in the file is None here, `true` the settings without a value.
_Switch = Annotated[_Rule | None, BeforeValidator(_off)]


class QualityConfig(Settings):
    """Every setting of cleaning and judging. A rule that is None is off."""

    normalise: Normalise
    language: Language
    # The most frequent words by language, for the rule and for finding switches of language.
    stop_word_lists: dict[str, str]
    short: _Switch[Short]
    few_letters: _Switch[MinimumShare]
    other_script: _Switch[MinimumShare]
    word_length: _Switch[WordLength]
    lone_jamo: _Switch[MaximumShare]
    symbols: _Switch[Symbols]
    damage: _Switch[MaximumShare]
    stop_words: _Switch[StopWords]
    endings: _Switch[Endings]
    repeated_letters: _Switch[MaximumShare]
    bullets: _Switch[Lines]
    ellipses: _Switch[Lines]
    short_lines: _Switch[ShortLines]
    unfinished_lines: _Switch[Lines]
    repeated_lines: _Switch[MaximumShare]
    repeated_paragraphs: _Switch[MaximumShare]
    top_ngram: _Switch[TopNgram]
    repeated_ngrams: _Switch[Ngrams]
    boilerplate: _Switch[Boilerplate]
    placeholder: _Switch[Placeholder]
    perplexity: _Switch[Perplexity]
    educational: _Switch[Educational]
    contamination: _Switch[Contamination]
    near_duplicates: _Switch[NearDuplicates]


def bound_of(bound: dict[str, Any], language: str) -> Any:
    """The bound of one language."""
    return bound.get(language, bound["default"])


def load_quality(path: str | Path | None = None) -> QualityConfig:
    """The settings of a YAML file over the package's defaults.

    Args:
        path: The file; None for the defaults alone.

    Raises:
        UserError: The file cannot be read, or has an unknown key or a bad value.
    """
    tree = _read(DEFAULT)
    if path is not None:
        tree = _merge(tree, _read(Path(path)))
    try:
        return check_quality(tree)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def check_quality(tree: dict[str, Any]) -> QualityConfig:
    """Check complete quality settings.

    Args:
        tree: Plain nested dictionaries, as from YAML.

    Raises:
        UserError: A key is unknown or its value wrong; the message names the key.
    """
    try:
        return QualityConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error.errors()[0])) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"cannot read quality settings {path}: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"quality settings {path} are not a mapping of rules")
    if odd := next((key for key in tree if not isinstance(key, str)), None):
        raise UserError(f"quality settings {path}: {odd!r} is not the name of a rule")
    return tree


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`.

    A number over a bound by language replaces it; `true` keeps the settings there are.
    """
    merged = dict(base)
    for key, value in over.items():
        before = base.get(key)
        if isinstance(before, dict) and value is True:
            continue
        merged[key] = _merge(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: ErrorDetails) -> str:
    """One line for the first thing pydantic found wrong."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"unknown quality setting '{key}'{did_you_mean(path[-1], _siblings(path[:-1]))}"
    if error["type"] == "missing":
        return f"the quality settings lack '{key}'"
    if error["type"] == "model_type":
        off = "" if key in ("normalise", "language") else ", or false to be off"
        known = ", ".join(_siblings(path))
        return f"quality setting {key} takes {known} by name{off}, not {error.get('input')!r}"
    return (
        f"quality setting {key}: {error['msg'].removeprefix('Value error, ')} (it is {error.get('input')!r})"
    )


def _siblings(path: list[str]) -> list[str]:
    """Known keys of the group at `path`."""
    group: Any = QualityConfig
    for part in path:
        options = getattr(
            group.model_fields[part].annotation, "__args__", (group.model_fields[part].annotation,)
        )
        group = next(option for option in options if option is not type(None))
    return list(group.model_fields)
