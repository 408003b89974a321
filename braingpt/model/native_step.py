"""Steps of generation by `kernels/step`: a model's weights and state, handed over as pointers.

Dense and V2 models on a CPU in float32 or int8 have such a step; V1 has not.
The state remains that of the Python layers, so prompts are read before and after native steps.

Legend: B batch, L tokens, D hidden, V vocabulary; B and L are 1.
"""

import logging
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.step import library
from braingpt.model.arithmetic import ModelArithmetic
from braingpt.model.heads.head import ClassedTokens, Rule, TiedHead
from braingpt.model.heads.vocabulary_columns import VocabularyColumns
from braingpt.model.interface import State
from braingpt.model.layers import rms_norm
from braingpt.model.mixers.attention import Attention
from braingpt.model.mixers.none import NoState
from braingpt.model.mixers.selective_attention import SelectiveAttention
from braingpt.model.native_weights import KNOWN, NativeWeights

log = logging.getLogger(__name__)


def unavailable_reason(model: ModelArithmetic) -> str | None:
    """Why a model has no native step here; None where it has one."""
    strange = next(
        (type(module).__name__ for module in list(model.modules())[1:] if type(module) not in KNOWN), None
    )
    types = {p.dtype for p in model.parameters()}
    if model.device.type != "cpu":
        return "it runs on a CPU only"
    if strange is not None:
        return f"it does not compute {strange}"
    if types != {torch.float32}:
        return "it computes in float32 and int8 only"
    if dispatch.select("step") != "native":
        native = dispatch.backends("step")[0]
        return (
            "BRAINGPT_KERNELS excludes it" if dispatch.forced_by_env("step") else native.unavailable_reason()
        )
    return None


