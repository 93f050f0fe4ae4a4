"""Figures of an evaluation as the template shows them.

Chart, Matrix --> drawings          Bars --> lengths in per cent, drawn by the page itself, for their words are the data's
Panels --> small ones of both, under one key
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from latente.evaluation.findings import Bars, Chart, Figure, Matrix, Panels
from latente.reports import drawing
from latente.reports.words import number

PARTS, ROWS, SIDE = 60, 40, 40  # at most: of panels, of bars, of a matrix


def shown(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """What the template shows of figures; each has a `kind`."""
    return [_shown(figure, f"chart{i}") for i, figure in enumerate(figures)]


def _shown(figure: Figure, name: str) -> dict[str, Any]:
    if isinstance(figure, Chart):
        return _lines(figure, name)
    if isinstance(figure, Bars):
        return _bars(figure)
    if isinstance(figure, Matrix):
        return _matrix(figure, name)
    return _panels(figure, name)


def _lines(chart: Chart, name: str, size: tuple[float, float] = (3.6, 2.2)) -> dict[str, Any]:
    sheet, axes = drawing.figure(*size, (0.13, 0.14, 0.79, 0.82))  # the last number of the axis needs room
    axes.set_yscale("log" if chart.log else "linear")
    for at, (x, y) in enumerate(chart.lines.values()):
        (drawing.stairs if chart.steps else drawing.line)(axes, at, x, y)
    for at, x in enumerate(chart.marks.values(), len(chart.lines)):
        drawing.mark(axes, at, x)
    whole = all(np.issubdtype(np.asarray(x).dtype, np.integer) for x, _ in chart.lines.values())
    drawing.ruled(axes, whole)
    marks = {kind: f"{kind}: {number(x)}" for kind, x in chart.marks.items()}
    label = f"{chart.title}: {chart.y} over {chart.x}, of {', '.join([*chart.lines, *marks.values()])}"
    drawn = drawing.svg(sheet, label, name)
    return {
        "kind": "lines",
        "chart": chart,
        "names": list(chart.lines),
        "marks": list(marks.values()),
        "drawing": drawn,
    }


def _bars(bars: Bars) -> dict[str, Any]:
    """Each thing with its figures: (name, figure in three digits, length in per cent)."""
    values = {name: np.asarray(value, np.float64) for name, value in bars.bars.items()}
    most = bars.top or max((float(np.nanmax(v, initial=0.0)) for v in values.values()), default=0.0) or 1.0

    def of(thing: int) -> Iterator[tuple[str, float, float]]:
        for name, value in values.items():
            length = 100 * float(np.clip(np.nan_to_num(value[thing] / most), 0, 1))
            yield name, float(f"{value[thing]:.3g}"), round(length, 2)

    rows = [(label, list(of(i))) for i, label in enumerate(bars.labels[:ROWS])]
    return {"kind": "bars", "chart": bars, "names": list(values), "rows": rows, "more": len(bars.labels) - len(rows)}


def _matrix(matrix: Matrix, name: str) -> dict[str, Any]:
    labels = list(matrix.labels[:SIDE])
    tables = []
    for i, (label, table) in enumerate(matrix.tables.items()):
        sheet, axes = drawing.figure(3.0, 3.0, (0.09, 0.08, 0.9, 0.9))
        drawing.squares(axes, np.asarray(table, np.float64)[: len(labels), : len(labels)])
        tables.append(
            (label, drawing.svg(sheet, f"{matrix.title}: {label}, {len(labels)} by {len(labels)}", f"{name}-{i}"))
        )
    return {
        "kind": "matrix",
        "chart": matrix,
        "labels": labels,
        "tables": tables,
        "more": len(matrix.labels) - len(labels),
    }


def _panels(panels: Panels, name: str) -> dict[str, Any]:
    parts = [
        _lines(part, f"{name}-{i}", (2.6, 1.5)) if isinstance(part, Chart) else _bars(part)
        for i, part in enumerate(panels.parts[:PARTS])
    ]
    names = list(dict.fromkeys(label for part in parts for label in part["names"]))
    filled = any(isinstance(part, Chart) and part.steps for part in panels.parts)
    return {
        "kind": "panels",
        "chart": panels,
        "parts": parts,
        "names": names,
        "filled": filled,
        "more": len(panels.parts) - len(parts),
    }
