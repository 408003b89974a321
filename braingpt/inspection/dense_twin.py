"""What sparsity saves on this machine: time and bytes of each part of a model against the same part of a
dense model.

The yardstick is a dense twin: as many layers of the same width, full attention with as many heads, an MLP of
all the columns' neurons, fresh weights. Both models read the same text in turns, once as a whole, to a loss
(*reading*), and then token by token, to the likeliest next one (*writing*); times are the lowest of several
rounds. Bytes are counted as the operations of torch and our Triton kernels run, from the tensors they read
and write, weights among them. A lookup reads its rows, not its table, and columns that no token won are not
read. So a layer that computes everything and multiplies by a mask shows the time and the bytes of a dense
one, whatever its own counters say. Kernels of other libraries (`UNCOUNTED_BACKENDS`) cannot be counted: where
they run, bytes are not known.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from braingpt.device.eval_mode import eval_mode
from braingpt.inference.sampling import Sampler, Sampling
from braingpt.kernels import dispatch
from braingpt.kernels.launch import count_launches, stored_bytes
from braingpt.model.config import DenseConfig
from braingpt.model.lm import LanguageModel, build
from braingpt.model.work_counters import WorkCounters

# Tokens written.
STEPS = 16
# Rounds, of which the lowest time counts.
ROUNDS = 8
PARTS = ("mixer", "mlp")
# Operations that move nothing, though torch does not call them views.
MOVES_NOTHING = {"detach", "empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view"}
# Backends of the scan whose kernels belong to other libraries.
UNCOUNTED_BACKENDS = ("fla", "mamba-ssm")
# Operations that read the rows they return, not their whole input.
LOOKUPS = {
    "embedding",
    "index_select",
    "index",
    "gather",
    "take",
    "_index_put_impl_",
    "index_put_",
    "index_copy_",
    "scatter_",
}

# Makes a pass over the model: a call that reads the ids (1, L), or writes after them.
PassMaker = Callable[[LanguageModel, Tensor], Callable[[], Any]]


@dataclass(frozen=True)
class DenseComparison:
    """One part of one layer, or the whole model with its head.

    Each figure is a share of the dense twin's; None where not known.
    """

    # None: the whole model.
    layer: int | None
    part: str
    # Arithmetic by the model's closed forms.
    promised: float | None
    # Arithmetic by the layers' counters while the model read.
    counted: float | None
    reading_time: float
    reading_bytes: float | None
    writing_time: float
    writing_bytes: float | None


@dataclass
class PassCost:
    """What one pass over the model takes, in seconds, bytes or operations."""

    # By (layer, part).
    parts: dict[tuple[int, str], float]
    whole: float


def dense_twin(model: LanguageModel) -> LanguageModel:
    """The dense model that `model` is compared with: fresh weights, on the model's device, in its type."""
    config = model.config
    if isinstance(config, DenseConfig):
        mlp = config.mlp
    else:
        columns = config.columns
        mlp = (columns.count + getattr(columns, "shared", 0)) * columns.width
    shape = {name: getattr(config, name) for name in ("layers", "hidden", "heads", "vocab", "rope_base")}
    return build(DenseConfig(**shape, mlp=mlp, kv_heads=getattr(config, "kv_heads", None))).to(
        model.device, model.embedding.weight.dtype
    )


def compare_with_twin(
    model: LanguageModel, ids: list[int], context: int, rounds: int = ROUNDS
) -> list[DenseComparison]:
    """Compare each part of each layer, then the whole model, with a dense twin.

    Args:
        model: The model to measure.
        ids: Tokens of a text; the first window is read, and generation continues after it.
        context: Tokens of the window.
        rounds: Rounds, of which the lowest times count; one more comes before them.

    Returns:
        A row for each (layer, part), the whole model last.
    """
    twin = dense_twin(model)
    ids_1L = torch.tensor([ids[:context]], device=model.device)
    visible = dispatch.select("scan", model.embedding.weight) not in UNCOUNTED_BACKENDS
    with eval_mode(model), eval_mode(twin):
        seconds = {(who, how): [] for who in (model, twin) for how in (_read, _write)}
        for _ in range(rounds + 1):
            for (who, how), found in seconds.items():
                found.append(_timed(who, how, ids_1L))
        # The first round loads what is loaded on first use.
        times = {key: _lowest(found[1:]) for key, found in seconds.items()}
        sizes = {key: _bytes_moved(*key, ids_1L) if visible else None for key in seconds}
        counts = {who: _arithmetic(who, ids_1L) for who in (model, twin)}
    keys: list[tuple[int, str] | None] = [
        (layer, part) for layer in range(len(model.blocks)) for part in PARTS
    ]
    return [_share(model, twin, key, ids_1L.shape[1], times, sizes, counts) for key in [*keys, None]]


