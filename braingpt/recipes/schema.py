"""The settings of a recipe: what a run depends on, checked, each key with a sentence that says what it means.

The string below a field is its description: `docs/reference/recipes.md` is made from these strings.
The settings of the model are `braingpt/model/config.py`.
"""

from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from braingpt.data.batches.mixture import check_mixture
from braingpt.model.config import ModelConfig
from braingpt.model.growth_stages import stages
from braingpt.model.settings import Settings

Beta = Annotated[float, Field(ge=0, lt=1)]
# The upper bounds catch typing errors, and keep counts of tokens within 64 bits.
MOST_STEPS, MOST_WINDOWS, MOST_TOKENS = 1 << 40, 1 << 20, 1 << 24


class DataConfig(Settings):
    """Which prepared data a run reads, and how it mixes languages."""

    folders: tuple[str, ...] = ()
    """Folders that `braingpt data prepare` has written; `--data` replaces them."""
    mixture: Any = "proportional"
    """How languages share the batches: `proportional`, `balanced`, `temperature`, weights by language, or a
    schedule of these.
    """
    reset_at_documents: bool = False
    """Whether documents packed into one window are hidden from each other; when false, a token sees all that
    comes before it in its window.
    """

    @field_validator("mixture")
    @classmethod
    def _mixture(cls, value: Any) -> Any:
        return check_mixture(value)


class LengthPhase(Settings):
    """A first part of training on shorter sequences."""

    until: float = Field(gt=0, lt=1)
    """Share of the steps at which the phase ends."""
    context: int = Field(ge=2, le=MOST_TOKENS)
    """Tokens a sequence in this phase; divides `train.context`."""


