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
from dataclasses import dataclass
from itertools import combinations

import numpy as np

BINS = 10
DENSE = 1 << 24  # cells of a table of counts, at most
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
    return _apart(codes[: len(a)], codes[len(a) :], int(codes.max()) + 1)


def _apart(a: np.ndarray, b: np.ndarray, size: int) -> float:
    """The same, of whole numbers below `size`."""
    first, second = (np.bincount(part, minlength=size) / len(part) for part in (a, b))
    return 0.5 * float(np.abs(first - second).sum())


@dataclass(frozen=True)
class _Coded:
    """The columns of two tables as whole numbers from 0, (D,M) and (D,N); a number has the same meaning in both."""

    real: np.ndarray
    made: np.ndarray
    sizes: list[int]

    @classmethod
    def of(cls, real: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> _Coded:
        parts, sizes = [], []
        for a, b in zip(real, made):
            values, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
            parts.append(codes)
            sizes.append(len(values))
        codes = np.array(parts, np.int64).reshape(len(parts), -1)
        count = len(real[0]) if len(parts) else 0
        return cls(codes[:, :count], codes[:, count:], sizes)

    def apart(self, i: int, j: int) -> float:
        """The total variation between the shares of both columns together."""
        a, b = (part[i] * self.sizes[j] + part[j] for part in (self.real, self.made))
        size = self.sizes[i] * self.sizes[j]
        return _apart(a, b, size) if size <= DENSE else _variation(a, b)


def trends(real: np.ndarray, made: np.ndarray, categorical: Sequence[bool]) -> np.ndarray:
    """How alike each pair of columns is that goes together in `real`, (D,D), symmetric; NaN elsewhere."""
    size = real.shape[1]
    found = np.full((size, size), np.nan)
    coded = _Coded.of(*([_wide(part[:, c], d) for c, d in enumerate(categorical)] for part in (real, made)))
    for i, j in combinations(range(size), 2):
        if categorical[i] or categorical[j]:
            if cramer(coded.real[i], coded.real[j]) > ASSOCIATED:
                found[i, j] = 1 - coded.apart(i, j)
        else:
            first = correlation(real[:, i], real[:, j])
            if abs(first) > CORRELATED:
                found[i, j] = 1 - abs(first - correlation(made[:, i], made[:, j])) / 2
        found[j, i] = found[i, j]
    return found


def _wide(values: np.ndarray, discrete: bool) -> np.ndarray:
    """Whole numbers for levels, 0 where missing; for numbers their bin of ten as wide as each other, the last one where missing."""
    if discrete:
        return np.where(np.isnan(values), -1, values).astype(np.int64) + 1
    there = values[~np.isnan(values)]
    return np.digitize(values, np.histogram_bin_edges(there, BINS)) if len(there) else np.zeros(len(values), np.int64)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, of the rows that have both; NaN where one is always the same."""
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[both], b[both]
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def quality(real: np.ndarray, made: np.ndarray, categorical: Sequence[bool]) -> float:
    """The mean of the mean over columns and the mean over pairs."""
    return overall(shapes(real, made, categorical), trends(real, made, categorical))


def overall(columns: np.ndarray, pairs: np.ndarray) -> float:
    """Quality, of how alike columns (D,) and pairs of them (D,D) are."""
    parts = columns, pairs[np.triu_indices(len(columns), 1)]
    means = [float(np.nanmean(part)) for part in parts if not np.isnan(part).all()]
    return float(np.mean(means)) if means else float("nan")


def associations(table: np.ndarray, categorical: Sequence[bool]) -> np.ndarray:
    """How much each pair of columns goes together, (D,D): the rank correlation of two numbers, -1 to 1; where a category is in it, Cramer's
    V from 0 to 1 with the bias correction of Bergsma (2013), numbers in ten bins of equally many, missing cells a level."""
    size = table.shape[1]
    found = np.eye(size)
    ranks = [_ranked(table[:, c]) for c in range(size)]
    codes = [
        _wide(table[:, c], True)
        if categorical[c]
        else np.nan_to_num(np.floor(ranks[c] * BINS), nan=BINS).astype(np.int64)
        for c in range(size)
    ]
    for i, j in combinations(range(size), 2):
        mixed = categorical[i] or categorical[j]
        value = cramer(codes[i], codes[j], corrected=True) if mixed else correlation(ranks[i], ranks[j])
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
    """Cramer's V of whole numbers (N,) and (N,), 0 to 1; `corrected` for what chance adds to it. NaN where one is always the same."""
    n, (rows, columns) = len(a), (int(part.max(initial=0)) + 1 for part in (a, b))
    if n < 2 or rows * columns > DENSE:
        return float("nan")
    counts = np.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns)
    sides = counts.sum(1), counts.sum(0)
    rows, columns = (int((side > 0).sum()) for side in sides)
    if min(rows, columns) < 2:
        return float("nan")
    inside = np.square(counts) / np.maximum(np.outer(*sides), 1)
    square = max(0.0, float(inside.sum()) - 1)  # chi-squared over n
    least = min(rows, columns) - 1.0
    if corrected:
        square = max(0.0, square - (rows - 1) * (columns - 1) / (n - 1))
        least = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(square / least)) if least > 0 else float("nan")
