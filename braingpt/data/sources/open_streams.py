"""What a preparation reads: its streams of documents, in an order that depends on the request only.

    request = StreamRequest("fineweb2", ["ko"])
    streams = open_streams(request, StreamEvents(note=print, broken=count))
    for stream in streams:
        for document in stream:
            ...                       # stream.position(), stream.fraction_read()
    check_available(streams, request)

The catalog says which datasets a corpus has, a dataset which configurations and splits; each of these is one
`DocumentStream` per language. Nothing is fetched before a stream is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from braingpt.data.sample import SampleStream
from braingpt.data.sources import hub, local_files
from braingpt.data.sources.catalog import DATASETS, Dataset, DatasetConfig, preparation
from braingpt.data.sources.document_stream import DocumentStream, ListFiles, StreamEvents, StreamSpec
from braingpt.data.sources.read_options import BY_CONTENT, ReadOptions
from braingpt.errors import UserError
from braingpt.utils.paths import shell_words


@dataclass(frozen=True)
class StreamRequest:
    """What is to be read. None means what the catalog says.

    Attributes:
        name: A corpus of the catalog, or "text" with `paths` to files and folders, or "hub" with one path, a
            dataset's id.
        languages: Languages to read; the user's own files and "hub" do not say theirs.
        paths: Files and folders of "text"; the id of "hub".
        source: Folder with copies in the hub's layout, instead of the hub.
        column: The text column of "text" and "hub".
        revision: Branch, tag or commit on the hub.
        config: Configuration of the dataset.
        split: Split of "hub"; "train" for None.
        part: (2, 8) for the second of eight parts of every stream's files.
        options: How the files of "text" and "hub" are to be read, where their content shall not decide.
    """

    name: str
    languages: list[str]
    paths: list[Path] = field(default_factory=list)
    source: Path | None = None
    column: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    part: tuple[int, int] | None = None
    options: ReadOptions = BY_CONTENT


def open_streams(request: StreamRequest, events: StreamEvents) -> Sequence[DocumentStream | SampleStream]:
    """The streams of a request, in an order that depends on the request only.

    Args:
        request: What to read.
        events: Called while the streams are read, and with a note on own files that are left out.

    Returns:
        The streams; nothing is fetched before the first of them is read.

    Raises:
        UserError: Options exclude each other, or own files cannot be read.
    """
    check_options(request)
    if request.name == "sample":
        return [SampleStream(request.languages)]
    if request.name == "text":
        if line := local_files.describe_unread(request.paths):
            events.note(line)
        files = local_files.find_files(request.paths, request.options)
        return [local_files.own_files(files, request.column, events, request.part, request.options)]
    hub.silence_hub()
    connection = _HubConnection(needed=request.source is None)
    if request.name == "hub":
        return [DocumentStream(_spec_of_hub_id(request, connection), events)]
    streams: list[DocumentStream] = []
    for key in preparation(request.name).datasets:
        streams += _streams_of_dataset(key, DATASETS[key], request, events, connection)
    return streams


class _HubConnection:
    """Checks that the hub answers before the first listing of a request."""

    def __init__(self, needed: bool) -> None:
        self._checked = not needed

    def checked_before(self, list_files: ListFiles) -> ListFiles:
        """`list_files`, which asks the hub first where nothing has yet."""

        def checked_list_files(commit: str | None) -> hub.Listing:
            if not self._checked:
                hub.check_reachable()
                self._checked = True
            return list_files(commit)

        return checked_list_files


class _AbsentConfigs:
    """Collects which configurations and splits of a dataset are not there, for one note when the last of them
    was looked for.
    """

    def __init__(self, dataset: Dataset, count: int, note: Callable[[str], None]) -> None:
        self._id, self._unseen, self._note = dataset.id, count, note
        self._absent: list[str] = []

    def report(self, part: DatasetConfig, split: str, label: str, reason: str | None) -> None:
        """One of them was looked for; `reason`: why it is not there, None where it is."""
        self._unseen -= 1
        if reason:
            known = f"{self._id} has no"
            if reason.startswith(f"{known} config"):
                reason = part.config or split
            elif reason.startswith(known):
                reason = label
            self._absent.append(reason)
        if self._absent and not self._unseen:
            self._note(f"{self._id}: not there and skipped: {'; '.join(dict.fromkeys(self._absent))}")


def _spec_of_hub_id(request: StreamRequest, connection: _HubConnection) -> StreamSpec:
    """The one stream of a dataset that the user names by its id."""
    id = str((request.paths or [Path()])[0])
    split = request.split or "train"

    def list_files(commit: str | None) -> hub.Listing:
        return hub.list_files(id, request.config, split, commit or request.revision, request.source)

    return StreamSpec(
        source=id.replace("/", "-").lower(),
        language=None,
        label=" ".join(filter(None, (id, request.config, split))),
        list_files=connection.checked_before(list_files),
        id=id,
        columns=(request.column,) if request.column else None,
        revision=request.revision,
        part=request.part,
        options=request.options,
    )


def _streams_of_dataset(
    key: str, dataset: Dataset, request: StreamRequest, events: StreamEvents, connection: _HubConnection
) -> list[DocumentStream]:
    """A stream for every language, configuration and split of a dataset of the catalog."""
    wanted = [
        (language, part._replace(config=request.config or part.config), split)
        for language in request.languages
        for part in dataset.configs_of(language)
        for split in dataset.splits
    ]
    absent = _AbsentConfigs(dataset, len(wanted), events.note)

    def stream(language: str, part: DatasetConfig, split: str) -> DocumentStream:
        spec = _spec_of_config(key, dataset, language, part, split, request)
        label = " ".join(filter(None, (part.config, split)))
        return DocumentStream(
            replace(spec, list_files=connection.checked_before(spec.list_files)),
            replace(events, absent=lambda reason: absent.report(part, split, label, reason)),
        )

    return [stream(*one) for one in wanted]


def _spec_of_config(
    key: str, dataset: Dataset, language: str, part: DatasetConfig, split: str, request: StreamRequest
) -> StreamSpec:
    """The stream of one configuration and split in one language."""
    revision = request.revision or dataset.revision

    def list_files(commit: str | None) -> hub.Listing:
        if dataset.files:
            pattern = dataset.files.format(config=part.config)
            return hub.glob_files(dataset.id, pattern, commit or revision, request.source)
        return hub.list_files(dataset.id, part.config, split, commit or revision, request.source)

    return StreamSpec(
        source=key,
        language=language,
        label=" ".join(filter(None, (dataset.id, part.config, split))),
        list_files=list_files,
        id=dataset.id,
        columns=part.columns,
        scores=dataset.scores,
        signals=dataset.signals,
        revision=revision,
        part=request.part,
    )


def check_options(request: StreamRequest) -> None:
    """UserError for options of a request that do not go together."""
    name, paths, source = request.name, request.paths, request.source
    entry = preparation(name)
    if paths and name not in ("text", "hub"):
        raise UserError(f"paths are for 'text': braingpt data prepare text {shell_words(paths)}")
    if name == "text" and not paths:
        raise UserError("'text' needs files or folders: braingpt data prepare text PATH...")
    if name == "hub" and len(paths) != 1:
        raise UserError("'hub' needs the id of one dataset: braingpt data prepare hub NAMESPACE/NAME")
    if source is not None and not source.is_dir():
        raise UserError(f"--source {source} is not a folder; name the folder of the copies")
    if source is not None and not entry.datasets and name != "hub":
        raise UserError(f"--source is for copies of hub datasets; '{name}' reads none")
    if request.column is not None and name not in ("text", "hub"):
        raise UserError("--column is for 'text' and 'hub'")
    if request.options != BY_CONTENT and name not in ("text", "hub"):
        raise UserError("--format, --encoding and --delimiter go with 'text' and 'hub'")
    for option in ("revision", "config", "split"):
        if getattr(request, option) is not None:
            _check_hub_option(option, name, entry.datasets, source)


def _check_hub_option(option: str, name: str, datasets: Sequence[str], source: Path | None) -> None:
    """UserError where --revision, --config or --split was given and does not go with the rest."""
    if not datasets and name != "hub":
        raise UserError(f"--{option} is for datasets of the hub; '{name}' reads none")
    if option == "revision" and source is not None:
        raise UserError("--revision is for the hub; --source DIR holds one copy only")
    if name == "hub":
        return
    if option == "split":
        raise UserError("--split is for 'hub'")
    if len(datasets) > 1:
        raise UserError(f"--{option} is for 'hub' and for corpora of one dataset")
    if option == "config":
        config = DATASETS[datasets[0]].config
        if not config or "{" in config:
            raise UserError(
                f"'{name}' has configurations by language; choose with --languages instead of --config"
            )


def check_available(streams: Sequence[DocumentStream | SampleStream], request: StreamRequest) -> None:
    """UserError when every stream was read and none of them is there, with the reasons."""
    if streams and any(stream.available is not False for stream in streams):
        return
    where = f"under {request.source}" if request.source else "on the hub"
    wanted = ", ".join(DATASETS[dataset].id for dataset in preparation(request.name).datasets)
    reasons = "; ".join(dict.fromkeys(stream.absent_reason for stream in streams if stream.absent_reason))
    raise UserError(
        f"nothing of '{request.name}' in {', '.join(request.languages)} {where}; looked for {wanted}"
        + (f" ({reasons[:300]})" if reasons else "")
    )
