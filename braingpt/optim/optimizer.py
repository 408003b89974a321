"""Which parameter is stepped how: matrices decay and may take Muon's step, all other parameters do neither,
and of tables only the rows looked up are stepped (`row_adam.py`).

Decay pulls products towards zero, which means something for matrices only. Gains, biases, learned inhibition
and the embedding keep what they learn (the embedding's rows are looked up, and it is the head as well).

AdamW's fused step runs on CPU and GPU alike. Over 60M parameters on two CPU cores it takes 0.06 s, the plain
step 0.2 s and the `foreach` one 0.3 s.
"""

from collections.abc import Iterator
from typing import Any

import torch

from braingpt.distributed.sharded_tensors import is_sharded, own_rows, sharded_like
from braingpt.optim.adamw8bit import (
    BLOCK,
    adamw8bit,
    as_plain_tensors,
    in_8_bits,
    pop_state,
    quantise_state,
)
from braingpt.optim.muon import Muon
from braingpt.optim.row_adam import RowAdam
from braingpt.recipes import TrainConfig

# State that the optimizers keep for a parameter.
STATE = ("step", "exp_avg", "exp_avg_sq", "momentum", "row_square")
# Added to the square root of AdamW's second moment.
EPSILON = 1e-8
# Ends of parameter names.
NEVER_DECAYED = ("embedding.weight", "lexical.table", "inhibition", "bias")
NOT_ORTHOGONAL = ("conv", "router.weight", "gate.weight", "class_weight")


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether weight decay applies to the parameter called `name`."""
    return parameter.ndim >= 2 and not name.endswith(NEVER_DECAYED)


def trainable(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Name and parameter of everything that learns; a tied parameter comes once, under its first name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def orthogonalises(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon suits the parameter called `name`: a matrix between wide spaces.

    Routers, gates and short filters are none.
    """
    return decays(name, parameter) and not name.endswith(NOT_ORTHOGONAL)


def is_table(name: str) -> bool:
    """Whether a step looks up a few rows of the parameter called `name`, and uses it for nothing else."""
    return name == "lexical.table"


# Parameters by weight decay and by their factor of the learning rate.
Grouped = dict[tuple[float, float], list[torch.nn.Parameter]]


class Optimizers:
    """Optimizers of different kinds over different parameters of one model, stepped as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    def step(self, skip: torch.Tensor | None = None) -> None:
        """Take one step of each optimizer.

        Args:
            skip: A scalar: 1.0 where no step is to be taken. Fused optimizers read it on the device; Muon
                waits for it.
        """
        for optimizer in self.optimizers:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            if optimizer.defaults.get("fused"):
                # `found_inf` is the name under which torch's gradient scaler passes it. The weights may be
                # on the host.
                found_inf = None if skip is None else skip.to(parameters[0].device)
                optimizer.found_inf = found_inf  # pyright: ignore[reportAttributeAccessIssue]
                optimizer.step()
                # The fused step does not raise the weights' versions, which tell caches derived from the
                # weights (2:4 pruned weights, for example) that they are outdated.
                torch.autograd.graph.increment_version(parameters)
            elif skip is None or not skip:
                optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def clear_state(self) -> None:
        """Drop all moments, and free their memory; no step may follow."""
        for optimizer in self.optimizers:
            optimizer.state.clear()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all optimizers, in order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]


def build_optimizer(model: torch.nn.Module, config: TrainConfig) -> Optimizers:
    """AdamW, alone or with Muon or with its own 8-bit form, and the optimizer of tables.

    Args:
        model: The model; its parameters are on their device already.
        config: The recipe's `train` section.

    Raises:
        UserError: `train.optimizer` is adamw8bit, and torchao or a compiler is missing.
    """
    adamw: Grouped = {}
    eight: Grouped = {}
    # Parameters by how many matrices each holds.
    muon: dict[int, list[torch.nn.Parameter]] = {}
    tables: list[torch.nn.Parameter] = []
    for name, parameter in trainable(model):
        if is_table(name):
            tables.append(parameter)
        elif config.optimizer == "muon" and orthogonalises(name, parameter):
            joint = name.endswith("qkv.weight") and parameter.shape[0] == 3 * parameter.shape[1]
            muon.setdefault(3 if joint else 1, []).append(parameter)
        else:
            decay = config.weight_decay if decays(name, parameter) else 0.0
            rate = config.embedding_rate if name == "embedding.weight" else 1.0
            group = eight if config.optimizer == "adamw8bit" and in_8_bits(name) else adamw
            group.setdefault((decay, rate), []).append(parameter)
    settings: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "eps": EPSILON}
    parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(_groups(adamw), fused=True, **settings)]
    if eight:
        eight_bit = adamw8bit(next(model.parameters()).device)
        parts.append(eight_bit(_groups(eight), block_size=BLOCK, **settings))
    if muon:
        groups = [{"params": parameters, "parts": count} for count, parameters in muon.items()]
        parts.append(Muon(groups, lr=config.lr, weight_decay=config.weight_decay))
    if tables:
        rows = [{"params": tables, "rate": config.embedding_rate}]
        parts.append(RowAdam(rows, config.lr, config.betas[1], EPSILON))
    return Optimizers(*parts)


def _groups(by_settings: Grouped) -> list[dict[str, Any]]:
    """Parameter groups of one weight decay and one factor of the learning rate each."""
    return [
        {"params": parameters, "weight_decay": decay, "rate": rate}
        for (decay, rate), parameters in by_settings.items()
    ]


def set_learning_rate(optimizer: Optimizers, rate: float) -> None:
    """Give every group this learning rate, times the group's own."""
    for group in optimizer.param_groups:
        new = rate * group.get("rate", 1.0)
        # torchao's compiled step reads the rate from a tensor.
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(new)
        else:
            group["lr"] = new


