"""The pages that are executed: their commands with the promised output, and their Python examples.

To have another page executed, add its path to PAGES, and to TRANSLATIONS where it is one.

In a page, a fence of kind `console` holds commands after `$ ` and below each the output it prints; `...`
leaves out lines, or the rest of a line. A fence of kind `python` is a program. A line
`<!-- not run: REASON -->` right above a fence leaves the fence out. Commands of other programs are run
elsewhere: `make test` by CI, the examples by tests/examples.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

PAGES = [
    "README.md",
    "README.ko.md",
    "docs/getting-started.md",
    "docs/guides/add-a-language.md",
    "docs/guides/benchmarking.md",
    "docs/guides/data.md",
    "docs/guides/evaluation.md",
    "docs/guides/rtx-3090.md",
    "docs/guides/scaling.md",
    "docs/guides/training.md",
    "docs/concepts/architecture.md",
    "docs/concepts/episodic-memory.md",
    "docs/concepts/sparsity.md",
    "docs/reference/environment.md",
    "docs/reference/json.md",
    "docs/reference/python-api.md",
    "docs/ko/getting-started.md",
    "docs/ko/3090.md",
    "docs/ko/data.md",
    "examples/README.md",
    "CONTRIBUTING.md",
]

# Whose commands and outputs are those of the other page, all of them.
TRANSLATIONS = {
    "README.ko.md": "README.md",
    "docs/ko/3090.md": "docs/guides/rtx-3090.md",
    "docs/ko/getting-started.md": "docs/getting-started.md",
}

NOT_RUN = "<!-- not run: "


@dataclass
class Step:
    """A command of a page and the lines that the page promises below it (none: any output will do)."""

    command: str
    promised: list[str] = field(default_factory=list)


@dataclass
class Page:
    """What one page asks to be executed, in its order."""

    name: str
    steps: list[Step]
    programs: list[str]
    left_out: list[str]  # commands in fences that are not executed

    @property
    def commands(self) -> tuple[str, ...]:
        return tuple(step.command for step in self.steps)


def read(name: str) -> Page:
    """The page at `name`, a path below the repository's root."""
    return parse(name, (ROOT / name).read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Page:
    """The same from the page's text."""
    page = Page(name, [], [], [])
    for kind, body in _fences(text):
        if kind == "python":
            page.programs.append(body)
        elif kind == "console":
            page.steps += _steps(body)
        else:
            page.left_out += [line for line in body.splitlines() if re.match(r"(\$ )?braingpt ", line)]
    return page


def _fences(text: str) -> Iterator[tuple[str, str]]:
    """Kind and content of each fence that is to be run. A line that ends with a backslash continues."""
    above, kind, body = "", None, []
    for line in text.replace("\\\n", " ").splitlines(keepends=True):
        if kind is None and line.startswith("```"):
            kind, body = line.strip("`\n "), []
        elif kind is not None and line.startswith("```"):
            if not above.startswith(NOT_RUN):
                yield kind, "".join(body)
            kind = None
        elif kind is not None:
            body.append(line)
        if kind is None and line.strip():
            above = line


def _steps(body: str) -> list[Step]:
    steps: list[Step] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            steps.append(Step(" ".join(line[2:].split("  #")[0].split())))
        elif steps and line.strip():
            steps[-1].promised.append(line)
    return [step for step in steps if "braingpt " in step.command]
