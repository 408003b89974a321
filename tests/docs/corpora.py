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

# How much sample text all corpora share.
BYTES = 1_600_000
KLUE = {
    "ynat": ["title"],
    "sts": ["sentence1", "sentence2"],
    "nli": ["premise", "hypothesis"],
    "ner": ["tokens"],
    "re": ["sentence"],
    "dp": ["sentence"],
    "mrc": ["context", "question"],
    "wos": ["dialogue"],
}
BOTH = ["train", "validation"]
FINEWEB_2 = {"ko": "kor_Hang", "de": "deu_Latn", "fr": "fra_Latn", "es": "spa_Latn", "it": "ita_Latn"}
# Dataset on the hub: {configuration: (folder of its files, splits, {column: language})}.
TABLES = {
    "klue/klue": {name: (name, BOTH, dict.fromkeys(columns, "ko")) for name, columns in KLUE.items()},
    "KorQuAD/squad_kor_v1": {"squad_kor_v1": ("squad_kor_v1", BOTH, {"context": "ko", "question": "ko"})},
    "Moo/korean-parallel-corpora": {"default": ("data", BOTH, {"ko": "ko", "en": "en"})},
    "e9t/nsmc": {"default": ("data", [*BOTH, "test"], {"document": "ko"})},
    "wikimedia/wikipedia": {
        f"20231101.{code}": (f"20231101.{code}", ["train"], {"text": code}) for code in ("ko", "en", "de")
    },
    "HuggingFaceFW/fineweb": {"sample-10BT": ("sample/10BT", ["train"], {"text": "en"})},
    "HuggingFaceFW/fineweb-edu": {"sample-10BT": ("sample/10BT", ["train"], {"text": "en"})},
    "HuggingFaceFW/fineweb-2": {
        code: (f"data/{code}", ["train"], {"text": language}) for language, code in FINEWEB_2.items()
    },
}
LINES = {"allenai/c4": {code: (code, ["train"], {"text": code}) for code in ("en", "ko", "de")}}


def write_corpora(root: Path) -> None:
    """Write every dataset of the two tables below `root`, as ORG/NAME; no document is in two columns."""
    texts = defaultdict(list)
    for document in documents(size_bytes=BYTES):
        texts[document.language].append(document.text)
    datasets = {**TABLES, **LINES}
    takers = [
        language
        for configs in datasets.values()
        for _, splits, columns in configs.values()
        for language in list(columns.values()) * len(splits)
    ]
    share = {language: len(found) // max(1, takers.count(language)) for language, found in texts.items()}
    for name, configs in datasets.items():
        ending = "json.gz" if name in LINES else "parquet"
        card = ""
        for config, (folder, splits, columns) in configs.items():
            card += f"- config_name: {config}\n  data_files:\n"
            for split in splits:
                rows = {
                    column: [texts[code].pop() for _ in range(share[code])]
                    for column, code in columns.items()
                }
                _write(root / name / folder / f"{split}-00000-of-00001.{ending}", rows)
                card += f"  - split: {split}\n    path: {folder}/{split}-*\n"
        (root / name / "README.md").write_text(f"---\nconfigs:\n{card}---\n")


def _write(path: Path, rows: dict[str, list[str]]) -> None:
    """One file of a dataset; columns are cut to the shortest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    least = min(map(len, rows.values()))
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(
            pyarrow.table({column: cells[:least] for column, cells in rows.items()}), path
        )
    else:
        lines = "".join(json.dumps({"text": text}) + "\n" for text in rows["text"])
        path.write_bytes(gzip.compress(lines.encode()))
