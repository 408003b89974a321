"""The format of a checkpoint: one folder, complete in itself, never half there.

    step-0000250/
      model.safetensors      parameters and buffers (controllers included); a tied tensor once
      optimizer.safetensors  the optimizers' moments by parameter name, the states of the random generators;
                             with train.average, the trained weights
      recipe.yaml            the resolved recipe of this model
      final.yaml             in a stage of growth before the last: the recipe of the run
      tokenizer/             the tokenizer, complete
      state.json             step, tokens, version, best validation loss, size and SHA-256 of every other
                             file, and the SHA-256 of all this

Processes that hold parts of the weights (`train.parallel: fsdp`) write folders instead of the two files,
model/ and optimizer/, and each process writes its part. Any number of processes resumes from both forms, and
every command reads both.

`state.py` reads state.json, `verify.py` verifies files, `checkpoint.py` saves and loads.
"""

import errno
import os
from pathlib import Path

# The format that is written, and those that are read. Format 1 has no hash of state.json.
FORMAT, FORMATS = 2, (1, 2)
STATE, RECIPE, FINAL, TOKENIZER = "state.json", "recipe.yaml", "final.yaml", "tokenizer"
# Names of the random generators' states in the optimizer's file.
RNG_CPU, RNG_CUDA = "rng.cpu", "rng.cuda"
# Prefix of the trained weights in the optimizer's file, where the model's file holds their average.
TRAINED = "trained."


def flush(path: Path) -> None:
    """Ask the system to write a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot flush a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
