"""How fast documents are read, beside `datasets` streaming the same files: MB of text per second, and the highest memory.

python benchmarks/reading.py ../shared/corpora
"""

import resource
import statistics
import sys
import time
from pathlib import Path

import datasets

from braingpt.data.streams import open_streams

SETS = {"c4": "en", "fineweb2": "ko", "wikipedia": "en", "fineweb-edu": "en"}


def ours(name: str, language: str, source: Path) -> int:
    streams = open_streams(name, [language], source=source, note=print, broken=print)
    return sum(len(document.text.encode()) for stream in streams for document in stream)


def theirs(name: str, language: str, source: Path) -> int:
    from braingpt.data.sources import DATASETS

    [part] = DATASETS[name].parts_of(language)
    rows = datasets.load_dataset(str(source / DATASETS[name].id), part.config, split="train", streaming=True)
    return sum(len(row["text"].encode()) for row in rows)


def main() -> None:
    source = Path(sys.argv[1]).resolve()
    for name, language in SETS.items():
        rates: dict[str, list[float]] = {"ours": [], "datasets": []}
        for _ in range(5):
            for label, read in (("ours", ours), ("datasets", theirs)):
                start = time.perf_counter()
                size = read(name, language, source)
                rates[label].append(size / 1e6 / (time.perf_counter() - start))
        medians = {label: statistics.median(values) for label, values in rates.items()}
        shown = ", ".join(f"{label} {rate:.0f} MB/s" for label, rate in medians.items())
        print(f"{name} {language}: {size / 1e6:.1f} MB, {shown}, ratio {medians['ours'] / medians['datasets']:.1f}")
    print(f"highest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
