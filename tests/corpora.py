"""Corpora in the hub's layout: real ones where BRAINGPT_CORPORA names them, else generated ones.

The generated corpora have the folders, cards and columns of the datasets on the Hugging Face hub.
Their texts come from the built-in grammars (`braingpt/data/sample`) and are the same on every machine.
What they give up: the texts are simple, and a row of `korean-parallel-corpora` holds two sentences that are
not translations of each other.
"""

import gzip
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from braingpt.data.sample import documents

VARIABLE = "BRAINGPT_CORPORA"
SIZE = 1_700_000  # bytes of text to draw from; enough for every dataset below
CODES = {
    "ko": ("kor", "Hang"),
    "de": ("deu", "Latn"),
    "fr": ("fra", "Latn"),
    "es": ("spa", "Latn"),
    "it": ("ita", "Latn"),
}
ONE = "00000-of-00001"


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated corpora, whatever BRAINGPT_CORPORA says."""
    return generate(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="session")
def corpora(request: pytest.FixtureRequest) -> Path:
    """The folder that BRAINGPT_CORPORA names, or the generated corpora where the variable is not set."""
    named = os.environ.get(VARIABLE)
    if not named:
        return request.getfixturevalue("generated")
    folder = Path(named).resolve()
    assert folder.is_dir(), f"{VARIABLE} is '{named}', which is no folder"
    return folder


def generate(root: Path) -> Path:
    """Write every corpus that the tests read below `root`, and return `root`. No text is in two of them."""
    texts: dict[str, list[str]] = {}
    for document in documents(seed=20, size_bytes=SIZE):
        texts.setdefault(document.language, []).append(document.text)
    pools = {language: iter(found) for language, found in texts.items()}

    def take(language: str, count: int) -> list[str]:
        found = list(islice(pools[language], count))
        assert len(found) == count, f"too few texts in {language}; SIZE must grow"
        return found

    _korean(root, take)
    for language, count in (("ko", 120), ("en", 120), ("de", 40)):
        config, articles = f"20231101.{language}", enumerate(take(language, count))
        rows = [{"id": str(n), "url": "", "title": text.split()[0], "text": text} for n, text in articles]
        _table(root / "wikimedia/wikipedia", config, "train", f"{config}/train-{ONE}.parquet", rows)
    for language, count in (("en", 120), ("ko", 40), ("de", 40)):
        about = {"timestamp": "2019-04-25T12:57:54Z", "url": ""}
        file = f"{language}/c4-train.{ONE}.json.gz"
        _lines(root / "allenai/c4" / file, [{"text": text, **about} for text in take(language, count)])
        _card(root / "allenai/c4", language, "train", file)
    _web(root, take)
    return root


def _korean(root: Path, take: Any) -> None:
    """The four datasets of `braingpt data prepare korean`."""
    sentences = [line for text in take("ko", 120) for line in text.split("\n") if len(line) > 12]
    half = len(sentences) // 2
    pairs = list(zip(sentences[:half], sentences[half : 2 * half], strict=True))
    names = {"nli": ("premise", "hypothesis"), "sts": ("sentence1", "sentence2")}
    for number, (config, (first, second)) in enumerate(names.items()):
        rows = [
            {"guid": f"{config}-{n}", "source": "sample", first: a, second: b}
            for n, (a, b) in enumerate(pairs[number::2])
        ]
        _table(root / "klue/klue", config, "validation", f"{config}/validation-{ONE}.parquet", rows)
    answers = {"text": ["-"], "answer_start": [0]}
    contexts = take("ko", 120)
    for split, part in (("train", contexts[:60]), ("validation", contexts[60:])):
        rows = [
            {"id": f"{n}", "title": "", "context": text, "question": "", "answers": answers}
            for n, text in enumerate(part)
        ]
        file = f"squad_kor_v1/{split}-{ONE}.parquet"
        _table(root / "KorQuAD/squad_kor_v1", "squad_kor_v1", split, file, rows)
    korean, english = (
        [line for text in take(language, 90) for line in text.split("\n")] for language in ("ko", "en")
    )
    both = [{"ko": a, "en": b} for a, b in zip(korean, english, strict=False)]
    reviews = [{"id": f"raw/{n}.json", "text": text} for n, text in enumerate(take("ko", 240))]
    for dataset, rows in (("Moo/korean-parallel-corpora", both), ("e9t/nsmc", reviews)):
        for split, part in (
            ("train", rows[: len(rows) * 9 // 10]),
            ("validation", rows[len(rows) * 9 // 10 :]),
        ):
            _table(root / dataset, "default", split, f"data/{split}-{ONE}.parquet", part)


def _web(root: Path, take: Any) -> None:
    """The FineWeb family, and RedPajama-V2, whose files lie in folders by crawl instead of configurations."""
    for name, more in (("fineweb", {}), ("fineweb-edu", {"score": 3.1, "int_score": 3})):
        rows = [
            {**_page(text, n, "en"), "token_count": len(text) // 4, **more}
            for n, text in enumerate(take("en", 120))
        ]
        _table(root / f"HuggingFaceFW/{name}", "sample-10BT", "train", "sample/10BT/000_00000.parquet", rows)
    for language, (code, script) in CODES.items():
        facts = {"language_script": script, "minhash_cluster_size": 1, "top_langs": "{}"}
        rows = [{**_page(text, n, code), **facts} for n, text in enumerate(take(language, 120))]
        config = f"{code}_{script}"
        _table(
            root / "HuggingFaceFW/fineweb-2", config, "train", f"data/{config}/train/000_00000.parquet", rows
        )
    for language in ("en", "de", "fr", "es", "it"):
        rows = [
            {
                "url": "",
                "digest": f"{language}{n}",
                "length": len(text),
                "nlines": text.count("\n") + 1,
                "source_domain": "",
                "title": "",
                "raw_content": text,
                "language": language,
                "language_score": 0.95,
                "perplexity": 300.0,
                "bucket": "head",
            }
            for n, text in enumerate(take(language, 50))
        ]
        _lines(
            root
            / f"togethercomputer/RedPajama-Data-V2/sample/documents/2023-06/0000/{language}_head.json.gz",
            rows,
        )


def _page(text: str, number: int, language: str) -> dict[str, Any]:
    """The columns that all datasets of FineWeb have."""
    about = {"dump": "CC-MAIN-2024-10", "url": "", "date": "", "file_path": ""}
    return {
        "text": text,
        "id": f"<urn:{language}{number}>",
        **about,
        "language": language,
        "language_score": 0.95,
    }


def _table(dataset: Path, config: str, split: str, file: str, rows: list[dict[str, Any]]) -> None:
    (dataset / file).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), dataset / file)
    _card(dataset, config, split, file)


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _card(dataset: Path, config: str, split: str, path: str) -> None:
    """Add a configuration, or a split of one, to the dataset's card."""
    card = dataset / "README.md"
    lines = card.read_text().splitlines()[:-1] if card.is_file() else ["---", "configs:"]
    if f"- config_name: {config}" not in lines:
        lines += [f"- config_name: {config}", "  data_files:"]
    card.write_text("\n".join([*lines, f"  - split: {split}", f"    path: {path}", "---", ""]))
