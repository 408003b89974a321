#!/usr/bin/env bash
# torch's chunked linear_cross_entropy changes more than memory.
#
# One would guess: `options=LinearCrossEntropyOptions()` computes the same loss in pieces, without the whole matrix of
#   logits; mixed precision, padding and FLOP counts stay as they are.
# What happens with options, against the same call without:
#   1. autocast does not reach it. Float32 hidden states are computed in float32, at float32 cost; bfloat16 hidden
#      states give a bfloat16 loss. Without options both are cast and the loss is float32.
#   2. a batch whose targets are all ignored has the loss NaN either way, but gradients of NaN instead of zeros.
#   3. FlopCounterMode counts no FLOPs at all for the output layer, forward or backward.
# Versions: torch 2.13.0, on the CPU.
# Why it matters: a loss curve of bfloat16 steps, one fully masked micro-batch (a long prompt in fine-tuning) that
#   destroys an accumulated gradient, and a utilisation that leaves out the largest product of a small model.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --quiet torch==2.13.0 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" - <<'PY'
import sys

import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import cross_entropy, linear, linear_cross_entropy
from torch.utils.flop_counter import FlopCounterMode

torch.manual_seed(0)
TOKENS, WIDTH, ENTRIES = 256, 64, 1000
hidden = torch.randn(TOKENS, WIDTH)
weight = torch.randn(ENTRIES, WIDTH) * 0.3
targets = torch.randint(0, ENTRIES, (TOKENS,))
exact = cross_entropy(linear(hidden.double(), weight.double()), targets)


KINDS = {"NaN": lambda gradient: gradient.isnan().all(), "zeros": lambda gradient: not gradient.any()}


def loss_and_gradients(options, dtype=torch.float32, autocast=False, targets=targets):
    x, w = hidden.to(dtype, copy=True).requires_grad_(), weight.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = linear_cross_entropy(x, w, targets, options=options)
    loss.backward()
    return loss.detach(), x.grad, w.grad


def observed(options):
    plain, cast = loss_and_gradients(options), loss_and_gradients(options, autocast=True)
    low = loss_and_gradients(options, torch.bfloat16, autocast=True)
    ignored = loss_and_gradients(options, targets=torch.full_like(targets, -100))
    with FlopCounterMode(display=False) as counter:
        loss_and_gradients(options)
    return {
        "loss agrees with float64 to 1e-5": bool((plain[0] - exact).abs() < 1e-5),
        "autocast changes the float32 case": not torch.equal(plain[2], cast[2]),
        "loss of bfloat16 hidden states under autocast": str(low[0].dtype),
        "all targets ignored: loss": str(ignored[0].item()),
        "all targets ignored: gradients": next(
            (name for name, seen in KINDS.items() if seen(ignored[1]) and seen(ignored[2])), "other"
        ),
        "FLOPs counted": counter.get_total_flops(),
    }


STATED = {
    "without options": {
        "loss agrees with float64 to 1e-5": True,
        "autocast changes the float32 case": True,
        "loss of bfloat16 hidden states under autocast": "torch.float32",
        "all targets ignored: loss": "nan",
        "all targets ignored: gradients": "zeros",
        "FLOPs counted": 3 * 2 * TOKENS * WIDTH * ENTRIES,
    },
    "with options": {
        "loss agrees with float64 to 1e-5": True,
        "autocast changes the float32 case": False,
        "loss of bfloat16 hidden states under autocast": "torch.bfloat16",
        "all targets ignored: loss": "nan",
        "all targets ignored: gradients": "NaN",
        "FLOPs counted": 0,
    },
}

print("torch", torch.__version__)
wrong = []
for name, options in (("without options", None), ("with options", LinearCrossEntropyOptions())):
    print(name)
    for question, seen in observed(options).items():
        print(f"  {question}: {seen}")
        if seen != STATED[name][question]:
            wrong.append(f"{name}, {question}: stated {STATED[name][question]}, seen {seen}")
sys.exit("no longer as stated: " + "; ".join(wrong) if wrong else 0)
PY
