"""Small copies of the hub's corpora in the hub's own layout, filled with the built-in sample text.

Commands that would need the network read these copies.
"""

import gzip
import json
from collections import defaultdict
from pathlib import Path

import pyarrow
import pyarrow.parquet

from braingpt.data.sample import documents

BYTES = 160_000  # of sample text; a corpus takes the documents of its languages
# dataset on the hub: {configuration: (folder of its files, split, {column: language})}
TABLES = {
    "klue/klue": {
        "nli": ("nli", "validation", {"premise": "ko", "hypothesis": "ko"}),
        "sts": ("sts", "validation", {"sentence1": "ko", "sentence2": "ko"}),
    },
    "KorQuAD/squad_kor_v1": {
        "squad_kor_v1": ("squad_kor_v1", "validation", {"context": "ko", "question": "ko"})
    },
    "Moo/korean-parallel-corpora": {"default": ("data", "train", {"ko": "ko", "en": "en"})},
    "e9t/nsmc": {"default": ("data", "train", {"document": "ko"})},
    "wikimedia/wikipedia": {
        f"20231101.{code}": (f"20231101.{code}", "train", {"text": code}) for code in ("ko", "en", "de")
    },
    "HuggingFaceFW/fineweb": {"sample-10BT": ("sample/10BT", "train", {"text": "en"})},
    "HuggingFaceFW/fineweb-edu": {"sample-10BT": ("sample/10BT", "train", {"text": "en"})},
    "HuggingFaceFW/fineweb-2": {
        code: (f"data/{code}/train", "train", {"text": language})
        for language, code in {
            "ko": "kor_Hang",
            "de": "deu_Latn",
            "fr": "fra_Latn",
            "es": "spa_Latn",
            "it": "ita_Latn",
        }.items()
    },
}
LINES = {"allenai/c4": {code: (code, "train", code) for code in ("en", "ko", "de")}}


def write_corpora(root: Path) -> None:
    """Every dataset of the two tables below `root`, as ORG/NAME; no document is in two of them."""
    texts = defaultdict(list)
    for document in documents(size_bytes=BYTES * 6):
        texts[document.language].append(document.text)
    takers = [
        language
        for configs in TABLES.values()
        for _, _, columns in configs.values()
        for language in columns.values()
    ]
    takers += [language for configs in LINES.values() for _, _, language in configs.values()]
    share = {
        language: len(found) // takers.count(language)
        for language, found in texts.items()
        if language in takers
    }

    def take(language: str) -> list[str]:
        return [texts[language].pop() for _ in range(share[language])]

    for name, configs in TABLES.items():
        for folder, split, columns in configs.values():
            rows = {column: take(language) for column, language in columns.items()}
            least = min(map(len, rows.values()))
            path = root / name / folder / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(
                pyarrow.table({column: cells[:least] for column, cells in rows.items()}), path
            )
        _card(
            root / name,
            {config: (split, f"{folder}/*.parquet") for config, (folder, split, _) in configs.items()},
        )
    for name, configs in LINES.items():
        for folder, split, language in configs.values():
            path = root / name / folder / f"c4-{split}.00000-of-00001.json.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in take(language)).encode())
            )
        _card(
            root / name,
            {config: (split, f"{folder}/*.json.gz") for config, (folder, split, _) in configs.items()},
        )


def _card(folder: Path, files: dict[str, tuple[str, str]]) -> None:
    lines = "".join(
        f"- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {path}\n"
        for config, (split, path) in files.items()
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{lines}---\n")
