"""Peak memory of training, by how many windows go through the model at a time: what is kept for each window
beside what the weights take.

    python benchmarks/training_memory.py --size small --data data/korean --windows 1 2 4 8 16

Every figure is a process of its own that takes three whole steps (`braingpt.bench.peak_memory`); on a CPU one
thread, so that heaps are alike. A line of JSON for each number of windows, in MB, with ratios to the first
architecture.
"""

import argparse
import json

from braingpt.bench.contender import bench_recipe
from braingpt.bench.peak_memory import STEPS, training_memory
from braingpt.cli.console import guarded


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("architectures", nargs="*", default=["v1", "v2", "dense"])
    parser.add_argument("--size", default="small")
    parser.add_argument("--data", required=True)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--set", action="append", default=[], dest="changes", metavar="KEY=VALUE", help="of all recipes"
    )
    options = parser.parse_args()
    for windows in options.windows:
        peaks = {}
        for name in options.architectures:
            recipe = bench_recipe(
                options.size, name, STEPS, options.context, windows, [options.data], changes=options.changes
            )
            peaks[name] = training_memory(recipe, options.device, threads=1)
        first, *others = options.architectures
        ratios = {name: round(peaks[name] / peaks[first], 3) for name in others}
        print(
            json.dumps(
                {
                    "windows": windows,
                    "peak_MB": {name: round(peak / 1e6) for name, peak in peaks.items()},
                    "ratios": ratios,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    raise SystemExit(guarded(main))
