#!/usr/bin/env bash
# Int8 quantization by torchao makes a small model with a tied output layer larger.
#
# One would guess: Int8WeightOnlyConfig stores every Linear in a quarter of float32's bytes, so that a checkpoint of
#   embedding and Linear layers shrinks; p.numel() * p.element_size() over the parameters shows by how much.
# What happens: the output layer that shares its weight with the embedding is replaced by an int8 copy. The embedding
#   stays in float32, the tie is gone, and the saved model grows by the copy. The bytes that the parameters report are
#   those of float32 for every int8 tensor, so that they grow by the whole embedding instead.
# Versions: torchao 0.18.0, torch 2.13.0, on the CPU.
# Why it matters: in small language models the tied embedding is often the largest tensor. Without the tie, fine-tuning
#   the embedding no longer moves the output layer, and size tables built from element_size() show no saving.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --quiet torchao==0.18.0 torch==2.13.0 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" - 2>"$work/log" <<'PY' || { tail -n 20 "$work/log" >&2; exit 1; }
import io
import sys

import torch
import torchao
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_

ENTRIES, WIDTH = 4000, 64


def model(tied):
    head = nn.Linear(WIDTH, ENTRIES, bias=False)
    layers = nn.Sequential(nn.Embedding(ENTRIES, WIDTH), nn.Linear(WIDTH, WIDTH), head)
    if tied:
        layers[2].weight = layers[0].weight
    return layers


def saved(layers):
    file = io.BytesIO()
    torch.save(layers.state_dict(), file)
    return file.tell()


def reported(layers):
    return sum(p.numel() * p.element_size() for p in layers.parameters())


# saved bytes and reported bytes, after by before
STATED = {True: ("larger", "larger"), False: ("smaller", "same")}
print(f"torch {torch.__version__}; torchao {torchao.__version__}")
wrong = []
for tied, stated in STATED.items():
    layers = model(tied)
    before = saved(layers), reported(layers)
    quantize_(layers, Int8WeightOnlyConfig())
    after = saved(layers), reported(layers)
    seen = tuple(
        "larger" if new > 1.05 * old else "smaller" if new < 0.95 * old else "same"
        for old, new in zip(before, after, strict=True)
    )
    still = layers[2].weight is layers[0].weight
    print(f"  tied {tied}, afterwards {still}: saved {before[0]} -> {after[0]} bytes,", end=" ")
    print(f"reported {before[1]} -> {after[1]}")
    if seen != stated or still or layers[0].weight.dtype != torch.float32:
        wrong.append(f"tied {tied}: stated {stated}, seen {seen}")
sys.exit("no longer as stated: " + "; ".join(wrong) if wrong else 0)
PY
