"""A headless Chromium that looks at a page as readers do: on a phone and on a desk, by day and by night."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Request

WIDTHS, SCHEMES = (360, 800, 1400), ("light", "dark")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHECK = (Path(__file__).parent / "page_check.js").read_text(encoding="utf-8")


@contextmanager
def chromium() -> Iterator["Browser"]:
    """A browser of this machine; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra dev)")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium; CONTRIBUTING.md says how to install it")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def problems(browser: "Browser", page: Path, width: int, scheme: str) -> list[str]:
    """What a reader of the page would stumble over at this width and colour scheme.

    Args:
        browser: From `chromium`.
        page: An HTML file.
        width: Of the window, in pixels.
        scheme: "light" or "dark".

    Returns:
        "kind: where" for each, of the kinds overflow, cut, overlap, broken word, contrast, no words,
        no keyboard, request and console.
    """
    window = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    heard: list[str] = []
    own = page.resolve().as_uri()

    def request(asked: "Request") -> None:
        if asked.url != own:
            heard.append(f"request: {asked.url}")

    def console(line: "ConsoleMessage") -> None:
        if line.type in ("error", "warning"):
            heard.append(f"console: {line.text}")

    window.on("request", request)
    window.on("console", console)
    window.on("pageerror", lambda error: heard.append(f"console: {error}"))
    try:
        window.goto(own)
        return heard + window.evaluate(CHECK)
    finally:
        window.close()
