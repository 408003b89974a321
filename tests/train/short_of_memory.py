"""`braingpt` in which the second process has no room for more than so many windows at a time, from a step on:

torchrun ... -m tests.train.short_of_memory ROOM STEP train ...
"""

import sys

import torch

from braingpt.cli.main import run
from braingpt.train import micro_batches

if __name__ == "__main__":
    room, begin = int(sys.argv.pop(1)), int(sys.argv.pop(1))
    plenty = micro_batches.backward

    def short(trainer, piece):
        if trainer.world.rank == 1 and trainer.step >= begin and len(piece.ids_BL) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plenty(trainer, piece)

    micro_batches.backward = short
    run()
