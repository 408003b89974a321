"""A headless Chromium that looks at a page as readers do: on a phone and on a desk, by day and by night."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Request

WIDTHS = (360, 800, 1400)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
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


def problems(
    browser: "Browser", page: Path, widths: Sequence[int] = WIDTHS
) -> dict[tuple[int, str], list[str]]:
    """What a reader of the page would stumble over.

    Args:
        browser: From `chromium`.
        page: An HTML file. It is loaded once, because pages of ours run no scripts.
        widths: Of the window, in pixels.

    Returns:
        By width and colour scheme, "kind: where" for each, of the kinds overflow, cut, overlap, broken word,
        contrast, no words, no keyboard, request and console. What is without fault is left out.
    """
    window = browser.new_page(viewport={"width": widths[0], "height": 900})
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
    found: dict[tuple[int, str], list[str]] = {}
    try:
        window.goto(own)
        for width in widths:
            window.set_viewport_size({"width": width, "height": 900})
            for scheme in SCHEMES:
                window.emulate_media(color_scheme=scheme)
                found[width, scheme] = [*heard, *window.evaluate(CHECK)]
    finally:
        window.close()
    return {view: lines for view, lines in found.items() if lines}
