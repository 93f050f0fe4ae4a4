"""Rows as evaluation sees them: numbers, with what is to know of each column."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


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
        levels = self.levels[column]
        return levels[int(value)] if value < len(levels) else "(another)"
