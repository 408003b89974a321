"""What columns are for: how much the column that wins a token says about the token's language, script, or
place in the text.

Mutual information (Shannon 1948) between winning column and label, over (token, winner) pairs, as a share of
the label's entropy: 0, the columns say nothing about the label; 1, they say all. Finite counts alone give
some, so the same is measured with the labels shuffled over the tokens; only the excess belongs to the
columns. Neighbouring tokens are alike, which shuffling does not keep: small excesses mean little.

Legend: N tokens, A winners a token, E columns, Y labels.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from braingpt.inspection.trace import Trace
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.cleaning import clean_text
from braingpt.tokenizer.language import split
from braingpt.tokenizer.pieces import Piece, pieces

# Thirds of a window.
PLACES = ("beginning", "middle", "end")
LABELS = ("language", "script", "place")


@dataclass(frozen=True)
class Specialisation:
    """How much one layer's columns say about one label."""

    layer: int
    label: str
    # Mutual information as a share of the label's entropy, and the same with the labels shuffled.
    share: float
    shuffled: float
    # Entropy of the label, in bits.
    entropy: float


def labels(
    tokenizer: Tokenizer, windows: Sequence[Tensor], languages: Sequence[str | None]
) -> dict[str, list[str]]:
    """Language, script and place of each token.

    Args:
        tokenizer: The vocabulary of the ids.
        windows: (B, L) tokens each.
        languages: The language of each window's text; None: detected in the text.

    Returns:
        For each of `LABELS` a value for every token.
    """
    found: dict[str, list[str]] = {label: [] for label in LABELS}
    for window_BL, language in zip(windows, languages, strict=True):
        for ids in window_BL.tolist():
            shown = pieces(tokenizer, ids)
            found["language"] += [language] * len(ids) if language else _languages(shown)
            found["script"] += [script(piece) for piece in shown for _ in piece.ids]
            found["place"] += [PLACES[3 * place // len(ids)] for place in range(len(ids))]
    return found


def _languages(shown: list[Piece]) -> list[str]:
    """The language of the stretch of text that each token lies in, "?" where none is recognised."""
    by_character = [
        language or "?"
        for language, part in split("".join(p.text for p in shown if not p.special))
        for _ in part
    ]
    found, at = [], 0
    for piece in shown:
        last = at + (0 if piece.special else len(piece.text)) - 1
        found += ["?" if piece.special or last < at else by_character[last]] * len(piece.ids)
        at = max(at, last + 1)
    return found


def script(piece: Piece) -> str:
    """hangul, latin, another script, digits, marks (punctuation, spaces) or special."""
    if piece.special:
        return "special"
    for character in clean_text(piece.text).strip():
        kind = unicodedata.category(character)
        if kind[0] == "L":
            name = unicodedata.name(character, "").split(" ")[0]
            return {"HANGUL": "hangul", "LATIN": "latin"}.get(name, "other letters")
        if kind[0] == "N":
            return "digits"
    return "marks"


def specialisation(found: Trace, labelled: dict[str, list[str]]) -> list[Specialisation]:
    """What each layer's columns say about each label that varies in this text."""
    generator, rows = torch.Generator().manual_seed(0), []
    for label, values in labelled.items():
        names = sorted(set(values))
        label_N = torch.tensor([names.index(value) for value in values])
        if len(names) < 2:
            continue
        for layer, winner_NA in enumerate(found.winners):
            if winner_NA is None or not found.arrived[layer].any():
                continue
            here_N = winner_NA[:, 0] >= 0
            winner_NA, seen_N = winner_NA[here_N], label_N[here_N]
            shuffled_N = seen_N[torch.randperm(len(seen_N), generator=generator)]
            bits, entropy = information(winner_NA, seen_N, found.columns[layer], len(names))
            if entropy > 0:
                by_chance, _ = information(winner_NA, shuffled_N, found.columns[layer], len(names))
                rows.append(Specialisation(layer, label, bits / entropy, by_chance / entropy, entropy))
    return rows


def information(winner_NA: Tensor, label_N: Tensor, columns: int, labels: int) -> tuple[float, float]:
    """Mutual information of column and label, and the label's entropy, in bits."""
    pair_NA = winner_NA * labels + label_N[:, None]
    joint_EY = torch.bincount(pair_NA.flatten(), minlength=columns * labels).view(columns, labels).double()
    joint_EY /= joint_EY.sum()
    entropy = lambda p: float(-torch.special.xlogy(p, p).sum() / torch.tensor(2.0).log())  # noqa: E731
    of_label = entropy(joint_EY.sum(0))
    return max(0.0, of_label + entropy(joint_EY.sum(1)) - entropy(joint_EY.flatten())), of_label


def loads(found: Trace, languages: list[str]) -> dict[str, list[list[float]]]:
    """The load of each column by language and layer: the share of the language's tokens that the column wins,
    times E / A, so that 1 is an even load.
    """
    by_language = {}
    for language in dict.fromkeys(languages):
        here_N = torch.tensor([one == language for one in languages])
        by_language[language] = [_load(won_NA[here_N], columns) for won_NA, columns in _competing(found)]
    return by_language


def _competing(found: Trace) -> list[tuple[Tensor, int]]:
    """Winners and columns of the layers that have columns."""
    return [
        (won_NA, columns)
        for won_NA, columns in zip(found.winners, found.columns, strict=True)
        if won_NA is not None
    ]


def _load(winner_NA: Tensor, columns: int) -> list[float]:
    won = winner_NA[winner_NA[:, 0] >= 0]
    count_E = torch.bincount(won.flatten(), minlength=columns).double()
    return (count_E * columns / max(1, won.numel())).tolist()
