"""Task files of lm-evaluation-harness from a foreign folder: data are read, code is not run unasked.

The harness takes a folder of YAML files for a program: `!function` imports a Python file beside the YAML or
any module, a metric that it does not know is looked for as a Python script, and a template is Jinja, whose
expressions reach Python's insides. Here the first two are refused by name before the harness opens a task,
and templates run in Jinja's sandbox.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment

from braingpt.errors import UserError

YAML_ENDINGS = (".yaml", ".yml")


def check_no_code(folder: Path) -> None:
    """Refuse a folder whose task files could run code.

    Args:
        folder: The folder of task files.

    Raises:
        UserError: A file is Python, or a YAML file names code; the first one is named.
    """
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        reason = "is Python code" if path.suffix == ".py" else None
        if path.suffix in YAML_ENDINGS and path.is_file():
            reason = _code_in(path, set())
        if reason:
            raise UserError(
                f"--task-files: {path} {reason}, which lm-eval may run; read it, and if you trust the folder "
                "add --trust-task-code"
            )


def _code_in(path: Path, seen: set[Path]) -> str | None:
    """What code a YAML file or a file that it includes names; None where there is none."""
    path = path.expanduser().resolve()
    if path in seen:
        return None
    seen.add(path)
    try:
        root = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, OSError, RecursionError, UnicodeDecodeError):
        # The harness cannot read it either, and says so.
        return None
    for node in _nodes(root):
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
            return f"has {node.tag} on line {node.start_mark.line + 1}"
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if reason := _code_of(str(key.value), value, path, seen):
                    return f"{reason} on line {value.start_mark.line + 1}" if reason[:3] == "has" else reason
    return None


def _code_of(key: str, value: yaml.Node, path: Path, seen: set[Path]) -> str | None:
    """What code one entry of a mapping names."""
    if key == "include":
        names = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for name in names:
            included = path.parent / str(name.value)
            if reason := _code_in(included, seen):
                return f"includes {included}, which {reason}"
    if key == "hf_evaluate" and str(value.value).lower() in ("true", "yes", "on"):
        return "has hf_evaluate, whose metrics are Python scripts,"
    if key == "metric" and isinstance(value, yaml.ScalarNode) and value.value not in _known_metrics():
        return (
            f"has metric '{value.value}', which is none of lm-eval's own and looked for as a Python script,"
        )
    return None


def _known_metrics() -> set[str]:
    """Names of the harness's metrics."""
    importlib.import_module("lm_eval.api.metrics")
    return set(importlib.import_module("lm_eval.api.registry").METRIC_REGISTRY)


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """All nodes of a document, each once: aliases may repeat a node any number of times."""
    seen, waiting = set(), [root] if root else []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


@contextmanager
def sandboxed_templates() -> Iterator[None]:
    """Run the harness's templates in Jinja's sandbox inside the `with`.

    Raises:
        UserError: A template reaches for Python's insides.
    """
    utils: Any = importlib.import_module("lm_eval.utils")
    before = utils.env
    sandbox = SandboxedEnvironment(
        loader=before.loader, undefined=before.undefined, keep_trailing_newline=before.keep_trailing_newline
    )
    sandbox.filters.update(before.filters)
    utils.env = sandbox
    try:
        yield
    except SecurityError as error:
        raise UserError(
            f"--task-files: a template reaches for Python's insides ({error}); read the task files, and if "
            "you trust them add --trust-task-code"
        ) from None
    finally:
        utils.env = before
