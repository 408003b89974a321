"""AdamW in two groups: matrices decay, everything else does not.

Decay pulls products toward zero, which means something for matrices only; gains, biases, the embedding (its rows are looked up, and
it is the head as well) and learned inhibition keep what they learn. The fused step runs on CPU and GPU alike; over 60M parameters on two
CPU cores it takes 0.06 s, the plain one 0.2 s and the `foreach` one 0.3 s.
"""

from collections.abc import Iterator

import torch

from braingpt.recipes import TrainConfig

NEVER_DECAYED = ("embedding.weight", "inhibition", "bias")  # ends of parameter names


def decays(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether weight decay applies to the parameter called `name`."""
    return parameter.ndim >= 2 and not name.endswith(NEVER_DECAYED)


def trainable(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """(name, parameter) of everything that learns; a tied parameter comes once, under its first name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def build_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters, which must already lie on their device."""
    matrices = [parameter for name, parameter in trainable(model) if decays(name, parameter)]
    others = [parameter for name, parameter in trainable(model) if not decays(name, parameter)]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=1e-8, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def pack_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as flat tensors: `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`, on the CPU, where they
    are the live tensors themselves. A parameter that has never had a gradient has no state and no entry.
    """
    tensors = {}
    for name, parameter in trainable(model):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = value.detach().cpu().contiguous()
    return tensors


def unpack_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put `pack_state`'s tensors back, on each parameter's own device.

    Raises ValueError for a tensor that belongs to no parameter or has another shape than its parameter.
    """
    names = {id(parameter): name for name, parameter in trainable(model)}
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]  # AdamW numbers them in this order
    state: dict[int, dict[str, torch.Tensor]] = {}
    left = dict(tensors)
    for index, parameter in enumerate(order):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = left.pop(f"{key}.{names[id(parameter)]}", None)
            if value is None:
                continue
            if key != "step" and value.shape != parameter.shape:
                raise ValueError(f"{key}.{names[id(parameter)]} has shape {tuple(value.shape)}, its parameter {tuple(parameter.shape)}")
            state.setdefault(index, {})[key] = value
    if left:
        raise ValueError(f"no parameter for {min(left)}")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
