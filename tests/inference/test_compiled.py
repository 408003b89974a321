"""Generation with compiled steps writes what it writes without."""

import pytest
import torch

from braingpt.device.compile import compile_steps
from braingpt.errors import UserError
from braingpt.inference.engine import Decoder
from braingpt.model.lm import build
from tests.conftest import SMALL, awake


def logits(model, ids, steps):
    """After each of `steps`, (N, V), behind a prompt of `ids`; and the state."""
    decoder, found = Decoder(model), []
    decoder.read(torch.tensor([ids]))
    for step in steps:
        decoder.step(torch.tensor([step]))
        found.append(decoder.next_tokens.logits())
    return torch.cat(found), decoder.state


@pytest.mark.parametrize(
    "name, int8",
    [
        ("v2", False),
        pytest.param("v1", False, marks=pytest.mark.slow),
        pytest.param("v2", True, marks=pytest.mark.slow),
        ("v2-depth", False),
        ("v2-lexical", False),
        pytest.param("v2-lexical", True, marks=pytest.mark.slow),
        pytest.param("v2-memory", False, marks=pytest.mark.slow),
    ],
)
def test_compiled_steps_equal_the_others(name, int8, monkeypatch):
    """What is handed to the compiler; `aot_eager` runs it as it stands, which spares a minute of C++ a model.

    V2 holds all kinds of work: recurrent and growing states, a choice that depends on the data, columns; V1
    its own attention and weights.
    """
    model = awake(SMALL[name]).float()
    if int8:
        model.to_int8()
        # the packed product rounds to bfloat16, the compiled one does not
        monkeypatch.setenv("BRAINGPT_KERNELS", "int8_linear=torch")
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    ids = torch.randint(97, (26,), generator=torch.Generator().manual_seed(0)).tolist()
    plain, _ = logits(model, ids[:10], ids[10:])
    compile_steps(model, torch.device("cpu"), backend="aot_eager")
    compiled, state = logits(model, ids[:10], ids[10:])
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    # both of attention's pieces had work: it chose some of the tokens
    if name == "v2":
        with torch.inference_mode():
            read = model.new_state()
            model(torch.tensor([ids[:10]]), state=read)
        chosen = state.layers[1].longest - read.layers[1].longest
        assert 0 < chosen < len(ids[10:])


def test_no_compiler_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"--compile needs a C\+\+ compiler .*generate without"):
        compile_steps(build(SMALL["v2"]), torch.device("cpu"))
