"""What a preparation reads: its streams of documents, in an order that depends on the request only.

streams = open_streams("fineweb2", ["ko"], note=print, broken=count)
for stream in streams:
    for document in stream:
        ...                       # stream.position(), stream.done()
check_found(streams, "fineweb2", ["ko"], None)
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from braingpt.data.sample import SampleStream
from braingpt.data.sources import hub, local_files
from braingpt.data.sources.catalog import DATASETS, Dataset, DatasetConfig, preparation
from braingpt.data.sources.document_stream import DocumentStream, ListFiles, OnBroken, OnNote
from braingpt.errors import UserError


def open_streams(
    name: str,
    languages: list[str],
    *,
    note: OnNote,
    broken: OnBroken,
    paths: list[Path] | None = None,
    source: Path | None = None,
    column: str | None = None,
    revision: str | None = None,
    config: str | None = None,
    split: str | None = None,
    part: tuple[int, int] | None = None,
) -> Sequence[DocumentStream | SampleStream]:
    """The streams of a preparation, in an order that depends on the arguments only.

    Nothing is fetched before the first is read.

    name: of the table, or "text" with `paths` to files and folders, or "hub" with one path, a dataset's id.
    source: folder with local copies in the hub's layout, in place of the hub. column, revision, config,
        split: in place of the table's.
    part: (2, 8) for the second of eight parts of every stream's files. Raises UserError for options that do
        not go together, own files that cannot be read, and --source without any of the datasets.
    """
    check_options(
        name, paths or [], source=source, column=column, revision=revision, config=config, split=split
    )
    if name == "sample":
        return [SampleStream(languages)]
    if name == "text":
        if line := local_files.left_out(paths or []):
            note(line)
        return [own_files(local_files.find(paths or []), column, note=note, broken=broken, part=part)]
    hub.quiet_hub()
    reached = [source is not None]

    def first(list_files: ListFiles) -> ListFiles:
        def listed(commit: str | None) -> hub.Listing:
            if not reached[0]:
                hub.reach_hub()
                reached[0] = True
            return list_files(commit)

        return listed

    if name == "hub":
        id = str((paths or [Path()])[0])
        wanted = split or "train"
        return [
            DocumentStream(
                id.replace("/", "-").lower(),
                None,
                " ".join(filter(None, (id, config, wanted))),
                first(lambda commit: hub.list_files(id, config, wanted, commit or revision, source)),
                note,
                broken,
                id=id,
                columns=(column,) if column else None,
                revision=revision,
                part=part,
            )
        ]
    streams: list[DocumentStream] = []
    for key in preparation(name).datasets:
        streams += _of_dataset(
            key, DATASETS[key], languages, source, revision, config, note, broken, first, part
        )
    return streams


def own_files(
    paths: list[Path],
    column: str | None,
    *,
    note: OnNote,
    broken: OnBroken,
    part: tuple[int, int] | None = None,
) -> DocumentStream:
    """The stream of the user's own files.

    Raises UserError for one that is not what its name says, or lacks the column.
    """
    listing = hub.Listing(local_files.check(paths, column), None)
    return DocumentStream(
        local_files.SOURCE,
        None,
        "",
        lambda commit: listing,
        note,
        broken,
        columns=(column,) if column else None,
        part=part,
    )


def _of_dataset(
    key: str,
    dataset: Dataset,
    languages: list[str],
    source: Path | None,
    revision: str | None,
    config: str | None,
    note: OnNote,
    broken: OnBroken,
    first: Callable[[ListFiles], ListFiles],
    piece: tuple[int, int] | None,
) -> list[DocumentStream]:
    """Streams of one dataset; what is not there is noted once, when the last of them was looked for."""
    rev = revision or dataset.revision
    wanted = [
        (language, part._replace(config=config or part.config), split)
        for language in languages
        for part in dataset.parts_of(language)
        for split in dataset.splits
    ]
    missing: list[str] = []
    left = [len(wanted)]

    def stream(language: str, part: DatasetConfig, split: str) -> DocumentStream:
        label = " ".join(filter(None, (part.config, split)))

        def listed(commit: str | None) -> hub.Listing:
            if dataset.files:
                return hub.glob_files(
                    dataset.id, dataset.files.format(config=part.config), commit or rev, source
                )
            return hub.list_files(dataset.id, part.config, split, commit or rev, source)

        def absent(reason: str | None) -> None:
            left[0] -= 1
            if reason:
                known = f"{dataset.id} has no"
                missing.append(
                    (part.config or split)
                    if reason.startswith(f"{known} config")
                    else label
                    if reason.startswith(known)
                    else reason
                )
            if missing and not left[0]:
                note(f"{dataset.id}: not there and skipped: {'; '.join(dict.fromkeys(missing))}")

        return DocumentStream(
            key,
            language,
            f"{dataset.id} {label}",
            first(listed),
            note,
            broken,
            id=dataset.id,
            columns=part.columns,
            scores=dataset.scores,
            signals=dataset.signals,
            absent=absent,
            revision=rev,
            part=piece,
        )

    return [stream(*one) for one in wanted]


def check_options(
    name: str, paths: list[Path], *, source: Path | None, column: str | None, **others: str | None
) -> None:
    """UserError for options of `open_streams` that do not go together."""
    entry = preparation(name)
    if paths and name not in ("text", "hub"):
        raise UserError(f"paths go with 'text': braingpt data prepare text {paths[0]}")
    if name == "text" and not paths:
        raise UserError("'text' needs files or folders: braingpt data prepare text PATH...")
    if name == "hub" and len(paths) != 1:
        raise UserError("'hub' needs the id of one dataset: braingpt data prepare hub NAMESPACE/NAME")
    if source is not None and not source.is_dir():
        raise UserError(f"--source {source} is not a folder")
    if source is not None and not entry.datasets and name != "hub":
        raise UserError(f"--source is for copies of hub datasets; '{name}' reads none")
    if column is not None and name not in ("text", "hub"):
        raise UserError("--column goes with 'text' and 'hub'")
    for option, value in others.items():
        if value is None:
            continue
        if not entry.datasets and name != "hub":
            raise UserError(f"--{option} is for datasets of the hub; '{name}' reads none")
        if option == "revision" and source is not None:
            raise UserError("--revision is for the hub; --source DIR holds one copy only")
        if name != "hub" and (option == "split" or len(entry.datasets) > 1):
            raise UserError(
                f"--{option} goes with 'hub' and with corpora of one dataset"
                if option != "split"
                else "--split goes with 'hub'"
            )
        if option == "config" and name != "hub":
            dataset = DATASETS[entry.datasets[0]]
            if not dataset.config or "{" in dataset.config:
                raise UserError(
                    f"the configurations of '{name}' follow from --languages; --config is for others"
                )


def check_found(
    streams: Sequence[DocumentStream | SampleStream], name: str, languages: list[str], source: Path | None
) -> None:
    """UserError when every stream was opened and none of them is there, with the reasons."""
    if streams and any(stream.found is not False for stream in streams):
        return
    where = f"under {source}" if source else "on the hub"
    wanted = ", ".join(DATASETS[dataset].id for dataset in preparation(name).datasets)
    reasons = "; ".join(dict.fromkeys(stream.reason for stream in streams if stream.reason))
    raise UserError(
        f"nothing of '{name}' in {', '.join(languages)} {where}; looked for {wanted}"
        + (f" ({reasons[:300]})" if reasons else "")
    )
