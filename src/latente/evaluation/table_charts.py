"""Drawings of columns, of what goes together, of use and of nearness, samples beside real rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latente.evaluation.findings import Bars, Chart, Matrix, Panels
from latente.evaluation.scores import Score
from latente.evaluation.table_quality import associations
from latente.evaluation.table_rows import Rows

SHOWN, LEVELS, SQUARES = 36, 7, 24  # at most: columns drawn, levels of one, columns whose pairs are drawn
BINS, WHOLE = 24, 30  # of a histogram; values of whole numbers that have a bin each
KINDS = "samples", "real, held out"


def marginals(made: Rows, test: Rows, columns: np.ndarray) -> list[Panels]:
    """Every column, those first that differ most: how alike each is (D,), `columns`, NaN where nobody knows."""
    order = np.argsort(np.nan_to_num(columns, nan=1.0), kind="stable")[:SHOWN]
    parts = [_column(made, test, int(c), float(columns[c])) for c in order]
    left = f" The {len(order)} that differ most of {len(columns)} columns." if len(columns) > len(order) else ""
    note = f"Those first that differ most. Heights are shares of rows, bars per cent of rows.{left}"
    return [Panels("Column by column", note, parts)]


def _column(made: Rows, test: Rows, c: int, alike: float) -> Chart | Bars:
    values = [part.values[:, c] for part in (made, test)]
    gaps = [float(np.isnan(v).mean()) if len(v) else 0.0 for v in values]
    note = "" if np.isnan(alike) else f"{alike:.1%} alike"
    if test.categorical[c]:
        return _levels(test, c, values, note)
    if any(gaps):
        note += f"{'; ' * bool(note)}missing {gaps[0]:.1%} of samples, {gaps[1]:.1%} of real"
    edges = _edges(values[1])
    lines = {}
    for name, value in zip(KINDS, values):
        counts = np.histogram(value[~np.isnan(value)].clip(edges[0], edges[-1]), edges)[0]
        lines[name] = (edges, counts / max(1, len(value)))
    return Chart(test.names[c], note, test.names[c], "share of rows", lines, steps=True)


def _edges(values: np.ndarray) -> np.ndarray:
    """Where bins of a histogram begin and the last one ends: of a few whole numbers a bin each, else equally wide ones, the outermost
    of which also hold what lies beyond."""
    there = values[~np.isnan(values)]
    if not len(there):
        return np.array([0.0, 1.0])
    low, high = there.min(), there.max()
    if high - low < WHOLE and np.array_equal(there, np.rint(there)):
        return np.arange(low, high + 2) - 0.5
    low, high = np.quantile(there, [0.005, 0.995])
    if not high > low:
        low, high = there.min(), there.max()
    edges = np.linspace(low, high, BINS + 1)
    return edges if (np.diff(edges) > 0).all() else np.array([low, np.nextafter(low + abs(low) / 10 + 1, np.inf)])


def _levels(test: Rows, c: int, values: Sequence[np.ndarray], note: str) -> Bars:
    """The levels that real rows have oftenest, all others and missing cells as one more each where there are any."""
    there = [v[~np.isnan(v)] for v in values]
    codes, counts = np.unique(there[1], return_counts=True)
    kept = codes[np.argsort(-counts, kind="stable")[:LEVELS]]
    labels = [test.level(c, int(code)) for code in kept]
    shares = [[float((v == code).sum()) for code in kept] for v in values]
    rest = [float(len(v) - np.isin(v, kept).sum()) for v in there]
    gone = [float(np.isnan(v).sum()) for v in values]
    for label, counted in (("(all others)", rest), ("(missing)", gone)):
        if any(counted):
            labels.append(label)
            shares = [[*share, count] for share, count in zip(shares, counted)]
    bars = {name: 100 * np.array(share) / max(1, len(v)) for name, share, v in zip(KINDS, shares, values)}
    return Bars(test.names[c], note, "% of rows", labels, bars)


def together(made: Rows, test: Rows) -> list[Matrix]:
    """How much pairs of columns go together in real rows, in samples, and what lies between."""
    if len(test.names) < 2:
        return []
    real, new = (associations(part.values, part.categorical) for part in (test, made))
    away = np.abs(new - real)
    shown = np.sort(np.argsort(-away.sum(0), kind="stable")[:SQUARES])
    first, second = np.triu_indices(len(away), 1)
    order = np.argsort(-away[first, second], kind="stable")[:3]
    pairs = ((int(first[k]), int(second[k])) for k in order)
    most = "; ".join(
        f"{test.names[i]} with {test.names[j]}: {real[i, j]:.2f} in real rows, {new[i, j]:.2f} in samples"
        for i, j in pairs
    )
    note = f"Rank correlations of numbers, Cramer's V where a category is in the pair. Furthest from real: {most}."
    tables = {"real, held out": real, "samples": new, "samples less real": new - real}
    at = np.ix_(shown, shown)
    if len(shown) < len(away):
        note += f" Drawn are the {len(shown)} columns, of {len(away)}, that lie furthest from real."
    return [
        Matrix(
            "What goes together",
            note,
            [test.names[c] for c in shown],
            {name: table[at] for name, table in tables.items()},
        )
    ]


def learnt(scores: Sequence[Score], target: str) -> list[Bars]:
    """What a model makes of real rows that learnt from samples, and one that learnt from real rows; nothing without scores of both."""
    words = {"tstr_auc": "AUC", "tstr_macro_f1": "macro-F1", "tstr_r2": "R^2"}
    found = [score for score in scores if score.name in words and score.reference is not None]
    if not found:
        return []
    bars = {
        "trained on samples": np.array([max(0.0, score.value) for score in found]),
        "trained on real rows": np.array([max(0.0, score.reference or 0.0) for score in found]),
    }
    note = f"How well {target} of real rows is foreseen, 1 at best."
    return [Bars("Learning from samples", note, "on held-out rows", [words[score.name] for score in found], bars, 1.0)]


def nearness(samples: np.ndarray, held: np.ndarray) -> Chart:
    """How far samples (N,), and held-out rows (M,), are from the nearest training row, as shares up to a distance."""
    most = float(max(np.quantile(part, 0.99) for part in (samples, held))) or 1.0
    at = np.linspace(0, most, 120)
    lines = {
        name: (at, np.searchsorted(np.sort(part), at, "right") / len(part))
        for name, part in zip(KINDS, (samples, held))
    }
    note = "A line of samples that rises well before that of held-out rows means samples lie too near to training rows."
    return Chart("Distance to the nearest training row", note, "distance", "share of rows up to it", lines)
