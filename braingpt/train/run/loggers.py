"""TensorBoard and Weights & Biases (`train.loggers=[tensorboard]`), both extras; metrics.jsonl is always
written as well.
"""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braingpt.errors import UserError
from braingpt.recipes import Recipe
from braingpt.utils.atomic_write import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter
    from wandb.sdk.wandb_run import Run  # pyright: ignore[reportMissingImports]


# The file in a run folder that holds the id of its Weights & Biases run.
WANDB_ID = "wandb-id"


class Loggers:
    """Passes the numbers of every record of a run to the loggers, named `kind/figure`, by step.

    Raises:
        UserError: A logger is not installed.
    """

    def __init__(self, names: tuple[str, ...], run: Path, recipe: Recipe) -> None:
        self.board: SummaryWriter | None = None
        self.wandb: Run | None = None
        try:
            if "tensorboard" in names:
                from torch.utils import tensorboard

                self.board = tensorboard.SummaryWriter(str(run / "tensorboard"))
            if "wandb" in names:
                import wandb  # pyright: ignore[reportMissingImports]

                self.wandb = wandb.init(
                    project="braingpt",
                    name=recipe.name,
                    dir=str(run),
                    config=recipe.model_dump(mode="json"),
                    # A resumed run continues the run that the service has.
                    id=_wandb_id(run),
                    resume="allow",
                )
        except ImportError as error:
            raise UserError(
                f"train.loggers={list(names)} needs {error.name}: pip install 'braingpt[log]'"
            ) from None

    def log(self, record: dict[str, Any]) -> None:
        """Log one record, as in metrics.jsonl."""
        values = {key: value for key, value in record.items() if key not in ("kind", "step")}
        figures = dict(_numbers(values, record["kind"]))
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(name, value, record["step"])
        if self.wandb is not None:
            self.wandb.log(figures, step=record["step"])

    def close(self) -> None:
        """Write out everything that is buffered."""
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def _wandb_id(run: Path) -> str:
    """The name of the run folder's run at the service, made at the first start."""
    path = run / WANDB_ID
    found = path.read_text(encoding="ascii", errors="replace").strip() if path.is_file() else ""
    if not re.fullmatch(r"[0-9a-f]{16}", found):
        found = secrets.token_hex(8)
        write_atomically(path, f"{found}\n")
    return found


def _numbers(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """The numbers of a nested record under their joined names."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}/{key}")
        elif isinstance(value, int | float):
            # Flags count as 0 and 1.
            yield f"{prefix}/{key}", float(value)
