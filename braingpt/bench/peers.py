"""Widely used models of other libraries, of the same total size, in the same run.

A peer replaces a `LanguageModel`:

- gpt2-hf: Hugging Face's GPT-2, with learned positions, LayerNorm and GELU, in the recipe's width and heads.
  Install: pip install 'braingpt[peers]'
- mamba2-hf: Hugging Face's Mamba-2, with expand 2, the recipe's width, heads of 64 channels and state 64.
  Install: pip install 'braingpt[peers]' (its CUDA kernels: 'braingpt[mamba]')
- litgpt: litgpt's Llama-like GPT (rotary positions, SwiGLU, RMSNorm) from its TinyLlama configuration.
  Install: pip install 'braingpt[litgpt]'

Each is initialised by its own library, has its head tied to the embedding as ours, and has as many layers as
bring its total nearest to the first contender's. Trainer, batches, optimizer with its learning rate,
precision, threads and torch.compile are those of the `dense` recipe.

Legend: B rows, L tokens, V vocabulary.
"""

import contextlib
import io
import logging
import math
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.errors import Failure, UserError, did_you_mean
from braingpt.kernels.cross_entropy import IGNORED
from braingpt.model.config import DenseConfig, ModelConfig
from braingpt.model.interface import CausalModel, Output

if TYPE_CHECKING:
    from litgpt.model import GPT  # pyright: ignore[reportMissingImports]

# Configuration of litgpt whose settings its peer takes.
LITGPT_CONFIG = "tiny-llama-1.1b"
# Channels and state of each head.
MAMBA_HEAD, MAMBA_STATE = 64, 64


class PeerState:
    """What a peer keeps from token to token: its library's cache, and how many tokens were read."""

    def __init__(self, rows: int, cache: Any = None) -> None:
        self.rows, self.cache, self.seen = rows, cache, 0

    def depth(self) -> float | None:
        """Mean share of the layers that the tokens read so far passed: all, since no peer leaves one out."""
        return 1.0 if self.seen else None

    def bytes(self) -> int:
        """Bytes held for the whole batch, counted from the tensors."""
        tensors = {id(tensor): tensor for tensor in _tensors(self.cache)}
        return sum(t.numel() * t.element_size() for t in tensors.values())


def _tensors(value: Any, depth: int = 4) -> list[Tensor]:
    """Every tensor inside a library's cache."""
    if isinstance(value, Tensor):
        return [value]
    if depth == 0 or value is None:
        return []
    if isinstance(value, list | tuple):
        inside: Any = value
    else:
        inside = (value if isinstance(value, dict) else getattr(value, "__dict__", {})).values()
    return [tensor for one in inside for tensor in _tensors(one, depth - 1)]


