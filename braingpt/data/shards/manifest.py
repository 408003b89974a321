"""`manifest.json` of a prepared folder: what was prepared, from what, with which tokenizer, and the size and
hash of every file.

    DIR/manifest.json
    DIR/tokenizer/                      the tokenizer the tokens belong to
    DIR/train/ko-klue-00000.bin         little-endian token ids: marker, text, end of text; marker, text, ...
    DIR/validation/ko-klue-00000.bin
    DIR/documents.log                   keys and places of the documents (of a part that is to be joined)

A stream is one language of one source in one split; its files follow each other.

The manifest carries a hash of its own content from format 2 on. Format 1 is read without one.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from braingpt.data.sources.catalog import PREPARATIONS, is_large
from braingpt.errors import UserError
from braingpt.utils.hashed_json import check_hash, hashed, read_object
from braingpt.utils.paths import require_utf8, shell_word

FORMAT = 2
# The format of a manifest without a hash.
UNHASHED = 1
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
# A language or a source: part of a file's name.
StreamName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
# A count that a file system could hold.
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ShardFile(_Record):
    """One token file; `path` is relative to the folder."""

    path: str
    tokens: Count = Field(ge=1)
    sha256: Sha256

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if not re.fullmatch(r"(train|validation)/[\w.-]+\.bin", path):
            raise ValueError(f"'{path}' is not the path of a shard")
        return path


class TokenStream(_Record):
    """Counts of one language of one source in one split; `bytes` are of UTF-8 text, before tokenizing."""

    split: Split
    language: StreamName
    source: StreamName
    documents: Count
    tokens: Count
    bytes: Count
    files: list[ShardFile]

    @model_validator(mode="after")
    def _agrees_with_its_files(self) -> Self:
        beginning = re.escape(f"{self.split}/{self.language}-{self.source}-")
        for file in self.files:
            if not re.fullmatch(beginning + r"\d{5,}\.bin", file.path):
                raise ValueError(
                    f"'{file.path}' is not a file of {self.language} from {self.source} in {self.split}"
                )
        if self.tokens != sum(file.tokens for file in self.files):
            raise ValueError(f"the files of '{self.source}' do not hold {self.tokens} tokens")
        return self


class TokenizerFacts(_Record):
    """Which tokenizer the ids belong to."""

    fingerprint: Sha256
    vocab_size: Count = Field(ge=1, le=1 << 32)


class DropReport(_Record):
    """Documents that a rule dropped, and how a few of them look."""

    documents: Count
    samples: list[str]


class FilterReport(_Record):
    """What was read, kept and dropped of a source."""

    read: Count
    kept: Count
    dropped: dict[str, DropReport]


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
        filters: Per source, what was read, kept, and dropped by which rule (`FilterReport`).
        revisions: The commit of the hub that each configuration was read at.
        document_log: SHA-256 of the log of documents, which only a part has.
    """

    format: Literal[1, 2] = FORMAT
    name: str
    braingpt: str
    created: str
    parameters: dict[str, Any]
    tokenizer: TokenizerFacts
    dtype: TokenDtype
    streams: list[TokenStream]
    filters: dict[str, Any]
    revisions: dict[str, str] = Field(default_factory=dict)
    document_log: Sha256 | None = None

    @field_validator("filters")
    @classmethod
    def _reports(cls, filters: dict[str, Any]) -> dict[str, Any]:
        try:
            for report in filters.values():
                FilterReport.model_validate(report, strict=True)
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None
        return filters

    @field_validator("parameters")
    @classmethod
    def _part(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        part = parameters.get("part")
        if part is not None and not (isinstance(part, str) and re.fullmatch(r"[1-9]\d*/[1-9]\d*", part)):
            raise ValueError(f"part is {part!r} instead of a part such as '2/8'")
        return parameters

    @model_validator(mode="after")
    def _names_each_file_once(self) -> Self:
        paths = [file.path for stream in self.streams for file in stream.files]
        if len(set(paths)) < len(paths):
            raise ValueError("a file is named twice")
        if self.dtype == "uint16" and self.tokenizer.vocab_size > 1 << 16:
            raise ValueError(f"uint16 cannot hold a vocabulary of {self.tokenizer.vocab_size}")
        return self

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
    states = [f"{folder} is not a prepared data folder" for folder in folders if folder.exists()]
    if absent:
        states.insert(0, f"{_listed(absent)} {'do' if len(absent) > 1 else 'does'} not exist")
    them = "them" if len(folders) > 1 else "it"
    commands = " && ".join(prepare_command(folder, tokens) for folder in folders)
    relative = any(not Path(folder).is_absolute() for folder in absent)
    looked = f" (looked in {Path.cwd()}; --data names another place)" if relative else ""
    return f"{', '.join(states)}; make {them} with: {commands}{looked}"


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`"""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _read(folder: Path) -> Manifest:
    path = folder / NAME
    try:
        tree = read_object(path)
        if tree.get("format") != UNHASHED:
            tree = check_hash(tree)
        return Manifest.model_validate(tree, strict=True)
    except ValidationError as error:
        reason = first_problem(error)
    except ValueError as error:
        reason = str(error)
    raise UserError(f"{path} is damaged ({reason}); prepare it again: {prepare_command(folder)} --force")


def manifest_text(manifest: Manifest) -> str:
    """The content of the file NAME, with its hash where the format has one."""
    tree = manifest.model_dump(mode="json")
    if manifest.format != UNHASHED:
        tree = hashed(tree)
    return json.dumps(tree, ensure_ascii=False, indent=1) + "\n"


def first_problem(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, in a few words of one line."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    return " ".join([".".join(map(str, first["loc"])), *message.split()])[:160].strip()


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


def check_ids(folder: Path, ids: np.ndarray, vocab_size: int) -> None:
    """Check that token ids of a prepared folder are those of a vocabulary.

    Args:
        folder: The folder.
        ids: Token ids.
        vocab_size: Number of ids of the vocabulary.

    Raises:
        UserError: An id lies beyond the vocabulary.
    """
    if len(ids) and (largest := int(ids.max())) >= vocab_size:
        raise UserError(
            f"{folder} holds token {largest}, beyond its vocabulary of {vocab_size}; "
            f"`braingpt data verify {folder}` names the file; prepare the folder again: "
            f"{prepare_command(folder)} --force"
        )


def verify(folder: Path, manifest: Manifest) -> list[str]:
    """One line for each file that is missing, of another size, or of another hash than the manifest says.

    Reads every byte.
    """
    problems = []
    if manifest.document_log:
        log = folder / DOCUMENT_LOG
        if not log.is_file():
            problems.append(f"{log} is missing")
        elif sha256_of(log) != manifest.document_log:
            problems.append(f"{log} is not what was written: its hash differs")
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
