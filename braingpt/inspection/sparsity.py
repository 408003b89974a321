"""What a model really leaves out, counted layer by layer while the model reads a text.

Every figure is a ratio of two counts that the layers make as they run (`model.recording()`), or of stored
weights; no count comes from the recipe. A share of 100 % means no sparsity. "Computed" is the floating-point
work done over that of the same shape done densely: only this share saves time. V1 silences columns and keys
after computing them, so V1 is sparse and yet computes everything. `promised_sparsity` has what the recipe
promises, and `dense_twin.py` measures time and bytes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from braingpt.data.quality.clean import clean
from braingpt.device.eval_mode import eval_mode
from braingpt.errors import UserError
from braingpt.kernels.sparse_attention.quotas import quotas, reach
from braingpt.model.columns.two_four import TwoFourLinear
from braingpt.model.config import DenseConfig, V1Config, V2Config
from braingpt.model.layers import Linear
from braingpt.model.lm import LanguageModel
from braingpt.model.work_counters import WorkCounters
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.cleaning import check_valid

# Read where the user names no text.
SAMPLE = """대한민국의 수도는 서울이며, 한강이 도시를 가로질러 흐른다. 사람의 뇌에는 약 860억 개의 \
신경세포가 있고,
그 가운데 한순간에 활동하는 것은 몇 퍼센트에 지나지 않는다. 겉질의 기둥들은 서로를 억제하며 경쟁하고, \
이긴 기둥만이 신호를 보낸다.
The cerebral cortex is organised in columns of neurons that respond to \
the same stimulus. Neighbouring columns inhibit each other,
so that only a few of them are active at any moment, and the brain runs on about twenty watts. \
A model that computes only what wins
should need less, too.
"""


@dataclass
class LayerSparsity:
    """One layer, or the sum of several. Shares lie in 0..1; None where the layer has nothing of the kind."""

    # The layer's number; None for the sum over layers.
    layer: int | None
    mixer: str
    tokens: int
    # Share of the tokens that reach this layer; of the sum: the mean share of layers a token passes.
    depth: float
    # Share of the tokens that reach the layer and query in its mixer.
    attended: float | None
    # Share of the query-key pairs allowed by causality that enter a softmax.
    keys_kept: float | None
    dendrites_open: float | None
    columns_active: float | None
    # Columns that won no token of this text.
    columns_dead: int | None
    # Entropy of the tokens won by each column, over that of an even load.
    load_entropy: float | None
    neurons_fired: float | None
    # Share of the matrices' weights that are zero.
    weights_zero: float | None
    # Share of the MLP's groups of four weights along the input that hold two zeros or more.
    two_four: float | None
    # Reads of an associative memory: one a head and token.
    memory_reads: int
    # The reads that also bound more than half of what was new.
    memory_writes: int
    # Arithmetic done over that of the same shape done densely.
    computed: float | None


@dataclass
class SparsityReport:
    """Layers and their sum, over `tokens` tokens read in windows of `context` tokens."""

    tokens: int
    context: int
    layers: list[LayerSparsity]
    total: LayerSparsity
    # What the recipe and the closed forms say of the sum over layers.
    promised: dict[str, float | None]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def sparsity_of_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    language: str | None = None,
    context: int = 256,
    rows: int = 8,
) -> SparsityReport:
    """Count what a model leaves out while it reads a text.

    Args:
        model: Any of the three architectures.
        tokenizer: The model's vocabulary.
        text: The text to read.
        language: The text's language; None: detected.
        context: Tokens a window.
        rows: Windows read at once.

    Returns:
        Shares of each layer and of their sum.

    Raises:
        UserError: The text is empty.
    """
    ids = document_ids(tokenizer, text, language)
    return sparsity_of_tokens(model, ids, context=context, rows=rows)


def document_ids(tokenizer: Tokenizer, text: str, language: str | None = None) -> list[int]:
    """The tokens of a text, cleaned as documents are in preparation.

    Args:
        tokenizer: The model's vocabulary.
        text: The text.
        language: The text's language; None: detected.

    Returns:
        The ids, without an end of text.

    Raises:
        UserError: The text is empty or not valid Unicode.
    """
    check_valid(text)
    text = clean(text)
    if not text:
        raise UserError("the text is empty; there is nothing to inspect")
    return tokenizer.encode(text, language=language or "auto")


def sparsity_of_tokens(
    model: LanguageModel, ids: list[int], *, context: int = 256, rows: int = 8
) -> SparsityReport:
    """`sparsity_of_text` for tokens. Raises UserError where there are none."""
    if not ids:
        raise UserError("there are no tokens to inspect")
    return sparsity_of_windows(model, list(token_windows(ids, context, rows)))


def sparsity_of_windows(model: LanguageModel, windows: Sequence[Tensor]) -> SparsityReport:
    """`sparsity_of_text` for windows (B, L) of tokens."""
    with eval_mode(model), model.recording() as records:
        for ids_BL in windows:
            ids_BL = ids_BL.to(model.device)
            # A loss instead of logits, which would be large.
            model(ids_BL, targets_BL=ids_BL)
    weights = [_weights(block) for block in model.blocks]
    layers = [
        _shares(record.layer, record.mixer, [record], [weight])
        for record, weight in zip(records, weights, strict=True)
    ]
    tokens, longest = sum(window.numel() for window in windows), max(window.shape[1] for window in windows)
    dense = _dense(records) / tokens
    return SparsityReport(
        tokens,
        longest,
        layers,
        _shares(None, "all", records, weights),
        promised_sparsity(model, longest, dense),
    )


def promised_sparsity(model: LanguageModel, context: int, dense: float) -> dict[str, float | None]:
    """What the recipe and the closed forms promise, under the names of `LayerSparsity`.

    Args:
        model: The model.
        context: Tokens a window.
        dense: Operations a token of all layers done densely.

    Returns:
        Shares of the sum over layers; None where recipe and closed forms say nothing.
    """
    config = model.config
    columns = None if isinstance(config, DenseConfig) else config.columns
    attended: float | None = 1.0
    keys: float | None = 1.0
    if isinstance(config, V2Config):
        attention = config.attention
        # A chosen token sees chosen tokens only. Without attention there is nothing to promise.
        attended = attention.rate if attention.layers else None
        keys = attention.rate**2 if attention.layers else None
    elif isinstance(config, V1Config):
        reach_1L = reach(None, context, context, torch.device("cpu"))
        quota_L = quotas(reach_1L, config.attention.keep, config.attention.floor)
        keys = float(quota_L.sum() / reach_1L.sum())
    shared = getattr(columns, "shared", 0)
    halved = sum(module.weight.numel() for module in model.modules() if isinstance(module, TwoFourLinear))
    arriving = model.arriving()
    work = sum(
        s * (b.mixer.flops(max(1, s * context)) + b.mlp.flops())
        for s, b in zip(arriving, model.blocks, strict=True)
    )
    if model.lexical is not None:
        work += model.lexical.flops()
    return {
        "depth": sum(arriving) / config.layers,
        "attended": attended,
        "keys_kept": keys,
        "columns_active": (columns.active + shared) / (columns.count + shared) if columns else None,
        "weights_zero": halved
        / 2
        / sum(p.numel() for block in model.blocks for p in block.parameters() if p.ndim >= 2),
        "two_four": 1.0 if halved else None,
        "computed": work / dense,
    }


def token_windows(ids: list[int], context: int, rows: int) -> Iterator[Tensor]:
    """(B, L) windows that hold every token once.

    Padding would be counted, so the tokens that fill no window are a shorter window of their own.
    """
    whole = len(ids) // context * context
    if whole:
        yield from torch.tensor(ids[:whole]).view(-1, context).split(rows)
    if whole < len(ids):
        yield torch.tensor([ids[whole:]])


def _weights(block: nn.Module) -> tuple[int, int, int, int]:
    """Zero weights and weights of a block's matrices, after a 2:4 mask where there is one; then, of the MLP's
    groups of four along the input, those with two zeros or more, and all groups.
    """
    zero = total = kept = fours = 0
    with torch.inference_mode():
        for name, module in block.named_modules():
            for parameter in module.parameters(recurse=False):
                if parameter.ndim < 2:
                    continue
                weight = parameter
                if isinstance(module, Linear) and parameter is module.weight:
                    weight = module.effective_weight()
                zero += int((weight == 0).sum())
                total += weight.numel()
                if name.split(".")[-1] in ("up", "down") and weight.shape[-1] % 4 == 0:
                    four = (weight.unflatten(-1, (-1, 4)) == 0).sum(-1) >= 2
                    kept, fours = kept + int(four.sum()), fours + four.numel()
    return zero, total, kept, fours


def _shares(
    layer: int | None, mixer: str, records: list[WorkCounters], weights: list[tuple[int, ...]]
) -> LayerSparsity:
    def share(part: str, whole: str) -> float | None:
        # A layer that has nothing of the kind (a Mamba mixer has no keys) is left out of the sum too.
        having = [record for record in records if getattr(record, whole)]
        return (
            sum(getattr(r, part) for r in having) / sum(getattr(r, whole) for r in having) if having else None
        )

    attending = [record for record in records if record.keys_possible]
    tokens = sum(record.arrived for record in attending)
    loads = [record.column_load for record in records if record.column_load is not None]
    entropies = [entropy for load in loads if (entropy := _entropy(load)) is not None]
    zero, total, kept, fours = map(sum, zip(*weights, strict=True))
    return LayerSparsity(
        layer=layer,
        mixer=mixer,
        tokens=records[0].tokens,
        depth=sum(record.arrived for record in records) / sum(record.tokens for record in records),
        attended=sum(record.attended for record in attending) / tokens if tokens else None,
        keys_kept=share("keys_kept", "keys_possible"),
        dendrites_open=share("dendrites_open", "dendrites"),
        columns_active=share("columns_active", "columns"),
        columns_dead=sum(int((load == 0).sum()) for load in loads) if loads else None,
        load_entropy=sum(entropies) / len(entropies) if entropies else None,
        neurons_fired=share("neurons_fired", "neurons"),
        weights_zero=zero / total if total else None,
        two_four=kept / fours if fours else None,
        memory_reads=sum(record.memory_reads for record in records),
        memory_writes=sum(record.memory_writes for record in records),
        computed=_computed(records),
    )


def _computed(records: list[WorkCounters]) -> float | None:
    """Work done over that of dense layers that all tokens go through."""
    dense = _dense(records)
    return sum(record.flops for record in records) / dense if dense else None


def _dense(records: list[WorkCounters]) -> float:
    """Work of dense layers that all tokens go through.

    A layer counts its dense work for the tokens that arrive.
    """
    return sum(record.flops_dense * record.tokens / record.arrived for record in records if record.arrived)


def _entropy(load_E: Tensor) -> float | None:
    """Entropy of the load over ln(columns): 1 when all columns win equally often.

    None for a single column or no load.
    """
    if load_E.numel() < 2 or not load_E.any():
        return None
    share_E = load_E.double() / load_E.sum()
    return float(-torch.special.xlogy(share_E, share_E).sum()) / math.log(load_E.numel())
