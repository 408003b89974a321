"""Writes a file so that a reader finds the old file or the new one, never a part."""

import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes, errors: str = "strict") -> None:
    """Write a small file atomically: beside its final place, flushed, then renamed.

    Args:
        path: Where the file belongs.
        content: The whole content; text becomes UTF-8.
        errors: As in `str.encode`, for characters that UTF-8 cannot hold.
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
