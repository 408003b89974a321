"""How a run ended."""

import resource
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Result:
    """How a run ended. Sizes in bytes, losses in nats a token, seconds of training without validation and
    saving.
    """

    run: str
    checkpoint: str | None
    step: int
    steps: int
    # steps of this call
    taken: int
    tokens: int
    # of the last step taken now
    loss: float | None
    # the run's last validation record
    validation: dict[str, Any] | None
    # {"step", "loss"} of the best validation of the whole run
    best: dict[str, Any] | None
    # steps whose gradient was left out
    skipped: int
    spikes: int
    rewinds: int
    seconds: float
    peak_memory_bytes: int
    interrupted: bool

    @classmethod
    def of(cls, trainer: Any) -> "Result":
        """What has become of a `Trainer`'s run up to now."""
        same = {
            name: getattr(trainer, name)
            for name in ("step", "taken", "tokens", "loss", "validation", "best", "rewinds", "seconds")
        }
        return cls(
            run=str(trainer.run.path), checkpoint=str(trainer.saved) if trainer.saved else None, steps=trainer.config.steps,
            skipped=trainer.guard.skipped, spikes=trainer.guard.spikes, peak_memory_bytes=peak_memory(trainer.device),
            interrupted=trainer.step < trainer.config.steps, **same,
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return asdict(self)


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held: the allocator's on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
