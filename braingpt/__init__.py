"""braingpt: small, brain-inspired, sparse language models in Korean, English and four more languages.

    import braingpt
    model, tokenizer = braingpt.load("runs/tiny-v2")
    print(braingpt.generate(model, tokenizer, "옛날 옛적에", max_new_tokens=50))
    recipe = braingpt.load_recipe("nano-v2", ["model.columns.active=2"])
    model = braingpt.build(recipe)

load: a trained model and its tokenizer, from a run folder or a checkpoint.
generate: a text that continues a prompt; generate_text: the same, piece by piece.
load_recipe: a checked recipe, from a shipped name or a YAML file.
build: a fresh model from a recipe.
Tokenizer: text to token ids and back.
BraingptError: every error that braingpt raises on purpose; UserError for what the caller can correct, Failure
for the rest.

The names of `__all__` are imported when they are first used, so that `import braingpt` and `braingpt --help`
remain instant. `docs/reference/python-api.md` describes them.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braingpt.checkpoint.load import load as load
    from braingpt.errors import BraingptError as BraingptError
    from braingpt.errors import Failure as Failure
    from braingpt.errors import UserError as UserError
    from braingpt.inference.text_stream import generate as generate
    from braingpt.inference.text_stream import generate_text as generate_text
    from braingpt.model.lm import build as build
    from braingpt.recipes import load_recipe as load_recipe
    from braingpt.tokenizer import Tokenizer as Tokenizer

__version__ = "0.1.0"
__all__ = [
    "BraingptError",
    "Failure",
    "Tokenizer",
    "UserError",
    "build",
    "generate",
    "generate_text",
    "load",
    "load_recipe",
]

# torch's CPU threads wait for each other in a busy loop. When another program has one of the cores, that loop
# waits for a thread that does not run, and training was ten to forty times slower. With this variable the
# threads sleep after a short spin. It must be set before torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_HOMES = {
    "BraingptError": "braingpt.errors",
    "Failure": "braingpt.errors",
    "Tokenizer": "braingpt.tokenizer",
    "UserError": "braingpt.errors",
    "build": "braingpt.model.lm",
    "generate": "braingpt.inference.text_stream",
    "generate_text": "braingpt.inference.text_stream",
    "load": "braingpt.checkpoint.load",
    "load_recipe": "braingpt.recipes",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'braingpt' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
