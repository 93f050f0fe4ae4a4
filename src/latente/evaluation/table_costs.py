"""What rows cost a model that knows their probability: bits by row and by column, the cheapest rows and the costliest.

Bits are of what a model foresees, levels and bins of numbers; a file holds besides where in its bin a number lies. N rows, D columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from latente.evaluation.costs import ends, histogram, summary
from latente.evaluation.findings import Bars, Chart, Gallery
from latente.evaluation.table_rows import Likelihood, Rows

SHOWN = 8


def costs(test: Rows, likely: Likelihood) -> tuple[list[Chart | Bars], Gallery, dict[str, Any]]:
    """How bits spread over rows, and over columns where they are known; the costliest and the cheapest of the first test rows; and all of
    it as plain values."""
    bits = {"training": likely.train / math.log(2), "test": likely.test / math.log(2)}
    marks = {kind: float(nats.mean()) / math.log(2) for kind, nats in likely.simpler.items()}
    note = "Few rows that cost much are outliers, or mistakes. Not counted: the model's weights, and where in its bin a number lies."
    charts: list[Chart | Bars] = [histogram("Bits by row", note, "bits", "rows", bits, marks)]
    told: dict[str, Any] = {"unit": "bits a row", **summary(bits)}
    if likely.cells is not None:
        by_column = likely.cells.mean(0) / math.log(2)
        charts.append(_columns(test.names, by_column, likely.alone))
        told["columns"] = dict(zip(test.names, by_column.tolist()))
    rows = []
    for end, which in ends(bits["test"], SHOWN).items():
        told[end] = [_told(test, likely, int(at), float(bits["test"][at])) for at in which]
        rows.append((end, [(*_head(one), *test.cells(int(at))) for one, at in zip(told[end], which)]))
    head = ("row", "bits", *["costliest cell"] * (likely.cells is not None))
    note = "Of the held-out rows, by their bits. Rows are counted from 1 in the order of the source."
    return charts, Gallery("Costliest and cheapest rows", note, rows, columns=(*head, *test.names)), told


def _columns(names: tuple[str, ...], bits: np.ndarray, alone: np.ndarray) -> Bars:
    """Those first that cost most; `bits` and `alone` (D,) of a cell, by the model and by its column alone."""
    order = np.argsort(-bits, kind="stable")
    bars = {
        "this model, given the columns sampled before": bits[order],
        "each column on its own": alone[order] / math.log(2),
    }
    note = "Of a row's bits those of each column. What a bar is shorter by than the one below is what the columns before tell."
    return Bars("Bits by column", note, "bits a cell", [names[c] for c in order], bars)


def _told(test: Rows, likely: Likelihood, at: int, bits: float) -> dict[str, Any]:
    found: dict[str, Any] = {"row": int(likely.numbers[at]) + 1, "bits": bits}
    if likely.cells is not None:
        column = int(likely.cells[at].argmax())
        cell_bits = float(likely.cells[at, column]) / math.log(2)
        found |= {"column": test.names[column], "cell": test.cell(at, column), "cell_bits": cell_bits}
    return found


def _head(told: Mapping[str, Any]) -> tuple[str, ...]:
    own = (f"{told['column']} = {told['cell']} ({told['cell_bits']:.1f} bits)",) if "column" in told else ()
    return f"{told['row']:,}", f"{told['bits']:.1f}", *own
