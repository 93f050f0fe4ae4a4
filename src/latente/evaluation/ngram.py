"""Interpolated n-gram model with modified Kneser-Ney smoothing (Chen & Goodman 1998, "An Empirical Study of Smoothing
Techniques for Language Modeling", TR-10-98): what counting alone knows about a text, a reference for models that learn.

    P_k(w | h) = (c(hw) - D(c(hw))) / c(h.) + left(h) P_{k-1}(w | h without its first token),    P_0 = 1/V

c counts, at the highest order, how often hw occurs, and below it the different tokens found before hw. The text is cut into
a tree: node j of level k is a k-gram, coded as (node of its first k-1 tokens) * V + its last token; nothing is hashed.
N tokens, V vocabulary, n nodes of a level, m nodes of the level above it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ORDERS = range(2, 9)
TOKENS = 10_000_000  # of training, at most: bounds the time to half a minute, the memory to a gigabyte or so
TRIAL = 2_000_000  # of these the order is chosen on


@dataclass(frozen=True)
class _Counts:
    """The k-grams of a text: sorted codes, how often each occurs, the nodes of its first and of its last k-1 tokens (all (n,)),
    and the node of the text's own start."""

    codes: np.ndarray
    counts: np.ndarray
    heads: np.ndarray
    tails: np.ndarray
    start: int
    above: int
    """m, how many nodes can be a head"""


@dataclass(frozen=True)
class _Level:
    """P_k: what a known k-gram keeps after its discount, (n,), and the share a context leaves to shorter ones, (m,)."""

    codes: np.ndarray
    kept: np.ndarray
    left: np.ndarray


@dataclass(frozen=True)
class NGram:
    """A fitted model. `order` tokens are seen at once, the predicted one included; `fitted` is how many it was counted on."""

    order: int
    vocabulary: int
    fitted: int
    levels: tuple[_Level, ...]

    @classmethod
    def fit(cls, tokens: np.ndarray, vocabulary: int, order: int | None = None) -> NGram:
        """Counts `tokens` (N,), at most the last `TOKENS` of them.

        Without an order, the one of `ORDERS` that best predicts the last tenth of the training tokens from those before it.
        Raises ValueError for an empty text or for tokens outside 0..vocabulary-1.
        """
        tokens = _checked(tokens[-TOKENS:], vocabulary)
        if not len(tokens):
            raise ValueError("an n-gram model needs at least one training token")
        order = min(order or best_order(tokens[-TRIAL:], vocabulary), len(tokens))
        levels = _count(tokens, vocabulary, order)
        smoothed = [_smooth(level, _different_before(level, longer)) for level, longer in zip(levels, levels[1:])]
        return cls(order, vocabulary, len(tokens), (*smoothed, _smooth(levels[-1], levels[-1].counts)))

    def nats(self, tokens: np.ndarray) -> np.ndarray:
        """-ln P of each of `tokens` (N,) given those before it in the same array, (N,) float64; always finite."""
        tokens = _checked(tokens, self.vocabulary)
        probability, nodes = _unread(tokens, self.vocabulary)
        for level in self.levels:
            probability, nodes = _extend(level, tokens, self.vocabulary, nodes, probability)
        return -np.log(probability)


def best_order(tokens: np.ndarray, vocabulary: int) -> int:
    """The order of `ORDERS` with the fewest nats on the last tenth of `tokens` (N,), counted on the rest."""
    held = len(tokens) // 10
    if not held:
        return ORDERS[0]
    train, tokens = tokens[:-held], tokens[-held:]
    levels = _count(train, vocabulary, min(ORDERS[-1], len(train)))
    probability, nodes = _unread(tokens, vocabulary)
    nats: list[float] = []  # of orders 1, 2, ...: each is its own highest level upon the levels below, which all share
    for level, longer in zip(levels, [*levels[1:], None]):
        highest, _ = _extend(_smooth(level, level.counts), tokens, vocabulary, nodes, probability)
        nats.append(-float(np.log(highest).mean()))
        if longer:
            lower = _smooth(level, _different_before(level, longer))
            probability, nodes = _extend(lower, tokens, vocabulary, nodes, probability)
    return min((order for order in ORDERS if order <= len(nats)), key=lambda order: nats[order - 1], default=1)


