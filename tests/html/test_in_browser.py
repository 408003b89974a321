"""Every kind of page in a headless Chromium: on a phone, a tablet and a desk, by day and by night.

The same checks find each fault in a page that has it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.html.browser import chromium, problems
from tests.html.sample_pages import PAGES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>t</title>'
    "<meta name='viewport' content='width=device-width'></head><body>"
)
# Pages with one fault each, and the kind that names it.
FAULTS = [
    ("overflow", '<div style="width: 2000px">wide</div>'),
    (
        "cut",
        '<p style="width: 80px; overflow: hidden; white-space: nowrap">a title that is cut at its end</p>',
    ),
    (
        "cut",
        '<div role="img" aria-label="a"><svg viewBox="0 0 90 20" width="90" height="20">'
        '<text x="50" y="15">a long title</text></svg></div>',
    ),
    (
        "overlap",
        '<div style="position: relative">one<p style="position: absolute; top: 0; margin: 0">two</p></div>',
    ),
    (
        "broken word",
        '<p style="width: 190px; word-break: break-all">a word that is selective, unbelievable</p>',
    ),
    ("broken word", '<p style="width: 100px; word-break: normal">한강은 서울을 가로질러 흐른다</p>'),
    ("broken word", '<p>s<span style="margin-left: 9px">el</span><span style="margin: 9px">e</span></p>'),
    ("contrast", '<p style="color: #999; background: #fff">pale</p>'),
    ("contrast", '<p style="color: #555; background: #fff; opacity: .6">pale</p>'),
    ("contrast", "<style>:root { color-scheme: light dark } p { color: #222 }</style><p>dark on dark</p>"),
    ("no words", '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">'),
    ("no words", '<svg viewBox="0 0 9 9" width="9" height="9"></svg>'),
    ("no keyboard", '<div style="overflow-x: auto; width: 80px"><div style="width: 400px">x</div></div>'),
    ("request", '<img alt="a" src="https://localhost:9/picture.png">'),
    ("console", "<script>console.error('wrong')</script>"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize(("kind", "body"), FAULTS)
def test_the_check_finds_each_fault(browser: "Browser", tmp_path: Path, kind: str, body: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"{HEAD}{body}</body></html>", encoding="utf-8")
    found = {line.split(":")[0] for lines in problems(browser, page, [360]).values() for line in lines}
    # The console reports a request that fails, too.
    assert found == ({"request", "console"} if kind == "request" else {kind})


def test_the_check_finds_nothing_in_a_plain_page(browser: "Browser", tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"{HEAD}<p>plain text, 한국어</p></body></html>", encoding="utf-8")
    assert problems(browser, page) == {}


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
def test_a_reader_stumbles_over_nothing(
    browser: "Browser", tmp_path: Path, make: Callable[[Path], str]
) -> None:
    page = tmp_path / "page.html"
    page.write_text(make(tmp_path), encoding="utf-8")
    assert problems(browser, page) == {}
