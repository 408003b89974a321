"""The request of `braingpt data prepare`: checked, and turned into the parameters that identify a
preparation.

Parameters go into the manifest and the journal. The same parameters give the same bytes, so the number of
workers is not a parameter.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from braingpt.data.quality import QualityConfig, load_quality
from braingpt.data.shards.manifest import NAME, Manifest, check_sizes, read_manifest
from braingpt.data.shards.writer import check_replaceable
from braingpt.data.sources import local_files
from braingpt.data.sources.catalog import DATASETS, check_languages, preparation
from braingpt.data.sources.open_streams import StreamRequest, check_options
from braingpt.data.sources.read_options import ReadOptions, checked_options
from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer
from braingpt.utils.paths import check_folder, printable

# Share held out of the sample corpus and of the user's own files, as of the small corpora in the catalog.
SMALL_VALIDATION = 0.05


@dataclass
class Request:
    """What `braingpt data prepare` was asked for. None means the corpus's own default.

    Attributes:
        name: A corpus of the catalog, "text" or "hub".
        out: The folder to prepare.
        paths: Files and folders of "text"; the id of "hub".
        source: Folder with copies in the hub's layout, instead of the hub.
        languages: Languages to keep.
        max_samples: Documents kept at most, per source and language.
        max_tokens: Tokens of kept documents at most, per source and language.
        column: The text column of "text" and "hub".
        format: Format of the files of "text" and "hub", where their content shall not decide.
        encoding: Encoding of these files.
        delimiter: The character between the columns of their tables.
        revision: Branch, tag or commit of hub datasets.
        config: Configuration of a hub dataset.
        split: Split of "hub".
        validation: Share of the documents held out, 0 to 0.5.
        quality: YAML file over the default rules.
        part: (2, 8) for the second of eight parts of the files.
        force: Whether an existing folder is replaced.
        workers: Processes that judge and tokenize; 1 for this process alone.
    """

    name: str
    out: Path
    paths: list[Path] = field(default_factory=list)
    source: Path | None = None
    languages: list[str] | None = None
    max_samples: int | None = None
    max_tokens: int | None = None
    column: str | None = None
    format: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    validation: float | None = None
    quality: Path | None = None
    part: tuple[int, int] | None = None
    force: bool = False
    workers: int = 1

    def streams(self, languages: list[str]) -> StreamRequest:
        """The part of the request that is about reading, with the resolved languages."""
        return StreamRequest(
            name=self.name,
            languages=languages,
            paths=self.paths,
            source=self.source,
            column=self.column,
            revision=self.revision,
            config=self.config,
            split=self.split,
            part=self.part,
            options=self.read_options(),
        )

    def read_options(self) -> ReadOptions:
        """How the files are to be read; UserError for an option that says nothing."""
        return checked_options(self.format, self.encoding, self.delimiter)

    def validation_share(self, source: str) -> float:
        """Share of the documents of a source that is held out."""
        if self.validation is not None:
            return self.validation
        return DATASETS[source].validation if source in DATASETS else SMALL_VALIDATION


@dataclass
class CheckedRequest:
    """A request with its defaults filled in.

    Attributes:
        streams: What is read.
        quality: The rules.
        max_samples: Documents kept at most, per source and language.
        parameters: What distinguishes this preparation from others, as it goes into the manifest.
    """

    streams: StreamRequest
    quality: QualityConfig
    max_samples: int | None
    parameters: dict[str, Any]

    @property
    def languages(self) -> list[str]:
        """Languages to keep."""
        return self.streams.languages


def check_request(request: Request, tokenizer: Tokenizer) -> CheckedRequest:
    """The request with its defaults filled in. UserError for anything wrong with it."""
    entry = preparation(request.name)
    check_folder(request.out)
    check_options(request.streams([]))
    for option, value in (
        ("--max-samples", request.max_samples),
        ("--max-tokens", request.max_tokens),
        ("--workers", request.workers),
    ):
        if value is not None and value < 1:
            raise UserError(f"{option} must be at least 1, not {value}")
    if request.validation is not None and not 0 <= request.validation <= 0.5:
        raise UserError(f"--validation must be a share from 0 to 0.5, not {request.validation}")
    if request.part is not None:
        _check_part(request, *request.part)
    if request.languages is not None and not request.languages:
        raise UserError("--languages names no language; give codes such as ko,en")
    # The languages of these are not known beforehand: every language that the tokenizer can mark counts.
    unknown = request.name in ("text", "hub")
    languages = list(dict.fromkeys(request.languages or (tokenizer.marked if unknown else entry.languages)))
    check_languages(request.name, languages, tokenizer.markers)
    quality = load_quality(request.quality)
    max_samples = request.max_samples or entry.max_samples
    inputs = local_files.find_files(request.paths, request.read_options()) if request.name == "text" else []
    parameters = {
        "corpus": request.name,
        "paths": [printable(path if request.name == "hub" else path.resolve()) for path in request.paths],
        "inputs": local_files.stamp(inputs) if inputs else None,
        "source": printable(request.source.resolve()) if request.source else None,
        "languages": languages,
        "max_samples": max_samples,
        "max_tokens": request.max_tokens,
        "column": request.column,
        **{name: value for name, value in request.read_options()._asdict().items() if value is not None},
        "revision": request.revision,
        "config": request.config,
        "split": request.split,
        "validation": request.validation,
        "part": "/".join(map(str, request.part)) if request.part else None,
        "quality": quality.model_dump(mode="json"),
        "quality_files": _quality_files(quality),
        "tokenizer": tokenizer.fingerprint[:12],
    }
    return CheckedRequest(request.streams(languages), quality, max_samples, parameters)


def existing_manifest(request: Request, parameters: dict[str, Any]) -> Manifest | None:
    """The manifest of a complete folder prepared with the same parameters, or None. Raises UserError for any
    other folder that may not be replaced.
    """
    out = request.out
    if not out.exists() and not out.is_symlink():
        return None
    check_replaceable(out)
    if request.force or not any(out.iterdir()):
        return None
    if not (out / NAME).is_file():
        raise UserError(f"{out} exists and has no manifest; replace it with --force, or choose another --out")
    manifest = read_manifest(out)
    check_sizes(out, manifest)
    changed = difference(manifest.parameters, parameters)
    if changed:
        raise UserError(
            f"{out} was prepared with other parameters ({changed}); "
            "replace it with --force, or choose another --out"
        )
    return manifest


def difference(before: dict[str, Any], now: dict[str, Any], path: str = "") -> str | None:
    """The first parameter that differs, with both values in words; None when all are the same."""
    for key in dict.fromkeys([*now, *before]):
        one, other = before.get(key), now.get(key)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            return difference(one, other, f"{path}{key}.")
        if key in ("inputs", "quality_files"):
            return f"{key.replace('_', ' ')}: changed since"
        return f"{path}{key}: was {_show(one)}, now {_show(other)}"
    return None


def missing_scores(name: str, quality: QualityConfig) -> list[str]:
    """Scores that a rule asks for and no dataset gives, so that a misspelt name is reported. Files of signals
    may hold any score.
    """
    datasets = [DATASETS[dataset] for dataset in preparation(name).datasets]
    if quality.educational is None or any(dataset.signals for dataset in datasets):
        return []
    return [
        score
        for score in quality.educational.scores
        if not any(score in dataset.scores for dataset in datasets)
    ]


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "other settings"
    if value is None:
        return "the default"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _check_part(request: Request, number: int, count: int) -> None:
    if not 1 <= number <= count:
        raise UserError(f"there is no --part {number}/{count}; the first of eight parts is 1/8, the last 8/8")
    if request.name == "sample":
        raise UserError("'sample' has no parts; leave out --part")
    if request.max_samples or request.max_tokens or preparation(request.name).max_samples:
        raise UserError(
            "--part reads a part of all files; "
            "it excludes --max-samples, --max-tokens and a corpus with a cap"
        )


def _quality_files(quality: QualityConfig) -> str | None:
    """A stamp of the user's models and evaluation sets that the rules read."""
    rules = (quality.perplexity, quality.educational)
    paths = [rule.model for rule in rules if rule and rule.model] + (
        quality.contamination.files if quality.contamination else []
    )
    try:
        return local_files.stamp([Path(path) for path in paths]) if paths else None
    except OSError as error:
        raise UserError(
            f"the quality settings name {error.filename}, which cannot be read: {error.strerror}"
        ) from None
