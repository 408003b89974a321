"""Which parameter is stepped how: matrices decay, everything else does not; matrices may take Muon's step.

Decay pulls products toward zero, which means something for matrices only; gains, biases, the embedding (its
rows are looked up, and it is the head as well) and learned inhibition keep what they learn. The fused step
runs on CPU and GPU alike; over 60M parameters on two CPU cores it takes 0.06 s, the plain one 0.2 s and the
`foreach` one 0.3 s.
"""

from collections.abc import Iterator

import torch

from braingpt.distributed.sharded_tensors import is_sharded, own_rows, sharded_like
from braingpt.optim.adamw8bit import BLOCK, adamw8bit, in_8_bits, requantised, restored, stored
from braingpt.optim.muon import Muon
from braingpt.recipes import TrainConfig

# what the two optimizers keep of a parameter
STATE = ("step", "exp_avg", "exp_avg_sq", "momentum")
# ends of parameter names
NEVER_DECAYED = ("embedding.weight", "inhibition", "bias")
NOT_ORTHOGONAL = ("conv", "router.weight", "gate.weight")


def decays(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether weight decay applies to the parameter called `name`."""
    return parameter.ndim >= 2 and not name.endswith(NEVER_DECAYED)


def trainable(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """(name, parameter) of everything that learns; a tied parameter comes once, under its first name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def orthogonalises(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether Muon suits the parameter called `name`: a true matrix between wide spaces, not a router, a gate
    or a short filter.
    """
    return decays(name, parameter) and not name.endswith(NOT_ORTHOGONAL)


# by weight decay and rate
Grouped = dict[tuple[float, float], list[torch.nn.Parameter]]


class Optimizers:
    """Optimizers of different kinds over different parameters of one model, stepped as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    def step(self, skip: torch.Tensor | None = None) -> None:
        """One step of each; none where `skip` is 1.0, which the fused optimizers ask on the device itself and
        Muon waits for.
        """
        for optimizer in self.optimizers:
            if optimizer.defaults.get("fused"):
                # The name under which torch's gradient scaler hands it over; weights may rest on the host.
                optimizer.found_inf = (
                    None if skip is None else skip.to(optimizer.param_groups[0]["params"][0].device)
                )
                optimizer.step()
                # The fused step leaves versions as they were, by which what is made of weights and kept (2:4
                # pruned ones) is found outdated.
                torch.autograd.graph.increment_version(
                    [p for group in optimizer.param_groups for p in group["params"]]
                )
            elif skip is None or not skip:
                optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    @property
    def param_groups(self) -> list[dict]:
        """Those of all, in order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]


def build_optimizer(model: torch.nn.Module, config: TrainConfig) -> Optimizers:
    """AdamW, alone or beside Muon or its own 8-bit form, over the model's trainable parameters, which must
    already lie on their device.
    """
    adamw: Grouped = {}
    eight: Grouped = {}
    # by the matrices in one parameter
    muon: dict[int, list[torch.nn.Parameter]] = {}
    for name, parameter in trainable(model):
        if config.optimizer == "muon" and orthogonalises(name, parameter):
            joint = name.endswith("qkv.weight") and parameter.shape[0] == 3 * parameter.shape[1]
            muon.setdefault(3 if joint else 1, []).append(parameter)
        else:
            decay = config.weight_decay if decays(name, parameter) else 0.0
            rate = config.embedding_rate if name == "embedding.weight" else 1.0
            group = eight if config.optimizer == "adamw8bit" and in_8_bits(name) else adamw
            group.setdefault((decay, rate), []).append(parameter)
    first = torch.optim.AdamW(_groups(adamw), lr=config.lr, betas=config.betas, eps=1e-8, fused=True)
    if eight:
        small = adamw8bit(next(model.parameters()).device)
        return Optimizers(
            first, small(_groups(eight), lr=config.lr, betas=config.betas, eps=1e-8, block_size=BLOCK)
        )
    if not muon:
        return Optimizers(first)
    groups = [{"params": parameters, "parts": parts} for parts, parameters in muon.items()]
    return Optimizers(first, Muon(groups, lr=config.lr, weight_decay=config.weight_decay))


def _groups(by_settings: Grouped) -> list[dict]:
    return [
        {"params": parameters, "weight_decay": decay, "rate": rate}
        for (decay, rate), parameters in by_settings.items()
    ]


def set_learning_rate(optimizer: Optimizers, rate: float) -> None:
    """Give every group this learning rate, times the group's own."""
    for group in optimizer.param_groups:
        new = rate * group.get("rate", 1.0)
        # torchao's compiled step reads it
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(new)
        else:
            group["lr"] = new


def pack_state(model: torch.nn.Module, optimizer: Optimizers) -> dict[str, torch.Tensor]:
    """The optimizer's state as flat tensors: `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`, or
    `momentum.NAME`, on the CPU, where they are the live tensors themselves. A parameter that has never had
    a gradient has no state and no entry.
    """
    tensors = {}
    for name, parameter in trainable(model):
        for part in optimizer.optimizers:
            for key, value in part.state.get(parameter, {}).items():
                for under, tensor in stored(key, value.detach()).items():
                    tensors[f"{under}.{name}"] = tensor if is_sharded(tensor) else tensor.cpu().contiguous()
    return tensors


def templates(
    model: torch.nn.Module, shapes: dict[str, tuple[torch.Size, torch.dtype]]
) -> dict[str, torch.Tensor]:
    """Tensors to read `pack_state`'s, and others, into: what has a parameter's shape and ends in its name is
    sharded as the parameter is.
    """
    parameters = dict(trainable(model))
    found = {}
    for name, (shape, dtype) in shapes.items():
        parameter = parameters.get(name.partition(".")[2])
        like = parameter is not None and shape == parameter.shape
        found[name] = (
            torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
            if like
            else torch.zeros(shape, dtype=dtype)
        )
    return found


def _laid_out(value: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor:
    """A moment that is whole here, as the parameter's optimizer keeps it."""
    return sharded_like(own_rows(value, parameter).to(parameter.device), parameter)


def unpack_state(model: torch.nn.Module, optimizer: Optimizers, tensors: dict[str, torch.Tensor]) -> None:
    """Put `pack_state`'s tensors back, on each parameter's own device.

    Raises ValueError for a tensor that belongs to no parameter or has another shape than its parameter.
    """
    names = {id(parameter): name for name, parameter in trainable(model)}
    left = dict(tensors)
    for part in optimizer.optimizers:
        state: dict[int, dict[str, torch.Tensor]] = {}
        # torchao's, in 8 bits
        low = hasattr(part, "block_size")
        # numbered in this order
        order = [parameter for group in part.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(order):
            for key in STATE:
                value = restored(left, key, names[id(parameter)], low and not is_sharded(parameter))
                if value is None:
                    continue
                if key != "step" and value.shape != parameter.shape:
                    raise ValueError(
                        f"{key}.{names[id(parameter)]} has shape {tuple(value.shape)}, its parameter {tuple(parameter.shape)}"
                    )
                state.setdefault(index, {})[key] = (
                    value if key == "step" or is_sharded(value) else _laid_out(value, order[index])
                )
        part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
        if low:
            requantised(part)
    if left:
        raise ValueError(f"no parameter for {min(left)}")
