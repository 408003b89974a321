"""Every Triton kernel as the library starts it, compiled for GPUs that need not be here: registers, spills
and shared memory.

    python benchmarks/compile_kernels.py --capability 80 86 90

The library's own functions run on CPU tensors of the recipes' shapes, and each kernel they would start is
compiled instead. The script ends with 1 where a compiler refuses a kernel or a card's shared memory does not
hold it: an interpreter, which the tests use without a GPU, notices neither.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from braingpt.cli.console import guarded
from braingpt.kernels.columns import triton_ops as columns_ops
from braingpt.kernels.columns import triton_products
from braingpt.kernels.columns.pairs import Pairs
from braingpt.kernels.competition import triton_ops as competition_ops
from braingpt.kernels.scan import triton_ops as scan_ops
from braingpt.kernels.sparse_attention import triton_ops as attention_ops

MODULES = (columns_ops, triton_products, competition_ops, attention_ops, scan_ops)
POINTERS = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
}
# KB of shared memory that one program may have, by compute capability.
SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def columns(dtype: torch.dtype) -> None:
    """115 columns of 64, many rows each; 320 of 128; 2,060 of 64, few rows each."""
    for count, width, hidden, active, tokens in (
        (115, 64, 512, 4, 16_384),
        (320, 128, 1024, 16, 16_384),
        (2060, 64, 512, 16, 1024),
    ):
        x_ND, weight = torch.empty(tokens, hidden, dtype=dtype), torch.empty(count, 2, width, hidden)
        pairs = Pairs.of(torch.rand(tokens, count).topk(active).indices, count)
        share_P = torch.empty(tokens * active, dtype=dtype)
        y_PD, act_PW = columns_ops.forward(x_ND, weight, share_P, pairs.token, pairs.start)
        columns_ops.segment_sum(y_PD, pairs.place.flatten(), None, active)
        columns_ops.segment_sum(x_ND, pairs.token, pairs.start, 0, share_P)
        columns_ops.backward(x_ND, x_ND, weight, act_PW, share_P, pairs.token, pairs.start)


def competition(dtype: torch.dtype) -> None:
    """Pairs of columns, and interneurons."""
    for count, active, hidden in ((115, 4, 512), (320, 16, 1024), (2060, 16, 512)):
        strength = torch.empty(count, count) if count <= 128 else torch.empty(2, count, 8)
        for rounds in (1, 2):
            competition_ops.compete(
                torch.empty(4096, count), strength, torch.empty(count), rounds, active, 0.7, dtype, True
            )
        if dtype.itemsize == 2:
            competition_ops.logits(
                torch.empty(4096, hidden, dtype=dtype), torch.empty(count, hidden, dtype=dtype)
            )


def attention(dtype: torch.dtype) -> None:
    """Magnitude attention, with and without documents."""
    for document in (None, torch.zeros(2, 1024, dtype=torch.int32)):
        q, k, v = (torch.empty(2, 8, 1024, 64, dtype=dtype, requires_grad=True) for _ in range(3))
        y, _ = attention_ops.magnitude_triton(q, k, v, document, 0.1, 4)
        y.sum().backward()


def products(dtype: torch.dtype) -> None:
    """Words of a class: few tokens a class, so many that float32 weights are copied, and wide shapes."""
    for classes, words, hidden, tokens in (
        (129, 128, 512, 4096),
        (129, 128, 512, 131_072),
        (180, 192, 2048, 4096),
    ):
        x_ND, weight_CSD = torch.empty(tokens, hidden, dtype=dtype), torch.empty(classes, words, hidden)
        pairs = Pairs.of(torch.arange(tokens)[:, None] % classes, classes)
        multiply = triton_products.TritonProducts(pairs.start)
        score_NS = multiply.times(x_ND, weight_CSD.mT)
        multiply.times(score_NS, weight_CSD)
        multiply.outer(score_NS, x_ND, weight_CSD)


def scan(dtype: torch.dtype) -> None:
    """The state-space scan, with and without documents, of one chunk and of many."""
    for length, run in ((1024, None), (1024, torch.zeros(16, 1024, dtype=torch.int32)), (40, None)):
        x, b, c = (
            torch.empty(16, length, *shape, dtype=dtype, requires_grad=True)
            for shape in ((8, 64), (64,), (64,))
        )
        dt, a, state = torch.empty(16, length, 8), torch.empty(8), torch.empty(16, 8, 64, 64)
        y, _ = scan_ops.triton_scan(x, dt, a, b, c, state, run)
        y.sum().backward()


OPERATIONS: dict[str, Callable[[torch.dtype], None]] = {
    "columns": columns,
    "products": products,
    "competition": competition,
    "attention": attention,
    "scan": scan,
}


def started(
    operation: str, dtype: torch.dtype, capability: int
) -> Iterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Kernel, arguments by name, and warps and stages, of everything that the operation would start on such a
    card; alike ones once.
    """
    launches, seen = [], set()

    def launch(kernel: Any, grid: Any, *args: Any, extra_bytes: Any = None, **meta: Any) -> None:
        options = {key: meta.pop(key) for key in ("num_warps", "num_stages") if key in meta}
        launches.append((kernel, dict(zip(kernel.arg_names, args, strict=False)) | meta, options))

    for module in MODULES:
        module.launch = launch
    columns_ops._on_hopper = lambda _: capability in (90, 100)
    OPERATIONS[operation](dtype)
    for kernel, arguments, options in launches:
        key = kernel.fn.__name__, str([described(value) for value in arguments.values()]), str(options)
        if key not in seen:
            seen.add(key)
            yield kernel, arguments, options


