"""The texts of a folder of corpora in the hub's layout, cleaned and told apart by data set: what the small
models of the data pipeline are trained and measured on. One text in ten is held out, by its content, so
that it stays held out wherever it turns up again.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet

from braingpt.data.quality.clean import clean
from braingpt.errors import UserError

# Name of the set, language, file, columns.
SETS = [
    ("ko-wikipedia", "ko", "wikimedia/wikipedia/20231101.ko/train-00000-of-00001.parquet", ["text"]),
    ("ko-korquad", "ko", "KorQuAD/squad_kor_v1/squad_kor_v1/validation-00000-of-00001.parquet", ["context"]),
    ("ko-news", "ko", "Moo/korean-parallel-corpora/data/train-00000-of-00001.parquet", ["ko"]),
    ("ko-klue", "ko", "klue/klue/nli/validation-00000-of-00001.parquet", ["premise", "hypothesis"]),
    ("ko-klue", "ko", "klue/klue/sts/validation-00000-of-00001.parquet", ["sentence1", "sentence2"]),
    ("ko-reviews", "ko", "e9t/nsmc/data/train-00000-of-00001.parquet", ["text"]),
    ("ko-web", "ko", "HuggingFaceFW/fineweb-2/data/kor_Hang/train/000_00000.parquet", ["text"]),
    ("en-wikitext", "en", "wikimedia/wikipedia/20231101.en/train-00000-of-00001.parquet", ["text"]),
    ("en-news", "en", "Moo/korean-parallel-corpora/data/train-00000-of-00001.parquet", ["en"]),
    ("en-web", "en", "HuggingFaceFW/fineweb/sample/10BT/000_00000.parquet", ["text"]),
    ("en-c4", "en", "allenai/c4/en/c4-train.00000-of-00001.json.gz", ["text"]),
    ("de-web", "de", "HuggingFaceFW/fineweb-2/data/deu_Latn/train/000_00000.parquet", ["text"]),
    ("fr-web", "fr", "HuggingFaceFW/fineweb-2/data/fra_Latn/train/000_00000.parquet", ["text"]),
    ("es-web", "es", "HuggingFaceFW/fineweb-2/data/spa_Latn/train/000_00000.parquet", ["text"]),
    ("it-web", "it", "HuggingFaceFW/fineweb-2/data/ita_Latn/train/000_00000.parquet", ["text"]),
]


def corpora_folder(source: Path) -> Path:
    """`source`, which must hold some of the corpora above; an unset variable is the current folder."""
    if not any((source / file).exists() for _, _, file, _ in SETS):
        wanted = "set BRAINGPT_CORPORA to a folder with corpora in the layout of the Hugging Face hub"
        raise UserError(f"no corpora in '{source}': {wanted}")
    return source


def raw_texts(source: Path) -> Iterator[tuple[str, str, str]]:
    """(set, language, text as it is) of every row below `source`."""
    source = corpora_folder(source)
    for name, language, file, columns in SETS:
        path = source / file
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                rows = [json.loads(line) for line in lines]
        else:
            rows = pyarrow.parquet.read_table(path, columns=columns).to_pylist()
        yield from ((name, language, row[column]) for row in rows for column in columns if row[column])


def texts(source: Path, language: str | None = None) -> list[tuple[str, str, str]]:
    """(set, language, cleaned text), each text once, those of one language or all."""
    seen: set[str] = set()
    found = []
    for name, of, text in raw_texts(source):
        text = clean(text)
        if text and text not in seen and language in (None, of):
            seen.add(text)
            found.append((name, of, text))
    return found


def held_out(text: str) -> bool:
    """True for one text in ten; the same wherever the text turns up."""
    return hashlib.sha256(text.encode()).digest()[0] < 26
