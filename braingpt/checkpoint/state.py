"""state.json of a checkpoint: its schema, and the hash that protects its content.

`sha256` is the hash of all other keys (`utils/hashed_json.py`), so a changed step, offset or hash of a file
is found. Format 1, which earlier versions wrote, has no such key: it is checked by the schema.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from braingpt import __version__
from braingpt.checkpoint.format import FORMAT, FORMATS, RECIPE, STATE, TOKENIZER
from braingpt.checkpoint.listing import list_checkpoints, step_of
from braingpt.errors import Failure, UserError
from braingpt.utils.hashed_json import KEY, check_hash, read_object

Count = Annotated[int, Field(ge=0)]


class _Checked(BaseModel):
    """Types are exact, numbers finite, and keys of other versions stay."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _File(_Checked):
    bytes: Count
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Best(_Checked):
    step: Count
    loss: float


class _Guard(_Checked):
    log_norms: list[float]
    far_in_row: Count
    losses: list[float]
    skipped: Count
    skipped_in_row: Count
    spikes: Count
    spikes_in_row: Count


class _State(_Checked):
    """The keys that are read; `RunState` (train/resume.py) says what those of training mean."""

    format: int
    version: str
    step: Count
    tokens: Count
    files: dict[str, _File]
    best: _Best | None = None
    seconds: float = Field(default=0.0, ge=0)
    data: str = ""
    validation: str = ""
    guard: _Guard | None = None
    calm: bool = True
    rewinds: Count = 0
    offset: Count = 0
    micro_batch: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    averaged: Count = 0

    @field_validator("files")
    @classmethod
    def _complete(cls, files: dict[str, _File]) -> dict[str, _File]:
        for name in files:
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"'{name}' is not a file of a checkpoint")
        patterns = (r"model[./].+", re.escape(RECIPE), rf"{TOKENIZER}/.+")
        if missing := [one for one in patterns if not any(re.fullmatch(one, name) for name in files)]:
            raise ValueError(f"no file is named like {missing[0]}")
        return files


def read_state(folder: Path) -> dict[str, Any]:
    """Read and check a checkpoint's state.json.

    Args:
        folder: The checkpoint.

    Raises:
        UserError: There is no checkpoint, or it has the format of another version.
        Failure: state.json is damaged.
    """
    folder = Path(folder)
    path = folder / STATE
    if not path.is_file():
        raise UserError(f"{folder} is not a checkpoint (it has no {STATE})")
    try:
        state = read_object(path)
    except ValueError as error:
        raise damaged(folder, f"{path} is damaged: {error}") from None
    if KEY in state:
        try:
            check_hash(state)
        except ValueError:
            raise damaged(folder, f"{path} is damaged: it is not the file that was saved") from None
    if type(found := state.get("format")) is int and found not in FORMATS:
        read = " and ".join(map(str, FORMATS))
        raise UserError(f"{folder} has checkpoint format {found}; braingpt {__version__} reads {read}")
    if reason := _schema_error(state, folder):
        raise damaged(folder, f"{path} is damaged: {reason}")
    return state


def weights_hash(state: dict[str, Any]) -> str:
    """The SHA-256 of the model's file, or of the hashes of its parts, as state.json names them.

    Loading compares these with the files.
    """
    hashes = [
        about["sha256"] for name, about in sorted(state["files"].items()) if re.match(r"model[./]", name)
    ]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def damaged(folder: Path, problem: str) -> Failure:
    """The failure of a damaged checkpoint, which names another checkpoint of the run, if there is one."""
    others = [path for path in list_checkpoints(Path(folder).parent.parent) if path != Path(folder)]
    return Failure(f"{problem}; use another checkpoint{f', like {others[-1]}' if others else ''}")


def _schema_error(state: dict[str, Any], folder: Path) -> str | None:
    """What is wrong with the keys, in words; None where nothing is."""
    try:
        checked = _State.model_validate(state)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            return f"'{key}' is missing"
        return f"'{key}': {first['msg'].removeprefix('Value error, ')}"
    if checked.format == FORMAT and KEY not in state:
        return f"'{KEY}' is missing"
    if (step := step_of(folder)) is not None and step != checked.step:
        return f"its step is {checked.step}, the folder is that of step {step}"
    return None
