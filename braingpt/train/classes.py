"""The classes of a fresh model's vocabulary, learned from the run's training shards before the first step.

A checkpoint holds the classes with the weights, so resuming and growth keep them.
"""

import time

import torch

from braingpt.data.shards.reader import ShardSet
from braingpt.data.vocabulary_classes import learn_classes
from braingpt.distributed.world import World
from braingpt.model.heads.vocabulary_columns import VocabularyColumns
from braingpt.tokenizer import Tokenizer


def settle_classes(
    model: torch.nn.Module, shards: ShardSet, tokenizer: Tokenizer, world: World
) -> str | None:
    """Learn the classes of a model that has vocabulary columns and no training yet.

    All processes must call this together; one of them learns.

    Args:
        model: The model, changed in place.
        shards: The run's prepared data.
        tokenizer: Their tokenizer.
        world: The processes of the run.

    Returns:
        A line about the classes; None where the model has none.
    """
    head = getattr(model, "embedding", None)
    if not isinstance(head, VocabularyColumns):
        return None
    began = time.perf_counter()
    order_V = world.run_on_rank0(lambda: learn_classes(shards, tokenizer, head.width))
    head.set_classes(torch.from_numpy(order_V))
    seconds = time.perf_counter() - began
    return f"{head.classes} classes of {head.width} words learned from the training data in {seconds:.1f} s"
