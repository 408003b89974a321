"""Bytes of a file, wherever it is and however it is packed: local or on the hub, plain or compressed, in
UTF-8 or another encoding.

Hub files are read in blocks by HTTP range requests, each retried with growing pauses by `huggingface_hub`
itself; nothing is stored on the disk. Compressed files, told by their first bytes or their suffix, go through
pyarrow's decompressors, which know gzip, bzip2 and zstd and notice a file that ends too early. Zstandard with
a window beyond 128 MB needs Python 3.14 or the package `zstandard`. Memory is a block of the file (and such a
window), whatever its size.
"""

import codecs
import io
import os
from pathlib import Path
from typing import IO, Any, NamedTuple

from braingpt.data.sources.encodings import detect_encoding, marked_encoding
from braingpt.data.sources.row import Damaged

COMPRESSION = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
# The first bytes of a compressed file.
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
# The largest window of a zstd frame that pyarrow opens.
ZSTD_WINDOW = 1 << 27
# Bytes at the beginning of a text from which is decided how to read it.
SAMPLE = 1 << 17
# Places of a large file, behind its beginning, that are looked at for its encoding, and bytes of each.
PLACES, PLACE_BYTES = 4, 1 << 14
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
    """A file's text as UTF-8 bytes from `start` on: decompressed, and transcoded where it is in another
    encoding.

    A context manager that gives an `io.BufferedReader`. Reading raises OSError where decompression fails,
    UnicodeError where UTF-16 is broken; bytes that another encoding does not know stay as they are.

    Attributes:
        encoding: The encoding of the file: the one asked for, that of its byte-order mark, or the likeliest.
        sample: The beginning of the text as UTF-8, SAMPLE bytes where there are so many.
        whole: Whether the sample is all there is.
    """

    def __init__(self, file: File, start: int = 0, encoding: str | None = None) -> None:
        self._raw = raw = open_raw(file)
        self._at_close: float | None = None
        try:
            self._size = file.size if file.size is not None else getattr(raw, "size", None)
            # A local file is buffered already, a file of the hub is not.
            stored = raw if isinstance(raw, io.BufferedReader) else _buffered(raw)
            codec = compression(stored.peek(8)[:8], file.name)
            source = _decompressed(stored, codec) if codec else stored
            first = _read_up_to(source, SAMPLE)
            places = [] if codec else _places(stored, self._size, file.remote)
            self.encoding = encoding or detect_encoding([first, *places])
            # A mark wins over what the user says of a whole folder.
            if encoding and (marked := marked_encoding(first)):
                self.encoding = marked
            # The line ends of old Macs; those of other encodings are rarer still.
            old_lines = self.encoding == "utf-8" and b"\n" not in first and first.count(b"\r") > 1
            if self.encoding == "utf-8" and not old_lines and not codec and _seekable(stored):
                stored.seek(start)
                self._reader, start = stored, 0
                self.sample = first
            else:
                self._reader = _buffered(_Replayed(first, source))
                if self.encoding != "utf-8" or old_lines:
                    self._reader = _buffered(_Transcoded(self._reader, self.encoding, old_lines))
                    self.sample = _read_up_to(self._reader, SAMPLE)
                    self._reader = _buffered(_Replayed(self.sample, self._reader))
                else:
                    self.sample = first
            self.whole = len(self.sample) < SAMPLE
            if start:
                _skip(self._reader, start)
        except BaseException:
            raw.close()
            raise

    def larger_sample(self, size: int) -> bytes:
        """A sample of `size` bytes, where reading began at the beginning and did not go on."""
        reader = self._reader
        self.sample = _read_up_to(reader, size)
        self.whole = not reader.peek(1)
        if _seekable(reader):
            reader.seek(0)
        else:
            self._reader = _buffered(_Replayed(self.sample, reader))
        return self.sample

    def close(self) -> None:
        """Close the file; `fraction_read` stays what it is."""
        self._at_close = self.fraction_read()
        self._raw.close()

    def __enter__(self) -> io.BufferedReader:
        return self._reader

    def __exit__(self, *_: object) -> None:
        self.close()

    def fraction_read(self) -> float | None:
        """Share of the file as stored that has been read, 0 to 1; None for a pipe."""
        if self._raw.closed:
            return self._at_close
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


def compression(first: bytes, name: str) -> str | None:
    """The compression of a file, by its first bytes or else by its name."""
    for magic, codec in MAGIC.items():
        if first.startswith(magic):
            return codec
    return COMPRESSION.get(Path(name).suffix.lower())


