"""Rows as evaluation sees them: numbers, with what there is to know of each column. N rows, D columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

MOST = 10_000  # rows of a kind that are measured


@dataclass(frozen=True)
class Rows:
    """Rows as numbers: numbers and times as themselves, categories by the rank of their level, NaN where missing."""

    values: np.ndarray
    """(N,D) float64"""
    names: tuple[str, ...]
    categorical: tuple[bool, ...]
    levels: tuple[tuple[str, ...], ...]
    """of each category its levels by rank; () of a number"""

    def __len__(self) -> int:
        return len(self.values)

    def some(self, at: np.ndarray | slice) -> Rows:
        return replace(self, values=self.values[at])

    def cell(self, row: int, column: int) -> str:
        """A cell in words."""
        value = self.values[row, column]
        if np.isnan(value):
            return "(missing)"
        if not self.categorical[column]:
            return f"{value:.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
        return self.level(column, int(value))

    def cells(self, row: int) -> tuple[str, ...]:
        """A row in words."""
        return tuple(self.cell(row, column) for column in range(len(self.names)))

    def level(self, column: int, code: int) -> str:
        """A level of a category in words."""
        levels = self.levels[column]
        return levels[code] if 0 <= code < len(levels) else "(another)"


@dataclass(frozen=True)
class Likelihood:
    """What a model foresees of the first rows of the train and test splits, and what counting does."""

    train: np.ndarray
    """-ln p of training rows (n,)"""
    test: np.ndarray
    """-ln p of test rows (N,)"""
    cells: np.ndarray | None
    """of each cell of the test rows, given the columns before it (N,D); None where the model has no order of columns"""
    simpler: Mapping[str, np.ndarray]
    """-ln p of the same test rows (N,) by simpler models, by what they are"""
    alone: np.ndarray
    """-ln p of a cell of each column by counts of that column (D,), the mean over the test rows"""
    numbers: np.ndarray
    """which rows of the source the test rows are (N,)"""


@dataclass(frozen=True)
class Held:
    """The real rows an evaluation needs."""

    train: Rows
    test: Rows
    fresh: Rows
    target: int | None = None
    """the column whose prediction says how useful samples are"""
    likely: Likelihood | None = None
    """where the model has a likelihood"""

    @property
    def n(self) -> int:
        """How many samples and real rows of each kind are compared."""
        return min(len(self.test), len(self.fresh), MOST)


def identities(*parts: Rows) -> list[np.ndarray]:
    """A whole number for what each row holds, (N,) each: rows have equal ones that are equal in every cell, missing ones too."""
    values = np.concatenate([part.values for part in parts]) + 0.0  # there is no -0 any more
    values[np.isnan(values)] = np.nan  # nor is there any other NaN
    whole = np.ascontiguousarray(values).view(np.dtype((np.void, values.itemsize * values.shape[1])))[:, 0]
    _, same = np.unique(whole, return_inverse=True)
    return np.split(same, np.cumsum([len(part) for part in parts])[:-1])
