"""Links of all Markdown files: the file is there, and the heading that a fragment names."""

import os
import re
import unicodedata
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

OUTSIDE = re.compile(r"[a-z][a-z+.-]*:|//")
LINK = re.compile(r"(?<!\\)\]\(\s*<?([^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\[[^\]^]+\]:\s+(\S+)", re.MULTILINE)
HTML = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"")
CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$|(`+)(?!`).*?\2", re.MULTILINE | re.DOTALL)
HIDDEN = {"node_modules", "build", "dist", "runs", "data"}


def files() -> list[Path]:
    """Markdown below the root, without hidden folders and what is built or downloaded."""
    found = []
    for folder, names, leaves in os.walk(ROOT):
        names[:] = [
            name
            for name in names
            if (not name.startswith(".") or name == ".github")
            and not (folder == str(ROOT) and name in HIDDEN)
        ]
        found += [Path(folder, leaf) for leaf in leaves if leaf.endswith(".md")]
    return sorted(found)


@cache
def anchors(path: Path) -> frozenset[str]:
    """The fragments of a page: GitHub's slugs of its headings, and ids written as HTML."""
    text = path.read_text(encoding="utf-8")
    found, seen = set(re.findall(r"\b(?:id|name)=\"([^\"]+)\"", text)), {}
    for title in re.findall(
        r"^#{1,6}[ \t]+(.+?)[ \t#]*$",
        re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL),
        re.MULTILINE,
    ):
        name = slug(title)
        seen[name] = seen.get(name, -1) + 1
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
    return frozenset(found)


def slug(title: str) -> str:
    """GitHub's fragment of a heading: lower case; letters, digits, `-`, `_`; spaces as hyphens."""
    title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")
    kept = [
        letter
        for letter in title.strip().lower()
        if letter in " -_" or unicodedata.category(letter)[0] in "LNM"
    ]
    return "".join(kept).replace(" ", "-")


def targets(path: Path) -> list[str]:
    """Where a page's links lead within the repository."""
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    found = [*LINK.findall(text), *REFERENCE.findall(text), *HTML.findall(text)]
    return [target for target in found if target and not OUTSIDE.match(target)]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in targets(path):
        name, _, fragment = target.partition("#")
        there = (ROOT / name.lstrip("/") if name.startswith("/") else path.parent / name) if name else path
        known = there.exists() and (not fragment or there.suffix != ".md" or fragment in anchors(there))
        broken += [] if known else [target]
    assert not broken


def test_a_slug_is_that_of_github() -> None:
    assert slug("What is `eval` (and *why*)?") == "what-is-eval-and-why"
    assert slug("K-07 Cross-entropy: 1,024-token chunks") == "k-07-cross-entropy-1024-token-chunks"
    assert slug("학습하기, 그리고 평가") == "학습하기-그리고-평가"


def test_make_targets_of_the_front_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in ("README.md", "README.ko.md"):
        for target in re.findall(
            r"^(?:\$ )?make (\w+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE
        ):
            assert f"\n{target}:" in makefile