class NativeStep:
    """Reads single tokens for a model that `unavailable_reason` has nothing against.

    Args:
        model: The model.
    """

    def __init__(self, model: ModelArithmetic) -> None:
        self.model, self._head, self._hidden = model, model.embedding, model.config.hidden
        # Searching a module for a part takes a microsecond.
        self._blocks, self._first_mixer = list(model.blocks), model.blocks[0].mixer
        self._states = (library.State * len(model.blocks))()
        # The same, one object a layer: indexing the array would make a new one each time.
        self._places = list(self._states)
        # The tensors that the states point to.
        self._held: list[tuple[Tensor | None, Tensor | None]] = [(None, None)] * len(model.blocks)
        mixers: list[Any] = [block.mixer for block in model.blocks]
        # Heads and channels of the layers that keep keys and values.
        self._cached = {
            i: (mixer.kv_heads, mixer.qkv.channels)
            for i, mixer in enumerate(mixers)
            if isinstance(mixer, Attention | SelectiveAttention)
        }
        # Two threads of Python may write two texts.
        self._lock = threading.Lock()
        self._weights: NativeWeights | None = None
        # The last choice's rule, also in the native form, and its numbers.
        self._rule: Rule | None = None
        self._native_rule = library.Rule()
        self._uniform: Callable[[], float] = float
        self._draws = library.UNIFORM(lambda: self._uniform())
        self.renew()

    @classmethod
    def of(cls, model: ModelArithmetic) -> "NativeStep | None":
        """The native step of a model; None where it has none, for a reason that is logged."""
        reason = unavailable_reason(model)
        if reason is not None:
            log.info("no native step (%s); torch.compile compiles the steps", reason)
        return cls(model) if reason is None else None

    def renew(self) -> None:
        """Compute with the weights, thresholds and number of threads of this moment from now on."""
        with self._lock:
            weights, threads = NativeWeights(self.model), torch.get_num_threads()
            if self._weights is None or (weights.fingerprint, threads) != (
                self._weights.fingerprint,
                self._threads,
            ):
                self._weights, self._threads = weights, threads
                self._step = library.Step(weights.model, threads)

    def accepts(self, ids_BL: Tensor, state: State, segments_BL: Tensor | None) -> bool:
        """Whether this step can be native: one token of one row without padding, while nothing learns,
        counts or watches a block.
        """
        return (
            segments_BL is None
            and ids_BL.shape == (1, 1)
            and len(state.seen_B) == 1
            and 0 <= int(ids_BL) < self.model.config.vocab
            and not torch.is_grad_enabled()
            and _computes_with(self._head)
            and self._first_mixer.record is None
            and not any(block._forward_hooks for block in self._blocks)
            and all(state.layers[i].valid is None for i in self._cached)
        )

    def hidden(self, ids_BL: Tensor, state: State) -> Tensor:
        """Read one token and advance the state.

        Args:
            ids_BL: The token, (1, 1).
            state: The state of one row.

        Returns:
            The residual stream after the last layer, (1, 1, D).
        """
        head = self._head
        token = row = int(ids_BL)
        if isinstance(head, VocabularyColumns):
            row = int(head.slot[token])
        x_BLD = torch.empty(1, 1, self._hidden)
        with self._lock:
            self._point_to(state)
            done = self._step.read(
                token, row, int(state.seen_B), self._states, self._past(state), x_BLD.data_ptr()
            )
            for i in self._cached:
                state.layers[i].count_one(self._places[i].length)
        state.seen_B = state.seen_B + 1
        state.used_B = state.used_B + done
        return x_BLD

    def _past(self, state: State) -> int:
        """Address of the tokens that the lexical memory keeps."""
        if state.past_BP is None:
            return 0
        state.past_BP = state.past_BP.contiguous()
        return state.past_BP.data_ptr()

    def logits(self, x_BLD: Tensor) -> Tensor:
        """Predict with a full head.

        Args:
            x_BLD: The residual stream of one token, (1, 1, D).

        Returns:
            Logits (1, 1, V).
        """
        head = self._head
        if torch.is_grad_enabled() or not _computes_with(head) or x_BLD.dtype != torch.float32:
            return head.logits(rms_norm(x_BLD))
        assert self._weights is not None
        x_BLD, logits_BLV = x_BLD.contiguous(), torch.empty(1, 1, self.model.config.vocab)
        with self._lock:
            self._step.predict(self._weights.model.embedding, x_BLD.data_ptr(), logits_BLV.data_ptr())
        return logits_BLV

    def next_tokens(self, stream_BLD: Tensor) -> "NativeTokens | None":
        """The distribution after a residual stream (B, 1, D) by a head with classes; None for other heads,
        several rows, and with gradients.
        """
        head = self._head
        native = stream_BLD.shape[:2] == (1, 1) and stream_BLD.dtype == torch.float32 and _computes_with(head)
        if not isinstance(head, VocabularyColumns) or not native or torch.is_grad_enabled():
            return None
        return NativeTokens(head, stream_BLD.contiguous(), self)

    def choose(self, stream_BLD: Tensor, rule: Rule, uniform: Callable[[], float]) -> int:
        """Choose the token after a residual stream by a head with classes.

        Args:
            stream_BLD: The residual stream of one token, (1, 1, D).
            rule: How the token is chosen.
            uniform: A fresh number in [0, 1).

        Returns:
            The token, -1 for NaN, or -2 where the search gave up.
        """
        assert self._weights is not None and self._weights.class_head is not None
        with self._lock:
            if rule is not self._rule:
                self._rule, self._native_rule = rule, _native_rule(rule)
            self._uniform = uniform
            return self._step.choose(
                self._weights.class_head, self._native_rule, stream_BLD.data_ptr(), self._draws
            )

    def _point_to(self, state: State) -> None:
        """Let the native states be those of `state`, with space for a token."""
        for i, (layer, place) in enumerate(zip(state.layers, self._places, strict=True)):
            if isinstance(layer, NoState):
                continue
            if i in self._cached:
                first, second = layer.space_for_one(*self._cached[i])
                place.length = layer.entries
            else:
                first, second = layer.tensors()
            known = self._held[i]
            if first is not known[0] or second is not known[1]:
                self._held[i] = first, second
                place.first, place.second, place.capacity = (
                    first.data_ptr(),
                    second.data_ptr(),
                    first.shape[2],
                )


def _native_rule(rule: Rule) -> library.Rule:
    tensors = (None if t is None else t.data_ptr() for t in (rule.seen_V, rule.banned_V))
    cuts = (rule.top_k or 0, rule.top_p or 0, rule.min_p or 0)
    return library.Rule(rule.temperature, *cuts, rule.penalty, *tensors)


def _computes_with(head: TiedHead) -> bool:
    return head.device.type == "cpu" and head.weight.dtype == torch.float32


class NativeTokens(ClassedTokens):
    """The distribution after a native step by a head with classes.

    Args:
        head: The head.
        stream_BLD: The residual stream of one token, (1, 1, D).
        native: The step.
    """

    def __init__(self, head: VocabularyColumns, stream_BLD: Tensor, native: NativeStep) -> None:
        self.vocab, self.width, self.device = head.vocab, head.width, head.device
        self._head, self._stream_BLD, self._native = head, stream_BLD, native

    def choose(self, rule: Rule, uniform: Callable[[], float]) -> int | None:
        # The native search does not say how many rows it read.
        if self._head.rows_read is not None:
            return None
        token = self._native.choose(self._stream_BLD, rule, uniform)
        return None if token == library.UNDECIDED else token

    @cached_property
    def _plain(self) -> ClassedTokens:
        """The same without native choices."""
        return self._head.next_tokens(rms_norm(self._stream_BLD[:, 0]))

    def logits(self) -> Tensor:
        return self._plain.logits()

    def class_log_probs(self, row: int) -> Tensor:
        return self._plain.class_log_probs(row)

    def words(self, row: int, number: int) -> tuple[Tensor, Tensor]:
        return self._plain.words(row, number)
