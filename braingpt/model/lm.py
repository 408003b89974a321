"""The shell that all architectures share: embedding, blocks, norm, tied head.

It runs whole sequences and single steps; what a model counts about itself is `arithmetic.py`.

Contracts, each a property test over every architecture: causal in train and eval mode; `step` equals
`forward`; alone equals in a batch; padding and packed neighbours change nothing.

Legend: B batch, L tokens, D hidden, N selected tokens, V vocabulary.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from braingpt.device.compile import compile_function
from braingpt.errors import UserError
from braingpt.model.arithmetic import ModelArithmetic
from braingpt.model.batch_checks import check_batch, check_state_fits, outside_vocabulary
from braingpt.model.blocks import BLOCKS
from braingpt.model.columns.competition import Competition
from braingpt.model.config import ModelConfig, V1Config, V2Config
from braingpt.model.heads.build import build_head
from braingpt.model.heads.head import AllTokens, NextTokens, next_token_loss
from braingpt.model.heads.softmax import TiedEmbedding
from braingpt.model.interface import Output, State
from braingpt.model.layers import rms_norm
from braingpt.model.memory.lexical import LexicalMemory
from braingpt.model.memory_limits import require_weights
from braingpt.model.native_step import NativeStep
from braingpt.model.routing.adaptive_depth import Exit, continue_rate, set_effort
from braingpt.model.routing.early_exit import EarlyExit
from braingpt.model.sequence_layout import Layout
from braingpt.utils.arguments import whole_number

if TYPE_CHECKING:
    from braingpt.inference.sampling import SamplingOptions
    from braingpt.recipes import Recipe


class LanguageModel(ModelArithmetic):
    """A causal language model of any of the three architectures."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = build_head(config)
        blocks = [BLOCKS[config.architecture](config, layer) for layer in range(config.layers)]
        self.blocks = nn.ModuleList(blocks)  # pyright: ignore[reportAttributeAccessIssue]
        self.depth_rate = 1.0
        if isinstance(config, V2Config) and config.depth_exits:
            self.depth_rate = continue_rate(config.depth.share, config.depth_exits, config.layers)
        exits = [Exit(config.hidden, self.depth_rate) for _ in config.depth_exits]
        self.exits = nn.ModuleList(exits)  # pyright: ignore[reportAttributeAccessIssue]
        self.spans = list(pairwise((0, *config.depth_exits, config.layers)))
        self.lexical = LexicalMemory.of(config)
        self._compiled_head: Callable[[Tensor], Tensor] | None = None
        self._native_step: NativeStep | None = None
        # The token that ends a text; None while the model has no tokenizer.
        self.end_of_text: int | None = None
        self.early = EarlyExit(config.early_exit, config.layers) if isinstance(config, V1Config) else None

    def forward(
        self,
        ids_BL: Tensor,
        targets_BL: Tensor | None = None,
        state: State | None = None,
        segments_BL: Tensor | None = None,
        reduction: str = "mean",
        last: bool = False,
        at_BL: Tensor | None = None,
        distribution: bool = False,
    ) -> Output:
        """Run whole sequences, to logits or to a loss.

        Args:
            ids_BL: Token ids.
            targets_BL: The tokens that follow, for a loss instead of logits; -100 is ignored.
            state: From `new_state`: the sequences continue the tokens it has read, and the state is advanced.
            segments_BL: Numbers of the documents packed into a row, rising, -1 at padding; None: each row is
                one document. With a state, padding is on the left and each row is one document.
            reduction: "mean" over the targets that count, or "none".
            last: Return logits of the last token only.
            at_BL: Return logits only of the N tokens where this is true.
            distribution: Return the distribution of the token after each row instead of logits.

        Returns:
            Logits (B, L, V), (B, 1, V) with `last` or (N, V) with `at_BL`; or the loss in nats, a scalar or
            (B, L) with "none"; or the distribution; and the state.

        Raises:
            UserError: Ids or targets are no tokens (B, L), a token is outside the vocabulary (seen on a CPU),
                `reduction` is unknown, the state is for other rows, or segments do not go with a state.
        """
        check_batch(ids_BL, targets_BL, reduction)
        x_BLD = self._hidden(ids_BL, state, segments_BL)
        if distribution:
            return Output(next_tokens=self._next_tokens(x_BLD), state=state)
        if targets_BL is None:
            x_BLD = x_BLD[:, -1:] if last else x_BLD if at_BL is None else x_BLD[at_BL]
            one = x_BLD.shape[:-1] == (1, 1)
            head = self._compiled_head if self._compiled_head and one else self._head
            return Output(logits=head(x_BLD), state=state)
        middle_BLD, middle_weight = None, 0.0
        if self.early is not None and self.early.middle is not None:
            middle_BLD, middle_weight = rms_norm(self.early.middle), self.early.config.loss
            self.early.middle = None
        x_BLD = rms_norm(x_BLD)
        loss = next_token_loss(self.embedding, x_BLD, targets_BL, reduction, middle_BLD, middle_weight)
        return Output(loss=loss, state=state)

    def next_tokens(self, ids_BL: Tensor, state: State, segments_BL: Tensor | None = None) -> NextTokens:
        """As `CausalModel.next_tokens`; the head computes no more of the vocabulary than is asked for."""
        native = self._native_step
        # `forward` does the same, with checks and branches that take as long as a small layer.
        if native and native.accepts(ids_BL, state, segments_BL):
            return self._next_tokens(native.hidden(ids_BL, state))
        found = self(ids_BL, state=state, segments_BL=segments_BL, distribution=True).next_tokens
        assert found is not None
        return found

    def _next_tokens(self, x_BLD: Tensor) -> NextTokens:
        """The distribution after the last token, from states before the last norm."""
        x_B1D = x_BLD[:, -1:]
        if self._compiled_head and len(x_B1D) == 1:
            return AllTokens(self._compiled_head(x_B1D)[:, 0])
        native = self._native_step
        return (native and native.next_tokens(x_B1D)) or self.embedding.next_tokens(rms_norm(x_B1D[:, 0]))

    def _hidden(self, ids_BL: Tensor, state: State | None, segments_BL: Tensor | None) -> Tensor:
        """(B, L, D) states after the last layer, before the last norm."""
        native = self._native_step
        if native and state and native.accepts(ids_BL, state, segments_BL):
            return native.hidden(ids_BL, state)
        layout = Layout.of(ids_BL, segments_BL, None if state is None else state.seen_B)
        try:
            x_BLD = rms_norm(self.embedding(ids_BL))
        except IndexError:
            raise outside_vocabulary("token", ids_BL, self.config.vocab) from None
        if state is not None:
            check_state_fits(len(state.seen_B), len(ids_BL), layout)
        if self.lexical is not None:
            self.lexical(ids_BL, layout, state)
        if state is not None:
            new = ids_BL.shape[1] if layout.valid is None else layout.valid.sum(1)
            state.seen_B, state.used_B = state.seen_B + new, state.used_B + new * self.spans[0][1]
        if self.early is None:
            return self._all_blocks(x_BLD, layout, state)
        return self._blocks_to_early_exits(self.early, x_BLD, layout, state)

    def _head(self, x_BLD: Tensor) -> Tensor:
        return self.embedding.logits(rms_norm(x_BLD))

    def _all_blocks(self, x_BLD: Tensor, layout: Layout, state: State | None) -> Tensor:
        """All blocks, or those that the exits of adaptive depth leave to each token."""
        return self._from_exit(0, self._span(0, x_BLD, layout, state), layout, state)

    def _span(self, number: int, x_BLD: Tensor, layout: Layout, state: State | None) -> Tensor:
        """The blocks between two exits."""
        for i in range(*self.spans[number]):
            x_BLD = x_BLD if self.lexical is None else self.lexical.read(i, x_BLD, layout)
            x_BLD = self.blocks[i](x_BLD, layout, None if state is None else state.layers[i])
        return x_BLD

    def _from_exit(self, number: int, x_BLD: Tensor, layout: Layout, state: State | None) -> Tensor:
        """An exit, and all that follows for the tokens that continue."""
        if number == len(self.exits):
            return x_BLD
        x_BLD, count_B = self.exits[number](
            x_BLD,
            layout,
            lambda x, inside: self._span(number + 1, x, inside, state),
            lambda x, inside: self._from_exit(number + 1, x, inside, state),
        )
        if state is not None:
            begin, end = self.spans[number + 1]
            state.used_B = state.used_B + count_B * (end - begin)
        return x_BLD

    def _blocks_to_early_exits(
        self, early: EarlyExit, x_BLD: Tensor, layout: Layout, state: State | None
    ) -> Tensor:
        """All blocks in training, and where no token leaves; else each token's blocks up to its exit."""
        if self.training and torch.is_grad_enabled() and state is None:
            return early.forward_training(self.blocks, x_BLD, layout)
        if early.threshold is None:
            return self._all_blocks(x_BLD, layout, state)
        layers = None if state is None else state.layers
        x_BLD, used_B = early.forward_to_exits(self.blocks, x_BLD, layout, layers, self._head)
        new = x_BLD.shape[1] if layout.valid is None else layout.valid.sum(1)
        early.count(used_B, new)
        if state is not None:
            # `forward` has counted all layers for the new tokens.
            state.used_B = state.used_B + used_B - new * len(self.blocks)
        return x_BLD

    def set_exit_threshold(self, threshold: float | None) -> None:
        """Let tokens leave early from now on.

        Args:
            threshold: Probability of the likeliest next token at which a token leaves; None: no token leaves.

        Raises:
            UserError: The model has no early exit, or the threshold is not a probability.
        """
        if self.early is not None:
            self.early.set_threshold(threshold)
        elif threshold is not None:
            raise UserError("--exit-threshold is for v1; use --effort with v2 (dense has neither)")

    def set_effort(self, share: float | None) -> None:
        """Choose how deep tokens go from now on.

        Args:
            share: Mean share of the layers that a token passes; None: the trained share.

        Raises:
            UserError: The model has no exits, or its exits cannot give the share.
        """
        set_effort(self.exits, self.config, share)
        if self._native_step is not None:
            self._native_step.renew()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.embedding.device

    def to_int8(self) -> None:
        """Hold linear maps, columns and the head as int8 from now on, for decoding: a quarter of the bytes.

        The model can no longer be trained or saved.
        """
        routers = {id(module.router) for module in self.modules() if isinstance(module, Competition)}
        for module in list(self.modules()):
            to_int8 = getattr(module, "to_int8", None)
            if callable(to_int8) and module is not self and id(module) not in routers:
                to_int8()

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile the blocks' forward and backward passes with torch.compile, for training.

        The first step then takes some minutes.

        Args:
            backend: A backend of torch.compile.
        """
        for block in self.blocks:
            block.compile_forward(backend)

    def compile_steps(self, backend: str | None = None) -> None:
        """Compile steps of one row, for generation; all else runs as before.

        Args:
            backend: A backend of torch.compile, with which the first steps take half a minute or more.
                None: the native step (`native_step.py`), or Inductor for models without one.
        """
        self._native_step = NativeStep.of(self) if backend is None else None
        if self._native_step is None:
            for part in filter(None, (self.lexical, *self.blocks)):
                part.compile_step(backend or "inductor")
        # A head with classes computes a few rows only, which depend on the token.
        if isinstance(self.embedding, TiedEmbedding):
            native = self._native_step and self._native_step.logits
            self._compiled_head = native or compile_function(self._head, backend or "inductor")

    def new_state(self, batch: int = 1) -> State:
        """An empty state, for `forward` and `step`.

        Args:
            batch: Rows.
        """
        batch, device = whole_number("the number of rows", batch, 1), self.device
        if self._native_step is not None:
            self._native_step.renew()
        past_BP = None if self.lexical is None else self.lexical.new_past(batch, device)
        layers = [block.mixer.new_state(batch, device, self.embedding.weight.dtype) for block in self.blocks]
        seen_B = torch.zeros(batch, dtype=torch.long, device=device)
        return State(layers, seen_B, seen_B, past_BP)

    def generate(
        self,
        ids: Sequence[int],
        max_new_tokens: int = 100,
        *,
        stop: Collection[int] | None = None,
        banned: Collection[int] = (),
        **sampling: "Unpack[SamplingOptions]",
    ) -> list[int]:
        """Generate after a prompt.

        Args:
            ids: The prompt's token ids, at least one.
            max_new_tokens: Largest number of new tokens.
            banned, **sampling: As in `braingpt.inference.engine.stream`.
            stop: Tokens that end the text; they are not returned. None: the end of text, in a model that was
                loaded with its tokenizer. An empty list: generation continues behind it.

        Returns:
            The new token ids.

        Raises:
            UserError: The prompt is empty, an id is outside the vocabulary, or a setting is out of range.
        """
        from braingpt.inference.engine import generate

        if stop is None:
            stop = () if self.end_of_text is None else (self.end_of_text,)
        return generate(self, ids, max_new_tokens, stop=stop, banned=banned, **sampling)

    def after_step(self) -> None:
        """Update what follows training slowly: thresholds, balance, 2:4 masks.

        The trainer calls it after every optimizer step.
        """
        for module in self.modules():
            after_step = getattr(module, "after_step", None)
            if callable(after_step) and module is not self:
                after_step()


def build(recipe: "Recipe | ModelConfig", seed: int = 0) -> LanguageModel:
    """Build a fresh model.

    Args:
        recipe: A recipe, or the configuration of a model.
        seed: Seed of the initial weights; the same seed gives the same weights.

    Returns:
        The model in float32 on the CPU, in train mode.

    Raises:
        UserError: `recipe` is neither a recipe nor a configuration, or its weights do not fit into memory.
    """
    config: Any = getattr(recipe, "model", recipe)
    if getattr(config, "architecture", None) not in BLOCKS:
        raise UserError(
            f"cannot build a model from {type(recipe).__name__}; "
            "give a recipe (braingpt.load_recipe) or a model configuration"
        )
    seed = whole_number("seed", seed, -(2**63))
    if torch.get_default_device().type != "meta":
        require_weights(config, torch.device("cpu"))
    # Tensors made in inference mode could not be trained.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(config)
