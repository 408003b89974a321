"""`braingpt` in which the second process has no room for more than so many windows at a time, from a step on:

torchrun ... -m tests.train.short_of_memory ROOM STEP train ...
"""

import sys

import torch

from braingpt.cli.main import run
from braingpt.train import micro_batches

if __name__ == "__main__":
    room, begin = int(sys.argv.pop(1)), int(sys.argv.pop(1))
    gradients, backward = micro_batches.gradients, micro_batches.backward
    present: list[int] = []

    def watched(learner, batching, step):
        present[:] = [step]
        return gradients(learner, batching, step)

    def short(learner, piece, placement):
        if placement.world.rank == 1 and present[0] >= begin and len(piece.ids_BL) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return backward(learner, piece, placement)

    micro_batches.gradients, micro_batches.backward = watched, short
    run()
