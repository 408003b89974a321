"""How a model would use a memory file on a text: its reads, the reads it believes, and the entries that
teaching the text would write.

Legend: B rows, L tokens, K entries read, V vocabulary.
"""

from collections.abc import Sequence

from torch import Tensor

from braingpt.device.eval_mode import eval_mode
from braingpt.episodic.gate import READ
from braingpt.episodic.keys import SURPRISE, capture_states
from braingpt.episodic.memory import EpisodicMemory
from braingpt.model.lm import LanguageModel
from braingpt.model.sequence_layout import Layout


def count_memory_use(
    model: LanguageModel, memory: EpisodicMemory, windows: Sequence[Tensor]
) -> dict[str, int]:
    """Count reads, and the entries that teaching would write, over windows of a text.

    Args:
        model: The model that owns the memory.
        memory: The memory that is read.
        windows: (B, L) tokens each.

    Returns:
        "tokens" read by the model; "reads" of the memory, one a token; "entries" of the memory, and
        "entries_read" by each read; "believed", tokens at which the memory's answer weighs more than the
        model's; "surprising", tokens that the model gave less than half, which teaching writes.
    """
    counts = {"tokens": 0, "reads": 0, "believed": 0, "surprising": 0}
    entries = len(memory.store)
    with eval_mode(model), capture_states(model) as seen:
        for ids_BL in windows:
            ids_BL = ids_BL.to(model.device)
            nats_BL = model(ids_BL, ids_BL.roll(-1, 1), reduction="none").loss[:, :-1]
            counts["tokens"] += ids_BL.numel()
            counts["surprising"] += int((nats_BL > SURPRISE).sum())
            state_BLD = seen.pop()
            if entries:
                past_BTD = memory.maker.past(len(ids_BL), ids_BL.device)
                keys_BLD, _ = memory.maker.keys(state_BLD, past_BTD, Layout.of(ids_BL, None, None))
                log_odds_Q1, _ = memory.gate.trust(*memory.store.read(keys_BLD.flatten(0, 1), READ))
                counts["reads"] += ids_BL.numel()
                counts["believed"] += int((log_odds_Q1 > 0).sum())
    return counts | {"entries": entries, "entries_read": min(READ, entries)}
