"""Preparing data from end to end: MB/s per core beside tiktoken alone, what a second worker gives, and the
memory a large corpus takes.

    # a table in Markdown, as in docs/results/data-pipeline.md
    python benchmarks/data_pipeline.py speed --source "$BRAINGPT_CORPORA"
    # Linux; generates the corpus in FOLDER
    python benchmarks/data_pipeline.py memory FOLDER --source "$BRAINGPT_CORPORA" --gigabytes 5

Speed: one worker, which is one core (the main process reads, judges, tokenizes and writes), and two; and
tiktoken's `encode_ordinary` over the same texts, one thread. Interleaved; MB are of the text that was read,
kept or not. All filters are on. "A core" is by the processor's time, and the fastest of the rounds: on a busy
machine nothing else can be compared. The others are by the clock, the median of the rounds.

Memory: anonymous pages are the programs' own; pages of files are those of the libraries, counted once a
process, and of the index.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from braingpt.cli.console import guarded
from braingpt.data.prepare.pipeline import Request, prepare
from braingpt.data.sources.document_stream import StreamEvents
from braingpt.data.sources.open_streams import StreamRequest, open_streams
from braingpt.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from clean_text import corpora_folder

RESIDENT = ("VmRSS", "RssAnon", "RssFile")
SETS = [
    ("fineweb2", "ko"),
    ("fineweb2", "de"),
    ("c4", "en"),
    ("fineweb-edu", "en"),
    ("wikipedia", "ko"),
    ("korean", "ko,en"),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("speed")
    one.add_argument("--rounds", type=int, default=3)
    two = commands.add_parser("memory")
    two.add_argument("folder", type=Path)
    two.add_argument("--gigabytes", type=float, default=5)
    two.add_argument("--workers", type=int, default=2)
    for command in (one, two):
        command.add_argument("--source", type=Path, required=True)
    options = parser.parse_args()
    source = corpora_folder(options.source)
    if options.command == "speed":
        speed(source, options.rounds)
    else:
        memory(options.folder, source, options.gigabytes, options.workers)


def texts(name: str, languages: str, source: Path) -> Iterator[str]:
    request = StreamRequest(name, languages.split(","), source=source)
    streams = open_streams(request, StreamEvents(note=lambda _: None, broken=lambda *_: None))
    return (document.text for stream in streams for document in stream)


def speed(source: Path, rounds: int) -> None:
    print(
        "| corpus | MB | documents | tiktoken a core, MB/s | all, a core "
        "| 1 worker | 2 workers | 2 workers / 1 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    tokenizer = Tokenizer.default()
    for name, languages in SETS:
        every = list(texts(name, languages, source))
        size = sum(len(text.encode()) for text in every) / 1e6
        alone, core, measured = [], [], {1: [], 2: []}
        for _ in range(rounds):
            begin = time.process_time()
            for text in every:
                tokenizer._bpe.encode_ordinary(text)
            alone.append(size / (time.process_time() - begin))
            for workers, series in measured.items():
                with tempfile.TemporaryDirectory() as folder:
                    request = Request(
                        name,
                        Path(folder) / "out",
                        source=source,
                        languages=languages.split(","),
                        workers=workers,
                    )
                    begin, spent = time.perf_counter(), time.process_time()
                    prepare(request, tokenizer)
                    series.append(size / (time.perf_counter() - begin))
                    if workers == 1:
                        core.append(size / (time.process_time() - spent))
        single, double = map(statistics.median, measured.values())
        figures = f"{max(alone):.1f} | {max(core):.2f} | {single:.2f} | {double:.2f} | {double / single:.2f}"
        print(f"| {name} {languages} | {size:.1f} | {len(every):,} | {figures} |", flush=True)


def memory(folder: Path, source: Path, gigabytes: float, workers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "corpus.jsonl"
    if not corpus.exists():
        generate(corpus, source, gigabytes * 1e9)
    shutil.rmtree(folder / "out", ignore_errors=True)
    most, series, over = np.zeros(len(RESIDENT)), [], threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            most[:] = np.maximum(most, now())

    def now() -> np.ndarray:
        return np.sum([resident(pid) for pid in family()], axis=0)

    threading.Thread(target=watch, daemon=True).start()
    begin, last = time.perf_counter(), [0.0]

    def tell(progress: object) -> None:
        seconds = time.perf_counter() - begin
        if seconds - last[0] > 30:
            last[0] = seconds
            series.append((progress.bytes / 1e6, seconds))
            figures = (f"{one:.0f} | {highest:.0f}" for one, highest in zip(now(), most, strict=True))
            print(f"| {progress.bytes / 1e9:.2f} | {seconds:.0f} | {' | '.join(figures)} |", flush=True)

    print(
        "| GB kept | seconds |"
        + "".join(f" {name} now, MB | highest |" for name in RESIDENT)
        + "\n"
        + "|---" * (2 + 2 * len(RESIDENT))
        + "|"
    )
    done = prepare(
        Request("text", folder / "out", [corpus], workers=workers), Tokenizer.default(), progress=tell
    )
    over.set()
    size = corpus.stat().st_size / 1e6
    half = min(series, key=lambda point: abs(point[0] - size / 2)) if series else (0, 1)
    print(
        f"{size / 1e3:.2f} GB in {done.seconds:.0f} s, {size / done.seconds:.1f} MB/s "
        f"with {workers} workers; the first half at {half[0] / half[1]:.1f} MB/s"
    )
    figures = ", ".join(f"{name} {highest:.0f}" for name, highest in zip(RESIDENT, most, strict=True))
    documents = sum(stream.documents for stream in done.manifest.streams)
    print(f"MB at most, all processes together: {figures}; {documents:,} documents")
    print(json.dumps(done.manifest.filters, ensure_ascii=False)[:600])


def generate(path: Path, source: Path, size: float) -> None:
    """Documents of sentences drawn from real text in two languages: no two are alike."""
    draw = random.Random(0)
    pools = {
        language: [
            piece
            for text in texts(name, language, source)
            for piece in text.split("\n")
            if 60 < len(piece) < 400 and "#" not in piece
        ]
        for name, language in (("fineweb2", "ko"), ("fineweb-edu", "en"))
    }
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            pool = pools[draw.choice(("ko", "en"))]
            for _ in range(200):
                words = " ".join(draw.choices(pool, k=draw.randint(2, 30))).split(" ")
                cut = draw.randrange(len(words))
                file.write(
                    json.dumps({"text": " ".join(words[cut:] + words[:cut])}, ensure_ascii=False) + "\n"
                )


def family() -> list[int]:
    """This process and those below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def resident(pid: int) -> list[float]:
    """MB of RESIDENT of a process; zeros for one that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return [int(status.partition(f"{name}:")[2].split()[0]) / 1024 for name in RESIDENT]
    except (OSError, IndexError):
        return [0.0] * len(RESIDENT)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
