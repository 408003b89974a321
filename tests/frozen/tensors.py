"""Names, shapes and dtypes of a recipe's tensors, as they are saved, in few lines."""

import hashlib
import re

import torch

import braingpt


def collapsed(recipe: str, known: dict[str, list[str]]) -> list[str]:
    """A digest of all tensors, then a line for those whose names differ in the layer alone: `blocks.#.norm 64
    float32 layers 0-5`.

    `known`: by the model's settings, what was found before; recipes that differ in training alone have the
        same model.
    """
    settings = braingpt.load_recipe(recipe)
    key = settings.model.model_dump_json()
    if key not in known:
        with torch.device("meta"):
            tensors = braingpt.build(settings).state_dict()
        known[key] = _lines(
            {
                name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
                for name, tensor in tensors.items()
            }
        )
    return known[key]


def _lines(tensors: dict[str, tuple[tuple[int, ...], str]]) -> list[str]:
    plain = [f"{name} {'x'.join(map(str, shape))} {dtype}" for name, (shape, dtype) in tensors.items()]
    layers: dict[str, list[int]] = {}
    for line in plain:
        number = re.search(r"\.(\d+)\.", line)
        layers.setdefault(re.sub(r"\.\d+\.", ".#.", line, count=1), []).extend(
            [int(number[1])] if number else []
        )
    digest = hashlib.sha256("\n".join(sorted(plain)).encode()).hexdigest()[:16]
    return [
        f"{len(plain)} tensors {digest}",
        *sorted(
            pattern + (f" layers {_ranges(sorted(numbers))}" if numbers else "")
            for pattern, numbers in layers.items()
        ),
    ]


def _ranges(numbers: list[int]) -> str:
    """`0-3,5` for [0, 1, 2, 3, 5]."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
