"""Writing a file so that the old one or the new one is there, never a part."""

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes, errors: str = "strict") -> None:
    """Write a small file, text as UTF-8, beside its place, flush it, and rename it.

    `errors`: as of `str.encode`, for characters no file can hold.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode("utf-8", errors) if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
