"""How alike two tables are, column by column and pair by pair, by the definitions of SDMetrics' quality report (Patki et al. 2016;
"Column Shapes" and "Column Pair Trends"): 1 = the same distributions.

    a number, a time   1 - the largest gap between the two cumulative distributions (Kolmogorov-Smirnov)
    a category         1 - half the sum of the differences of its shares (total variation)
    two numbers        1 - half the difference of their Pearson correlations
    any other pair     1 - half the sum of the differences of the shares of both values together, numbers in ten bins of equal width

Pairs count that go together in the real table: by a correlation above CORRELATED, or by a Cramer's V above ASSOCIATED.
Tables are (N,D) float64, NaN is missing; `categorical` (D,) bool.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

BINS = 10
CORRELATED, ASSOCIATED = 0.5, 0.3  # SDMetrics' defaults


def shapes(real: np.ndarray, made: np.ndarray, categorical: Sequence[bool]) -> np.ndarray:
    """How alike each column is, (D,); NaN for a column without values."""
    return np.array([_shape(real[:, c], made[:, c], discrete) for c, discrete in enumerate(categorical)])


def _shape(real: np.ndarray, made: np.ndarray, discrete: bool) -> float:
    a, b = real[~np.isnan(real)], made[~np.isnan(made)]
    if not len(a) or not len(b):
        return float("nan")
    if not discrete:
        at = np.sort(np.concatenate([a, b]))
        return 1 - float(
            np.abs(
                np.searchsorted(np.sort(a), at, "right") / len(a) - np.searchsorted(np.sort(b), at, "right") / len(b)
            ).max()
        )
    return 1 - _variation(a, b)


def _variation(a: np.ndarray, b: np.ndarray) -> float:
    """Half the sum of the differences of the shares of each value."""
    _, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    count = int(codes.max()) + 1
    first, second = np.bincount(codes[: len(a)], minlength=count), np.bincount(codes[len(a) :], minlength=count)
    return 0.5 * float(np.abs(first / len(a) - second / len(b)).sum())


def trends(real: np.ndarray, made: np.ndarray, categorical: Sequence[bool]) -> np.ndarray:
    """How alike each pair of columns is that goes together in `real`, (D,D), symmetric; NaN elsewhere."""
    size = real.shape[1]
    found = np.full((size, size), np.nan)
    coded = [_codes(part, categorical) for part in (real, made)]
    for i, j in combinations(range(size), 2):
        if categorical[i] or categorical[j]:
            if cramer(coded[0][:, i], coded[0][:, j]) > ASSOCIATED:
                found[i, j] = 1 - _variation(*(codes[:, i] * (1 << 31) + codes[:, j] for codes in coded))
        else:
            first, second = (correlation(part[:, i], part[:, j]) for part in (real, made))
            if abs(first) > CORRELATED:
                found[i, j] = 1 - abs(first - second) / 2
        found[j, i] = found[i, j]
    return found


def _codes(table: np.ndarray, categorical: Sequence[bool]) -> np.ndarray:
    """Whole numbers for the values of each column; of numbers, the bin, one beyond the last for what is missing."""
    codes = np.empty(table.shape, np.int64)
    for c, discrete in enumerate(categorical):
        values = table[:, c]
        there = values[~np.isnan(values)]
        if discrete:
            codes[:, c] = np.where(np.isnan(values), -1, values).astype(np.int64) + 1
        elif len(there):
            codes[:, c] = np.digitize(values, np.histogram_bin_edges(there, BINS))
        else:
            codes[:, c] = 0
    return codes


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, of the rows that have both; NaN where one is always the same."""
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[both], b[both]
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def quality(real: np.ndarray, made: np.ndarray, categorical: Sequence[bool]) -> float:
    """The mean of the mean over columns and the mean over pairs."""
    parts = [shapes(real, made, categorical)]
    if real.shape[1] > 1:
        parts.append(trends(real, made, categorical)[np.triu_indices(real.shape[1], 1)])
    means = [float(np.nanmean(part)) for part in parts if not np.isnan(part).all()]
    return float(np.mean(means)) if means else float("nan")


def associations(table: np.ndarray, categorical: Sequence[bool]) -> np.ndarray:
    """How much each pair of columns goes together, 0 to 1, (D,D): the absolute rank correlation of two numbers, Cramer's V with the bias
    correction of Bergsma (2013) where a category is in it, numbers in ten bins of equally many."""
    size = table.shape[1]
    found = np.eye(size)
    ranks = [_ranked(table[:, c]) for c in range(size)]
    for i, j in combinations(range(size), 2):
        if categorical[i] or categorical[j]:
            pair = [table[:, c] if categorical[c] else np.floor(ranks[c] * BINS) for c in (i, j)]
            value = cramer(*pair, corrected=True)
        else:
            value = abs(correlation(ranks[i], ranks[j]))
        found[i, j] = found[j, i] = 0.0 if np.isnan(value) else value
    return found


def _ranked(values: np.ndarray) -> np.ndarray:
    """Mean ranks from 0 to below 1, NaN where missing."""
    from scipy.stats import rankdata

    found = np.full(len(values), np.nan)
    there = ~np.isnan(values)
    found[there] = (rankdata(values[there]) - 0.5) / max(1, int(there.sum()))
    return found


def cramer(a: np.ndarray, b: np.ndarray, corrected: bool = False) -> float:
    """Cramer's V of the rows that have both, 0 to 1; `corrected` for what chance adds to it. NaN where one is always the same."""
    both = ~np.isnan(a) & ~np.isnan(b)
    n = int(both.sum())
    if n < 2:
        return float("nan")
    (_, i), (_, j) = (np.unique(part[both], return_inverse=True) for part in (a, b))
    rows, columns = int(i.max()) + 1, int(j.max()) + 1
    if min(rows, columns) < 2 or rows * columns > 1 << 24:
        return float("nan")
    counts = np.bincount(i * columns + j, minlength=rows * columns).reshape(rows, columns)
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / n
    square = float(((counts - expected) ** 2 / expected).sum()) / n
    least = min(rows, columns) - 1.0
    if corrected:
        square = max(0.0, square - (rows - 1) * (columns - 1) / (n - 1))
        least = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(square / least)) if least > 0 else float("nan")
