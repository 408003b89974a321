"""Bytes of a file, wherever it is and however it is packed: local or on the hub, plain or compressed, UTF-8
or UTF-16.

Hub files are read in blocks by HTTP range requests, each retried with growing pauses by `huggingface_hub`
itself; nothing is stored on the disk. Compressed files go through pyarrow's decompressors, which know gzip,
bzip2 and zstd and notice a file that ends too early. Memory is a block of the file, whatever its size.
"""

import codecs
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

COMPRESSION = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
# bytes of one request to the hub
BLOCK = 16 << 20
# bytes read from a local or decompressed file at once
BUFFER = 1 << 18
# bytes: a longer line is skipped and counted, so that memory stays bounded
LINE = 32 << 20


class File(NamedTuple):
    """One file to read: a local path or an `hf://` address, its name within its folder or repository, and its
    bytes where known.
    """

    path: str
    name: str
    size: int | None = None

    @property
    def remote(self) -> bool:
        """On the hub, where reading may fail for a while and then work."""
        return self.path.startswith("hf://")


def kind(name: str) -> str:
    """The suffix that tells the format, in lower case: the one before `.gz`, `.zst` or `.bz2` for a
    compressed file.
    """
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    if suffixes[-1:] and suffixes[-1] in COMPRESSION:
        return suffixes[-2] if len(suffixes) > 1 and suffixes[-2] != ".parquet" else ""
    return suffixes[-1] if suffixes else ""


def open_raw(file: File) -> Any:
    """The file's own bytes, seekable (a pipe excepted).

    Raises OSError, and the HTTP library's errors for a file on the hub.
    """
    if file.remote:
        import huggingface_hub

        hub = huggingface_hub.HfFileSystem(endpoint=huggingface_hub.constants.ENDPOINT)
        return hub.open(file.path, "rb", block_size=BLOCK, cache_type="readahead")
    return open(file.path, "rb", buffering=BUFFER)


class Bytes:
    """A file's text as UTF-8 bytes from `start` on: decompressed, and transcoded where a byte-order mark says
    UTF-16.

    `read1` and `readline` come from `io.BufferedReader`; `share()` is how much of the file as stored has been
    read, or None. Raises OSError where decompression fails, UnicodeError where UTF-16 is broken.
    """

    def __init__(self, file: File, start: int = 0) -> None:
        self._raw = raw = open_raw(file)
        try:
            self._size = file.size if file.size is not None else getattr(raw, "size", None)
            packed = COMPRESSION.get(Path(file.name).suffix.lower())
            reader = io.BufferedReader(_Decompressed(raw, packed), BUFFER) if packed else raw
            # a file of the hub
            if not hasattr(reader, "peek"):
                reader = io.BufferedReader(raw, BUFFER)
            if reader.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                reader, packed = io.BufferedReader(_Transcoded(reader), BUFFER), "utf-16"
            self._reader = reader
            if start and not packed:
                reader.seek(start)
            elif start:
                _skip(reader, start)
        except BaseException:
            raw.close()
            raise

    def __enter__(self) -> io.BufferedReader:
        return self._reader

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def share(self) -> float | None:
        """Part of the stored file that has been read, 0 to 1; None for a pipe."""
        try:
            return min(1.0, self._raw.tell() / self._size) if self._size else None
        except (OSError, ValueError):
            # a pipe has no place, a closed file neither
            return None


def _skip(reader: io.BufferedReader, count: int) -> None:
    while count:
        block = reader.read(min(count, BUFFER))
        if not block:
            raise OSError("the file is shorter than it was")
        count -= len(block)


class _Decompressed(io.RawIOBase):
    """pyarrow's decompressing stream as a raw stream of Python's io."""

    def __init__(self, raw: Any, codec: str) -> None:
        import pyarrow

        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), codec)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Transcoded(io.RawIOBase):
    """UTF-16 with a byte-order mark, read as UTF-8."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader
        self._decoder = codecs.getincrementaldecoder("utf-16")()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            block = self._reader.read1(BUFFER)
            self._rest = self._decoder.decode(block, final=not block).encode()
            if not block:
                break
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def local(path: Path, root: Path | None = None) -> File:
    """A file on this machine, named from `root` on, or by its last part."""
    info = path.stat()
    size = info.st_size if os.path.isfile(path) else None
    return File(str(path), path.relative_to(root).as_posix() if root else path.name, size)
