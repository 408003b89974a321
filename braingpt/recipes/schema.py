"""Recipes: YAML to checked settings.

One `extends`, dotted overrides, unknown keys refused with the nearest known name.

    load_recipe("small-v2")                                     # shipped with the package
    load_recipe("my.yaml", ["train.lr=1e-3", "data.folders=[data/korean]"])

The resolved recipe is saved with every run (`save_recipe`) and loads again without its parents.
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from braingpt.data.batches.mixture import check_mixture
from braingpt.errors import UserError, did_you_mean
from braingpt.model.config import ModelConfig, Settings
from braingpt.model.growth_stages import stages

# inside a wheel
_PACKAGED = Path(__file__).parent / "_recipes"
# in a source checkout
_CHECKOUT = Path(__file__).parent.parent / "recipes"
RECIPES = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT

Beta = Annotated[float, Field(ge=0, lt=1)]


class DataConfig(Settings):
    """Prepared folders, how languages are mixed (`braingpt.data.batches.mixture` lists the ways), and whether
    a model starts afresh at documents.
    """

    folders: tuple[str, ...] = ()
    mixture: Any = "proportional"
    # windows hold pieces of several documents; off: each sees what stood before it in its window
    reset_at_documents: bool = False

    @field_validator("mixture")
    @classmethod
    def _mixture(cls, value: Any) -> Any:
        return check_mixture(value)


class LengthPhase(Settings):
    """Sequences of `context` tokens up to the share `until` of the steps."""

    until: float = Field(gt=0, lt=1)
    context: int = Field(ge=2)


class TrainConfig(Settings):
    """How long, how fast, how large.

    A step sees `batch` windows of `context` tokens, `micro_batch` at a time.
    """

    steps: int = Field(1000, ge=1, lt=1 << 40)
    batch: int = Field(16, ge=1, le=1 << 20)
    # None: as much as the memory takes
    micro_batch: int | None = Field(None, ge=1)
    context: int = Field(512, ge=2)
    # shorter sequences first: windows in pieces of `context` tokens until a share of the steps
    lengths: tuple[LengthPhase, ...] = ()
    # shares of the steps at which later stages begin; null: no growth
    growth: Literal["doubling"] | tuple[float, ...] | None = None
    # adamw8bit: moments in 8 bits (torchao); muon: for matrices, AdamW for the rest
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    lr: float = Field(3e-3, gt=0)
    # the embedding's learning rate, times lr; it is the head as well
    embedding_rate: float = Field(1.0, gt=0)
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    # steps
    warmup: int = Field(50, ge=0)
    # share of lr at the last step
    final_lr: float = Field(0.1, ge=0, le=1)
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    # gradient norm
    clip: float = Field(1.0, gt=0)
    # gradients this many deviations above the usual norm are left out; null: none
    skip_sigma: float | None = Field(6.0, gt=0)
    # times a run that is lost goes back to its last good checkpoint
    rewinds: int = Field(3, ge=0)
    # decay of a moving average of the weights, which is validated and saved; null: none
    average: float | None = Field(None, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**63)
    # auto: bfloat16 on a GPU that has it, float32 on a CPU
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # several processes: each with the whole model, or each with a part of it
    parallel: Literal["ddp", "fsdp"] = "ddp"
    # with fsdp, on one process too: weights, gradients and moments rest in the host's memory
    offload: bool = False
    compile: bool = False
    # keep each block's input alone and compute the rest again in the backward pass
    recompute: bool = False
    # steps
    eval_every: int = Field(250, ge=1)
    # per language
    eval_windows: int = Field(64, ge=1)
    # steps
    save_every: int = Field(250, ge=1)
    # newest checkpoints; the best and the last good one stay as well
    keep: int = Field(3, ge=1)
    # beside metrics.jsonl; extras
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    # write checkpoints beside the training, for one more copy of them in memory
    async_save: bool = False

    @field_validator("growth", mode="before")
    @classmethod
    def _growth(cls, value: Any) -> Any:
        shares = value if isinstance(value, list | tuple) else ()
        rising = all(type(share) in (int, float) and 0 < share < 1 for share in shares) and list(
            shares
        ) == sorted(set(shares))
        if value is None or value == "doubling" or (shares and rising):
            return value
        example = "a list of shares of the steps that rise between 0 and 1, like [0.1, 0.3]"
        raise ValueError(
            f"train.growth is 'doubling' (each stage twice as long as the one before) or {example}, not {value!r}"
        )

    @model_validator(mode="after")
    def _batch_divides(self) -> "TrainConfig":
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(
                f"train.batch ({self.batch}) must be a multiple of train.micro_batch ({self.micro_batch})"
            )
        return self

    @model_validator(mode="after")
    def _offload_is_sharded(self) -> "TrainConfig":
        if self.offload and self.parallel != "fsdp":
            raise ValueError("train.offload needs train.parallel=fsdp, which works on one process too")
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> "TrainConfig":
        untils = [phase.until for phase in self.lengths]
        if untils != sorted(set(untils)):
            raise ValueError(f"train.lengths: 'until' rises from phase to phase, not {untils}")
        if odd := [phase.context for phase in self.lengths if self.context % phase.context]:
            raise ValueError(f"train.lengths: train.context ({self.context}) must be a multiple of {odd[0]}")
        return self


class Stage(NamedTuple):
    """A stage of growth: so many layers from step `begin` to before step `end`."""

    layers: int
    begin: int
    end: int


class Recipe(Settings):
    """Everything a run depends on but the data itself."""

    # it names the run folder
    name: str = Field(pattern=r"^\w[\w.+-]*$")
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()

    @model_validator(mode="after")
    def _growth_fits(self) -> "Recipe":
        growth, layers = self.train.growth, stages(self.model.layers)
        if growth is None:
            return self
        if self.model.depth_exits:
            raise ValueError(
                "train.growth and model.depth.share below 1 do not go together: new exits would come before the old layers"
            )
        if len(layers) == 1:
            raise ValueError("train.growth has nothing to grow: the model has one layer")
        if growth != "doubling" and len(growth) != len(layers) - 1:
            raise ValueError(
                f"train.growth: a model of {layers[-1]} layers grows in {len(layers)} stages (of {', '.join(map(str, layers))} layers), so it"
                f" takes {len(layers) - 1} share{'s' * (len(layers) > 2)} of the steps, not {len(growth)}"
            )
        return self

    @property
    def growth_stages(self) -> tuple["Stage", ...]:
        """The stages of the run in order; a single one where the model does not grow."""
        layers = stages(self.model.layers)
        shares = self.train.growth
        if shares is None:
            return (Stage(self.model.layers, 0, self.train.steps),)
        if shares == "doubling":
            shares = [(2**number - 1) / (2 ** len(layers) - 1) for number in range(1, len(layers))]
        bounds = [0, *(round(share * self.train.steps) for share in shares), self.train.steps]
        return tuple(Stage(count, *span) for count, span in zip(layers, pairwise(bounds), strict=True))

    def remarks(self) -> list[str]:
        """Settings that have no effect beside the others, a line each: to be said before a run begins."""
        train, found = self.train, []
        if train.warmup >= train.steps:
            found.append(
                f"train.warmup ({train.warmup}) is not below train.steps ({train.steps}): the rate rises to the end, train.schedule has no effect"
            )
        elif train.final_lr == 1:
            found.append(f"train.schedule={train.schedule} has no effect: train.final_lr is 1")
        ends = [round(phase.until * train.steps) for phase in self.train.lengths]
        if any(begin == end for begin, end in pairwise([0, *ends])):
            found.append(f"train.lengths: one of the phases has no step of the {train.steps}")
        if train.async_save and train.parallel == "fsdp":
            found.append(
                "train.async_save has no effect with train.parallel=fsdp: its checkpoints are written by all processes together"
            )
        if any(stage.begin == stage.end for stage in self.growth_stages):
            found.append(f"train.growth: one of the stages has no step of the {train.steps}")
        if train.rewinds and train.save_every >= train.steps:
            found.append(
                f"train.rewinds has no effect: with train.save_every={train.save_every} there is no checkpoint to go back to"
            )
        return found


def shipped() -> list[str]:
    """Names of the recipes that come with the package; files whose name starts with `_` are bases for others."""
    return sorted(p.stem for p in RECIPES.glob("*.yaml") if not p.stem.startswith("_"))


def load_recipe(name: str | Path, overrides: list[str] | None = None) -> Recipe:
    """The recipe `name` (a shipped name or a YAML file) with `overrides` like `train.lr=1e-3` laid over it.

    Raises UserError for an unknown recipe or key, a value out of range, settings that contradict each other.
    """
    tree = _read(_locate(str(name)))
    for override in overrides or []:
        _override(tree, override)
    return check_recipe(tree)


def check_recipe(tree: dict[str, Any]) -> Recipe:
    """A Recipe from plain nested dictionaries, or a UserError that names the key."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error.errors()[0])) from None


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as YAML, keys in the order of their definition."""
    path.write_text(recipe_text(recipe), encoding="utf-8")


def recipe_text(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _locate(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        if not path.is_file():
            raise UserError(f"no recipe file {path}")
        return path
    if name not in shipped() and not name.startswith("_"):
        raise UserError(f"unknown recipe '{name}'{did_you_mean(name, shipped())}")
    return RECIPES / f"{name}.yaml"


def _read(path: Path, depth: int = 0) -> dict[str, Any]:
    """The file's tree, laid over the tree it extends. A parent is looked for beside the file first."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read recipe {path}: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"recipe {path} is not a mapping of settings")
    parent = tree.pop("extends", None)
    if parent is not None:
        if depth == 8:
            raise UserError(f"recipe {path}: 'extends' goes round in a circle")
        beside = path.parent / f"{parent}.yaml"
        tree = _merge(
            _read(beside if beside.is_file() else _locate(str(parent)), depth + 1),
            {"name": path.stem, **tree},
        )
    return {"name": path.stem, **tree}


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-3` as a string for want of a dot; here it is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and key != "mixture"
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set takes KEY=VALUE, like train.lr=1e-3, not '{override}'")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise UserError(f"--set {key}: cannot read the value '{text}'") from None
    *groups, last = key.strip().split(".")
    for group in groups:
        if not isinstance(tree.get(group, {}), dict):
            raise UserError(f"--set {key}: '{group}' is a single value, not a group")
        tree = tree.setdefault(group, {})
    tree[last] = value


def _explain(error: dict[str, Any]) -> str:
    """One line for the first thing pydantic found wrong."""
    path = [str(part) for part in error["loc"] if part not in ("dense", "v1", "v2")]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"unknown recipe key '{key}'{did_you_mean(path[-1], _siblings(error['loc']))}"
    if error["type"] == "missing":
        return f"the recipe lacks '{key}'"
    if error["type"].startswith("union_tag"):
        given = error.get("input", {})
        given = given.get("architecture") if isinstance(given, dict) else given
        return f"model.architecture is '{given}'; it is one of dense, v1, v2"
    if error["type"] == "string_pattern_mismatch":
        return f"{key} takes letters, digits and the signs _ . + -, and begins with a letter or digit; it is {error.get('input')!r}"
    wanted = {
        "model_type": "a group of settings",
        "model_attributes_type": "a group of settings",
        "tuple_type": "a list, like [a, b]",
    }
    if error["type"] in wanted:
        return f"{key} is {wanted[error['type']]}, not {error['input']!r}"
    message = error["msg"].removeprefix("Value error, ")
    return (
        message
        if message.startswith(("model.", "train.", "data."))
        else f"{key}: {message} (it is {error.get('input')!r})"
    )


def _siblings(loc: tuple[Any, ...]) -> list[str]:
    """Known keys of the group in which `loc` ends."""
    group: Any = Recipe
    for part in loc[:-1]:
        tagged = {m.model_fields["architecture"].default: m for m in get_args(get_args(ModelConfig)[0])}
        if part in tagged:
            group = tagged[part]
        elif isinstance(part, int):
            # one of a list
            group = get_args(group)[0]
        elif part in getattr(group, "model_fields", {}) and part != "model":
            group = group.model_fields[part].annotation
    return list(getattr(group, "model_fields", {}))