class Peer(CausalModel):
    """Another library's model behind the interface of `LanguageModel`, as far as training, scoring and
    generation need it.
    """

    # No token leaves before the last layer.
    early = None

    def __init__(self, inner: nn.Module, config: ModelConfig, positions: int | None = None) -> None:
        super().__init__()
        self.inner, self.config, self.positions = inner, config, positions
        # What generation calls.
        self._call: Callable[..., Any] = inner
        # What training calls.
        self._trained: Callable[..., Any] = inner

    def forward(
        self,
        ids_BL: Tensor,
        targets_BL: Tensor | None = None,
        state: PeerState | None = None,
        segments_BL: Tensor | None = None,
        reduction: str = "mean",
        last: bool = False,
    ) -> Output:
        """As `LanguageModel.forward`, for rows of one document without padding.

        Raises:
            UserError: A row holds several documents.
            Failure: A row is longer than the model's positions.
        """
        if segments_BL is not None:
            raise UserError(
                "peers read a window as one text; leave out --set data.reset_at_documents=true, or --peer"
            )
        if self.positions and ids_BL.shape[1] + (state.seen if state else 0) > self.positions:
            raise Failure(f"the model reads at most {self.positions:,} tokens")
        if state is not None:
            logits_BLV = self._read(ids_BL, state, last)
            state.seen += ids_BL.shape[1]
            return Output(logits_BLV, state=state)
        logits_BLV = self._whole(ids_BL)
        if targets_BL is None:
            return Output(logits=logits_BLV[:, -1:] if last else logits_BLV)
        loss = F.cross_entropy(
            logits_BLV.flatten(0, 1).float(), targets_BL.flatten(), ignore_index=IGNORED, reduction=reduction
        )
        return Output(loss=loss.view_as(targets_BL) if reduction == "none" else loss)

    def _whole(self, ids_BL: Tensor) -> Tensor:
        return (self._trained if self.training else self.inner)(ids_BL, use_cache=False).logits

    def _read(self, ids_BL: Tensor, state: PeerState, last: bool) -> Tensor:
        out = self._call(ids_BL, cache=state.cache, use_cache=True, logits_to_keep=int(last))
        state.cache = out.cache
        return out.logits

    def step(self, ids_B: Tensor, state: PeerState) -> Tensor:
        """One token more for each row: logits (B, V)."""
        return self(ids_B[:, None], state=state, last=True).logits[:, -1]

    def new_state(self, batch: int = 1) -> PeerState:
        """A state that has read nothing."""
        return PeerState(batch)

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile what training calls: the whole forward pass."""
        self._trained = torch.compile(self.inner, backend=backend)

    def compile_steps(self, backend: str | None = None) -> None:
        """Compile what generation calls."""
        self._call = torch.compile(self.inner, backend=backend or "inductor")

    def after_step(self) -> None:
        """Nothing to do: a peer has no masks and no averages."""

    def flip_rate(self) -> None:
        """None: a peer has no 2:4 masks."""

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.parameters()).device

    def parameters_total(self) -> int:
        """All parameters, a tied one once."""
        return sum(p.numel() for p in self.parameters())

    def parameters_active(self) -> int:
        """Parameters that a token multiplies with: all but the rows of learned positions."""
        return self.parameters_total() - (self.positions or 0) * self.config.hidden

    def flops_per_token(self, context: int) -> float:
        """Forward operations a token: two for each active parameter, and attention over half of a window."""
        return 2 * self.parameters_active() + self._layers() * 4 * self.config.hidden * (context + 1) / 2

    def _layers(self) -> int:
        return self.config.layers


class GPT2(Peer):
    """Hugging Face's GPT-2."""

    def new_state(self, rows: int = 1) -> PeerState:
        from transformers import DynamicCache  # pyright: ignore[reportMissingImports]

        return PeerState(rows, DynamicCache())


class Mamba2(Peer):
    """Hugging Face's Mamba-2.

    Its operations are counted as two for each parameter, and the scan's recurrence.
    """

    def flops_per_token(self, context: int) -> float:
        return 2 * self.parameters_active() + self.config.layers * 6 * MAMBA_STATE * 2 * self.config.hidden


class LitGPT(Peer):
    """litgpt's GPT, whose cache has a fixed size of `positions` tokens."""

    inner: "GPT"

    def _whole(self, ids_BL: Tensor) -> Tensor:
        self.inner.clear_kv_cache()
        return (self._trained if self.training else self.inner)(ids_BL)

    def new_state(self, rows: int = 1) -> PeerState:
        self.inner.set_kv_cache(rows, max_seq_length=self.positions, device=self.device)
        return PeerState(rows, [block.attn.kv_cache for block in self.inner.transformer.h])

    def _read(self, ids_BL: Tensor, state: PeerState, last: bool) -> Tensor:
        end = state.seen + ids_BL.shape[1]
        position_L = torch.arange(state.seen, end, device=ids_BL.device)
        logits_BLV = self._call(ids_BL, position_L, input_pos_maxp1=end)
        return logits_BLV[:, -1:] if last else logits_BLV

    def parameters_active(self) -> int:
        return self.parameters_total()


