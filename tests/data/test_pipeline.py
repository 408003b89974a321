"""Preparations from end to end, on the user's own files and on copies of hub datasets."""

import errno
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from braingpt.data.prepare import chunk_reader
from braingpt.data.prepare.pipeline import Progress, Request, prepare
from braingpt.data.shards.manifest import read_manifest, verify
from braingpt.data.shards.reader import ShardSet
from braingpt.data.shards.writer import FolderWriter
from braingpt.data.sources.catalog import PREPARATIONS
from braingpt.errors import Failure, UserError
from tests.data.folders import ByteTokenizer
from tests.data.texts import english, korean


def _own(tmp_path: Path, count: int = 40) -> Path:
    path = tmp_path / "own.jsonl"
    texts = [write(number) for number in range(count) for write in (korean, english)]
    path.write_text("\n".join(json.dumps({"text": text}) for text in [*texts, texts[0], "x"]))
    return path


def _decoded(folder: Path, split: str, language: str, tokenizer: ByteTokenizer) -> list[str]:
    """Texts of one language, each checked to stand between its marker and the end of text."""
    shards = ShardSet.open([folder], tokenizer)
    ids = shards.window(split, language, 0, shards.tokens(split, language)).tolist()
    texts: list[list[int]] = []
    for token in ids:
        if token == tokenizer.markers[language]:
            assert not texts or texts[-1][-1] == tokenizer.eot
            texts.append([])
        else:
            texts[-1].append(token)
    return [bytes(text[:-1]).decode() for text in texts]


def test_own_files(tmp_path: Path, tokenizer: ByteTokenizer) -> None:
    out = tmp_path / "out"
    done = prepare(Request("text", out, [_own(tmp_path)], validation=0.2), tokenizer)
    kept = {
        language: [_decoded(out, split, language, tokenizer) for split in ("train", "validation")]
        for language in ("ko", "en")
    }
    for language, write in (("ko", korean), ("en", english)):
        train, validation = kept[language]
        assert sorted(train + validation) == sorted(write(number) for number in range(40))
        assert 1 <= len(validation) <= 20
    report = done.manifest.filters["text"]
    assert (report["read"], report["kept"]) == (82, 80)
    assert {rule: facts["documents"] for rule, facts in report["dropped"].items()} == {
        "duplicate": 1,
        "short": 1,
    }
    assert sum(stream.bytes for stream in done.manifest.streams) == sum(
        len(text.encode()) for both in kept.values() for s in both for text in s
    )
    assert sum(stream.documents for stream in done.manifest.streams) == 80
    assert verify(out, read_manifest(out)) == []
    assert (out / "tokenizer").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "own.jsonl"]


def test_same_inputs_give_the_same_bytes(tmp_path: Path, tokenizer: ByteTokenizer) -> None:
    manifests = [
        prepare(Request("text", tmp_path / name, [_own(tmp_path)]), tokenizer).manifest for name in "ab"
    ]
    assert manifests[0].streams == manifests[1].streams


def test_a_single_document_gives_both_splits(tmp_path: Path, tokenizer: ByteTokenizer) -> None:
    path = tmp_path / "one.txt"
    path.write_text("".join(english(number) + "\n" for number in range(100)))
    prepare(Request("text", tmp_path / "out", [path]), tokenizer)
    shards = ShardSet.open([tmp_path / "out"], tokenizer)
    train, validation = shards.tokens("train", "en"), shards.tokens("validation", "en")
    assert train + validation == len(path.read_text().strip()) + 2
    assert validation == pytest.approx(0.05 * (train + validation), abs=2)


