"""The scan's GPU paths: our Triton kernels (on a GPU, else in Triton's interpreter), and how arguments are
handed to the two libraries.
"""

import importlib.util
import sys
import types
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.scan import gpu_libraries, scan

triton_scan = pytest.importorskip("braingpt.kernels.scan.triton_ops").triton_scan
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# of the largest entry
TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def inputs(
    batch: int,
    length: int,
    heads: int,
    width: int,
    state: int,
    dtype=torch.float32,
    initial=True,
    device=DEVICE,
    seed=0,
) -> list[Tensor]:
    """x, b and c are cut out of one tensor, as in the mixer, so that their rows are apart."""
    draw = torch.Generator().manual_seed(seed)
    wide = torch.randn(batch, length, heads * width + 2 * state, generator=draw)
    x, b, c = (t.detach() for t in wide.to(device, dtype).split([heads * width, state, state], -1))
    dt = F.softplus(torch.randn(batch, length, heads, generator=draw)).to(device)
    a = -torch.exp(torch.randn(heads, generator=draw)).to(device)
    first = (torch.randn if initial else torch.zeros)(
        batch, heads, state, width, **({"generator": draw} if initial else {})
    ).to(device)
    return [t.requires_grad_() for t in (x.unflatten(-1, (heads, width)), dt, a, b, c, first)]


def documents(batch: int, length: int, device=DEVICE) -> Tensor:
    starts = torch.rand(batch, length, generator=torch.Generator().manual_seed(7)) < 0.15
    return (5 + starts.long().cumsum(1)).to(device)


def same(path, tensors: list[Tensor], run: Tensor | None, tolerance: float, **kwargs) -> None:
    """Values and gradients of `path` are those of the float64 reference, to a share of the largest entry of
    each.
    """
    exact = [t.detach().double().requires_grad_() for t in tensors]
    got, expected = path(*tensors, run, **kwargs), scan.chunked(*exact, run)
    draw = torch.Generator().manual_seed(9)
    upstream = [torch.randn(t.shape, generator=draw).to(t.device) for t in got]
    got_grads = torch.autograd.grad(got, tensors, [u.to(t.dtype) for u, t in zip(upstream, got, strict=True)])
    expected_grads = torch.autograd.grad(
        expected, exact, [u.to(t.dtype).double() for u, t in zip(upstream, got, strict=True)]
    )
    for name, one, other in zip(
        ["y", "state", "x", "dt", "a", "b", "c", "initial"],
        got + got_grads,
        expected + expected_grads,
        strict=True,
    ):
        error = (one.double() - other).abs().max() / other.abs().max().clamp(min=1e-3)
        assert error < tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize(
    ("batch", "length", "heads", "width", "state", "chunk", "packed", "initial", "dtype"),
    [
        (1, 19, 1, 16, 128, 16, True, True, torch.float32),
        (2, 19, 2, 32, 16, 64, False, True, torch.float32),
        (1, 33, 1, 64, 32, 32, True, False, torch.float32),
        (1, 21, 1, 128, 64, 64, False, False, torch.float32),
        # nothing a power of two
        (1, 9, 2, 20, 40, 16, True, True, torch.float32),
        (1, 1, 1, 16, 16, 64, True, True, torch.float32),
        (1, 70, 2, 64, 64, 64, True, True, torch.float16),
        (1, 67, 2, 64, 64, 64, True, True, torch.bfloat16),
    ],
)
def test_triton_equals_the_reference(batch, length, heads, width, state, chunk, packed, initial, dtype):
    tensors = inputs(batch, length, heads, width, state, dtype, initial)
    same(triton_scan, tensors, documents(batch, length) if packed else None, TOLERANCE[dtype], chunk=chunk)


@pytest.mark.skipif(DEVICE == "cpu", reason="too slow in the interpreter")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("state", [16, 64, 128])
@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_triton_on_a_gpu_equals_the_reference(width, state, packed, dtype):
    same(
        triton_scan,
        inputs(2, 1027, 8, width, state, dtype),
        documents(2, 1027) if packed else None,
        TOLERANCE[dtype],
    )


@pytest.mark.skipif(DEVICE == "cpu", reason="too slow in the interpreter")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_triton_of_many_rows_on_a_gpu_equals_the_reference(dtype):
    """So many that states are passed on in blocks of 32; fewer take 16."""
    same(triton_scan, inputs(20, 259, 8, 64, 64, dtype), documents(20, 259), TOLERANCE[dtype])