class TrainConfig(Settings):
    """How long a run trains, how fast, and with how much at a time."""

    steps: int = Field(default=1000, ge=1, lt=MOST_STEPS)
    """Optimizer steps of the whole run."""
    batch: int = Field(default=16, ge=1, le=MOST_WINDOWS)
    """Windows a step, over all processes."""
    micro_batch: int | None = Field(default=None, ge=1, le=MOST_WINDOWS)
    """Windows that one forward and backward pass takes; null: as many as fit into memory."""
    context: int = Field(default=512, ge=2, le=MOST_TOKENS)
    """Tokens a window."""
    lengths: tuple[LengthPhase, ...] = ()
    """First phases with shorter sequences: windows are cut into pieces of the phase's `context`."""
    growth: Literal["doubling"] | tuple[float, ...] | None = None
    """Shares of the steps at which the model grows deeper, or `doubling`: each stage twice as long as the one
    before; null: no growth.
    """
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    """The optimizer: AdamW, AdamW with moments in 8 bits (needs torchao), or Muon for matrices and AdamW for
    all else.
    """
    lr: float = Field(default=3e-3, gt=0)
    """Highest learning rate, reached after warm-up."""
    embedding_rate: float = Field(default=1.0, gt=0)
    """Learning rate of the embedding, which is the head as well, as a multiple of `train.lr`."""
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    """Course of the learning rate after warm-up: cosine, linear, or warm-up-stable-decay."""
    warmup: int = Field(default=50, ge=0, lt=MOST_STEPS)
    """Steps in which the learning rate rises from zero."""
    final_lr: float = Field(default=0.1, ge=0, le=1)
    """Learning rate of the last step, as a share of `train.lr`."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay of matrices."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """Decay rates of AdamW's first and second moment."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient; a larger gradient is scaled down to it."""
    skip_sigma: float | None = Field(default=6.0, gt=0)
    """Skip an update whose log gradient norm is this many standard deviations above the usual one; null: skip
    only updates that are not finite.
    """
    rewinds: int = Field(default=3, ge=0, lt=MOST_STEPS)
    """How often a run whose loss diverges may return to its last good checkpoint."""
    average: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then validated and saved; null: no average."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the initial weights and of the order of the data."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of matrix products; auto: bfloat16 on a GPU that supports it, float32 on a CPU."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: `ddp` keeps the whole model in each, `fsdp` a part of it."""
    offload: bool = False
    """With `fsdp`: keep weights, gradients and moments in the host's memory."""
    compile: bool = False
    """Compile the blocks with torch.compile."""
    recompute: bool = False
    """Keep each block's input only, and compute the rest again in the backward pass, to save memory."""
    eval_every: int = Field(default=250, ge=1, lt=MOST_STEPS)
    """Steps between validations."""
    eval_windows: int = Field(default=64, ge=1, lt=MOST_STEPS)
    """Windows of each language that a validation reads."""
    save_every: int = Field(default=250, ge=1, lt=MOST_STEPS)
    """Steps between checkpoints."""
    keep: int = Field(default=3, ge=1, lt=MOST_STEPS)
    """How many of the newest checkpoints to keep; the best and the last good one stay as well."""
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Loggers that run beside `metrics.jsonl`; each needs its package."""
    async_save: bool = False
    """Write checkpoints while training continues, at the cost of one more copy of the tensors in memory."""

    @field_validator("growth", mode="before")
    @classmethod
    def _growth(cls, value: Any) -> Any:
        shares = value if isinstance(value, list | tuple) else ()
        in_range = all(type(share) in (int, float) and 0 < share < 1 for share in shares)
        rising = in_range and list(shares) == sorted(set(shares))
        if value is None or value == "doubling" or (shares and rising):
            return value
        example = "a list of shares of the steps that rise between 0 and 1, like [0.1, 0.3]"
        raise ValueError(
            f"train.growth is 'doubling' (each stage twice as long as the one before) or {example}, "
            f"not {value!r}"
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
    """Everything a run depends on except the data itself."""

    name: str = Field(pattern=r"^\w[\w.+-]*$")
    """Name of the recipe, and of the run folder where `--out` names none."""
    model: ModelConfig
    """Architecture and sizes of the model."""
    train: TrainConfig = TrainConfig()
    """How the model is trained."""
    data: DataConfig = DataConfig()
    """What the model reads."""

    @model_validator(mode="after")
    def _growth_fits(self) -> "Recipe":
        growth, layers = self.train.growth, stages(self.model.layers)
        if growth is None:
            return self
        if self.model.depth_exits:
            raise ValueError(
                "train.growth and model.depth.share below 1 do not go together: "
                "new exits would come before the old layers"
            )
        if len(layers) == 1:
            raise ValueError("train.growth has nothing to grow: the model has one layer")
        if growth != "doubling" and len(growth) != len(layers) - 1:
            raise ValueError(
                f"train.growth: a model of {layers[-1]} layers grows in {len(layers)} stages "
                f"(of {', '.join(map(str, layers))} layers), so it"
                f" takes {len(layers) - 1} share{'s' * (len(layers) > 2)} of the steps, not {len(growth)}"
            )
        return self

    @property
    def growth_stages(self) -> tuple[Stage, ...]:
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
        """Settings that have no effect beside the others, a line each, to print before a run begins."""
        train, remarks = self.train, []
        if train.warmup >= train.steps:
            remarks.append(
                f"train.warmup ({train.warmup}) is not below train.steps ({train.steps}): "
                "the rate rises to the end, train.schedule has no effect"
            )
        elif train.final_lr == 1:
            remarks.append(f"train.schedule={train.schedule} has no effect: train.final_lr is 1")
        ends = [round(phase.until * train.steps) for phase in train.lengths]
        if any(begin == end for begin, end in pairwise([0, *ends])):
            remarks.append(f"train.lengths: one of the phases has no step of the {train.steps}")
        if train.async_save and train.parallel == "fsdp":
            remarks.append(
                "train.async_save has no effect with train.parallel=fsdp: "
                "its checkpoints are written by all processes together"
            )
        if any(stage.begin == stage.end for stage in self.growth_stages):
            remarks.append(f"train.growth: one of the stages has no step of the {train.steps}")
        if train.rewinds and train.save_every >= train.steps:
            remarks.append(
                f"train.rewinds has no effect: with train.save_every={train.save_every} "
                "there is no checkpoint to return to"
            )
        return remarks
