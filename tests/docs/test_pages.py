"""Every command of the pages ends well and prints what its page promises; every Python example runs."""

from collections.abc import Callable

import pytest

from tests.docs.pages import PAGES, ROOT, TRANSLATIONS, Page, read
from tests.docs.places import Place
from tests.docs.shape import difference

READ = {name: read(name) for name in PAGES}
STEPS = [
    pytest.param(page, number, id=f"{page.name}-{number}-{step.command.removeprefix('braingpt ')[:40]}")
    for page in READ.values()
    for number, step in enumerate(page.steps)
]
PROGRAMS = [
    pytest.param(page, program, id=f"{page.name}-{number}")
    for page in READ.values()
    for number, program in enumerate(page.programs)
]


@pytest.mark.parametrize(("page", "number"), STEPS)
def test_a_command_prints_what_its_page_promises(
    page: Page, number: int, place_of: Callable[[Page, int], Place]
) -> None:
    step, outcome = page.steps[number], place_of(page, number + 1).outcome()
    assert outcome.code == 0, f"{step.command}\n{outcome.printed}"
    wrong = difference(step.command, step.promised, outcome.printed, outcome.errors)
    assert wrong is None, f"{page.name}: {step.command}\n{wrong}"


@pytest.mark.parametrize(("page", "program"), PROGRAMS)
def test_a_python_example_runs(page: Page, program: str, place_of: Callable[[Page, int], Place]) -> None:
    place_of(page, len(page.steps)).run_program(program, page.name)


@pytest.mark.parametrize("page", READ.values(), ids=list(READ))
def test_no_command_is_left_out_without_a_reason(page: Page) -> None:
    assert not page.left_out, "put these into a console fence, or <!-- not run: REASON --> above theirs"


@pytest.mark.parametrize(("translation", "original"), TRANSLATIONS.items())
def test_a_translation_has_the_commands_and_programs_of_its_original(translation: str, original: str) -> None:
    assert READ[translation].commands == READ[original].commands
    assert [step.promised for step in READ[translation].steps] == [
        step.promised for step in READ[original].steps
    ]
    assert READ[translation].programs == READ[original].programs


def test_the_tour_walks_through_every_main_command() -> None:
    first = {step.command.split()[1] for step in READ["docs/getting-started.md"].steps}
    assert first >= {
        "data",
        "recipes",
        "train",
        "eval",
        "generate",
        "inspect-sparsity",
        "memory",
        "bench",
        "runs",
        "doctor",
        "export",
    }


def test_the_front_page_is_short() -> None:
    for name in ("README.md", "README.ko.md"):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 150
    assert len(READ["README.md"].commands) == 5