def _share(
    model: LanguageModel,
    twin: LanguageModel,
    key: tuple[int, str] | None,
    length: int,
    times: dict[tuple[LanguageModel, PassMaker], PassCost],
    sizes: dict[tuple[LanguageModel, PassMaker], PassCost | None],
    counts: dict[LanguageModel, PassCost],
) -> DenseComparison:
    """The row of one part; `key` None: of the whole model."""

    def ratio(own: PassCost, dense: PassCost) -> float:
        return own.whole / dense.whole if key is None else own.parts.get(key, 0.0) / dense.parts[key]

    def time_ratio(how: PassMaker) -> float:
        return ratio(times[model, how], times[twin, how])

    def bytes_ratio(how: PassMaker) -> float | None:
        own, dense = sizes[model, how], sizes[twin, how]
        return None if own is None or dense is None else ratio(own, dense)

    if key is None:
        promised = model.flops_per_token(length) / twin.flops_per_token(length)
    else:
        promised = _promised_operations(model, *key, length) / _promised_operations(twin, *key, length)
    layer, part = key or (None, "model")
    return DenseComparison(
        layer=layer,
        part=part,
        promised=promised,
        counted=ratio(counts[model], counts[twin]),
        reading_time=time_ratio(_read),
        reading_bytes=bytes_ratio(_read),
        writing_time=time_ratio(_write),
        writing_bytes=bytes_ratio(_write),
    )


def _promised_operations(model: LanguageModel, layer: int, part: str, length: int) -> float:
    """Operations that a token of the text costs in a part on average, by the model's closed forms."""
    arriving = model.arriving()[layer]
    block = model.blocks[layer]
    return arriving * (block.mlp.flops() if part == "mlp" else block.mixer.flops(max(1, arriving * length)))


def _read(model: LanguageModel, ids_1L: Tensor) -> Callable[[], Any]:
    # To a loss, for which no head needs the logits of all tokens.
    return lambda: model(ids_1L, ids_1L.roll(-1, 1), reduction="none")


def _write(model: LanguageModel, ids_1L: Tensor) -> Callable[[], Any]:
    state, greedy = model.new_state(1), Sampler(Sampling(0.0))
    model(ids_1L, state=state, last=True)
    return lambda: [greedy(model.next_tokens(ids_11, state)) for ids_11 in ids_1L[:, -STEPS:].split(1, 1)]


def _timed(model: LanguageModel, how: PassMaker, ids_1L: Tensor) -> PassCost:
    now, run, found = _clock(model.device), how(model, ids_1L), PassCost({}, 0.0)
    with _watching(model, now, found):
        began = now()
        run()
        found.whole = now() - began
    return found


def _clock(device: torch.device) -> Callable[[], float]:
    """A clock that waits until the device has done its work."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


@contextmanager
def _watching(model: LanguageModel, now: Callable[[], float], found: PassCost) -> Iterator[None]:
    """Add to `found` what `now` rises by inside each mixer and MLP."""
    began: dict[tuple[int, str], float] = {}

    def before(key: tuple[int, str]):
        def hook(_module: nn.Module, _args: tuple[Any, ...]) -> None:
            began[key] = now()

        return hook

    def after(key: tuple[int, str]):
        def hook(_module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
            found.parts[key] = found.parts.get(key, 0.0) + now() - began[key]

        return hook

    hooks = []
    for layer, block in enumerate(model.blocks):
        for part in PARTS:
            module = getattr(block, part)
            hooks += [
                module.register_forward_pre_hook(before((layer, part))),
                module.register_forward_hook(after((layer, part))),
            ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _lowest(found: list[PassCost]) -> PassCost:
    """The lowest of each part by itself: other programs on the machine only ever add time."""
    parts = {key: min(one.parts.get(key, 0.0) for one in found) for key in found[0].parts}
    return PassCost(parts, min(one.whole for one in found))


def _bytes_moved(model: LanguageModel, how: PassMaker, ids_1L: Tensor) -> PassCost:
    run, found, moved = how(model, ids_1L), PassCost({}, 0.0), ByteCounter()
    with _watching(model, lambda: moved.bytes, found), moved, count_launches(moved.add):
        run()
    found.whole = moved.bytes
    return found


class ByteCounter(TorchDispatchMode):
    """Counts the bytes that operations read and write.

    Views move nothing; an expanded tensor is read once; a lookup reads the rows that it returns. Our kernels
    report their bytes to `add`; an operator that is made of them is not counted by its arguments as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def add(self, moved: int) -> None:
        """Count bytes that a kernel reports."""
        self.bytes += moved

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = self.bytes
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if self.bytes == before and not func.is_view and name not in MOVES_NOTHING:
            written = [stored_bytes(leaf) for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self.bytes += sum(written) + (sum(written) if name in LOOKUPS else sum(map(stored_bytes, read)))
        return out


def _arithmetic(model: LanguageModel, ids_1L: Tensor) -> PassCost:
    """Operations that the layers count while the model reads, by part."""
    records = {
        (layer, part): WorkCounters(layer, part) for layer in range(len(model.blocks)) for part in PARTS
    }
    parts = [
        (m, r)
        for (layer, part), r in records.items()
        for m in getattr(model.blocks[layer], part).modules()
        if hasattr(m, "record")
    ]
    for module, record in parts:
        module.record = record
    try:
        model(ids_1L)
    finally:
        for module, _ in parts:
            module.record = None
    head = 2 * model.embedding.parameters_active() * ids_1L.numel()
    if model.lexical is not None:
        head += model.lexical.flops() * ids_1L.numel()
    return PassCost(
        {key: float(record.flops) for key, record in records.items()},
        head + sum(record.flops for record in records.values()),
    )