def test_triton_of_strong_decay_stays_finite():
    x, dt, _, b, c, state = inputs(1, 20, 2, 16, 16)
    dt = torch.full_like(dt, 40.0).requires_grad_()
    y, last = triton_scan(x, dt, torch.tensor([-16.0, -1e-3], device=DEVICE), b, c, state)
    (y.sum() + last.sum()).backward()
    assert y.isfinite().all() and dt.grad.isfinite().all()


def test_triton_is_one_operator_to_the_compiler():
    tensors = inputs(1, 7, 1, 16, 16)
    packed = documents(1, 7)

    def loss(*args: Tensor) -> Tensor:
        y, last = triton_scan(*args, packed)
        return (2 * y).square().sum() + last.sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for one, other in zip(
        *(torch.autograd.grad(f(*tensors), tensors) for f in (compiled, loss)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_forced_backend_is_loaded_while_compiling(monkeypatch):
    monkeypatch.setenv("BRAINGPT_KERNELS", "scan=triton")
    tensors = [t.detach() for t in inputs(1, 7, 1, 16, 16)]
    compiled = torch.compile(lambda *args: scan.scan(*args)[0], backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*tensors), scan.scan(*tensors)[0])


def test_triton_refuses_float64():
    with pytest.raises(ValueError, match="float64"):
        triton_scan(*(t.double() for t in inputs(1, 3, 1, 16, 16)))


def simple_gla(q, k, v, g=None, scale=None, initial_state=None, output_final_state=False, cu_seqlens=None):
    """What flash-linear-attention documents of `chunk_simple_gla`, token by token: states (N, H, K, V), one
    for each sequence.
    """
    assert scale is not None and output_final_state and q.shape[2] == k.shape[2] == v.shape[2] == g.shape[2]
    bounds = [(row, 0, q.shape[1]) for row in range(q.shape[0])]
    if cu_seqlens is not None:
        assert q.shape[0] == 1 and len(initial_state) == len(cu_seqlens) - 1
        bounds = [(0, int(first), int(end)) for first, end in pairwise(cu_seqlens)]
    outputs, states = [], []
    for number, (row, first, end) in enumerate(bounds):
        state, said = initial_state[number], []
        for t in range(first, end):
            state = state * g[row, t].exp()[:, None, None] + k[row, t][:, :, None] * v[row, t][:, None, :]
            said.append(torch.einsum("hk,hkv->hv", q[row, t] * scale, state))
        outputs.append(torch.stack(said))
        states.append(state)
    y = torch.cat(outputs)[None] if cu_seqlens is not None else torch.stack(outputs)
    return y, torch.stack(states)


def chunk_scan_combined(
    x, dt, A, B, C, chunk_size, initial_states=None, seq_idx=None, return_final_states=False
):
    """What mamba-ssm does in `mamba_chunk_scan_combined`: b and c (B, L, groups, N), states (B, H, P, N), the
    first belongs to sequence 0.
    """
    assert (
        return_final_states
        and B.shape[2] == C.shape[2] == 1
        and (seq_idx is None or seq_idx.dtype == torch.int32)
    )
    state, outputs = initial_states, []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t] * A)
        if seq_idx is not None:
            before = seq_idx[:, t - 1] if t else torch.zeros_like(seq_idx[:, 0])
            decay = decay * (seq_idx[:, t] == before)[:, None]
        state = (
            decay[..., None, None] * state
            + (dt[:, t][..., None] * x[:, t])[..., None] * B[:, t, 0][:, None, None, :]
        )
        outputs.append(torch.einsum("bn,bhpn->bhp", C[:, t, 0], state))
    return torch.stack(outputs, 1), state


@pytest.fixture
def libraries(monkeypatch):
    """Both libraries, as far as they are called."""
    for optional, function in (("FLA", simple_gla), ("MAMBA", chunk_scan_combined)):
        path, name = getattr(gpu_libraries, optional).module, getattr(gpu_libraries, optional).name
        monkeypatch.setattr(gpu_libraries, optional, dispatch.OptionalFunction(path, name))
        parts = path.split(".")
        for depth in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:depth]), ModuleType(".".join(parts[:depth])))
        setattr(sys.modules[path], name, function)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("path", [gpu_libraries.fla_scan, gpu_libraries.mamba_scan])