def _gpt2(config: ModelConfig, positions: int) -> Peer:
    from transformers import GPT2Config, GPT2LMHeadModel  # pyright: ignore[reportMissingImports]

    settings = GPT2Config(
        vocab_size=config.vocab,
        n_positions=positions,
        n_embd=config.hidden,
        n_head=config.heads,
        n_layer=config.layers,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2(GPT2LMHeadModel(settings), config, positions)


def _mamba2(config: ModelConfig, positions: int) -> Peer:
    from transformers import Mamba2Config, Mamba2ForCausalLM  # pyright: ignore[reportMissingImports]

    head = math.gcd(MAMBA_HEAD, 2 * config.hidden)
    settings = Mamba2Config(
        vocab_size=config.vocab,
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        state_size=MAMBA_STATE,
        expand=2,
        head_dim=head,
        num_heads=2 * config.hidden // head,
        n_groups=1,
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Mamba2(Mamba2ForCausalLM(settings), config)


def _litgpt(config: DenseConfig, positions: int) -> Peer:
    from lightning import Fabric  # pyright: ignore[reportMissingImports]
    from litgpt.config import Config  # pyright: ignore[reportMissingImports]
    from litgpt.model import GPT  # pyright: ignore[reportMissingImports]
    from litgpt.pretrain import initialize_weights  # pyright: ignore[reportMissingImports]

    # SwiGLU has three matrices where our MLP has two.
    neurons = round(config.mlp * 2 / 3 / 8) * 8
    settings = Config.from_name(
        LITGPT_CONFIG,
        block_size=positions,
        vocab_size=config.vocab,
        padded_vocab_size=config.vocab,
        n_layer=config.layers,
        n_head=config.heads,
        n_embd=config.hidden,
        n_query_groups=config.heads,
        head_size=config.hidden // config.heads,
        intermediate_size=neurons,
    )
    inner = GPT(settings)
    initialize_weights(
        Fabric(accelerator="cpu", devices=1), inner, n_layer=config.layers, n_embd=config.hidden
    )
    inner.lm_head.weight = inner.transformer.wte.weight
    return LitGPT(inner, config, positions)


# Each takes a configuration and a number of positions.
BUILDERS: dict[str, Callable[..., Peer]] = {
    "gpt2-hf": _gpt2,
    "mamba2-hf": _mamba2,
    "litgpt": _litgpt,
}


def check_peer(name: str) -> None:
    """Raise UserError for an unknown peer, or for one whose library cannot be imported."""
    if name not in BUILDERS:
        raise UserError(f"unknown peer '{name}'{did_you_mean(name, BUILDERS)}")
    library = "litgpt" if name == "litgpt" else "transformers"
    # The libraries register classes in an old way, and a user cannot do anything about the warning.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            import_module("litgpt.pretrain" if library == "litgpt" else library)
    except ImportError as error:
        extra = "litgpt" if library == "litgpt" else "peers"
        raise UserError(f"--peer {name} needs {library} ({error}); pip install 'braingpt[{extra}]'") from None


def build_peer(name: str, like: ModelConfig, total: int, positions: int, seed: int = 0) -> Peer:
    """Build a fresh peer.

    Args:
        name: One of `BUILDERS`.
        like: The settings whose vocabulary, width and heads the peer takes.
        total: Parameters; the peer has as many layers as come nearest.
        positions: Tokens that the peer can read.
        seed: Seed of the weights.

    Raises:
        UserError: The peer is unknown, or its library cannot be imported.
    """
    check_peer(name)
    with torch.device("meta"), contextlib.redirect_stderr(io.StringIO()):
        one, two = (
            BUILDERS[name](like.model_copy(update={"layers": layers}), positions).parameters_total()
            for layers in (1, 2)
        )
    layers = max(1, round((total - one) / (two - one)) + 1)
    torch.manual_seed(seed)
    return BUILDERS[name](like.model_copy(update={"layers": layers}), positions)
