"""The keys of recipes: all that there are, and the one that an unknown name means."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from braingpt.errors import did_you_mean
from braingpt.model.config import ModelConfig
from braingpt.recipes.schema import Recipe

ARCHITECTURES = {
    kind.model_fields["architecture"].default: kind for kind in get_args(get_args(ModelConfig)[0])
}
# What other trainers call a setting.
OTHER_NAMES = {
    "train.lr": "learning_rate learningrate base_lr max_lr",
    "train.final_lr": "min_lr min_learning_rate",
    "train.batch": "batch_size global_batch_size train_batch_size",
    "train.micro_batch": "micro_batch_size per_device_train_batch_size",
    "train.context": "context_length seq_len seq_length sequence_length max_seq_len block_size n_ctx",
    "train.steps": "max_steps num_steps total_steps max_iters iterations",
    "train.warmup": "warmup_steps warmup_iters",
    "train.schedule": "scheduler lr_scheduler lr_scheduler_type",
    "train.weight_decay": "wd decay",
    "train.clip": "grad_clip clip_grad clip_grad_norm max_grad_norm",
    "train.average": "ema",
    "train.optimizer": "optim",
    "train.dtype": "precision",
    "train.recompute": "gradient_checkpointing activation_checkpointing",
    "train.eval_every": "eval_steps eval_interval",
    "train.save_every": "save_steps save_interval checkpoint_every",
    "train.loggers": "report_to logger",
    "model.layers": "n_layer n_layers num_layers num_hidden_layers",
    "model.hidden": "hidden_size d_model n_embd dim width",
    "model.heads": "n_head n_heads num_heads num_attention_heads",
    "model.vocab": "vocab_size",
    "model.rope_base": "rope_theta",
    "data.folders": "dataset datasets data_path train_data",
}
MEANT = {name: key for key, names in OTHER_NAMES.items() for name in names.split()}
# How alike a name and a key of another group are, at least, for the key to be proposed.
ALIKE = 0.8


def recipe_keys(architecture: str | None = None) -> list[str]:
    """Dotted names of all keys that take a value.

    Args:
        architecture: Only keys of recipes of this architecture; None: of all architectures.
    """
    kinds = [ARCHITECTURES[architecture]] if architecture else list(ARCHITECTURES.values())
    found = [key for kind in kinds for key in _keys(kind, "model.")]
    settings = [key for key in _keys(Recipe, "") if not key.startswith("model")]
    return list(dict.fromkeys([*settings, *found]))


def meant_key(name: str) -> str | None:
    """The key that `name` means without its group, None where it is none: `train.lr` for `lr`."""
    plain = name.lower().replace("-", "_")
    return MEANT.get(plain) or next((key for key in recipe_keys() if key.rpartition(".")[2] == plain), None)


def suggest_key(loc: tuple[Any, ...]) -> str:
    """The end of a message about an unknown key: the key that is meant, or the known ones of its group.

    Args:
        loc: The key's place, as pydantic names it: with the architecture behind "model".
    """
    path = [str(part) for part in loc if part not in ARCHITECTURES]
    *group, name = path
    architecture = next((str(part) for part in loc if part in ARCHITECTURES), None)
    every, siblings = recipe_keys(architecture), _siblings(loc)
    if (meant := MEANT.get(name.lower().replace("-", "_"))) in every:
        return f"; did you mean '{meant}'?"
    # A key at the wrong one of the few large groups; the small ones have keys of the same names.
    elsewhere = [key for key in every if key.rpartition(".")[2] == name and len(group) < 2]
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.5)
    if near and not elsewhere:
        return f"; did you mean '{'.'.join([*group, *near])}'?"
    elsewhere = elsewhere or difflib.get_close_matches(".".join(path), every, n=1, cutoff=ALIKE)
    return f"; did you mean '{elsewhere[0]}'?" if elsewhere else did_you_mean(name, siblings)


def _keys(settings: type[BaseModel], prefix: str) -> Iterator[str]:
    for key, field in settings.model_fields.items():
        # A list of groups is one value.
        several = get_origin(field.annotation) in (list, tuple)
        kinds = (field.annotation,) if several else (field.annotation, *get_args(field.annotation))
        groups = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if groups and prefix + key != "model":
            yield from _keys(groups[0], f"{prefix}{key}.")
        else:
            yield prefix + key


def _siblings(loc: tuple[Any, ...]) -> list[str]:
    """Known keys of the group in which `loc` ends."""
    group: Any = Recipe
    for part in loc[:-1]:
        if part in ARCHITECTURES:
            group = ARCHITECTURES[part]
        elif isinstance(part, int):
            # An index: the group is the type of the list's elements.
            group = get_args(group)[0]
        elif part in getattr(group, "model_fields", {}) and part != "model":
            group = group.model_fields[part].annotation
    return list(getattr(group, "model_fields", {}))
