#!/usr/bin/env bash
# One number among the texts, and `datasets` writes JSON source into the parquet file.
#
# One would guess: a text column with a number in it is refused, or the number becomes the text "3". Either way the
#   other texts stay as they are.
# What happens: it depends on the way in. Dataset.from_dict refuses. load_dataset("json") and Dataset.from_generator
#   make the column a Json type without a word, and to_parquet stores each value as JSON source: quotes around each
#   text, a backslash with an n for a new line, and every Hangul syllable as an escape of six characters (\uccab).
#   `datasets` itself reads the file back as it was. pyarrow and pandas give the source, as strings.
# Versions: datasets 5.2.0, pyarrow 26.0.1, pandas 3.1.1.
# Why it matters: a data preparation that reads parquet directly tokenizes quotes and escapes as text; Korean becomes ASCII. One bad row in
#   millions is enough, and nothing fails: the column still holds strings.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --quiet datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1
export HF_HUB_OFFLINE=1 HF_HOME="$work/hub" HF_DATASETS_DISABLE_PROGRESS_BARS=1
"$work/venv/bin/python" - "$work" <<'PY'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import pandas
import pyarrow.parquet
from datasets import Dataset, load_dataset

folder = Path(sys.argv[1])
TEXTS = ["첫 줄\n둘째 줄", 'the "word"', 3]
ROWS = [{"text": text} for text in TEXTS]
(folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def rows():
    yield from ROWS


def readers(name, make):
    """Who reads what from the parquet file of this dataset."""
    try:
        data = make()
    except Exception as error:
        return type(error).__name__
    file = str(folder / f"{name}.parquet")
    data.to_parquet(file)
    return {
        "datasets": load_dataset("parquet", data_files=file, split="train")["text"][:],
        "pyarrow": pyarrow.parquet.read_table(file)["text"].to_pylist(),
        "pandas": pandas.read_parquet(file)["text"].tolist(),
    }


SOURCE = [json.dumps(text) for text in TEXTS]
JSON = {"datasets": TEXTS, "pyarrow": SOURCE, "pandas": SOURCE}
WAYS = {
    "from_dict": (lambda: Dataset.from_dict({"text": TEXTS}), "ArrowTypeError"),
    "from_generator": (lambda: Dataset.from_generator(rows), JSON),
    "load_dataset": (lambda: load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train"), JSON),
}
print("; ".join(f"{name} {version(name)}" for name in ("datasets", "pyarrow", "pandas")))
wrong = []
for name, (make, stated) in WAYS.items():
    seen = readers(name, make)
    print(f"  {name}: {seen}")
    if seen != stated:
        wrong.append(f"{name}: stated {stated}, seen {seen}")
sys.exit("no longer as stated: " + "; ".join(wrong) if wrong else 0)
PY
