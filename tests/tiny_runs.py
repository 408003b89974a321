"""A tiny prepared folder in two languages, and recipes small enough to train in a second."""

from pathlib import Path

from braingpt.recipes import Recipe, load_recipe
from tests.fixed_texts import documents

TINY = (
    "model.hidden=32", "model.layers=2", "train.batch=4", "train.context=32", "train.steps=20",
    "train.warmup=3", "train.eval_every=10", "train.save_every=10", "train.eval_windows=4",
)  # fmt: skip


def prepared(out: Path, count: int = 60) -> Path:
    """A data folder as `braingpt data prepare` would write it, without filters and detection."""
    from braingpt import __version__
    from braingpt.data.shards.manifest import Manifest, TokenizerFacts
    from braingpt.data.shards.writer import FolderWriter
    from braingpt.tokenizer import Tokenizer

    tokenizer = Tokenizer.default()
    with FolderWriter(out, "uint16") as writer:
        for language in ("ko", "en"):
            for number, text in enumerate(documents(language, count)):
                ids = [tokenizer.markers[language], *tokenizer.encode(text), tokenizer.eot]
                writer.add(
                    "validation" if number % 6 == 0 else "train", language, "test", ids, len(text.encode())
                )
        streams = writer.close()
        tokenizer.save(writer.root / "tokenizer")
        facts = TokenizerFacts(fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size)
        about = {
            "name": "sample",
            "braingpt": __version__,
            "created": "2026-01-01T00:00:00+00:00",
            "parameters": {},
            "filters": {},
        }
        writer.publish(Manifest(**about, tokenizer=facts, dtype="uint16", streams=streams))
    return out


def tiny(architecture: str = "dense", *overrides: str) -> Recipe:
    """A nano recipe made smaller still."""
    return load_recipe(f"nano-{architecture}", [*TINY, *overrides])
