"""How often the encoding of a text is told right, by the reader of files and by charset-normalizer, and what
it costs.

Pieces of real texts, cut at a line or a space, are encoded and given to both. Right is what decodes to the
text.

    python benchmarks/text_encodings.py "$BRAINGPT_CORPORA"
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

import charset_normalizer

from braingpt.cli.console import guarded
from braingpt.data.sources.document_stream import StreamEvents
from braingpt.data.sources.encodings import detect_encoding
from braingpt.data.sources.open_streams import StreamRequest, open_streams

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from clean_text import corpora_folder

ENCODINGS = {
    "ko": ("utf-8", "cp949", "johab", "utf-16-le", "utf-16-be"),
    "fr": ("utf-8", "cp1252", "utf-16-le"),
    "de": ("utf-8", "cp1252", "utf-16-le"),
}
SIZES = (40, 200, 2_000, 20_000)
PIECES = 60


def theirs(data: bytes) -> str:
    best = charset_normalizer.from_bytes(data).best()
    return best.encoding if best else "none"


def ours(data: bytes) -> str:
    return detect_encoding([data])


def pieces(language: str, source: Path, size: int) -> list[str]:
    """Pieces of `size` characters, from words on."""
    found: list[str] = []
    for stream in open_streams(
        StreamRequest("fineweb2", [language], source=source), StreamEvents(print, print)
    ):
        rest = ""
        for document in stream:
            rest += document.text + "\n"
            while len(rest) > size and len(found) < PIECES:
                piece, rest = rest[:size], rest[size:].partition(" ")[2]
                if not piece.isascii():
                    found.append(piece)
            if len(found) == PIECES:
                return found
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, nargs="?", default=Path(), help="corpora in the layout of the hub's datasets"
    )
    source = corpora_folder(parser.parse_args().source).resolve()
    for language, encodings in ENCODINGS.items():
        for size in SIZES:
            texts = pieces(language, source, size)
            for encoding in encodings:
                line = []
                for label, detect in (("ours", ours), ("charset-normalizer", theirs)):
                    datas = [(text.encode(encoding, "ignore"), text) for text in texts]
                    start = time.perf_counter()
                    right = 0
                    for data, _ in datas:
                        with contextlib.suppress(LookupError, UnicodeError):
                            right += data.decode(detect(data)) == data.decode(encoding)
                    milliseconds = (time.perf_counter() - start) / len(datas) * 1e3
                    line.append(f"{label} {right / len(datas):.0%} {milliseconds:.1f} ms")
                print(f"{language} {size:>6} characters {encoding:>9}: {', '.join(line)}", flush=True)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
