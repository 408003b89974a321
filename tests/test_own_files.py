"""Files of our own, damaged in every way: each reader says so in one line that names the file, or falls back
as documented. No reader takes a changed value where the file has a hash.
"""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save

from braingpt.bench.results import FILE, Results
from braingpt.data.quality import educational, perplexity
from braingpt.data.quality.config import load_quality
from braingpt.data.quality.contamination import Contamination, prepare_list
from braingpt.data.quality.educational import Classifier
from braingpt.data.shards.manifest import NAME, read_manifest
from braingpt.episodic import storage
from braingpt.episodic.storage import load_memory, save_memory
from braingpt.errors import Failure, UserError
from braingpt.tokenizer import Tokenizer
from braingpt.utils.hashed_json import KEY, check_hash, hashed, read_object
from tests.data.folders import write_folder
from tests.fixed_texts import documents
from tests.test_crashes import memory_of, small_tokenizer

HUGE = 10**400
GARBAGE = bytes(range(256)) * 4


@dataclass
class Kind:
    """A kind of file: `make` writes a sound one below a folder and returns it, `read` reads it."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    # Reads and writes what the file holds as a tree of JSON; None for a file of another form.
    tree: Callable[[Path], Any] | None = None
    write: Callable[[Path, Any], None] | None = None
    # Whether a hash covers every value, so that each change is found.
    covered: bool = True


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree), "utf-8")


def rehash(path: Path, tree: Any) -> None:
    """As a writer with a fault would: the hash is right and the content is not."""
    write_json(path, hashed({key: value for key, value in tree.items() if key != KEY}))


def _manifest(place: Path) -> Path:
    ids = np.array([1, 2, 256, 3, 256, 4, 256])
    write_folder(place / "d", {("train", "ko", "text"): ids, ("validation", "ko", "text"): ids})
    return place / "d" / NAME


def _old_manifest(place: Path) -> Path:
    path = _manifest(place)
    tree = read_json(path)
    del tree[KEY]
    write_json(path, {**tree, "format": 1})
    return path


def _tokenizer(place: Path) -> Path:
    small_tokenizer().save(place / "t")
    return place / "t" / "tokenizer.json"


def _memory(place: Path) -> Path:
    save_memory(memory_of("one", "two"), place / "m")
    return place / "m"


def _head(path: Path) -> Any:
    with storage.safe_open(path, "pt") as file:
        return json.loads(file.metadata()["content"])


def _write_head(path: Path, head: Any) -> None:
    """A memory whose header was changed and whose digest fits, as of a writer with a fault."""
    with storage.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = json.dumps(head)
    facts = {"format": storage.FORMAT, "content": content, "digest": storage._digest(tensors, content)}
    path.write_bytes(save(tensors, metadata=facts))


SETTINGS, MACHINE = {"size": "nano", "seeds": 1}, {"cpu": "one"}


def _bench(place: Path) -> Path:
    Results(SETTINGS, MACHINE, place).record("contenders", {"v2": {"layers": 2, "loss": 1.5}})
    return place / FILE


def _quality(place: Path) -> Path:
    (place / "q.yaml").write_text("short:\n  characters: {default: 5}\nperplexity: false\n")
    return place / "q.yaml"


def _classifier(place: Path) -> Path:
    Classifier.save(place / "c.npz", "f" * 64, {"ko": np.ones(5), "en": np.ones(5)})
    return place / "c.npz"


def _perplexity(place: Path) -> Path:
    model = perplexity.Trigrams.fit(np.arange(40) % 7, np.ones(7, np.int32), 20)
    scores = {"ko": np.arange(len(perplexity.PERCENTILES) + 1.0)}
    perplexity.save(place / "p.npz", "f" * 64, {"ko": model}, scores)
    return place / "p.npz"


def _read_perplexity(path: Path) -> object:
    _, model, scores = perplexity.load(path)
    return [model(language).vocab for language in scores]


def _listed(place: Path) -> Path:
    (place / "set.txt").write_text("\n".join(documents("ko", 5) + documents("en", 5)), "utf-8")
    prepare_list([place / "set.txt"], place / "l.npy")
    return place / "l.npy"


def _read_list(path: Path) -> object:
    from braingpt.data.quality import config

    return Contamination(config.Contamination(files=[str(path)]))


KINDS = {
    "manifest.json": Kind(_manifest, lambda path: read_manifest(path.parent), read_json, write_json),
    "manifest.json with a hash that fits": Kind(
        _manifest, lambda path: read_manifest(path.parent), read_json, rehash, covered=False
    ),
    "manifest.json of format 1": Kind(
        _old_manifest, lambda path: read_manifest(path.parent), read_json, write_json, covered=False
    ),
    "tokenizer.json": Kind(_tokenizer, lambda path: Tokenizer.load(path.parent), read_json, write_json),
    "ranks.tiktoken": Kind(
        lambda place: _tokenizer(place).with_name("ranks.tiktoken"), lambda path: Tokenizer.load(path.parent)
    ),
    "memory": Kind(_memory, load_memory),
    "memory with a digest that fits": Kind(_memory, load_memory, _head, _write_head, covered=False),
    "bench.json": Kind(_bench, lambda path: Results(SETTINGS, MACHINE, path.parent), read_json, write_json),
    "quality settings": Kind(
        _quality,
        load_quality,
        lambda path: yaml.safe_load(path.read_text()),
        lambda path, tree: path.write_text(yaml.safe_dump(tree)),
        covered=False,
    ),
    "classifier": Kind(_classifier, Classifier),
    "perplexity model": Kind(_perplexity, _read_perplexity),
    "list of evaluation sets": Kind(_listed, _read_list, covered=False),
}


def _refused(kind: Kind, path: Path, what: str, must: bool) -> None:
    """The file is refused in one line that names it or its folder; or read, unless it `must` be refused."""
    try:
        kind.read(path)
    except (UserError, Failure) as error:
        assert "\n" not in str(error) and len(str(error)) < 700, what
        assert str(path) in str(error) or str(path.parent) in str(error), f"{what}: {error}"
    else:
        assert not must, f"{what} was taken"


@pytest.mark.parametrize("name", KINDS)
def test_a_sound_file_is_read(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    assert kind.read(kind.make(tmp_path)) is not None


@pytest.mark.parametrize("name", KINDS)
def test_bytes_that_are_no_such_file(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = kind.make(tmp_path)
    whole = path.read_bytes()
    bodies = {"empty": b"", "garbage": GARBAGE, "other JSON": b"[1, 2]", "a number": b"3", "NUL": b"\0" * 64}
    bodies |= {f"{len(whole) * share // 8} bytes": whole[: len(whole) * share // 8] for share in range(1, 8)}
    for what, body in bodies.items():
        path.write_bytes(body)
        # Quality settings may be empty: they override nothing. A part of YAML is YAML.
        _refused(kind, path, what, must=name != "quality settings" or what in ("garbage", "a number"))


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.covered])
def test_a_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = kind.make(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 30)):
        body = bytearray(whole)
        body[at] ^= 1
        path.write_bytes(bytes(body))
        # White space between values is no value.
        same = kind.tree is not None and _same(path, json.loads(whole))
        _refused(
            kind, path, f"byte {at}", must=not same and not name.startswith(("classifier", "perplexity"))
        )


def _same(path: Path, tree: Any) -> bool:
    try:
        return read_json(path) == tree
    except ValueError:
        return False


def _places(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    """The place of every value in a tree of JSON."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        # Of a long list the first entries are like the others.
        if not (isinstance(key, int) and key > 1):
            yield from _places(value, (*path, key))


