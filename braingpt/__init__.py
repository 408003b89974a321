"""braingpt: small, brain-inspired, sparse language models in Korean, English and four more languages.

    import braingpt
    model, tokenizer = braingpt.load("runs/tiny-v2")
    recipe = braingpt.load_recipe("nano-v2", ["model.columns.active=2"])
    model = braingpt.build(recipe)

Names are imported when first used, so that `import braingpt` and `braingpt --help` stay instant.
"""

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["Tokenizer", "build", "load", "load_recipe"]

# torch's CPU threads wait for each other in a busy loop. When another program has one of the cores, that loop
# waits for a thread that does not run, and training was ten to forty times slower; after a short spin they
# now sleep instead. To be set before torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_HOME = {
    "load": "braingpt.checkpoint.load",
    "build": "braingpt.model.lm",
    "load_recipe": "braingpt.recipes",
    "Tokenizer": "braingpt.tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'braingpt' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
