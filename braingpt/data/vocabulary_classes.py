"""The classes of a vocabulary, learned from the training shards: words that follow the same words share one.

  (1) count how often each word follows each other word, within documents, on a sample of every language;
  (2) give every word a direction: the leading singular vectors of its positive pointwise mutual information
      with the words before it and, with less weight, the words after it (Levy and Goldberg 2014);
  (3) halve the words along their first principal component until each part fills one class;
  (4) move words to the class whose words follow the most similar words, while there is room (the predictive
      exchange of Uszkoreit and Brants 2008, with classes of equal size and all words of a round at once).

The same shards give the same classes on one machine. Linear algebra rounds differently on other processors,
where a few words may change places; a run therefore keeps its classes instead of learning them again.

Legend: V vocabulary, W words seen in the sample, C classes, K dimensions, P distinct pairs.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import torch

from braingpt.data.shards.reader import ShardSet
from braingpt.tokenizer import Tokenizer

# Tokens counted of all languages together: the same share of each, or all of a smaller one.
SAMPLE = 8_000_000
# Consecutive tokens of a sample.
STRETCH = 1 << 16
# Weight of the words that follow, beside the words before. The head predicts from the words before.
FOLLOWING = 0.25
# Singular vectors kept, and further ones that make these more exact.
DIMENSIONS, OVERSAMPLING = 48, 16
POWER_ITERATIONS = 3
# Rounds of moving words.
ROUNDS = 4
# Observations that each class is given beforehand, spread as those of all classes together.
PRIOR = 10.0
# Decimals to which projections count, so that equal words stay in the order of their ids.
DECIMALS = 9


class PairCounts(NamedTuple):
    """How often words follow each other: the distinct pairs, sorted by word and the word before it.

    Attributes:
        word_P: The word, int64.
        before_P: The word before it, int64.
        count_P: How often, float64.
    """

    word_P: np.ndarray
    before_P: np.ndarray
    count_P: np.ndarray


def learn_classes(shards: ShardSet, tokenizer: Tokenizer, width: int) -> np.ndarray:
    """Learn the classes of a vocabulary from training shards.

    Args:
        shards: The prepared data of a run; at most `SAMPLE` tokens of their training split are read.
        tokenizer: The tokenizer of the tokens.
        width: Words a class.

    Returns:
        order_V, int64: all tokens, those of the first class first, `width` to a class; only the last class
        may hold fewer. Words that the sample lacks come after all others, and special tokens come last, so
        that classes of words hold nothing that generation bans.

    Raises:
        UserError: A token of the shards is beyond the vocabulary.
    """
    pairs = count_pairs(shards, tokenizer.vocab_size, tokenizer.eot)
    first = tokenizer.first_special
    return order_by_class(pairs, tokenizer.vocab_size, width, range(first, first + len(tokenizer.specials)))


def count_pairs(shards: ShardSet, vocab: int, end_of_text: int, sample: int = SAMPLE) -> PairCounts:
    """Count the pairs of neighbouring tokens in stretches spread evenly over the training split.

    A pair whose first token ends a document is left out.

    Args:
        shards: The prepared data.
        vocab: Tokens of the vocabulary.
        end_of_text: The token that ends a document.
        sample: Tokens to read at most, over all languages; a stretch of each is read in any case.

    Returns:
        The pairs of all languages.

    Raises:
        UserError: A token of the shards is beyond the vocabulary.
    """
    # Small languages first, so that the others have what these leave.
    size = {language: shards.tokens("train", language) for language in shards.languages("train")}
    languages = sorted(size, key=lambda language: size[language])
    keys = [np.zeros(0, dtype=np.int64)]
    for number, language in enumerate(languages):
        share = sample // (len(languages) - number)
        sample -= min(share, size[language])
        for ids in _stretches(shards, language, share):
            inside = ids[:-1] != end_of_text
            keys.append(ids[1:][inside] * vocab + ids[:-1][inside])
    key_N = np.concatenate(keys)
    del keys
    key_N.sort()
    start_P = np.flatnonzero(np.diff(key_N, prepend=-1))
    count_P = np.diff(start_P, append=len(key_N)).astype(np.float64)
    word_P, before_P = np.divmod(key_N[start_P], vocab)
    return PairCounts(word_P, before_P, count_P)


def order_by_class(pairs: PairCounts, vocab: int, width: int, last: Collection[int] = ()) -> np.ndarray:
    """Put the tokens of a vocabulary in the order of their classes.

    Args:
        pairs: How often tokens follow each other.
        vocab: Tokens of the vocabulary.
        width: Tokens a class.
        last: Tokens that come last, in this order, whatever they follow.

    Returns:
        order_V, int64, as of `learn_classes`.
    """
    last_ids = np.array(list(last), dtype=np.int64)
    kept = ~np.isin(pairs.word_P, last_ids)
    pairs = PairCounts(*(column[kept] for column in pairs))
    words_W = np.unique(pairs.word_P)
    class_W = np.zeros(len(words_W), dtype=np.int64)
    if len(words_W) > width:
        frequency_W = np.bincount(pairs.word_P, pairs.count_P, vocab)[words_W]
        class_W = _bisected(_directions(pairs, words_W, vocab), np.sqrt(frequency_W), width)
        class_W = _moved(class_W, _matrix(pairs, words_W, vocab), frequency_W, width)
    rest = np.setdiff1d(np.arange(vocab), np.concatenate([words_W, last_ids]))
    return np.concatenate([words_W[np.argsort(class_W, kind="stable")], rest, last_ids])


def _stretches(shards: ShardSet, language: str, limit: int) -> Iterator[np.ndarray]:
    """The language's tokens in stretches, or as many stretches as hold `limit` tokens, spread evenly."""
    tokens = shards.tokens("train", language)
    stretches = -(-tokens // STRETCH)
    chosen = min(stretches, max(1, limit // STRETCH))
    for number in range(chosen):
        start = number * stretches // chosen * STRETCH
        ids = np.empty(min(STRETCH, tokens - start), dtype=np.int64)
        shards.read_into(ids, "train", language, start)
        yield ids


def _matrix(pairs: PairCounts, words_W: np.ndarray, vocab: int) -> torch.Tensor:
    """Sparse (W, V) of the values of pairs; pairs whose word is not among `words_W` are left out."""
    row_V = np.full(vocab, -1)
    row_V[words_W] = np.arange(len(words_W))
    row_P = row_V[pairs.word_P]
    known = row_P >= 0
    places = np.stack([row_P[known], pairs.before_P[known]])
    values_P = torch.from_numpy(pairs.count_P[known])
    shape = len(words_W), vocab
    return torch.sparse_coo_tensor(
        torch.from_numpy(places), values_P, shape, check_invariants=False
    ).coalesce()


def _mutual_information(pairs: PairCounts, vocab: int) -> PairCounts:
    """The pairs whose pointwise mutual information is positive, with it instead of their counts."""
    word_V = np.bincount(pairs.word_P, pairs.count_P, vocab)
    before_V = np.bincount(pairs.before_P, pairs.count_P, vocab)
    expected_P = word_V[pairs.word_P] * before_V[pairs.before_P] / pairs.count_P.sum()
    information_P = np.log(pairs.count_P / expected_P)
    positive = information_P > 0
    return PairCounts(pairs.word_P[positive], pairs.before_P[positive], information_P[positive])


def _directions(pairs: PairCounts, words_W: np.ndarray, vocab: int) -> np.ndarray:
    """Unit vectors (W, K) of the words, by randomised subspace iteration (Halko et al. 2011, section 4.5)."""
    before = _mutual_information(pairs, vocab)
    # The same pairs, seen from the first word.
    after = PairCounts(before.before_P, before.word_P, before.count_P * FOLLOWING)
    sides = [_matrix(before, words_W, vocab), _matrix(after, words_W, vocab)]
    random = np.random.Generator(np.random.Philox(0))
    basis_WK = torch.from_numpy(random.standard_normal((len(words_W), DIMENSIONS + OVERSAMPLING)))
    for _ in range(POWER_ITERATIONS):
        basis_WK, _ = torch.linalg.qr(_gram_product(sides, basis_WK))
    square_K, rotation_KK = torch.linalg.eigh(basis_WK.T @ _gram_product(sides, basis_WK))
    # The eigenvalues rise; rounding may leave those of a small matrix below 0.
    scale_K = square_K[-DIMENSIONS:].clamp(min=0).sqrt()
    vectors_WK = basis_WK @ rotation_KK[:, -DIMENSIONS:] * scale_K
    # Of unit length: a rare word points as clearly as a frequent one, and is otherwise all length.
    return torch.nn.functional.normalize(vectors_WK, dim=1).numpy()


def _gram_product(sides: list[torch.Tensor], x_WK: torch.Tensor) -> torch.Tensor:
    """A A^T x of the matrix A whose columns are those of all sides."""
    product_WK = torch.zeros_like(x_WK)
    for side in sides:
        product_WK += torch.sparse.mm(side, torch.sparse.mm(side.t(), x_WK))
    return product_WK


def _bisected(x_WK: np.ndarray, weight_W: np.ndarray, width: int) -> np.ndarray:
    """Classes (W,) of `width` words, the last of which may hold fewer: parts halved along their first
    principal component, to which words contribute by weight.
    """
    class_W = np.zeros(len(x_WK), dtype=np.int64)
    # Members of a part, its first class, and its number of classes.
    parts = [(np.arange(len(x_WK)), 0, -(-len(x_WK) // width))]
    while parts:
        members, first, classes = parts.pop()
        if classes == 1:
            class_W[members] = first
            continue
        order = np.argsort(_first_component(x_WK[members], weight_W[members]), kind="stable")
        left, cut = classes // 2, classes // 2 * width
        parts.append((np.sort(members[order[:cut]]), first, left))
        parts.append((np.sort(members[order[cut:]]), first + left, classes - left))
    return class_W


def _first_component(x_NK: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
    """Projections (N,) on the first principal component, whose sign is that of the largest one."""
    centred_NK = x_NK - weight_N @ x_NK / weight_N.sum()
    _, axes_KK = np.linalg.eigh(centred_NK.T @ (centred_NK * weight_N[:, None]))
    projection_N = np.round(centred_NK @ axes_KK[:, -1], DECIMALS)
    return projection_N * np.copysign(1.0, projection_N[np.abs(projection_N).argmax()])


def _moved(class_W: np.ndarray, before: torch.Tensor, frequency_W: np.ndarray, width: int) -> np.ndarray:
    """The classes after rounds in which each word, frequent ones first, takes the class with room that makes
    the words before it likeliest; `before` counts them, (W, V).
    """
    size_C = np.bincount(class_W)
    (word_P, before_P), count_P = before.indices().numpy(), before.values().numpy()
    # Of words that stand before none, nothing is asked.
    share_V = np.bincount(before_P, count_P, before.shape[1]) / count_P.sum()
    share_V = np.maximum(share_V, np.finfo(float).tiny)
    by_frequency_W = np.argsort(-frequency_W, kind="stable")
    for _ in range(ROUNDS):
        place_P = before_P * len(size_C) + class_W[word_P]
        count_VC = np.bincount(place_P, count_P, share_V.size * len(size_C)).reshape(len(share_V), -1)
        # How much likelier a word of the class than any word makes the word before it.
        gain_VC = np.log((count_VC / share_V[:, None] + PRIOR) / (count_VC.sum(0) + PRIOR))
        score_WC = torch.sparse.mm(before, torch.from_numpy(gain_VC)).numpy()
        moved_W = _assigned(score_WC, by_frequency_W, size_C)
        if (moved_W == class_W).all():
            break
        class_W = moved_W
    return class_W


def _assigned(score_WC: np.ndarray, order_W: np.ndarray, size_C: np.ndarray) -> np.ndarray:
    """Classes (W,): each word in turn takes the class of the best score that has room; overwrites scores."""
    class_W, room_C = np.zeros(len(order_W), dtype=np.int64), size_C.copy()
    for word in order_W:
        best = score_WC[word].argmax()
        class_W[word] = best
        room_C[best] -= 1
        if not room_C[best]:
            score_WC[:, best] = -np.inf
    return class_W
