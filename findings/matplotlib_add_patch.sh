#!/usr/bin/env bash
# A compound path of straight rectangles: adding it to the axes takes longer than drawing it, one call aside.
#
# One would guess: `Axes.add_patch` of one path is cheap however many rectangles the path has, because their limits
#   are a minimum and a maximum, which `Path.get_extents` has in numpy for lines.
# What happens: `add_patch` updates the data limits by walking over every segment as a Bezier curve in Python, also
#   where all segments are straight: its time grows with the segments. `add_artist` of the same patch, with the limits
#   set by hand, and `add_collection` of a PathCollection take none of it; the drawing is the same to the byte.
# Versions: matplotlib 3.11.2.
# Why it matters: a heat map of 96 x 300 cells as one path a colour keeps SVG small, and `add_patch` makes it the
#   slowest part of a page.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --quiet matplotlib==3.11.2
MPLCONFIGDIR="$work" "$work/venv/bin/python" - <<'PY'
import io
import time

import matplotlib
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

matplotlib.rcParams["svg.hashsalt"] = "same"
CODES = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]


def rectangles(count):
    corners = [(x % 300, x // 300) for x in range(count)]
    points = [point for x, y in corners for point in ((x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1), (x, y))]
    return Path(points, CODES * count)


def added(way, count):
    """Seconds of processor time to add the path, and the picture."""
    path, axes = rectangles(count), Figure().subplots()
    axes.set(xlim=(0, 300), ylim=(0, 100))
    began = time.process_time()
    if way == "add_collection":
        axes.add_collection(PathCollection([path], linewidths=0), autolim=False)
    else:
        getattr(axes, way)(PathPatch(path, linewidth=0))
    took = time.process_time() - began
    file = io.BytesIO()
    axes.figure.savefig(file, format="svg", metadata={"Date": None})
    return took, file.getvalue()


print("matplotlib", matplotlib.__version__)
found = {(way, count): added(way, count) for way in ("add_patch", "add_artist", "add_collection") for count in (2_000, 8_000)}
for (way, count), (took, _) in found.items():
    print(f"{way:15} {count:6,} rectangles  {took:7.4f} s")
few, many, quick = (found[key][0] for key in (("add_patch", 2_000), ("add_patch", 8_000), ("add_artist", 8_000)))
assert many > 2.5 * few and many > 50 * quick and many > 50 * found["add_collection", 8_000][0]
assert found["add_patch", 8_000][1] == found["add_artist", 8_000][1]
print("as described")
PY
