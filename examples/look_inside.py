# %% [markdown]
# # Look inside a model
#
# Which columns win for Korean, and which for English?
# Which tokens does selective attention choose, and how many parameters does one token multiply with?
# This script answers for a `v2` model: the one that `RUN` names, or a `nano-v2` that it trains first.
# Open it as a notebook in VS Code or Jupyter (with jupytext), or run it whole:
#
#     python examples/look_inside.py
#     RUN=runs/tiny-v2 python examples/look_inside.py

# %%
import json
import os
import sys
import time
from pathlib import Path

import torch

import braingpt
from braingpt.cli.main import app
from braingpt.data.sample import documents
from braingpt.inspection.trace import trace
from braingpt.tokenizer.pieces import pieces

# Questions for help are answered before any work.
if {"-h", "--help"} & set(sys.argv[1:]):
    print(
        "usage: [VARIABLE=VALUE]... python examples/look_inside.py\n"
        "Environment variables: RUN names a run. Without it a model is trained for STEPS steps (60)\n"
        "on SAMPLES documents (600); FOLDER (runs/look-inside) holds the results."
    )
    raise SystemExit

STEPS = int(os.environ.get("STEPS", "60"))
SAMPLES = int(os.environ.get("SAMPLES", "600"))
FOLDER = Path(os.environ.get("FOLDER", "runs/look-inside"))
FOLDER.mkdir(parents=True, exist_ok=True)


def command(*words: object) -> None:
    """Run `braingpt WORDS` in this process."""
    print("\n$ braingpt", *words)
    app([str(word) for word in words], standalone_mode=False)


# %% [markdown]
# ## A model
#
# A column is a group of neurons that runs only for the tokens it wins.
# The 16 columns of each layer of `nano-v2` compete for every token, and two of them win.
# One more column, the shared one, runs for all tokens.
# Sixty short steps make a weak model, but its columns have begun to divide the work.

# %%
if "RUN" in os.environ:
    run = Path(os.environ["RUN"])
else:
    run = FOLDER / time.strftime("%Y%m%d-%H%M%S")
    data = FOLDER / "data"
    command("data", "prepare", "sample", "--out", data, "--languages", "ko,en", "--max-samples", SAMPLES)
    settings = {
        "train.steps": STEPS,
        "train.warmup": max(1, STEPS // 10),
        "train.context": 64,
        "train.eval_windows": 4,
    }
    overrides = [f"--set={key}={value}" for key, value in settings.items()]
    command("train", "--recipe", "nano-v2", "--data", data, "--out", run, "--device", "cpu", *overrides)
model, tokenizer = braingpt.load(run)

# %% [markdown]
# ## How much of the model one token uses
#
# Active parameters are those that the forward pass of one token multiplies with.
# The embedding only looks up rows; the head shares these rows and multiplies with all of them.

# %%
total, active = model.parameters_total(), model.parameters_active()
print(f"{total:,} parameters, {active:,} active: {active / total:.0%}")

# %% [markdown]
# ## Which columns win for which language
#
# `inspect-sparsity` reads a text and counts.
# The text here is new to the model: other stories of the built-in corpus.
# Its JSON has `loads`: by language and layer, how often each column wins compared with an even share.

# %%
stories = [document for document in documents(seed=1, size_bytes=30_000) if document.language in ("ko", "en")]
text = FOLDER / "new.txt"
text.write_text("\n\n".join(story.text for story in stories) + "\n", encoding="utf-8")
found, page = FOLDER / "inside.json", FOLDER / "inside.html"
options = ["--context", 64, "--rounds", 0, "--show", 0]
command("inspect-sparsity", run, "--text", text, *options, "--json-file", found, "--html", page)
loads = json.loads(found.read_text(encoding="utf-8"))["loads"]

# %% [markdown]
# One row a layer and language, one character a column.
# A blank column wins hardly any token, a full block wins twice its even share or more.
# A column that is dark in one row and light in the other works for one language.
# The page `inside.html` shows the same as heat maps.

# %%
BLOCKS = " ░▒▓█"
for layer in range(len(loads["ko"])):
    for language in ("ko", "en"):
        row = "".join(BLOCKS[min(4, round(2 * load))] for load in loads[language][layer])
        print(f"layer {layer}  {language}  {row}")
    korean, english = torch.tensor(loads["ko"][layer]), torch.tensor(loads["en"][layer])
    excess = korean - english
    print(f"         most Korean: column {excess.argmax()}; most English: column {excess.argmin()}")

# %% [markdown]
# ## Which tokens are selected
#
# In a layer of selective attention only the selected tokens attend, and only they are attended to.
# The recipe asks for a tenth of the tokens.
# `trace` follows each token of a window through the layers.
# In the text below the selected tokens are in brackets.

# %%
layers = [layer for layer, block in enumerate(model.blocks) if hasattr(block.mixer, "selector")]
for story in (next(story for story in stories if story.language == language) for language in ("ko", "en")):
    ids = tokenizer.encode(story.text, language=story.language)[:96]
    attended = trace(model, [torch.tensor([ids])]).attended
    for layer in layers:
        shown, place = "", 0
        for piece in pieces(tokenizer, ids):
            chosen = attended[layer, place : place + len(piece.ids)].any()
            shown += f"[{piece.text}]" if chosen else piece.text
            place += len(piece.ids)
        print(f"layer {layer}, {attended[layer].float().mean():.0%} selected: {shown}\n")

# %% [markdown]
# ## Further
#
# - Without `--rounds 0` the command also measures time and bytes beside a dense model of the same shape.
# - `--growth` repeats the counts for every checkpoint of a run.
# - `examples/train_on_your_text.py` trains a model on a text of yours, which `RUN` can name here.
