"""JSON of our own with a hash of its content: what a fault of the disk, a copy or a hand has changed is found
when it is read, before anything is made of it.

The hash is over the values and not over the bytes of the file, so that a formatter may lay the file out anew.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NoReturn

# The key of the hash, beside the others.
KEY = "sha256"


def hashed(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with its hash.

    Args:
        tree: Plain data that JSON can hold.

    Returns:
        The same keys, and KEY as the last.
    """
    return {**tree, KEY: _digest(tree)}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Args:
        path: The file.

    Raises:
        ValueError: The file is no JSON object; the message says what it is instead, in a few words.
        OSError: The file cannot be read.
    """
    try:
        tree = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(tree, dict):
        raise ValueError("it holds no JSON object")
    return tree


def check_hash(tree: dict[str, Any]) -> dict[str, Any]:
    """The content of a tree that `hashed` made, without its hash.

    Args:
        tree: What `read_object` gave.

    Raises:
        ValueError: The hash is missing, or is not that of the content.
    """
    content = {key: value for key, value in tree.items() if key != KEY}
    if KEY not in tree:
        raise ValueError(f"it has no {KEY}")
    if tree[KEY] != _digest(content):
        raise ValueError("it was changed since it was written: its hash differs")
    return content


def _digest(tree: dict[str, Any]) -> str:
    """SHA-256 of the values, as they come back from the file."""
    plain = json.loads(json.dumps(tree, allow_nan=False))
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
