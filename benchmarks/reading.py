"""How fast documents are read, beside `datasets` streaming the same files; and the memory that large files
take.

The first command prints MB of text per second; the second generates 816 MB in a parquet file and 510 MB in a
jsonl.gz, and reads them (Linux).

    python benchmarks/reading.py "$BRAINGPT_CORPORA"
    python benchmarks/reading.py --memory FOLDER
"""

import argparse
import gzip
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet

from braingpt.cli.console import guarded
from braingpt.data.sources.document_stream import StreamEvents
from braingpt.data.sources.local_files import own_files
from braingpt.data.sources.open_streams import StreamRequest, open_streams

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from clean_text import corpora_folder

SETS = {"c4": "en", "fineweb2": "ko", "wikipedia": "en", "fineweb-edu": "en"}


def ours(name: str, language: str, source: Path) -> int:
    request = StreamRequest(name, [language], source=source)
    streams = open_streams(request, StreamEvents(note=print, broken=print))
    return sum(len(document.text.encode()) for stream in streams for document in stream)


def theirs(name: str, language: str, source: Path) -> int:
    from braingpt.data.sources.catalog import DATASETS

    [part] = DATASETS[name].configs_of(language)
    rows = datasets.load_dataset(str(source / DATASETS[name].id), part.config, split="train", streaming=True)
    return sum(len(row["text"].encode()) for row in rows)


def generate(folder: Path) -> list[Path]:
    """A parquet file of eight row groups of about 100 MB, and a jsonl.gz."""
    text = "인공지능은 사람이 만든 기계가 배우고 생각하는 힘을 말한다. " * 20
    draw = random.Random(0)
    table, lines = folder / "big.parquet", folder / "big.jsonl.gz"
    with pyarrow.parquet.ParquetWriter(
        table, pyarrow.schema([("text", pyarrow.string())]), compression="zstd", use_dictionary=False
    ) as writer:
        for _ in range(8):
            rows = [f"{draw.random()} {text}" for _ in range(60_000)]
            writer.write_table(pyarrow.table({"text": rows}), row_group_size=60_000)
    with gzip.open(lines, "wt", compresslevel=1) as file:
        for _ in range(300_000):
            file.write(json.dumps({"text": f"{draw.random()} {text}"}, ensure_ascii=False) + "\n")
    return [table, lines]


def memory(path: Path) -> None:
    start, before = time.perf_counter(), peak()
    documents = own_files([path], None, StreamEvents(note=print, broken=print))
    size = sum(len(document.text.encode()) for document in documents)
    rate = size / 1e6 / (time.perf_counter() - start)
    print(
        f"{path.name}: {size / 1e6:.0f} MB of text, {rate:.0f} MB/s, "
        f"at most {peak():.0f} MB resident, {before:.0f} of it before"
    )


def peak() -> float:
    """Most memory this process ever had resident, in MB; `getrusage` would count that of the process it was
    forked from.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, nargs="?", default=Path(), help="corpora in the layout of the hub's datasets"
    )
    parser.add_argument("--memory", type=Path, metavar="FOLDER", help="where the large files are generated")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        for path in generate(options.memory):
            # A process for each, because peak memory belongs to a process.
            subprocess.run([sys.executable, __file__, "--read", path], check=True)
        return
    if options.read:
        return memory(options.read)
    source = corpora_folder(options.source).resolve()
    for name, language in SETS.items():
        rates: dict[str, list[float]] = {"ours": [], "datasets": []}
        for _ in range(5):
            for label, read in (("ours", ours), ("datasets", theirs)):
                start = time.perf_counter()
                size = read(name, language, source)
                rates[label].append(size / 1e6 / (time.perf_counter() - start))
        medians = {label: statistics.median(values) for label, values in rates.items()}
        shown = ", ".join(f"{label} {rate:.0f} MB/s" for label, rate in medians.items())
        ratio = medians["ours"] / medians["datasets"]
        print(f"{name} {language}: {size / 1e6:.1f} MB, {shown}, ratio {ratio:.1f}")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
