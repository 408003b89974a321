"""The corpora that `braingpt data prepare` knows.

`catalog.yaml` lists the corpora; this module gives them types and checks them. `open_streams.py` reads them.
"""

from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, field_validator

from braingpt.errors import UserError, did_you_mean
from braingpt.utils.paths import shell_word


class DatasetConfig(NamedTuple):
    """One configuration of a dataset.

    Attributes:
        config: The configuration's name; None where the dataset has one only.
        columns: Columns that hold text; each that a row has becomes a document of its own.
    """

    config: str | None
    columns: tuple[str, ...]


class _ConfigLines(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    config: str | None = None
    columns: tuple[str, ...] = ("text",)


class Dataset(BaseModel):
    """One dataset of the hub; the fields are explained at the top of `catalog.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    # Language -> the dataset's own code.
    languages: dict[str, str]
    licence: str
    size: str
    others: bool = False
    config: str | None = None
    columns: tuple[str, ...] = ("text",)
    parts: tuple[_ConfigLines, ...] = ()
    splits: tuple[str, ...] = ("train",)
    scores: tuple[str, ...] = ()
    files: str | None = None
    signals: tuple[str, str, str, str] | None = None
    revision: str | None = None
    validation: float = 0.01

    @field_validator("languages", mode="before")
    @classmethod
    def _codes(cls, languages: object) -> object:
        return {language: language for language in languages} if isinstance(languages, list) else languages

    def offers(self, language: str) -> bool:
        """Whether there may be text in the language. Where `others` is set, only the hub knows."""
        return self.others or language in self.languages

    def configs_of(self, language: str) -> list[DatasetConfig]:
        """What to read for one language; nothing where the dataset has none in it."""
        if not self.offers(language):
            return []
        code = self.languages.get(language, language)
        lines = self.parts or (_ConfigLines(config=self.config, columns=self.columns),)
        return [
            DatasetConfig(
                part.config and part.config.format(language=language, code=code),
                tuple(column.format(language=language) for column in part.columns),
            )
            for part in lines
        ]


class Preparation(BaseModel):
    """What `braingpt data prepare NAME` reads: datasets, languages taken when none are asked for, and a cap
    of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    datasets: tuple[str, ...] = ()
    languages: tuple[str, ...]
    about: str
    max_samples: int | None = None


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")
    datasets: dict[str, Dataset]
    preparations: dict[str, Preparation]


_TABLE = _Table.model_validate(
    yaml.safe_load(Path(__file__).with_name("catalog.yaml").read_text(encoding="utf-8"))
)
DATASETS = _TABLE.datasets
PREPARATIONS = _TABLE.preparations


def preparation(name: str) -> Preparation:
    """The preparation called `name`; UserError with the nearest name where there is none."""
    if name not in PREPARATIONS:
        as_text = (
            f" (for your own files: braingpt data prepare text {shell_word(name)})"
            if Path(name).exists()
            else ""
        )
        if not as_text and name.count("/") == 1:
            as_text = f" (for a dataset of the hub: braingpt data prepare hub {shell_word(name)})"
        raise UserError(f"unknown corpus '{name}'{did_you_mean(name, PREPARATIONS)}{as_text}")
    return PREPARATIONS[name]


def is_large(name: str) -> bool:
    """Whether a preparation reads a corpus of gigabytes."""
    return any("GB" in DATASETS[dataset].size for dataset in preparation(name).datasets)


def languages_of(name: str) -> list[str]:
    """Languages the preparation is known to have, in the order of the table."""
    entry = preparation(name)
    offered = [language for dataset in entry.datasets for language in DATASETS[dataset].languages]
    return list(dict.fromkeys([*entry.languages, *offered]))


def check_languages(name: str, languages: list[str], markers: dict[str, int]) -> None:
    """UserError for a language that no dataset of the preparation offers, or that the tokenizer (its
    `markers`) cannot mark.
    """
    entry = preparation(name)
    for language in languages:
        offered = languages_of(name)
        anything = not entry.datasets or any(DATASETS[dataset].others for dataset in entry.datasets)
        if language not in offered and not anything:
            raise UserError(f"'{name}' has no language '{language}'{did_you_mean(language, offered)}")
        if language not in markers:
            raise UserError(
                f"the tokenizer has no marker for language '{language}'; it has {', '.join(markers)} "
                "(`braingpt tokenizer add-language` adds one)"
            )
