"""Several runs side by side, from what their metrics.json hold: a page, or a table for a terminal.

(run, metrics) ... -> Comparison: a row a score, the best marked -> compare (compare.html) | comparison (rich)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latente.reports.answers import ASKED, asked_of
from latente.reports.making import settings
from latente.reports.page import written
from latente.reports.words import interval, number, shown

if TYPE_CHECKING:
    from rich.table import Table

    from latente.run import Run

Cell = Mapping[str, Any]


class Comparison(NamedTuple):
    """What both faces show."""

    names: list[str]
    """of the runs"""
    rows: list[dict[str, Any]]
    """one a score, a cell a run"""
    answers: list[tuple[str, list[str | None]]]
    """one a question"""
    notes: list[str]
    """what to know before one compares"""


def compare(runs: Sequence[tuple[Run, Mapping[str, Any]]], out: Path) -> Path:
    """Writes one page with a column a run and a row a score, from what their metrics.json hold; gives its path.

    The best of a row is marked, and what is level with it: what has an interval that overlaps that of the best.
    """
    found = _compared(runs)
    made = [settings(metrics["run"], metrics["made"]) for _, metrics in runs]
    held = [{(title, name): value for title, lines in parts for name, value in lines} for parts in made]
    lines = [
        (*key, [values.get(key, "") for values in held]) for key in dict.fromkeys(k for values in held for k in values)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    return written(
        out,
        "compare.html",
        **found._asdict(),
        runs=[(name, metrics["run"]) for name, (_, metrics) in zip(found.names, runs)],
        differ=[line for line in lines if len(set(line[2])) > 1],
        alike=[line for line in lines if len(set(line[2])) == 1],
    )


def comparison(runs: Sequence[tuple[Run, Mapping[str, Any]]]) -> Table:
    """The table of `compare`, for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    found = _compared(runs)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption="\n".join(found.notes) or None, caption_justify="left")
    table.add_column("score", overflow="fold")
    for name in found.names:
        table.add_column(Text(shown(name)), justify="right", overflow="fold")
    colours = {"good": "green", "unsure": "yellow", "bad": "red", "best": "green", "level": "yellow"}
    for asks, given in found.answers:
        table.add_row(asks, *(Text(answer or "not measured", colours.get(answer or "", "dim")) for answer in given))
    for row in found.rows:
        cells = []
        for cell in row["cells"]:
            text = Text("not measured", "dim")
            if cell:
                text = Text(number(cell["value"]), "bold" if cell["mark"] == "best" else "")
                text.append(f"\n{interval(cell['ci'])}" if cell["ci"] else "", "dim")
                text.append(f"\n{cell['mark']}" if cell["mark"] else "", colours.get(cell["mark"], ""))
            cells.append(text)
        table.add_row(Text(row["name"]).append(f"\n{row['unit']}\n{row['better']} is better", "dim"), *cells)
    return table


def _compared(runs: Sequence[tuple[Run, Mapping[str, Any]]]) -> Comparison:
    metrics = [held for _, held in runs]
    names = [run.path.resolve().name for run, _ in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run, _ in runs]
    scores = [{score["name"]: score for score in held["scores"]} for held in metrics]
    rows = []
    for name in dict.fromkeys(name for held in scores for name in held):
        cells = [held.get(name) for held in scores]
        one = next(cell for cell in cells if cell)
        marked = [cell and {**cell, "mark": mark} for cell, mark in zip(cells, marks(cells))]
        rows.append({**{key: one[key] for key in ("name", "unit", "better", "question")}, "cells": marked})
    rows.sort(key=lambda row: list(ASKED).index(row["question"]))
    found = [{finding["question"]: finding["answer"] for finding in held["findings"]} for held in metrics]
    asked = {question for run, _ in runs for question in asked_of(run.spec.kind)}
    answers = [(ASKED[q].asks, [held.get(q) for held in found]) for q in ASKED if q in asked]
    alike = len({held["run"]["data"]["fingerprint"] for held in metrics}) == 1
    different = "These runs were trained on different data: their figures were not measured on the same items."
    return Comparison(names, rows, answers, [] if alike else [different])


def marks(cells: Sequence[Cell | None]) -> list[str]:
    """ "best" for the best value, "level" for one whose interval overlaps the best one's; "" for the rest, and where one stands alone."""
    usable = [cell for cell in cells if cell and cell["value"] is not None]
    if len(usable) < 2 or len({(cell["better"], cell["unit"]) for cell in usable}) > 1:
        return [""] * len(cells)
    if usable[0]["better"] == "nearer":
        best = min(usable, key=lambda cell: abs(cell["value"] - cell["reference"]))
    else:
        best = (max if usable[0]["better"] == "higher" else min)(usable, key=lambda cell: cell["value"])
    shared = sum(cell["value"] == best["value"] for cell in usable) > 1

    def mark(cell: Cell | None) -> str:
        if not cell or cell["value"] is None:
            return ""
        if cell["value"] == best["value"]:
            return "level" if shared else "best"
        (low, high), (least, most) = _ends(cell), _ends(best)
        return "level" if low <= most and least <= high else ""

    return [mark(cell) for cell in cells]


def _ends(cell: Cell) -> tuple[float, float]:
    """The ends of a cell's interval; of one without, its value."""
    low, high = cell["ci"] or (None, None)
    return cell["value"] if low is None else low, cell["value"] if high is None else high
