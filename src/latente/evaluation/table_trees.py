"""Gradient-boosted trees (Friedman 2001) of rows: they need no scaling, take missing cells as they are, and categories as sets of levels.

rows learnt from --inputs--> the frequent levels of each category, all others as one --> trees
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from latente.evaluation.judge import Scorer

LEVELS = 253  # of a category that are told apart; scikit-learn takes 255 codes, and one is for all others


def inputs(rows: np.ndarray, categorical: Sequence[bool]) -> Callable[[np.ndarray], np.ndarray]:
    """How trees that learn from rows (N,D) see rows: the most frequent levels of each category by number, all others as one more."""
    kept: dict[int, np.ndarray] = {}
    for c in np.flatnonzero(categorical):
        values = rows[:, c]
        levels, counts = np.unique(values[~np.isnan(values)], return_counts=True)
        kept[int(c)] = np.sort(levels[np.argsort(-counts, kind="stable")[:LEVELS]])

    def seen(part: np.ndarray) -> np.ndarray:
        found = np.array(part, np.float64)
        for c, levels in kept.items():
            values = found[:, c]
            at = np.searchsorted(levels, values)
            known = np.isin(values, levels)
            found[:, c] = np.where(np.isnan(values), np.nan, np.where(known, at, len(levels)))
        return found

    return seen


def boosted_trees(rows: np.ndarray, fake: np.ndarray, seed: int, categorical: Sequence[bool] = ()) -> Scorer:
    """Learns which rows (N,D) are fake, (N,) bool."""
    learnt = fitted("classes", rows, fake, categorical or [False] * rows.shape[1], seed)
    return lambda part: learnt(part)[:, 1]


def fitted(
    kind: Literal["classes", "number"],
    x: np.ndarray,
    y: np.ndarray,
    categorical: Sequence[bool],
    seed: int,
    rounds: int = 100,
) -> Callable[[np.ndarray], np.ndarray]:
    """Trees that learn y (N,) from x (N,D), and foresee it of other rows: chances (n, classes in order), or numbers (n,).

    They grow in one thread: sums come out alike on every machine, and threads that wait for each other cost more than they save.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    seen, given = inputs(x, categorical), np.array(categorical, bool)
    family: Any = HistGradientBoostingClassifier if kind == "classes" else HistGradientBoostingRegressor
    model = family(max_iter=rounds, categorical_features=given, random_state=seed % 2**31)
    with threadpool_limits(1, "openmp"):
        model.fit(seen(x), y)
    foresee = model.predict_proba if kind == "classes" else model.predict

    def foreseen(part: np.ndarray) -> np.ndarray:
        with threadpool_limits(1, "openmp"):
            return foresee(seen(part))

    return foreseen
