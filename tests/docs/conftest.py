"""The places of all pages, made once a session; pages share those of their common first commands."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, Page, read
from tests.docs.places import Place


@pytest.fixture(scope="session")
def place_of(tmp_path_factory: pytest.TempPathFactory, generated: Path) -> Callable[[Page, int], Place]:
    """The place after the first commands of a page, as many as are given; its corpora are generated."""
    start = Place(tmp_path_factory.mktemp("places"), generated)
    places = {name: [start] for name in PAGES}
    for name, found in places.items():
        for command in read(name).commands:
            found.append(found[-1].then(command))
    return lambda page, count: places[page.name][count]
