"""What samples are worth to a model that learns from them.

    as many samples, training rows --trees learn the target--> its values in test rows --> AUC, macro-F1, or R^2, beside each other

Train on synthetic, test on real (Esteban et al. 2017, arXiv:1706.02633). Intervals are those of other test rows. N rows, K levels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from latente.evaluation.distances import Z
from latente.evaluation.scores import Answer, Score
from latente.evaluation.table_rows import Held, Rows
from latente.evaluation.table_trees import fitted
from latente.rng import key

USED = 20_000  # rows a model learns from
LEVELS = 20  # of a target that are told apart: the most frequent ones
TREES = 600  # of all levels together
RESAMPLES = 200

Measure = Callable[[np.ndarray], list[float]]
"""How often each test row counts (N,) to scores"""


def useful(samples: Rows, held: Held, test: Rows, seed: int) -> list[Score]:
    """What a model trained on samples alone makes of real rows, beside one trained on as many real rows; nothing where the target of
    test rows is always the same."""
    assert held.target is not None
    target, n = held.target, min(len(samples), len(held.train), USED)
    random = np.random.default_rng(key(seed, "use"))
    real = held.train.some(np.sort(random.permutation(len(held.train))[:n]))
    name, discrete = test.names[target], test.categorical[target]
    truth = test.values[:, target]
    levels = _levels(held.train.values[:, target])
    if len(np.unique(_named(truth, levels) if discrete else truth[~np.isnan(truth)])) < 2:
        return []
    if discrete:
        measures = [_classified(part, test, target, levels, seed) for part in (samples.some(slice(n)), real)]
    else:
        measures = [_regressed(part, test, target, seed) for part in (samples.some(slice(n)), real)]
    every = np.ones(int((~np.isnan(truth)).sum()))
    found = np.array([measure(every) for measure in measures])
    drawn = np.array([[m(w) for m in measures] for w in random.multinomial(len(every), every / len(every), RESAMPLES)])
    halves = Z * np.nanstd(drawn, 0)
    slack = Z * float(np.nanstd(drawn[:, 1, 0] - drawn[:, 0, 0]))
    (value, usual), half = found[:, 0], halves[0, 0]
    small, large = (0.02, 0.1) if discrete else (0.05, 0.2)
    gap = float(usual - value)
    answer: Answer = "good" if gap <= small else "unsure" if gap <= large or gap - slack <= small else "bad"
    does = f"ranks {name} of real rows with an AUC of" if discrete else f"explains of {name} in real rows an R^2 of"
    words = f"trained on {n:,} samples, a model {does} {value:.3f}; trained on as many real rows, {usual:.3f}"
    if answer != "good":
        words += ": add real rows to them, or train longer"
    beside = "trained on real rows"
    ci, references = _around(value, half), {beside: float(usual)}
    if discrete:
        unit = "0.5 = no better than chance"
        scores = [Score("tstr_auc", float(value), ci, "higher", unit, references, words, "useful", answer)]
    else:
        unit = "share of variance explained"
        scores = [Score("tstr_r2", float(value), ci, "higher", unit, references, words, "useful", answer)]
    if discrete:
        (value, usual), half = found[:, 1], halves[0, 1]
        words = f"it names {name} with a macro-F1 of {value:.3f}; trained on real rows, {usual:.3f}"
        scores.append(Score("tstr_macro_f1", float(value), _around(value, half), "higher", "mean over classes, 0 to 1",
                            {beside: float(usual)}, words, "useful"))  # fmt: skip
    return scores


def _around(value: float, half: float) -> tuple[float, float]:
    return float(value - half), float(min(1.0, value + half))


def _levels(values: np.ndarray) -> np.ndarray:
    """The most frequent levels, in order."""
    levels, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    return np.sort(levels[np.argsort(-counts, kind="stable")[:LEVELS]])


def _named(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The place of each value among the levels, all others being one more; what is missing is left out."""
    values = values[~np.isnan(values)]
    return np.where(np.isin(values, levels), np.searchsorted(levels, values), len(levels))


def _given(part: Rows, target: int) -> tuple[np.ndarray, list[bool]]:
    """The other columns of rows that have the target, and which of them are categories."""
    others = [c for c in range(len(part.names)) if c != target]
    there = ~np.isnan(part.values[:, target])
    return part.values[there][:, others], [part.categorical[c] for c in others]


def _classified(train: Rows, test: Rows, target: int, levels: np.ndarray, seed: int) -> Measure:
    """AUC, a mean over levels of one against the rest, and macro-F1."""
    (x, kinds), (u, _) = (_given(part, target) for part in (train, test))
    y, v = (_named(part.values[:, target], levels) for part in (train, test))
    there, seen = np.unique(v), np.unique(y)
    chances = np.zeros((len(v), len(levels) + 1))
    if len(seen) > 1:
        rounds = min(100, TREES // len(seen))
        chances[:, seen] = fitted("classes", x, y, kinds, seed, rounds)(u)
    else:
        chances[:, seen] = 1.0
    told = chances.argmax(1)
    places = [np.unique(chances[:, k], return_inverse=True)[1] for k in there]

    def measure(weights: np.ndarray) -> list[float]:
        areas, matches = [], []
        for k, place in zip(there, places):
            mine, other = weights * (v == k), weights * (v != k)
            above, below = np.bincount(place, mine), np.bincount(place, other)
            if mine.sum() and other.sum():
                areas.append((above * (below.cumsum() - below / 2)).sum() / (mine.sum() * other.sum()))
            both, named = (mine * (told == k)).sum(), (weights * (told == k)).sum()
            matches.append(2 * both / max(mine.sum() + named, 1e-9))
        return [float(np.mean(areas)) if areas else float("nan"), float(np.mean(matches))]

    return measure


def _regressed(train: Rows, test: Rows, target: int, seed: int) -> Measure:
    """The share of the variance that is explained."""
    (x, kinds), (u, _) = (_given(part, target) for part in (train, test))
    y, v = (part.values[~np.isnan(part.values[:, target]), target] for part in (train, test))
    errors = np.square(v - (fitted("number", x, y, kinds, seed)(u) if len(y) > 1 else v.mean()))

    def measure(weights: np.ndarray) -> list[float]:
        spread = np.average(np.square(v - np.average(v, weights=weights)), weights=weights)
        return [1 - float(np.average(errors, weights=weights) / max(spread, 1e-300))]

    return measure
