# %% [markdown]
# # Train on your own text
#
# This script turns a text file into a small model that continues it.
# The steps are a vocabulary, prepared data, a `nano-v2` model, new text.
# With the built-in text it takes less than a minute on two CPU cores.
# Open it as a notebook in VS Code or Jupyter (with jupytext), or run it whole:
#
#     python examples/train_on_your_text.py
#     TEXT=novel.txt STEPS=2000 python examples/train_on_your_text.py
#
# Every cell is one command of braingpt; the same words work in a shell.

# %%
import json
import os
import sys
import time
from pathlib import Path

import braingpt
from braingpt.cli.main import app

# Questions for help are answered before any work.
if {"-h", "--help"} & set(sys.argv[1:]):
    print(
        "usage: [VARIABLE=VALUE]... python examples/train_on_your_text.py\n"
        "Environment variables: TEXT is a text file and PROMPT what to continue; VOCAB (1024), STEPS (150)\n"
        "and FOLDER (runs/your-text) are the vocabulary's entries, the steps and the place of the results."
    )
    raise SystemExit

STEPS = int(os.environ.get("STEPS", "150"))
FOLDER = Path(os.environ.get("FOLDER", "runs/your-text"))
FOLDER.mkdir(parents=True, exist_ok=True)


def command(*words: object) -> None:
    """Run `braingpt WORDS` in this process."""
    print("\n$ braingpt", *words)
    app([str(word) for word in words], standalone_mode=False)


# %% [markdown]
# ## The text
#
# `TEXT` names a file: txt, md, jsonl, csv or parquet; `PROMPT` the words that the model is to continue.
# Without `TEXT` the built-in sample corpus writes a file of short stories and facts in Korean and English.
# Half a megabyte is enough to see something; a better model needs a hundred times more.

# %%
prompt = os.environ.get("PROMPT", "")
if "TEXT" in os.environ:
    text = Path(os.environ["TEXT"])
else:
    from braingpt.data.sample import documents

    text = FOLDER / "stories.jsonl"
    stories = [
        document.text for document in documents(size_bytes=800_000) if document.language in ("ko", "en")
    ]
    text.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories), encoding="utf-8")
    prompt = prompt or " ".join(stories[0].split()[:3])
print(f"{text}: {text.stat().st_size:,} bytes")

# %% [markdown]
# ## A vocabulary
#
# braingpt has a vocabulary of 16,384 entries for six languages.
# In a model this small most of the work is then the choice among 16,384 tokens.
# A vocabulary of 1,024 entries, learnt from the text itself, trains faster.
# `VOCAB=0` takes the built-in one, the better choice for larger models and for several languages.

# %%
vocab = int(os.environ.get("VOCAB", "1024"))
if vocab:
    command("tokenizer", "train", text, "--out", FOLDER / "tokenizer", "--vocab", vocab)
    tokenizer = braingpt.Tokenizer.load(FOLDER / "tokenizer")
else:
    tokenizer = braingpt.Tokenizer.default()

# %% [markdown]
# ## Data
#
# `data prepare text` cleans the text, drops short, broken and duplicate documents, and writes tokens.
# The table shows the documents, the tokens to train on and the tokens held out for validation.

# %%
data = FOLDER / "data"
chosen = ["--tokenizer", FOLDER / "tokenizer"] if vocab else []
command("data", "prepare", "text", text, "--out", data, "--validation", 0.05, "--force", *chosen)

# %% [markdown]
# ## Training
#
# `nano-v2` is a recipe: a YAML file of two lines, of which `--set` overrides any value.
# The loss of a validation line is in nats a token.
# Bits per byte do not depend on the vocabulary: compare these between models.

# %%
run = FOLDER / time.strftime("%Y%m%d-%H%M%S")
settings = {
    "model.vocab": tokenizer.vocab_size,
    "train.steps": STEPS,
    "train.warmup": max(1, STEPS // 10),
    "train.eval_every": max(1, STEPS // 3),
    "train.eval_windows": 8,
}
overrides = [f"--set={key}={value}" for key, value in settings.items()]
command("train", "--recipe", "nano-v2", "--data", data, "--out", run, "--device", "cpu", *overrides)

# %% [markdown]
# ## New text
#
# `load` returns the model of the newest checkpoint, in eval mode, and its tokenizer.
# `temperature` divides the logits before a token is drawn.
# A low temperature keeps to the likeliest words, a high one varies more.

# %%
model, tokenizer = braingpt.load(run)
print(
    f"{model.parameters_total():,} parameters, {model.parameters_active():,} of them active for one token\n"
)
ids = tokenizer.encode(prompt, language="auto")
for temperature in (0.5, 0.9):
    written = model.generate(ids, max_new_tokens=60, temperature=temperature, seed=1)
    print(f"temperature {temperature}: {prompt}{tokenizer.decode(written)}\n")

# %% [markdown]
# ## Further
#
# - `braingpt eval RUN` measures the model with 95 % intervals, `braingpt chat RUN` lets you write with it.
# - `braingpt recipes` lists larger recipes.
# - `braingpt train --recipe tiny-v2 --plan` estimates memory and time.
# - `examples/look_inside.py` shows what the model does with each token.
