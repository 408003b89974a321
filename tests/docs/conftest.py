"""The places of all pages, made once a session; pages with the same first commands share one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, Page, read
from tests.docs.places import Place


@pytest.fixture(scope="session")
def place_of(tmp_path_factory: pytest.TempPathFactory, generated: Path) -> Callable[[Page], Place]:
    """The place where a page's commands run; its corpora are generated."""
    sequences = sorted({read(name).commands for name in PAGES}, key=len, reverse=True)
    places: dict[tuple[str, ...], Place] = {}

    def find(page: Page) -> Place:
        whole = next(sequence for sequence in sequences if sequence[: len(page.commands)] == page.commands)
        if whole not in places:
            places[whole] = Place(tmp_path_factory.mktemp("place"), generated, whole)
        return places[whole]

    return find
