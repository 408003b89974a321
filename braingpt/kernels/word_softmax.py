"""The second half of a vocabulary in classes: log p(word | class), by multiplying with the class's rows only.

Tokens are sorted by their class, so each class multiplies consecutive rows with its own words.
The scores of all tokens fill one buffer (N, S), a hundredth of the logits of a whole vocabulary.
The forward pass turns that buffer into the gradient of the scores, which is all that the backward pass needs
beside the inputs.
The products are those of columns (`columns/torch_products.py`, `columns/triton_products.py`).

Legend: N tokens, C classes, S words a class, D hidden.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from braingpt.kernels import dispatch
from braingpt.kernels.columns.mkl_products import MKLBatch, mkl_supports, mkl_unavailable_reason
from braingpt.kernels.columns.pairs import Pairs
from braingpt.kernels.columns.torch_products import (
    ColumnProducts,
    GroupedMM,
    PerColumn,
    grouped_mm_supports,
    grouped_mm_unavailable_reason,
)
from braingpt.kernels.dispatch import Backend, OptionalFunction
from braingpt.kernels.uncompiled import uncompiled

_triton_products = OptionalFunction("braingpt.kernels.columns.triton_products", "TritonProducts")
_PRODUCTS: dict[str, Callable[[Tensor], ColumnProducts]] = {
    "triton": _triton_products,
    "torch.grouped_mm": GroupedMM,
    "MKL batch": MKLBatch,
    "per class": PerColumn,
}


def reference(x_ND: Tensor, weight_CSD: Tensor, class_N: Tensor, word_N: Tensor, padding: int) -> Tensor:
    """`word_log_probs` by its definition, with the scores of all words; autograd computes the gradients."""
    score_NCS = (x_ND @ weight_CSD.flatten(0, 1).T).unflatten(1, weight_CSD.shape[:2])
    score_NS = score_NCS[torch.arange(len(x_ND), device=x_ND.device), class_N]
    return _log_softmax(score_NS, class_N, len(weight_CSD), padding).gather(1, word_N[:, None])[:, 0]


@uncompiled
def word_log_probs(
    x_ND: Tensor, weight_CSD: Tensor, class_N: Tensor, word_N: Tensor, padding: int = 0
) -> Tensor:
    """Log-probabilities of words within their classes.

    Args:
        x_ND: Inputs of the head.
        weight_CSD: The rows of each class's words.
        class_N: Class of each token's word.
        word_N: Place of the word in its class.
        padding: Rows at the end of the last class that hold no word.

    Returns:
        Nats (N,), at most 0, in float32 at least.
    """
    name = _backend(x_ND, weight_CSD)
    if name == "torch":
        return reference(x_ND, weight_CSD, class_N, word_N, padding)
    return _WordLogProbs.apply(x_ND, weight_CSD, class_N, word_N, padding, name)


def _backend(x_ND: Tensor, weight_CSD: Tensor) -> str:
    """The machine's best backend for the tensors' device and type that also takes the weight's shape."""
    name = dispatch.select("word_softmax", x_ND)
    # torch's grouped product takes rows of whole 16 bytes only.
    if name == "torch.grouped_mm" and any(size * x_ND.dtype.itemsize % 16 for size in weight_CSD.shape[1:]):
        return "per class"
    if name == "MKL batch" and not mkl_supports(x_ND):
        return "per class"
    return name


class _WordLogProbs(torch.autograd.Function):
    """Log-probabilities (N,); the forward pass makes the gradient of the scores."""

    @staticmethod
    def forward(
        ctx, x_ND: Tensor, weight_CSD: Tensor, class_N: Tensor, word_N: Tensor, padding: int, name: str
    ) -> Tensor:
        pairs = Pairs.of(class_N[:, None], len(weight_CSD))
        products = _PRODUCTS[name](pairs.start)
        sorted_ND = x_ND.index_select(0, pairs.order)
        # Triton's products read weights of any type.
        read = weight_CSD.dtype if name == "triton" else x_ND.dtype
        score_NS = products.times(sorted_ND, weight_CSD.to(read).mT)
        log_NS = _log_softmax(score_NS, class_N[pairs.order], len(weight_CSD), padding)
        chosen_N1 = word_N[pairs.order, None]
        log_N = log_NS.gather(1, chosen_N1)[:, 0].index_select(0, pairs.place[:, 0])
        if any(ctx.needs_input_grad[:2]):
            grad_NS = log_NS.exp_().neg_()
            grad_NS.scatter_add_(1, chosen_N1, torch.ones_like(chosen_N1, dtype=grad_NS.dtype))
            ctx.products, ctx.pairs, ctx.read = products, pairs, read
            ctx.save_for_backward(sorted_ND, weight_CSD, grad_NS.to(x_ND.dtype))
        return log_N

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        sorted_ND, weight_CSD, grad_NS = ctx.saved_tensors
        grad_NS = grad_NS * grad_N[ctx.pairs.order, None].to(grad_NS.dtype)
        grad_x_ND = ctx.products.times(grad_NS, weight_CSD.to(ctx.read))
        grad_weight = torch.empty_like(weight_CSD, dtype=ctx.read)
        ctx.products.outer(grad_NS, sorted_ND, grad_weight)
        grad_x_ND = grad_x_ND.index_select(0, ctx.pairs.place[:, 0])
        return grad_x_ND, grad_weight.to(weight_CSD.dtype), None, None, None, None


def _log_softmax(score_NS: Tensor, class_N: Tensor, classes: int, padding: int) -> Tensor:
    """(N, S) log-probabilities; rows without a word have none."""
    score_NS = score_NS.to(torch.promote_types(score_NS.dtype, torch.float32))
    if padding:
        # A sum over the columns that may be absent; a mask of all scores takes a CPU forty times as long.
        absent_N = torch.zeros_like(score_NS[:, 0]).masked_fill_(class_N == classes - 1, -torch.inf)
        score_NS[:, score_NS.shape[1] - padding :] += absent_N[:, None]
    return torch.log_softmax(score_NS, 1)


dispatch.register(
    "word_softmax",
    Backend("triton", _triton_products.triton_unavailable_reason, dispatch.runs_on_gpu),
    Backend("torch.grouped_mm", grouped_mm_unavailable_reason, grouped_mm_supports),
    Backend("MKL batch", mkl_unavailable_reason, mkl_supports),
    Backend("per class"),
    Backend("torch"),
)
