"""`manifest.json` of a prepared folder: what was prepared, from what, with which tokenizer, and the size and
hash of every file.

    DIR/manifest.json
    DIR/tokenizer/                      the tokenizer the tokens belong to
    DIR/train/ko-klue-00000.bin         little-endian token ids: marker, text, end of text; marker, text, ...
    DIR/validation/ko-klue-00000.bin
    DIR/documents.log                   keys and places of the documents (of a part that is to be joined)

A stream is one language of one source in one split; its files follow each other.
"""

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from braingpt.data.sources.catalog import PREPARATIONS
from braingpt.errors import UserError

FORMAT = 1
# Name of the manifest in a prepared folder.
NAME = "manifest.json"
# Name of the log of documents that deduplication keeps (`dedup/index.py`).
DOCUMENT_LOG = "documents.log"
Split = Literal["train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")
# How a token is stored.
TokenDtype = Literal["uint16", "uint32"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ShardFile(_Record):
    """One token file; `path` is relative to the folder."""

    path: str
    tokens: int = Field(ge=1)
    sha256: str

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if not re.fullmatch(r"(train|validation)/[\w.-]+\.bin", path):
            raise ValueError(f"'{path}' is not the path of a shard")
        return path


class TokenStream(_Record):
    """Counts of one language of one source in one split; `bytes` are of UTF-8 text, before tokenizing."""

    split: Split
    language: str
    source: str
    documents: int
    tokens: int
    bytes: int
    files: list[ShardFile]


class TokenizerFacts(_Record):
    """Which tokenizer the ids belong to."""

    fingerprint: str
    vocab_size: int


class Manifest(_Record):
    """The content of `manifest.json`.

    Attributes:
        format: Version of the format.
        name: The corpus.
        braingpt: Version that prepared the folder.
        created: Time of the preparation (ISO 8601, UTC).
        parameters: The command's options that decide the contents.
        tokenizer: Which tokenizer the ids belong to.
        dtype: Type of a token in the files.
        streams: What the folder holds.
        filters: Per source, what was read, kept, and dropped by which rule.
        revisions: The commit of the hub that each configuration was read at.
    """

    format: Literal[1] = FORMAT
    name: str
    braingpt: str
    created: str
    parameters: dict[str, Any]
    tokenizer: TokenizerFacts
    dtype: TokenDtype
    streams: list[TokenStream]
    filters: dict[str, Any]
    revisions: dict[str, str] = Field(default_factory=dict)

    def total(self, split: str, field: str = "tokens") -> int:
        """Sum of a count (`documents`, `tokens`, `bytes`) over the split's streams."""
        return sum(getattr(stream, field) for stream in self.streams if stream.split == split)

    def languages(self) -> list[str]:
        """Languages with at least one token, in the order of their streams."""
        return list(dict.fromkeys(stream.language for stream in self.streams))

    @property
    def itemsize(self) -> int:
        """Bytes a token takes in the files."""
        return {"uint16": 2, "uint32": 4}[self.dtype]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder.

    Args:
        folder: A folder that `braingpt data prepare` wrote.

    Raises:
        UserError: There is no such folder, or its manifest cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        reason = "is not a prepared data folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {reason}; make it with: {prepare_command(folder)}")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        reason = " ".join([".".join(map(str, first["loc"])), *first["msg"].split()])[:160].strip()
        raise UserError(
            f"{path} is damaged ({reason}); prepare it again: {prepare_command(folder)} --force"
        ) from None


def prepare_command(folder: Path) -> str:
    """The command that would make `folder`, as far as its name says."""
    name = folder.name if folder.name in PREPARATIONS and folder.name != "text" else None
    out = "" if folder == Path("data") / folder.name else f" --out {folder}"
    return f"braingpt data prepare {name}{out}" if name else f"braingpt data prepare NAME --out {folder}"


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raise UserError for the first file that is missing or not as long as the manifest says."""
    for stream in manifest.streams:
        for file in stream.files:
            problem = _size_problem(folder, file, manifest.itemsize)
            if problem:
                raise UserError(f"{problem}; prepare the folder again: {prepare_command(folder)} --force")


def verify(folder: Path, manifest: Manifest) -> list[str]:
    """One line for each file that is missing, of another size, or of another hash than the manifest says.

    Reads every byte.
    """
    problems = []
    for stream in manifest.streams:
        for file in stream.files:
            problem = _size_problem(folder, file, manifest.itemsize)
            if not problem and sha256_of(folder / file.path) != file.sha256:
                problem = f"{folder / file.path} is not what was written: its hash differs"
            if problem:
                problems.append(problem)
    return problems


def _size_problem(folder: Path, file: ShardFile, itemsize: int) -> str | None:
    path = folder / file.path
    if not path.is_file():
        return f"{path} is missing"
    size, expected = path.stat().st_size, file.tokens * itemsize
    return None if size == expected else f"{path} has {size} bytes where the manifest says {expected}"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
