"""Shared by all tests: small models of every architecture, and one thread, which on tiny matrices is faster
than two.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

# Triton's kernels then run in its interpreter, which asks when triton is imported
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from braingpt.model.config import DenseConfig, V1Config, V2Config
from braingpt.model.config_parts import DepthConfig, HeadConfig, LexicalConfig, SelectiveConfig
from braingpt.model.heads.vocabulary_columns import VocabularyColumns
from braingpt.model.lm import LanguageModel, build
from tests.corpora import corpora, generated  # noqa: F401
from tests.ranks import ranks  # noqa: F401
from tests.tiny_runs import prepared

torch.set_num_threads(1)
# A job in the background ignores Ctrl-C, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Other programs share the machine, so that the time of one example tells nothing of the code.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

SMALL = {
    "dense": DenseConfig(layers=2, hidden=32, heads=4, vocab=97, mlp=64),
    "dense-grouped": DenseConfig(layers=2, hidden=32, heads=4, kv_heads=2, vocab=97, mlp=64),
    "v1": V1Config(layers=2, hidden=32, heads=4, vocab=97, columns={"count": 8, "width": 8, "active": 2}),
    # A threshold in the middle closes about half of the dendrites.
    "v1-gated": V1Config(
        layers=2,
        hidden=32,
        heads=4,
        vocab=97,
        attention={"gate_threshold": 0.5, "keep": 0.3},
        columns={"count": 8, "width": 8, "active": 2, "rounds": 4},
        two_four=False,
    ),
    "v2": V2Config(
        layers=3,
        hidden=32,
        heads=4,
        vocab=97,
        mamba={"state": 8, "head": 8, "chunk": 8},
        attention={"layers": [1], "rate": 0.3, "kv_heads": 2},
        columns={"count": 8, "width": 8, "active": 2, "shared": 1},
    ),
    "v2-memory": V2Config(
        layers=2,
        hidden=32,
        heads=4,
        vocab=97,
        mamba={"state": 8, "head": 8, "chunk": 8},
        memory={"layers": [1], "heads": 2, "key": 6, "value": 10, "chunk": 8},
        columns={"count": 8, "width": 8, "active": 2, "shared": 1},
    ),
}
# So few rows that n-grams share some.
SMALL["v2-lexical"] = SMALL["v2"].model_copy(
    update={"lexical": LexicalConfig(rows=61, width=4, hashes=3, orders=(2, 3), layers=(0, 1))}
)
SMALL["v2-depth"] = SMALL["v2"].model_copy(
    update={
        "layers": 5,
        "attention": SelectiveConfig(layers=(1, 3), rate=0.3),
        # Layer 2 has no mixer.
        "mamba": SMALL["v2"].mamba.model_copy(update={"layers": (0, 4)}),
        "depth": DepthConfig(share=0.7),
    }
)
# 97 words in seven classes, of which the last is short.
SMALL["v2-classes"] = SMALL["v2-memory"].model_copy(update={"head": HeadConfig(kind="columns")})


def awake(config, seed: int = 0) -> LanguageModel:
    """A float64 model whose every part speaks: fresh residual writers are zero, so all weights are shaken."""
    model = build(config, seed).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += (
                0.3
                * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                * parameter.shape[-1] ** -0.5
            )
        if isinstance(model.embedding, VocabularyColumns):
            model.embedding.set_classes(torch.randperm(config.vocab, generator=generator))
    model.after_step()
    return model


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """The commands flush denormals for as long as their process lives; here the process goes on with other
    tests.
    """
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(params=list(SMALL))
def architecture(request) -> str:
    return request.param


@pytest.fixture
def small(architecture) -> LanguageModel:
    return awake(SMALL[architecture])


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared folder."""
    return prepared(tmp_path_factory.mktemp("data") / "sample")