def test_adapters_hand_over_what_the_libraries_mean(libraries, path, packed):
    tensors = inputs(3, 23, 2, 5, 4, device="cpu")
    same(path, tensors, documents(3, 23, "cpu") if packed else None, 2e-5)


def test_paths_can_be_forced_by_name(libraries, monkeypatch):
    tensors = inputs(1, 9, 1, 4, 3, device="cpu")
    expected = scan.chunked(*tensors)[0]
    called = []
    monkeypatch.setitem(
        scan._IMPLEMENTATIONS, "fla", lambda *args: called.append(1) or gpu_libraries.fla_scan(*args)
    )
    for asked, calls in (
        ("scan=fla", 1),
        ("grouped_matmul=torch,scan=fla", 2),
        ("grouped_matmul=torch", 2),
        ("torch", 2),
    ):
        monkeypatch.setenv("BRAINGPT_KERNELS", asked)
        torch.testing.assert_close(scan.scan(*tensors)[0], expected)
        assert len(called) == calls
    monkeypatch.setenv("BRAINGPT_KERNELS", "scan=flash")
    with pytest.raises(ValueError, match="backends of scan are triton, fla"):
        scan.scan(*tensors)


def test_the_tensor_decides(libraries, monkeypatch):
    """With a GPU and both libraries there, CPU tensors still go through the path of CPUs, and float64 through
    no GPU kernel.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert dispatch.select("scan") == "triton"
    assert dispatch.select("scan", torch.zeros(1)) == "chunked"
    gpu = types.SimpleNamespace(is_cuda=True, dtype=torch.bfloat16)
    assert dispatch.select("scan", gpu) == "triton"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert dispatch.select("scan", gpu) == "fla"
    gpu.dtype = torch.float64
    assert dispatch.select("scan", gpu) == "chunked"


def test_a_broken_build_is_a_reason(tmp_path, monkeypatch):
    (tmp_path / "fla").mkdir()
    (tmp_path / "fla" / "__init__.py").write_text("raise OSError('undefined symbol: _ZN3c10\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fla", raising=False)
    fla = dispatch.OptionalFunction(gpu_libraries.FLA.module, gpu_libraries.FLA.name)
    monkeypatch.setattr(gpu_libraries, "FLA", fla)
    assert (
        gpu_libraries.fla_unavailable_reason() == "installed but broken: OSError: undefined symbol: _ZN3c10"
    )
    with pytest.raises(ValueError, match="undefined symbol"):
        gpu_libraries.fla_scan(*inputs(1, 2, 1, 4, 4, device="cpu"))


@pytest.fixture
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "scan.py"
    spec = importlib.util.spec_from_file_location("scan_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_path_that_refuses_does_not_end_the_benchmark(benchmark, libraries, monkeypatch, capsys):
    def refuses(*args):
        raise RuntimeError("incorrect results here\nupgrade")

    monkeypatch.setattr(benchmark, "available", lambda *args: ["fla", "mamba-ssm", "chunked"])
    monkeypatch.setitem(scan._IMPLEMENTATIONS, "fla", refuses)
    shape = "--device cpu --batch 1 --length 9 --heads 1 --head 4 --state 4 --rounds 2 --chunk 4 8"
    monkeypatch.setattr(sys, "argv", ["scan.py", *shape.split()])
    benchmark.main()
    refused, *_, last = capsys.readouterr().out.splitlines()
    assert refused == "without fla: RuntimeError: incorrect results here"
    assert last.startswith("chunked, chunk ") and "times as fast as mamba-ssm, chunk " in last


def test_the_benchmark_compares_each_at_its_best(benchmark):
    paths = benchmark.rows(["triton", "fla", "mamba-ssm"], [64, 256], "bfloat16")
    assert list(paths) == ["triton, chunk 64", "fla", "mamba-ssm, chunk 64", "mamba-ssm, chunk 256"]
    seconds = {"triton, chunk 64": 2.0, "fla": 9.0, "mamba-ssm, chunk 64": 5.0, "mamba-ssm, chunk 256": 3.0}
    said = benchmark.verdict({row: [(clock, 0.0)] * 3 for row, clock in seconds.items()}, paths)
    assert said == "triton, chunk 64: 1.50 times as fast as mamba-ssm, chunk 256, the best of the others"
    assert benchmark.verdict({"triton, chunk 64": [(1.0, 0.0)]}, paths) is None
