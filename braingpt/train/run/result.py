"""How a run ended."""

import resource
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from braingpt.train.loop import Trainer


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        run: The run folder.
        checkpoint: The last checkpoint, or None where none was saved.
        step: Steps taken by the whole run.
        steps: Steps the recipe asks for.
        taken: Steps of this call.
        tokens: Tokens seen by the whole run.
        loss: Loss of this call's last step, in nats a token; None where it took none.
        validation: The run's last validation record.
        best: Step and loss of the best validation of the whole run.
        skipped: Steps whose update was skipped.
        spikes: Loss spikes.
        rewinds: Times the run went back to a checkpoint.
        seconds: Time spent in steps, without validation and saving.
        peak_memory_bytes: The most bytes this process has held.
        interrupted: Whether steps are left.
    """

    run: str
    checkpoint: str | None
    step: int
    steps: int
    taken: int
    tokens: int
    loss: float | None
    validation: dict[str, Any] | None
    best: dict[str, Any] | None
    skipped: int
    spikes: int
    rewinds: int
    seconds: float
    peak_memory_bytes: int
    interrupted: bool

    @classmethod
    def of(cls, trainer: "Trainer") -> "Result":
        """The result of a run up to now."""
        return cls(
            run=str(trainer.run.path),
            checkpoint=str(trainer.saved) if trainer.saved else None,
            step=trainer.step,
            steps=trainer.config.steps,
            taken=trainer.taken,
            tokens=trainer.tokens,
            loss=trainer.loss,
            validation=trainer.validator.last,
            best=trainer.validator.best,
            skipped=trainer.guard.skipped,
            spikes=trainer.guard.spikes,
            rewinds=trainer.rewinds,
            seconds=trainer.seconds,
            peak_memory_bytes=peak_memory(trainer.placement.device),
            interrupted=trainer.step < trainer.config.steps,
        )

    def as_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return asdict(self)


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held: the allocator's on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