def _at(tree: Any, place: tuple) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def _changed(tree: Any) -> Iterator[tuple[str, Any]]:
    """The tree with one value of another type, absurd, missing or too many."""
    for place in _places(tree):
        old = _at(tree, place)
        for value in (None, "x", "../x", -1, 3, HUGE, 0.5, float("nan"), float("inf"), True, [], {}, [[]]):
            if value == old and type(value) is type(old):
                continue
            other = copy.deepcopy(tree)
            _at(other, place[:-1])[place[-1]] = value
            yield f"{place} = {str(value)[:20]}", other
        other = copy.deepcopy(tree)
        del _at(other, place[:-1])[place[-1]]
        yield f"without {place}", other
    for value in (HUGE, None):
        yield "another key", {**tree, "another": value}


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.tree])
def test_a_changed_value_is_found_or_harmless(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    assert kind.tree and kind.write
    path = kind.make(tmp_path)
    for what, tree in _changed(kind.tree(path)):
        try:
            kind.write(path, tree)
        except ValueError:
            # JSON with a hash holds no NaN.
            assert "nan" in what or "inf" in what
            continue
        _refused(kind, path, what, must=kind.covered)


@pytest.mark.parametrize(
    ("key", "value"),
    [("language", "../../x"), ("language", "/x"), ("source", "a/b"), ("split", "..")],
)
def test_no_name_leads_outside(tmp_path: Path, key: str, value: str) -> None:
    for make, write in ((_manifest, rehash), (_old_manifest, write_json)):
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        path = make(tmp_path)
        tree = read_json(path)
        stream = tree["streams"][0]
        stream[key] = value
        name = f"{stream['split']}/{stream['language']}-{stream['source']}-00000.bin"
        for renamed in (False, True):
            if renamed:
                stream["files"][0]["path"] = name
            write(path, tree)
            with pytest.raises(UserError, match="is damaged"):
                read_manifest(path.parent)


def test_another_language_or_split_is_found_without_a_hash(tmp_path: Path) -> None:
    path = _old_manifest(tmp_path)
    tree = read_json(path)
    for key, value in (("language", "en"), ("split", "validation"), ("source", "other"), ("tokens", 8)):
        changed = copy.deepcopy(tree)
        changed["streams"][0][key] = value
        write_json(path, changed)
        with pytest.raises(UserError, match="is damaged"):
            read_manifest(path.parent)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("keys", lambda one: one * float("nan")),
        ("whitening", lambda one: one * float("inf")),
        ("gate", lambda one: one[:2]),
        ("keys", lambda one: one[:, :2]),
        ("values", lambda one: one - 99),
        ("values", lambda one: one.long()),
        ("owners", lambda one: one + 7),
        ("owners", lambda one: one[:1]),
        ("mean", None),
        ("more", lambda one: torch.zeros(1)),
    ],
)
def test_tensors_that_make_no_memory(tmp_path: Path, name: str, change) -> None:
    path = _memory(tmp_path)
    with storage.safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        content = file.metadata()["content"]
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors.get(name, torch.zeros(1))).contiguous()
    facts = {"format": storage.FORMAT, "content": content, "digest": storage._digest(tensors, content)}
    path.write_bytes(save(tensors, metadata=facts))
    with pytest.raises(UserError, match="is damaged"):
        load_memory(path)


def test_a_classifier_of_other_shapes(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    for weights in ({"ko": np.ones(5), "en": np.ones(4)}, {"ko": np.ones(())}, {"ko": np.full(5, np.nan)}):
        educational.Classifier.save(path, "f" * 64, weights)
        with pytest.raises(UserError, match="is not a classifier"):
            Classifier(path)


def test_a_hash_is_of_the_values(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    tree = {"a": [1, 2.5, None, "é"], "b": {"y": True, "x": 10**20}}
    path.write_text(json.dumps(dict(reversed(hashed(tree).items())), indent=7), "utf-8")
    assert check_hash(read_object(path)) == tree
    path.write_text(json.dumps(hashed(tree)).replace("2.5", "2.25"), "utf-8")
    with pytest.raises(ValueError, match="its hash differs"):
        check_hash(read_object(path))
