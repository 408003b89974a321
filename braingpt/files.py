"""Writing a file so that the old one or the new one is there, never a part."""

import os
from pathlib import Path


def write_whole(path: Path, text: str, errors: str = "strict") -> None:
    """Write a small UTF-8 file beside its place, flush it, and rename it. `errors`: as of `open`, for characters no file can hold."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8", errors=errors) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
