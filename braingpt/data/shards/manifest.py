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
import math
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from braingpt.data.sources.catalog import PREPARATIONS, is_large
from braingpt.errors import UserError
from braingpt.utils.paths import require_utf8, shell_word

FORMAT = 1
# Name of the manifest in a prepared folder.
NAME = "manifest.json"
# Name of the log of documents that deduplication keeps (`dedup/index.py`).
DOCUMENT_LOG = "documents.log"
Split = Literal["train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")
# Units of a number of tokens on the command line.
UNITS = (("B", 1e9), ("M", 1e6), ("k", 1e3))
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
    return read_manifests([folder])[0]


def read_manifests(folders: Sequence[Path], tokens: int | None = None) -> list[Manifest]:
    """The manifests of several prepared folders.

    Args:
        folders: Folders that `braingpt data prepare` wrote.
        tokens: Tokens that a run reads of all of them, for the advice on how much to prepare.

    Raises:
        UserError: Folders are missing, and the message names all of them; or a manifest cannot be read.
    """
    for folder in folders:
        require_utf8(folder, "the data folder")
    if missing := [folder for folder in folders if not (folder / NAME).is_file()]:
        raise UserError(_missing(missing, tokens and tokens // len(folders)))
    return [_read(folder) for folder in folders]


def _missing(folders: Sequence[Path], tokens: int | None) -> str:
    """The message for folders that are not prepared."""
    absent = [str(folder) for folder in folders if not folder.exists()]
    others = [str(folder) for folder in folders if folder.exists()]
    states = (
        [f"{_listed(absent)} {'do' if len(absent) > 1 else 'does'} not exist"] if absent else [],
        [f"{folder} is not a prepared data folder" for folder in others],
    )
    them = "them" if len(folders) > 1 else "it"
    commands = " && ".join(prepare_command(folder, tokens) for folder in folders)
    relative = absent and not all(Path(folder).is_absolute() for folder in absent)
    looked = f" (looked in {Path.cwd()}; --data names another place)" if relative else ""
    return f"{', '.join(chain(*states))}; make {them} with: {commands}{looked}"


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`"""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _read(folder: Path) -> Manifest:
    path = folder / NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        reason = " ".join([".".join(map(str, first["loc"])), *first["msg"].split()])[:160].strip()
        raise UserError(
            f"{path} is damaged ({reason}); prepare it again: {prepare_command(folder)} --force"
        ) from None


def prepare_command(folder: Path, tokens: int | None = None) -> str:
    """The command that would make `folder`, as far as its name says.

    Args:
        folder: The folder.
        tokens: Tokens that are needed of it; of a corpus that is much larger, only as much is prepared.
    """
    name = folder.name if folder.name in PREPARATIONS and folder.name != "text" else "NAME"
    default = name != "NAME" and folder == Path("data") / name
    out = "" if default else f" --out {shell_word(folder)}"
    return f"braingpt data prepare {name}{out}{_limit(name, tokens)}"


def _limit(name: str, tokens: int | None) -> str:
    """`--max-tokens 2.6B`, which counts for each source and language, where a corpus is measured in GB."""
    entry = PREPARATIONS.get(name)
    if not tokens or entry is None or entry.max_samples or not is_large(name):
        return ""
    each = max(1, tokens // (len(entry.datasets) * max(1, len(entry.languages))))
    unit, scale = next(((unit, scale) for unit, scale in UNITS if each >= scale), ("", 1))
    # Two digits, rounded up, so that the run has enough.
    digits = max(0, 1 - math.floor(math.log10(each / scale)))
    return f" --max-tokens {math.ceil(each / scale * 10**digits) / 10**digits:g}{unit}"


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
