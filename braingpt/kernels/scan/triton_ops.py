"""The state-space scan on NVIDIA GPUs (Ampere and later), as an operator that torch.compile keeps whole.

`triton_kernels.py` has the kernels.
Under TRITON_INTERPRET=1, set before triton is imported, the same kernels run on CPU tensors, slowly: for
tests.

Legend: B batch, L tokens, H heads, P channels a head, N state, C chunks, G groups of heads.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from braingpt.kernels.launch import launch
from braingpt.kernels.scan import triton_kernels as kernels

# The most tokens, channels and states of a program, by bytes a number: what registers and shared memory hold.
BLOCK = {2: 64, 4: 32}
# Not tuned, because to measure six choices took 25 s at the start of every run. Loops over blocks have one
# or two rounds, with nothing to pipeline.
LAUNCH_OPTIONS = {"num_warps": 4, "num_stages": 1}
# While one chunk's tiles are multiplied, those of the next two are loading.
STAGES_OVER_CHUNKS = 3
# Largest and smallest block of states in `states`, which has one program for all chunks.
STATE_BLOCK, SMALL_STATE_BLOCK = 32, 16
# Processors assumed where Triton's interpreter runs on a CPU.
INTERPRETER_PROCESSORS = 2
TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def triton_scan(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHNP: Tensor,
    run_BL: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """As `scan.scan`, for float32, bfloat16 and float16; the state is float32.

    Args:
        x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL: As in `scan.scan`.
        chunk: Tokens a chunk, a power of two of at least 16.

    Returns:
        Outputs (B, L, H, P) and the state after the last token (B, H, N, P).

    Raises:
        ValueError: x has another type.
    """
    if x_BLHP.dtype not in TYPES:
        raise ValueError(f"the Triton scan computes in float32, bfloat16 and float16, not in {x_BLHP.dtype}")
    size = _block(min(chunk, x_BLHP.shape[1]), x_BLHP)
    run_BL = None if run_BL is None else run_BL.to(torch.int32).contiguous()
    dt_BLH, a_H, state_BHNP = (t.float().contiguous() for t in (dt_BLH, a_H, state_BHNP))
    return _scan(
        x_BLHP, dt_BLH, a_H, b_BLN.to(x_BLHP.dtype), c_BLN.to(x_BLHP.dtype), state_BHNP, run_BL, size
    )


class _Problem:
    """Sizes and settings that all launches of one call share."""

    def __init__(
        self, x_BLHP: Tensor, dt_BLH: Tensor, a_H: Tensor, run_BL: Tensor | None, state: int, size: int
    ) -> None:
        self.batch, self.length, self.heads, self.width = x_BLHP.shape
        self.state, self.x = state, x_BLHP
        self.chunks = triton.cdiv(self.length, size)
        # Channels are always a whole block. Products 16 wide came out wrong on an H100 (4 warps, state 64,
        # Triton 3.6), and blocks of 64 did not.
        self.n, self.p = _block(state, x_BLHP), BLOCK[x_BLHP.element_size()]
        self.n_blocks, self.p_blocks = triton.cdiv(state, self.n), triton.cdiv(self.width, self.p)
        self.processors = INTERPRETER_PROCESSORS
        if x_BLHP.is_cuda:
            self.processors = torch.cuda.get_device_properties(x_BLHP.device).multi_processor_count
        self.decay = (dt_BLH, a_H, run_BL)
        self.sizes = (self.length, self.heads, self.chunks)
        # The interpreter multiplies the bits of bfloat16. On a GPU, float32 keeps its precision (three TF32
        # products) unless torch may drop it.
        needs_float32 = knobs.runtime.interpret and x_BLHP.dtype == torch.bfloat16
        precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
        self.meta: dict[str, Any] = {
            "N": state,
            "P": self.width,
            "Q": size,
            "BN": self.n,
            "BP": self.p,
            "HAS_RUN": run_BL is not None,
        }
        self.meta |= {
            "DOT": tl.float32 if needs_float32 else TYPES[x_BLHP.dtype],
            "PRECISION": precision,
            **LAUNCH_OPTIONS,
        }

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A new tensor on x's device."""
        return torch.empty(shape, dtype=dtype, device=self.x.device)

    def states(
        self, left_BLN: Tensor, right_BLHP: Tensor, first_BHNP: Tensor, forward: bool
    ) -> tuple[Tensor, Tensor]:
        """(B, H, C, N, P) the state before each chunk, and the last state.

        Not forward: gradients of the state after each chunk, and of the first state.
        """
        states = self.empty(self.batch, self.heads, self.chunks, self.state, self.width)
        last_BHNP = torch.empty_like(first_BHNP)
        # Chunks come one after the other, so states are cut finer than elsewhere, and finer still where the
        # blocks would not fill the GPU twice.
        n = min(self.n, STATE_BLOCK)
        if self.batch * self.heads * triton.cdiv(self.state, n) * self.p_blocks < 2 * self.processors:
            n = SMALL_STATE_BLOCK
        meta: dict[str, Any] = self.meta | {"BN": n, "num_stages": STAGES_OVER_CHUNKS}
        launch(
            kernels.states,
            (triton.cdiv(self.state, n) * self.p_blocks, self.batch * self.heads),
            *_strided(left_BLN),
            *_strided(right_BLHP),
            *self.decay,
            first_BHNP,
            states,
            last_BHNP,
            *self.sizes,
            FORWARD=forward,
            **meta,
        )
        return states, last_BHNP

    def groups(self) -> int:
        """Groups of heads that `grad_shared` sums apart: as many as it takes to fill the GPU twice."""
        return min(self.heads, triton.cdiv(2 * self.processors, self.chunks * self.batch * self.n_blocks))