def described(value: Any) -> tuple[str, bool]:
    """Type for the compiler ("constexpr" where the value is part of the kernel) and whether it is a multiple
    of 16, as Triton's launcher tells it.
    """
    if isinstance(value, Tensor):
        return f"*{POINTERS[value.dtype]}", True
    if isinstance(value, int) and not isinstance(value, bool) and value != 1:
        return "i32", value % 16 == 0
    return "constexpr", False


def compiled(kernel: Any, arguments: dict[str, Any], options: dict[str, Any], capability: int) -> str:
    """A line of what it takes. Raises where it cannot be compiled."""
    fixed = {p.name for p in kernel.params if p.is_constexpr}
    types = {
        name: ("constexpr", False) if name in fixed else described(arguments[name])
        for name in kernel.arg_names
    }
    constants = {
        (i,): arguments[name] for i, name in enumerate(kernel.arg_names) if types[name][0] == "constexpr"
    }
    attributes = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if types[name][1]
    }
    source = ASTSource(kernel, {name: kind for name, (kind, _) in types.items()}, constants, attributes)
    result = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(result.asm["cubin"])
        file.flush()
        said = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", said).groups()
    shared = result.metadata.shared / 1024
    beyond = f"  MORE THAN THE CARD'S {SHARED[capability]} KB" if shared > SHARED.get(capability, 227) else ""
    return f"{registers:>4} registers  {stack:>5} B spilled  {shared:6.1f} KB shared{beyond}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--capability",
        type=int,
        nargs="+",
        default=[80, 86, 90],
        help="compute capabilities (default: %(default)s)",
    )
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    parser.add_argument(
        "--dtypes", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"]
    )
    given = parser.parse_args()
    print(f"triton {triton.__version__}")
    failed = 0
    for capability in given.capability:
        for operation in given.operations:
            for dtype in given.dtypes:
                for kernel, arguments, options in started(operation, getattr(torch, dtype), capability):
                    try:
                        line = compiled(kernel, arguments, options, capability)
                    except Exception as error:
                        # A compiler may raise anything.
                        line = f"REFUSED: {str(error).strip().splitlines()[-1][:120]}"
                    failed += "REFUSED" in line or "MORE" in line
                    warps, stages = options.get("num_warps", 4), options.get("num_stages", 3)
                    print(
                        f"{capability / 10:.1f} {operation:12} {kernel.fn.__name__:18} {dtype:9} "
                        f"{warps} warps {stages} stages  {line}",
                        flush=True,
                    )
    sys.exit(failed > 0)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
