"""GGUF files of our models for llama.cpp, in float32 or q8_0 (`pip install gguf`).

`dense_file`: the dense model exactly, as the architecture `apertus`: its activation xIELU (Huang 2024) with
alpha_p = 1, alpha_n = 0 and beta = 0 is the squared ReLU, and its queries and keys are normalised before the
rotation. llama.cpp does not normalise embeddings, so that the rows looked up are stored normalised, beside
those that predict.

`twin_file`: the nearest relative of a V2 model, `nemotron_h_moe`, for its speed: Mamba-2, attention and
experts of squared ReLU in layers of their own. It computes no lateral inhibition, its attention takes every
token and knows no positions, and its head is full.

Legend: D hidden, V vocabulary, E columns, W neurons a column.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from torch import Tensor

from braingpt.errors import UserError
from braingpt.kernels.pointwise import EPSILON
from braingpt.model.config import V2Config
from braingpt.model.layers import MLP, GroupedProjection, rms_norm
from braingpt.model.lm import LanguageModel
from braingpt.model.mixers.mamba2 import Mamba2

Named = Iterator[tuple[str, Tensor]]
# Tokens that a file promises to read.
CONTEXT = 32_768


def dense_file(model: LanguageModel, path: Path, int8: bool) -> None:
    """Write a dense model.

    Args:
        model: The model, in float32.
        path: The file.
        int8: Store matrices as q8_0.
    """
    config: Any = model.config
    writer = gguf.GGUFWriter(path, "apertus")
    _add_shape(writer, model)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.mlp)
    writer.add_head_count_kv(config.kv_heads or config.heads)
    writer.add_rope_dimension_count(config.hidden // config.heads)
    writer.add_rope_freq_base(config.rope_base)
    for add, value in (
        (writer.add_xielu_alpha_p, math.log(math.e - 1)),
        (writer.add_xielu_alpha_n, -1e4),
        (writer.add_xielu_beta, 0.0),
        (writer.add_xielu_eps, -EPSILON),
    ):
        add([value] * config.layers)
    _write(writer, _dense_tensors(model), int8)


def _dense_tensors(model: LanguageModel) -> Named:
    yield from _embedding(model)
    hidden = model.config.hidden
    for i, block in enumerate(model.blocks):
        mixer: Any = block.mixer
        yield f"blk.{i}.attn_norm.weight", torch.ones(hidden)
        yield from _attention(i, mixer.qkv, mixer.out.weight)
        for name in ("attn_q_norm", "attn_k_norm"):
            yield f"blk.{i}.{name}.weight", torch.ones(mixer.qkv.channels)
        yield f"blk.{i}.ffn_norm.weight", torch.ones(hidden)
        assert isinstance(block.mlp, MLP)
        yield f"blk.{i}.ffn_up.weight", block.mlp.up.weight
        yield f"blk.{i}.ffn_down.weight", block.mlp.down.weight


def twin_file(model: LanguageModel, path: Path, int8: bool) -> None:
    """Write the nearest relative of a V2 model.

    Args:
        model: The model, in float32, with a full head.
        path: The file.
        int8: Store matrices as q8_0.

    Raises:
        UserError: The model has parts without a relative.
    """
    config = model.config
    assert isinstance(config, V2Config)
    if config.memory.layers or config.depth_exits or not config.columns.shared or model.lexical is not None:
        raise UserError(
            "the GGUF twin takes neither memories nor adaptive depth, and needs a shared column; "
            "leave out these settings of the twin's recipe"
        )
    # Each of our layers is two of theirs: a mixer, and experts.
    writer = gguf.GGUFWriter(path, "nemotron_h_moe")
    _add_shape(writer, model)
    mixers: list[Any] = [block.mixer for block in model.blocks]
    kv = [0 if isinstance(mixer, Mamba2) else mixer.kv_heads for mixer in mixers]
    columns, mamba = config.columns, config.mamba
    inner = round(config.hidden * mamba.expand)
    writer.add_block_count(2 * config.layers)
    writer.add_head_count_kv([heads for one in kv for heads in (one, 0)])
    writer.add_feed_forward_length([0, columns.width] * config.layers)
    writer.add_expert_count(columns.count)
    writer.add_expert_used_count(columns.active)
    writer.add_expert_shared_count(1)
    writer.add_expert_feed_forward_length(columns.width)
    writer.add_expert_shared_feed_forward_length(columns.shared * columns.width)
    writer.add_expert_weights_norm(True)
    writer.add_expert_weights_scale(1.0)
    writer.add_ssm_conv_kernel(mamba.conv)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(mamba.state)
    writer.add_ssm_time_step_rank(inner // mamba.head)
    writer.add_ssm_group_count(1)
    writer.add_rope_dimension_count(config.hidden // config.heads)
    _write(writer, _twin_tensors(model), int8)


def _twin_tensors(model: LanguageModel) -> Named:
    yield from _embedding(model)
    hidden = model.config.hidden
    for i, block in enumerate(model.blocks):
        mixer: Any = block.mixer
        columns: Any = block.mlp
        yield f"blk.{2 * i}.attn_norm.weight", torch.ones(hidden)
        yield from (_mamba if isinstance(mixer, Mamba2) else _selective)(2 * i, mixer)
        at, weight_E2WD = f"blk.{2 * i + 1}", columns.weight
        yield f"{at}.attn_norm.weight", torch.ones(hidden)
        yield f"{at}.ffn_gate_inp.weight", columns.competition.router.weight
        yield f"{at}.exp_probs_b.bias", columns.competition.bias
        yield f"{at}.ffn_up_exps.weight", weight_E2WD[:, 0]
        # Their experts write by rows of D, ours by rows of a neuron.
        yield f"{at}.ffn_down_exps.weight", weight_E2WD[:, 1].transpose(1, 2)
        yield f"{at}.ffn_up_shexp.weight", columns.shared.up.weight
        yield f"{at}.ffn_down_shexp.weight", columns.shared.down.weight


def _selective(i: int, mixer: Any) -> Named:
    return _attention(i, mixer.qkv, mixer.out.weight)


def _attention(i: int, qkv: GroupedProjection, out_DD: Tensor) -> Named:
    sizes = [heads * qkv.channels for heads in (qkv.heads, qkv.kv_heads, qkv.kv_heads)]
    for name, weight in zip("qkv", qkv.weight.split(sizes), strict=True):
        yield f"blk.{i}.attn_{name}.weight", weight
    yield f"blk.{i}.attn_output.weight", out_DD


def _mamba(i: int, mixer: Mamba2) -> Named:
    at = f"blk.{i}.ssm"
    yield f"{at}_in.weight", mixer.into.weight
    yield f"{at}_conv1d.weight", mixer.conv
    yield f"{at}_conv1d.bias", torch.zeros(len(mixer.conv))
    yield f"{at}_dt.bias", mixer.dt_bias
    yield f"{at}_a", -mixer.decay_log.exp()[:, None]
    yield f"{at}_d", mixer.skip[:, None]
    yield f"{at}_norm.weight", mixer.scale[None]
    yield f"{at}_out.weight", mixer.out.weight


def _embedding(model: LanguageModel) -> Named:
    weight_VD = model.embedding.weight
    yield "token_embd.weight", rms_norm(weight_VD)
    yield "output.weight", weight_VD
    yield "output_norm.weight", torch.ones(model.config.hidden)


def _add_shape(writer: gguf.GGUFWriter, model: LanguageModel) -> None:
    """What both architectures say about themselves; without a tokenizer, text is tokens."""
    config = model.config
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(config.vocab)
    writer.add_tokenizer_model("no_vocab")


# What llama.cpp wants in float32 in any file.
UNROUNDED = ("ffn_gate_inp", "ssm_conv1d", "ssm_a", "ssm_d", "ssm_norm")


@torch.no_grad()
def _write(writer: gguf.GGUFWriter, tensors: Named, int8: bool) -> None:
    for name, tensor in tensors:
        values = np.ascontiguousarray(tensor.detach().float().numpy())
        if int8 and values.ndim > 1 and not any(part in name for part in UNROUNDED):
            q8_0 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, q8_0), raw_dtype=q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