def _seekable(reader: io.BufferedReader) -> bool:
    try:
        return reader.seekable()
    except (OSError, ValueError):
        return False


def _read_up_to(reader: Any, size: int) -> bytes:
    """The next bytes, fewer only at the end; `read1` keeps a slow pipe interruptible."""
    blocks = []
    while size > 0 and (block := reader.read1(size)):
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


def _places(reader: io.BufferedReader, size: int | None, remote: bool) -> list[bytes]:
    """Whole lines from some places of a local file behind its beginning."""
    if remote or not size or size < 2 * SAMPLE or not _seekable(reader):
        return []
    found = []
    for place in range(1, PLACES + 1):
        reader.seek(SAMPLE + (size - SAMPLE) * place // (PLACES + 1))
        block = _read_up_to(reader, PLACE_BYTES)
        found.append(block[block.find(b"\n") + 1 : block.rfind(b"\n") + 1])
    reader.seek(SAMPLE)
    return found


def zstd_window(header: bytes) -> int:
    """Bytes of the window that a zstd frame asks for (RFC 8878, section 3.1.1.1); 0 where it says none."""
    if len(header) < 6 or not header.startswith(b"\x28\xb5\x2f\xfd"):
        return 0
    descriptor = header[4]
    if descriptor & 0x20:
        # A single segment: the window is the content.
        at = 5 + (0, 1, 2, 4)[descriptor & 3]
        size = (1, 2, 4, 8)[descriptor >> 6]
        return int.from_bytes(header[at : at + size], "little") + (256 if size == 2 else 0)
    exponent, mantissa = header[5] >> 3, header[5] & 7
    return (1 << (10 + exponent)) * (8 + mantissa) // 8


def _decompressed(reader: io.BufferedReader, codec: str) -> io.BufferedReader:
    """The reader of what a compressed file holds."""
    if codec == "zstd" and (window := zstd_window(reader.peek(18)[:18])) > ZSTD_WINDOW:
        return _long_window(reader, window)
    return _buffered(_Decompressed(reader, codec))


def _long_window(reader: io.BufferedReader, window: int) -> io.BufferedReader:
    """The reader of zstd with a long window, up to the 2 GB of `zstd --long=31`."""
    try:
        from compression import zstd  # pyright: ignore[reportMissingImports]

        limit = {zstd.DecompressionParameter.window_log_max: 31}
        return _buffered(zstd.ZstdFile(reader, options=limit))
    except ImportError:
        pass
    try:
        import zstandard  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise Damaged(
            f"packed with a window of {window >> 20:,} MB: 'pip install zstandard' reads it, "
            "or unpack it first with 'zstd -d --long=31'"
        ) from None
    return _buffered(_Zstandard(zstandard.ZstdDecompressor(max_window_size=1 << 31), reader))


class _Zstandard(io.RawIOBase):
    """The decompressing stream of `zstandard`, whose errors are of a type of their own."""

    def __init__(self, decompressor: Any, reader: io.BufferedReader) -> None:
        self._stream = decompressor.stream_reader(reader, read_across_frames=True)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import zstandard  # pyright: ignore[reportMissingImports]

        try:
            return self._stream.readinto(buffer)
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error


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


class _Replayed(io.RawIOBase):
    """Bytes that were read already, and the rest of their reader."""

    def __init__(self, first: bytes, reader: io.BufferedReader) -> None:
        self._first, self._reader = first, reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._first:
            return self._reader.readinto1(buffer)
        size = min(len(buffer), len(self._first))
        buffer[:size], self._first = self._first[:size], self._first[size:]
        return size


class _Transcoded(io.RawIOBase):
    """Text of another encoding, or with old line ends, as UTF-8 whose lines end with a line feed."""

    def __init__(self, reader: io.BufferedReader, encoding: str, old_lines: bool) -> None:
        self._reader, self._old_lines = reader, old_lines
        # Half of a pair of UTF-16 costs its row, and so does a byte that a Korean encoding does not know.
        self._errors = "surrogatepass" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder(encoding)(self._errors)
        # Transcoded bytes that no caller has taken yet.
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = self._reader.read1(BUFFER)
            text = self._decoder.decode(block, final=not block)
            if self._old_lines:
                text = text.replace("\r", "\n")
            self._ready = text.encode("utf-8", self._errors)
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