def _block(size: int, x_BLHP: Tensor) -> int:
    """The power of two that holds `size`, within what `tl.dot` takes and the registers hold."""
    return max(16, min(BLOCK[x_BLHP.element_size()], triton.next_power_of_2(size)))


def _strided(tensor: Tensor) -> tuple[Tensor | int, ...]:
    """The tensor and its strides but the last, which is 1."""
    return tensor, *tensor.stride()[:-1]


def _with_unit_stride(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


@torch.library.custom_op("braingpt::scan", mutates_args=())
def _scan(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHNP: Tensor,
    run_BL: Tensor | None,
    size: int,
) -> tuple[Tensor, Tensor]:
    x_BLHP, b_BLN, c_BLN = _with_unit_stride(x_BLHP), _with_unit_stride(b_BLN), _with_unit_stride(c_BLN)
    problem = _Problem(x_BLHP, dt_BLH, a_H, run_BL, b_BLN.shape[2], size)
    # Triton launches on the current device.
    with torch.cuda.device_of(x_BLHP):
        states, last_BHNP = problem.states(b_BLN, x_BLHP, state_BHNP, forward=True)
        y_BLHP = problem.empty(*x_BLHP.shape, dtype=x_BLHP.dtype)
        launch(
            kernels.outputs,
            (problem.chunks, problem.batch * problem.heads, problem.p_blocks),
            *_strided(x_BLHP),
            dt_BLH,
            a_H,
            *_strided(b_BLN),
            *_strided(c_BLN),
            run_BL,
            states,
            y_BLHP,
            *problem.sizes,
            **problem.meta,
        )
    return y_BLHP, last_BHNP


@_scan.register_fake
def _(x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL, size):
    return x_BLHP.new_empty(x_BLHP.shape), state_BHNP.new_empty(state_BHNP.shape)


@torch.library.custom_op("braingpt::scan_backward", mutates_args=())
def _scan_backward(
    grad_BLHP: Tensor,
    grad_BHNP: Tensor,
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHNP: Tensor,
    run_BL: Tensor | None,
    size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    x_BLHP, b_BLN, c_BLN, grad_BLHP = (
        _with_unit_stride(x_BLHP),
        _with_unit_stride(b_BLN),
        _with_unit_stride(c_BLN),
        _with_unit_stride(grad_BLHP),
    )
    problem = _Problem(x_BLHP, dt_BLH, a_H, run_BL, b_BLN.shape[2], size)
    # Triton launches on the current device.
    with torch.cuda.device_of(x_BLHP):
        states, _ = problem.states(b_BLN, x_BLHP, state_BHNP, forward=True)
        grad_states, grad_state_BHNP = problem.states(c_BLN, grad_BLHP, grad_BHNP.contiguous(), forward=False)
        inputs = (
            *_strided(grad_BLHP),
            *_strided(x_BLHP),
            dt_BLH,
            a_H,
            *_strided(b_BLN),
            *_strided(c_BLN),
            run_BL,
        )

        grad_x_BLHP = problem.empty(*x_BLHP.shape, dtype=x_BLHP.dtype)
        direct = problem.empty(problem.p_blocks, *dt_BLH.shape)
        step = problem.empty(problem.p_blocks + problem.n_blocks, *dt_BLH.shape)
        launch(
            kernels.grad_inputs,
            (problem.chunks, problem.batch * problem.heads, problem.p_blocks),
            *inputs,
            grad_states,
            grad_x_BLHP,
            direct,
            step[: problem.p_blocks],
            *problem.sizes,
            **problem.meta,
        )
        groups = problem.groups()
        grad_b, grad_c = (problem.empty(groups, *b_BLN.shape) for _ in range(2))
        launch(
            kernels.grad_shared,
            (problem.chunks, problem.batch * groups, problem.n_blocks),
            *inputs,
            states,
            grad_states,
            grad_b,
            grad_c,
            step[problem.p_blocks :],
            *problem.sizes,
            groups,
            **problem.meta,
        )
    step_BLH = step.sum(0)
    grad_dt_BLH = torch.addcmul(direct.sum(0), step_BLH, a_H)
    grad_a_H = (step_BLH * dt_BLH).sum((0, 1))
    return (
        grad_x_BLHP,
        grad_dt_BLH,
        grad_a_H,
        grad_b.sum(0).to(b_BLN.dtype),
        grad_c.sum(0).to(c_BLN.dtype),
        grad_state_BHNP,
    )


@_scan_backward.register_fake
def _(grad_BLHP, grad_BHNP, x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL, size):
    return tuple(t.new_empty(t.shape) for t in (x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP))


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.size = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx, grad_BLHP: Tensor, grad_BHNP: Tensor) -> tuple[Tensor | None, ...]:
    return *_scan_backward(grad_BLHP, grad_BHNP, *ctx.saved_tensors, ctx.size), None, None


_scan.register_autograd(_gradients, setup_context=_save)
