"""What each part of a model achieves on this machine against its dense twin: a table for each recipe, with
fresh weights.

    python benchmarks/achieved.py small-v2 small-v1 --context 256 --rounds 5

Fresh selectors choose near their rate, and columns win evenly: what is measured is the machine, not what a
run has learned.
"""

import argparse
import os
import sys

import torch
from rich.console import Console

import braingpt
from braingpt.bench.machine import cpu_name
from braingpt.cli.console import guarded
from braingpt.cli.inspect_sparsity_view import twin_table
from braingpt.device.cpu import configure_cpu
from braingpt.inspection.dense_twin import compare_with_twin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    configure_cpu()
    out = Console(width=80)
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    out.print(f"{cpu_name()}, {threads} threads, torch {torch.__version__}, load {load:.1f}")
    for name in arguments.recipes:
        recipe = braingpt.load_recipe(name)
        model = braingpt.build(recipe)
        ids = torch.randint(
            recipe.model.vocab, (arguments.context,), generator=torch.Generator().manual_seed(0)
        ).tolist()
        out.print(
            f"\n{name}: a window of {arguments.context} tokens read, 16 written; "
            f"the lowest of {arguments.rounds} rounds, as shares of the dense twin's"
        )
        out.print(twin_table(compare_with_twin(model, ids, arguments.context, arguments.rounds)))
        sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(guarded(main))