def test_existing_folder(tmp_path: Path, tokenizer: ByteTokenizer) -> None:
    out, own = tmp_path / "out", _own(tmp_path)
    request = Request("text", out, [own])
    first = prepare(request, tokenizer)
    again = prepare(request, tokenizer)
    assert (first.fresh, again.fresh) == (True, False)
    assert again.manifest == first.manifest
    with pytest.raises(UserError, match=r"languages: was .*, now ko\).*--force"):
        prepare(Request("text", out, [own], languages=["ko"]), tokenizer)
    assert prepare(
        Request("text", out, [own], languages=["ko"], force=True), tokenizer
    ).manifest.languages() == ["ko"]
    own.write_text(json.dumps({"text": english(0)}))
    with pytest.raises(UserError, match="inputs: changed since"):
        prepare(Request("text", out, [own], languages=["ko"]), tokenizer)
    (out / "my-notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"my-notes\.txt"):
        prepare(Request("text", out, [own], force=True), tokenizer)
    assert (out / "my-notes.txt").exists()


def test_max_samples(tmp_path: Path, tokenizer: ByteTokenizer) -> None:
    manifest = prepare(Request("text", tmp_path / "out", [_own(tmp_path)], max_samples=7), tokenizer).manifest
    counts = {
        language: sum(s.documents for s in manifest.streams if s.language == language)
        for language in ("ko", "en")
    }
    assert counts == {"ko": 7, "en": 7}


@pytest.mark.parametrize("validation", [0.0, 0.5])
def test_validation_share(tmp_path: Path, tokenizer: ByteTokenizer, validation: float) -> None:
    manifest = prepare(
        Request("text", tmp_path / "out", [_own(tmp_path, 200)], validation=validation), tokenizer
    ).manifest
    assert manifest.total("validation", "documents") / 400 == pytest.approx(validation, abs=0.1)


def test_nothing_kept(tmp_path: Path, tokenizer: ByteTokenizer) -> None:
    path = tmp_path / "short.jsonl"
    path.write_text('{"text": "x"}\n{"text": "y"}\n{\n')
    with pytest.raises(UserError, match=r"short: 2, broken row: 1 \(such as 'x'\)"):
        prepare(Request("text", tmp_path / "deep" / "out", [path]), tokenizer)
    path.write_text("")
    with pytest.raises(UserError, match="holds no documents"):
        prepare(Request("text", tmp_path / "deep" / "out", [path]), tokenizer)
    assert [entry.name for entry in tmp_path.iterdir()] == ["short.jsonl"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failure_leaves_nothing_and_keeps_what_was(
    tmp_path: Path, tokenizer, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out, own = tmp_path / "out", _own(tmp_path)
    before = prepare(Request("text", out, [own]), tokenizer).manifest
    added = FolderWriter.add

    def failing(self, split, language, *rest):
        place = added(self, split, language, *rest)
        if language == "en":
            raise error
        return place

    monkeypatch.setattr(FolderWriter, "add", failing)
    with pytest.raises(type(error)):
        prepare(Request("text", out, [own], force=True), tokenizer)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "own.jsonl"]
    assert read_manifest(out) == before
    assert verify(out, before) == []


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request("koraen", Path("x")), "did you mean 'korean'"),
        (Request("text", Path("x")), "needs files"),
        (Request("korean", Path("x"), [Path("y")]), "are for 'text'"),
        (Request("korean", Path("x"), source=Path("no-such-folder")), "not a folder"),
        (Request("sample", Path("x"), source=Path()), "reads none"),
        (Request("korean", Path("x"), languages=["de"]), "no language 'de'"),
        (Request("korean", Path("x"), max_samples=0), "at least 1"),
        (Request("korean", Path("x"), validation=0.9), "from 0 to 0.5"),
        (Request("korean", Path("x"), column="text"), "--column is for"),
        (Request("text", Path("x"), [Path("no-such-file.txt")]), "no file or folder"),
    ],
)
def test_wrong_requests(tokenizer: ByteTokenizer, request_: Request, words: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare(request_, tokenizer)
    assert words in str(caught.value)
    assert not Path("x").exists()


def _local(tmp_path: Path) -> Path:
    """A copy of one dataset, in the hub's layout, with a column of each kind the reader understands."""
    folder = tmp_path / "copies" / "klue" / "klue"
    configs = []
    rows = {
        "ynat": [{"title": korean(n), "label": n} for n in range(5)],
        "ner": [{"tokens": list(korean(n)), "sentence": "<표:XX>"} for n in range(5, 10)],
        "wos": [
            {"dialogue": [{"role": "user", "text": korean(n)}, {"role": "sys", "text": "네, 알겠습니다."}]}
            for n in range(10, 12)
        ],
    }
    for config, content in rows.items():
        (folder / config).mkdir(parents=True)
        (folder / config / "train.jsonl").write_text("\n".join(map(json.dumps, content)))
        configs.append(
            f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train.jsonl\n"
        )
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")
    return tmp_path / "copies"


def test_local_copy_of_a_hub_dataset(tmp_path: Path, tokenizer: ByteTokenizer) -> None:
    notes: list[str] = []
    request = Request("korean", tmp_path / "out", source=_local(tmp_path), languages=["ko"], validation=0.0)
    manifest = prepare(request, tokenizer, note=notes.append).manifest
    texts = _decoded(tmp_path / "out", "train", "ko", tokenizer)
    assert texts == [*(korean(n) for n in range(10)), *(f"{korean(n)}\n네, 알겠습니다." for n in (10, 11))]
    assert [stream.source for stream in manifest.streams] == ["klue"]
    assert any("KorQuAD" in note for note in notes)
    assert any("klue/klue" in note and "mrc" in note and "ynat validation" in note for note in notes)


def test_nothing_of_it_is_there(tmp_path: Path, tokenizer: ByteTokenizer) -> None:
    with pytest.raises(UserError, match="looked for allenai/c4"):
        prepare(Request("c4", tmp_path / "out", source=_local(tmp_path)), tokenizer)
    assert not (tmp_path / "out").exists()


def test_a_hub_out_of_reach_is_one_line(
    tmp_path: Path, tokenizer: ByteTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse():
        raise ConnectionError("name or service not known")

    monkeypatch.setattr(huggingface_hub, "get_session", refuse)
    with pytest.raises(Failure, match=r"cannot reach the Hugging Face hub.*--source DIR"):
        prepare(Request("korean", tmp_path / "out"), tokenizer)


@pytest.mark.parametrize(
    "name", [name for name in PREPARATIONS if name not in ("sample", "text", "hub", "korean-web")]
)
def test_every_corpus_of_the_table(
    corpora: Path, tmp_path: Path, tokenizer: ByteTokenizer, name: str
) -> None:
    manifest = prepare(Request(name, tmp_path / "out", source=corpora, max_samples=20), tokenizer).manifest
    assert manifest.total("train", "documents") >= 19
    assert manifest.total("validation") > 0
    for stream in manifest.streams:
        ids = np.fromfile(tmp_path / "out" / stream.files[0].path, dtype="<u2")
        assert stream.documents == 0 or ids[0] == tokenizer.markers[stream.language]
    if name == "korean":
        assert {
            (stream.language, stream.source) for stream in manifest.streams if stream.split == "train"
        } == {
            ("ko", "klue"),
            ("ko", "korquad"),
            ("ko", "parallel"),
            ("en", "parallel"),
            ("ko", "nsmc"),
        }


def test_progress_is_reported(
    tmp_path: Path, tokenizer: ByteTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_reader, "CHUNK_CHARACTERS", 1000)
    reports: list[Progress] = []
    done = prepare(Request("text", tmp_path / "out", [_own(tmp_path)]), tokenizer, progress=reports.append)
    assert len(reports) > 3
    assert reports[-1].tokens == sum(stream.tokens for stream in done.manifest.streams)
    assert [progress.kept for progress in reports] == sorted(progress.kept for progress in reports)


def test_code_switches_are_marked(tmp_path: Path) -> None:
    text = f"{korean(1)} {english(2)} {korean(3)}"
    (tmp_path / "own.txt").write_text(text)
    tokenizer = ByteTokenizer()
    prepare(Request("text", tmp_path / "out", [tmp_path / "own.txt"], validation=0.0), tokenizer)
    ids = np.fromfile(tmp_path / "out" / "train" / "ko-text-00000.bin", dtype="<u2")
    assert [
        language for token in ids for language, marker in tokenizer.markers.items() if token == marker
    ] == ["ko", "en", "ko"]
    assert bytes(ids[ids < 256].astype(np.uint8)).decode() == text
    begins = int(np.flatnonzero(ids == tokenizer.markers["en"])[0])
    assert bytes(ids[begins + 1 : begins + 9].astype(np.uint8)).decode().strip().startswith("The")


@pytest.mark.parametrize("workers", [1, 2])
def test_one_note_says_what_was_cleaned(tmp_path: Path, workers: int, tokenizer: ByteTokenizer) -> None:
    """The same texts in any form give the same folder."""
    texts = [korean(number) for number in range(30)]
    forms = {
        "NFC": texts,
        "NFD": [unicodedata.normalize("NFD", text) for text in texts],
        "fillers": [text.replace(" ", "\u3164 ") for text in texts],
    }
    told: dict[str, list[str]] = {}
    for form, lines in forms.items():
        file = tmp_path / form / "texts.jsonl"
        file.parent.mkdir()
        file.write_text("\n".join(json.dumps({"text": line}) for line in lines))
        request = Request("text", tmp_path / form / "out", [file], workers=workers)
        told[form] = [note for note in prepare(request, tokenizer).notes if "cleaned" in note]
    assert told["NFC"] == []
    assert len(told["NFD"]) == len(told["fillers"]) == 1
    assert "characters composed (NFC)" in told["NFD"][0]
    count = sum(text.count(" ") for text in texts)
    assert told["fillers"] == [f"texts were cleaned: {count:,} Hangul fillers removed"]
    files = {form: sorted((tmp_path / form / "out").glob("*/*.bin")) for form in forms}
    assert len(files["NFC"]) == 2
    for found in files.values():
        assert [path.read_bytes() for path in found] == [path.read_bytes() for path in files["NFC"]]
