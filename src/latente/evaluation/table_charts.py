"""Drawings of columns and of what goes together, samples beside real rows."""

from __future__ import annotations

import numpy as np

from latente.evaluation.findings import Chart
from latente.evaluation.table_quality import associations
from latente.evaluation.table_rows import Rows

SHOWN = 12  # columns drawn


def marginals(made: Rows, test: Rows, columns: np.ndarray) -> list[Chart]:
    """The columns that differ most, as lines over their values."""
    charts = []
    for c in np.argsort(np.nan_to_num(columns, nan=1.0))[:SHOWN]:
        parts = {"samples": made.values[:, c], "real, held out": test.values[:, c]}
        there = test.values[:, c][~np.isnan(test.values[:, c])]
        if not len(there):
            continue
        if test.categorical[c]:
            count = min(20, len(test.levels[c]) or 1)
            lines = {
                name: (np.arange(count), np.array([(v == k).mean() for k in range(count)])) for name, v in parts.items()
            }
            note = "Levels by falling frequency: " + ", ".join(
                f"{k} {level}" for k, level in enumerate(test.levels[c][:count])
            )
            charts.append(Chart(test.names[c], note, "level", "share of rows", lines))
            continue
        at = np.unique(np.quantile(there, np.linspace(0, 1, 101)))
        lines = {
            name: (at, np.searchsorted(np.sort(v[~np.isnan(v)]), at, "right") / max(1, int((~np.isnan(v)).sum())))
            for name, v in parts.items()
        }
        charts.append(
            Chart(test.names[c], "The share of rows up to each value.", test.names[c], "share of rows", lines)
        )
    return charts


def together(made: Rows, test: Rows) -> list[Chart]:
    """How much pairs of columns go together, in samples over in real rows: a line of pairs by falling strength."""
    if len(test.names) < 2:
        return []
    at = np.triu_indices(len(test.names), 1)
    real, new = (associations(part.values, part.categorical)[at] for part in (test, made))
    order = np.argsort(-real)
    place = np.arange(1, len(order) + 1)
    strongest = ", ".join(f"{test.names[at[0][k]]} with {test.names[at[1][k]]}" for k in order[:3])
    lines = {"samples": (place, new[order]), "real, held out": (place, real[order])}
    note = f"From the strongest pair on ({strongest}): rank correlation of numbers, Cramer's V of all others."
    return [Chart("What goes together", note, "pair of columns", "association, 0 to 1", lines)]