def _checked(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """The tokens as int64 (N,); ValueError where one is outside 0..vocabulary-1."""
    tokens = np.asarray(tokens).astype(np.int64)
    if len(tokens) and (tokens.min() < 0 or tokens.max() >= vocabulary):
        raise ValueError(f"tokens from {tokens.min()} to {tokens.max()} do not fit a vocabulary of {vocabulary}")
    return tokens


def _count(tokens: np.ndarray, vocabulary: int, order: int) -> list[_Counts]:
    """The k-grams of `tokens` (N,) for k = 1 .. order <= N."""
    levels, nodes, above = [], np.zeros(len(tokens) + 1, np.int32), 1
    for k in range(1, order + 1):
        codes, first, found, counts = np.unique(
            nodes[:-1] * np.int64(vocabulary) + tokens[k - 1 :],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        heads, tails = (codes // vocabulary).astype(np.int32), nodes[1:][first]
        nodes = found.astype(np.int32)
        levels.append(_Counts(codes, counts.astype(np.int32), heads, tails, int(nodes[0]), above))
        above = len(codes)
    return levels


def _different_before(level: _Counts, longer: _Counts) -> np.ndarray:
    """How many different tokens stand before each k-gram, (n,): the longer k-grams that end in it. The edge of the text
    counts as one, or the first k-gram would have none."""
    before = np.bincount(longer.tails, minlength=len(level.codes))
    before[level.start] += 1
    return before


def _discounts(counts: np.ndarray) -> np.ndarray:
    """D(0) = 0, D(1), D(2), D(3 and more), (4,): the paper's estimates from how many counts are 1, 2, 3 and 4.

    Small or odd texts leave some undefined or outside 0..c: there D is absolute discounting's n1 / (n1 + 2 n2), or 1/2.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    plain = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
    result = np.array([0.0, plain, plain, plain])
    for c in (1, 2, 3):
        if n[1] and n[2] and n[c] and 0 < (exact := c - (c + 1) * plain * n[c + 1] / n[c]) < c:
            result[c] = exact
    return result


def _smooth(level: _Counts, counts: np.ndarray) -> _Level:
    """P_k from the counts (n,) chosen for it."""
    taken = _discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(level.heads, weights=counts, minlength=level.above)
    freed = np.bincount(level.heads, weights=taken, minlength=level.above)
    known = np.maximum(total, 1)  # a context that only ends the text has no continuation, and leaves everything
    return _Level(level.codes, (counts - taken) / known[level.heads], np.where(total > 0, freed / known, 1.0))


def _unread(tokens: np.ndarray, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """P_0 (N,), every token alike, and the nodes of level 0 (N+1,): the empty k-gram, which ends before the text as well."""
    return np.full(len(tokens), 1 / vocabulary), np.zeros(len(tokens) + 1, np.int64)


def _extend(
    level: _Level, tokens: np.ndarray, vocabulary: int, nodes: np.ndarray, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """P_k of each token (N,) from P_{k-1} = `below` (N,), and the nodes of level k from `nodes`, those of level k-1.

    Nodes are (N+1,): that of the k-gram which ends before the text, then at each token; -1 where it was never seen.
    """
    context = nodes[:-1]
    codes = context * vocabulary + tokens
    place = np.minimum(np.searchsorted(level.codes, codes), len(level.codes) - 1)
    seen = (context >= 0) & (level.codes[place] == codes)
    kept = np.where(seen, level.kept[place], 0.0)
    probability = kept + np.where(context >= 0, level.left[context], 1.0) * below
    return probability, np.concatenate([[-1], np.where(seen, place, -1)])
