"""Generation by llama.cpp from a GGUF file, and whether its logits are ours (`pip install cyllama`).

cyllama's wheel holds llama.cpp compiled for AVX2; no wheel on PyPI was found with more than that.
"""

from pathlib import Path
from typing import Any

import torch

from braingpt.errors import Failure, UserError
from braingpt.inference.sampling import Sampling
from braingpt.model.lm import LanguageModel

# Largest difference of logits in units of their spread; keys and values are float16 in llama.cpp.
PARITY = 0.01


class LlamaCpp:
    """llama.cpp with a GGUF file.

    Args:
        path: The file.
        room: Tokens that will be read at most.
        threads: Threads of all work.
        sampling: How tokens are chosen; of it temperature, top-p and seed.
    """

    def __init__(self, path: Path, room: int, threads: int, sampling: Sampling) -> None:
        try:
            import cyllama.llama.llama_cpp as library  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("cyllama is not installed; pip install cyllama gguf") from None

        class Model(library.LlamaModel):
            # cyllama 0.2.18 asks its models for this when it returns logits; only their vocabularies know it.
            @property
            def n_vocab(self) -> int:
                return self.get_vocab().n_vocab

        library.disable_logging()
        model = Model(str(path), library.LlamaModelParams(), verbose=False)
        settings = library.LlamaContextParams()
        settings.n_ctx = settings.n_batch = room
        settings.n_threads = settings.n_threads_batch = threads
        # By default a CPU uses flash attention, with which a token took 11.7 ms where 6.6 are enough (the
        # dense small model in q8_0 after 1,024 tokens, two threads).
        settings.flash_attn_type = 0
        self.vocab, self._past = model.n_vocab, 0
        self._context = library.LlamaContext(model, settings, verbose=False)
        self._batch = library.LlamaBatch(n_tokens=room, embd=0, n_seq_max=1)
        self._sampler = library.LlamaSampler(library.LlamaSamplerChainParams())
        if sampling.temperature == 0:
            self._sampler.add_greedy()
        else:
            self._sampler.add_top_p(sampling.top_p or 1.0, 1)
            self._sampler.add_temp(sampling.temperature)
            self._sampler.add_dist(sampling.seed or 0)

    def read(self, ids: list[int], logits: bool = False) -> None:
        """Read tokens after those read before.

        Args:
            ids: The tokens.
            logits: Predict after each token, not only after a single one.
        """
        self._batch.set_batch(ids, n_past=self._past, logits_all=logits or len(ids) == 1)
        self._context.decode(self._batch)
        self._past += len(ids)

    def choose(self) -> int:
        """The next token."""
        return self._sampler.sample(self._context, -1)

    def logits(self, place: int) -> Any:
        """Logits after a token of those read last, a list of numbers."""
        return self._context.get_logits_ith(place)


def parity(model: LanguageModel, path: Path, threads: int, tokens: int = 32) -> float:
    """Compare llama.cpp's logits with ours.

    Args:
        model: Our model, in float32.
        path: Its file.
        threads: Threads of llama.cpp.
        tokens: Random tokens to read.

    Returns:
        The largest difference in units of the logits' spread.

    Raises:
        Failure: It is more than `PARITY`.
    """
    ids = torch.randint(0, model.config.vocab, (1, tokens))
    peer = LlamaCpp(path, tokens, threads, Sampling())
    peer.read(ids[0].tolist(), logits=True)
    theirs_LV = torch.tensor([peer.logits(i) for i in range(tokens)])
    with torch.inference_mode():
        logits_LV = model(ids).logits[0]
    difference = float((theirs_LV - logits_LV).abs().max() / logits_LV.std())
    if not difference < PARITY:
        raise Failure(f"llama.cpp's logits of {path.name} differ by {difference:.3g} of their spread")
    return difference
