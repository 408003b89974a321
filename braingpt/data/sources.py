"""The corpora that `braingpt data prepare` knows, as a table. Nothing here reads anything; `hub.py` does.

A dataset is a few lines in `DATASETS`: its hub id and, for every language, the configurations and text columns to read. A preparation
(`PREPARATIONS`) names one or more datasets. Two datasets cannot be loaded by their id alone, since the hub's loading scripts no longer
run: RedPajama is read as plain json files, and NSMC from the hub's own parquet conversion.
"""

from pathlib import Path
from typing import NamedTuple

from braingpt.errors import UserError, nearest


class Part(NamedTuple):
    """What one `load_dataset` call reads. Of `columns`, those a row has become documents of their own."""

    config: str | None
    columns: tuple[str, ...] = ("text",)
    splits: tuple[str, ...] = ("train",)


class Dataset(NamedTuple):
    """One dataset of the hub. `parts` by language; `files`: json files to read in place of a configuration (its name fills `{}`)."""

    id: str
    parts: dict[str, tuple[Part, ...]]
    licence: str
    size: str
    files: str | None = None
    revision: str | None = None  # on the hub; a local copy has only one
    validation: float = 0.01  # share of the documents held out: small corpora need a larger one


class Preparation(NamedTuple):
    """What `braingpt data prepare NAME` reads: datasets, languages taken when none are asked for, and a cap of its own."""

    datasets: tuple[str, ...]
    languages: tuple[str, ...]
    about: str
    max_samples: int | None = None


_BOTH = ("train", "validation")
_WIKI = "20231101."

DATASETS = {
    "klue": Dataset(
        "klue/klue",
        {
            "ko": (
                Part("ynat", ("title",), _BOTH),
                Part("sts", ("sentence1", "sentence2"), _BOTH),
                Part("nli", ("premise", "hypothesis"), _BOTH),
                Part("ner", ("tokens",), _BOTH),  # characters; the `sentence` column carries tags in angle brackets
                Part("re", ("sentence",), _BOTH),
                Part("dp", ("sentence",), _BOTH),
                Part("mrc", ("context", "question"), _BOTH),
                Part("wos", ("dialogue",), _BOTH),
            )
        },
        "CC BY-SA 4.0",
        "tens of MB",
        validation=0.05,
    ),
    "korquad": Dataset(
        "KorQuAD/squad_kor_v1",
        {"ko": (Part(None, ("context", "question"), _BOTH),)},
        "CC BY-ND 2.0 KR",
        "tens of MB",
        validation=0.05,
    ),
    "parallel": Dataset(
        "Moo/korean-parallel-corpora",
        {language: (Part(None, (language,), _BOTH),) for language in ("ko", "en")},
        "CC BY-SA 3.0",
        "tens of MB",
        validation=0.05,
    ),
    "nsmc": Dataset(
        "e9t/nsmc",
        {"ko": (Part(None, ("text", "document"), ("train", "validation", "test")),)},
        "CC0 1.0",
        "tens of MB",
        revision="refs/convert/parquet",
        validation=0.05,
    ),
    "wikipedia": Dataset(
        "wikimedia/wikipedia",
        {language: (Part(_WIKI + language),) for language in ("ko", "en", "de", "fr", "es", "it")},
        "CC BY-SA 3.0",
        "ko about 1 GB, en 12 GB",
    ),
    "c4": Dataset(
        "allenai/c4",
        {language: (Part(language),) for language in ("en", "ko", "de", "fr", "es", "it")},
        "ODC-BY",
        "en 305 GB",
    ),
    "fineweb": Dataset("HuggingFaceFW/fineweb", {"en": (Part("sample-10BT"),)}, "ODC-BY", "28 GB (sample-10BT)"),
    "fineweb-edu": Dataset("HuggingFaceFW/fineweb-edu", {"en": (Part("sample-10BT"),)}, "ODC-BY", "28 GB (sample-10BT)"),
    "fineweb2": Dataset(
        "HuggingFaceFW/fineweb-2",
        {
            "ko": (Part("kor_Hang"),),
            "de": (Part("deu_Latn"),),
            "fr": (Part("fra_Latn"),),
            "es": (Part("spa_Latn"),),
            "it": (Part("ita_Latn"),),
        },
        "ODC-BY",
        "hundreds of GB",
    ),
    "redpajama": Dataset(
        "togethercomputer/RedPajama-Data-V2",
        {
            lang: tuple(Part(f"{lang}_{bucket}", ("raw_content",)) for bucket in ("head", "middle"))
            for lang in ("en", "de", "fr", "es", "it")
        },
        "Common Crawl terms of use",
        "a sample of the crawl, a few GB",
        files="**/documents/*/*/{}.json.gz",
    ),
}

PREPARATIONS = {
    "korean": Preparation(
        ("klue", "korquad", "parallel", "nsmc"), ("ko", "en"), "KLUE, KorQuAD, Korean-English parallel text, film reviews"
    ),
    "wikipedia": Preparation(("wikipedia",), ("ko", "en"), "encyclopedia"),
    "c4": Preparation(("c4",), ("en",), "cleaned Common Crawl, and mC4 for the other languages"),
    "simple": Preparation(("wikipedia",), ("ko", "en"), "Wikipedia mix, 20,000 articles a language: the quick default", 20_000),
    "fineweb": Preparation(("fineweb",), ("en",), "filtered web text"),
    "fineweb-edu": Preparation(("fineweb-edu",), ("en",), "web text of educational value"),
    "fineweb2": Preparation(("fineweb2",), ("ko", "de", "fr", "es", "it"), "filtered web text beyond English"),
    "redpajama": Preparation(("redpajama",), ("en", "de", "fr", "es", "it"), "web text, the better two thirds of each crawl"),
    "sample": Preparation((), ("ko", "en", "de", "fr", "es", "it"), "stories from a grammar that comes with braingpt; needs no network"),
    "text": Preparation((), ("ko", "en", "de", "fr", "es", "it"), "your own txt, md, jsonl, parquet, csv"),
    "all": Preparation(tuple(DATASETS), ("ko", "en", "de", "fr", "es", "it"), "every corpus of the hub above"),
}


def preparation(name: str) -> Preparation:
    """The preparation called `name`; UserError with the nearest name where there is none."""
    if name not in PREPARATIONS:
        as_text = f" (for your own files: braingpt data prepare text {name})" if Path(name).exists() else ""
        raise UserError(f"unknown corpus '{name}'{nearest(name, PREPARATIONS)}{as_text}")
    return PREPARATIONS[name]


def languages_of(name: str) -> list[str]:
    """Languages the preparation can give, in the order of the table."""
    entry = preparation(name)
    offered = [language for dataset in entry.datasets for language in DATASETS[dataset].parts]
    return list(dict.fromkeys([*entry.languages, *offered]))