def pack_state(model: torch.nn.Module, optimizer: Optimizers) -> dict[str, torch.Tensor]:
    """The optimizer's state as tensors on the CPU; of parameters on the CPU the live ones.

    Args:
        model: The model.
        optimizer: Its optimizers.

    Returns:
        `exp_avg.NAME`, `exp_avg_sq.NAME` and `step.NAME`, or `momentum.NAME`, or `row_square.NAME`, of every
        parameter NAME that has ever had a gradient.
    """
    tensors = {}
    for name, parameter in trainable(model):
        for part in optimizer.optimizers:
            for key, value in part.state.get(parameter, {}).items():
                for plain_key, tensor in as_plain_tensors(key, value.detach()).items():
                    on_cpu = tensor if is_sharded(tensor) else tensor.cpu().contiguous()
                    tensors[f"{plain_key}.{name}"] = on_cpu
    return tensors


def templates(
    model: torch.nn.Module, shapes: dict[str, tuple[torch.Size, torch.dtype]]
) -> dict[str, torch.Tensor]:
    """Tensors of zeros that saved tensors, `pack_state`'s and others, are read into.

    A tensor that has a parameter's shape, or a number for each of its rows, and ends in the parameter's name
    is sharded as the parameter is.
    """
    parameters, tensors = dict(trainable(model)), {}
    for name, (shape, dtype) in shapes.items():
        parameter = parameters.get(name.partition(".")[2])
        if parameter is not None and shape == parameter.shape:
            tensors[name] = torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
        elif parameter is not None and shape == (len(parameter), 1):
            tensors[name] = torch.zeros_like(parameter.detach()[:, :1], dtype=dtype)
        else:
            tensors[name] = torch.zeros(shape, dtype=dtype)
    return tensors


def unpack_state(model: torch.nn.Module, optimizer: Optimizers, tensors: dict[str, torch.Tensor]) -> None:
    """Restore the state that `pack_state` returned, on each parameter's own device.

    Args:
        model: The model.
        optimizer: Its optimizers, to be filled.
        tensors: Tensors by name, as `pack_state` names them; emptied.

    Raises:
        ValueError: A tensor belongs to no parameter, or has another shape than its parameter.
    """
    names = {id(parameter): name for name, parameter in trainable(model)}
    left = dict(tensors)
    for part in optimizer.optimizers:
        # torchao's optimizer keeps its moments in blocks.
        eight_bit = hasattr(part, "block_size")
        order = [parameter for group in part.param_groups for parameter in group["params"]]
        states = (_pop_states(left, names[id(parameter)], parameter, eight_bit) for parameter in order)
        # torch numbers the parameters in this order.
        numbered = {number: state for number, state in enumerate(states) if state}
        part.load_state_dict({"state": numbered, "param_groups": part.state_dict()["param_groups"]})
        if eight_bit:
            quantise_state(part)
    if left:
        raise ValueError(f"no parameter for {min(left)}")


def _pop_states(
    tensors: dict[str, torch.Tensor], name: str, parameter: torch.nn.Parameter, eight_bit: bool
) -> dict[str, torch.Tensor]:
    """Take all states of a parameter out of `tensors`, as its optimizer keeps them."""
    states = {}
    for key in STATE:
        value = pop_state(tensors, key, name, eight_bit and not is_sharded(parameter))
        if value is None:
            continue
        needed = (len(parameter), 1) if key == "row_square" else parameter.shape
        if key != "step" and value.shape != needed:
            raise ValueError(
                f"{key}.{name} has shape {tuple(value.shape)}, its parameter needs {tuple(needed)}"
            )
        # Steps are scalars, and a sharded moment is laid out already.
        if key != "step" and not is_sharded(value):
            value = sharded_like(own_rows(value, parameter).to(parameter.device), parameter)
        states[key] = value
    return states
