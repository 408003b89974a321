"""TensorBoard and Weights & Biases beside metrics.jsonl, which is always written:
`train.loggers=[tensorboard]`; both are extras.
"""

from pathlib import Path
from typing import Any

from braingpt.errors import UserError
from braingpt.recipes import Recipe


class Loggers:
    """Hears every record of a run and hands its numbers on, named `kind/figure`, by step.

    Raises UserError for what is not installed.
    """

    def __init__(self, names: tuple[str, ...], run: Path, recipe: Recipe) -> None:
        self.board = self.wandb = None
        try:
            if "tensorboard" in names:
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(run / "tensorboard"))
            if "wandb" in names:
                import wandb

                self.wandb = wandb.init(
                    project="braingpt", name=recipe.name, dir=str(run), config=recipe.model_dump(mode="json")
                )
        except ImportError as error:
            raise UserError(
                f"train.loggers={list(names)} needs {error.name}: pip install 'braingpt[log]'"
            ) from None

    def log(self, record: dict[str, Any]) -> None:
        """One record, as in metrics.jsonl."""
        figures = dict(
            _numbers(
                {key: value for key, value in record.items() if key not in ("kind", "step")}, record["kind"]
            )
        )
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(name, value, record["step"])
        if self.wandb is not None:
            self.wandb.log(figures, step=record["step"])

    def close(self) -> None:
        """Everything is flushed."""
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def _numbers(tree: dict[str, Any], prefix: str) -> Any:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}/{key}")
        elif isinstance(value, int | float):
            # flags count as 0 and 1
            yield f"{prefix}/{key}", float(value)
