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
from typing import IO, Any, NamedTuple

COMPRESSION = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
# Bytes of one request to the hub.
HUB_BLOCK = 16 << 20
# Bytes read from a local or decompressed file at once.
BUFFER = 1 << 18
# Bytes: a longer line is skipped and counted, so that memory stays bounded.
MAX_LINE = 32 << 20


class File(NamedTuple):
    """One file to read.

    Attributes:
        path: A local path or an `hf://` address.
        name: The file's name within its folder or repository.
        size: Bytes of the file as stored, where known.
    """

    path: str
    name: str
    size: int | None = None

    @property
    def remote(self) -> bool:
        """Whether the file is on the hub, where reading may fail for a while and then work."""
        return self.path.startswith("hf://")


def format_suffix(name: str) -> str:
    """The suffix that names the format, in lower case: of a compressed file the one before `.gz`, `.zst` or
    `.bz2`.
    """
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    if suffixes[-1:] and suffixes[-1] in COMPRESSION:
        return suffixes[-2] if len(suffixes) > 1 and suffixes[-2] != ".parquet" else ""
    return suffixes[-1] if suffixes else ""


def open_raw(file: File) -> IO[bytes]:
    """The file's own bytes, seekable (a pipe excepted).

    Raises OSError, and the HTTP library's errors for a file on the hub.
    """
    if file.remote:
        import huggingface_hub

        hub = huggingface_hub.HfFileSystem(endpoint=huggingface_hub.constants.ENDPOINT)
        raw: Any = hub.open(file.path, "rb", block_size=HUB_BLOCK, cache_type="readahead")
        return raw
    return open(file.path, "rb", buffering=BUFFER)


class ByteReader:
    """A file's text as UTF-8 bytes from `start` on: decompressed, and transcoded where a byte-order mark says
    UTF-16.

    A context manager that gives an `io.BufferedReader`. Reading raises OSError where decompression fails,
    UnicodeError where UTF-16 is broken.
    """

    def __init__(self, file: File, start: int = 0) -> None:
        self._raw = raw = open_raw(file)
        try:
            self._size = file.size if file.size is not None else getattr(raw, "size", None)
            codec = COMPRESSION.get(Path(file.name).suffix.lower())
            if codec:
                reader = _buffered(_Decompressed(raw, codec))
            else:
                # A local file is buffered already, a file of the hub is not.
                reader = raw if isinstance(raw, io.BufferedReader) else _buffered(raw)
            seekable = not codec
            if reader.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                reader, seekable = _buffered(_Transcoded(reader)), False
            self._reader = reader
            if start and seekable:
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

    def fraction_read(self) -> float | None:
        """Share of the file as stored that has been read, 0 to 1; None for a pipe."""
        try:
            return min(1.0, self._raw.tell() / self._size) if self._size else None
        except (OSError, ValueError):
            # Neither a pipe nor a closed file has a place.
            return None


def skip_line(reader: io.BufferedReader) -> int:
    """Read to the end of a line that is too long to keep in memory; the number of bytes read."""
    size = 0
    while block := reader.readline(BUFFER):
        size += len(block)
        if block.endswith(b"\n"):
            break
    return size


def _buffered(raw: Any) -> io.BufferedReader:
    return io.BufferedReader(raw, BUFFER)


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
        # Transcoded bytes that no caller has taken yet.
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = self._reader.read1(BUFFER)
            self._ready = self._decoder.decode(block, final=not block).encode()
            if not block:
                break
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def local_file(path: Path, root: Path | None = None) -> File:
    """A file on this machine, named from the folder `root` on, or by its last part."""
    info = path.stat()
    size = info.st_size if os.path.isfile(path) else None
    return File(str(path), path.relative_to(root).as_posix() if root else path.name, size)
