"""A score as a tile: a line of numbers with the run and its references on it, and the same in words.

Score --tile--> strip (a drawing), how the run stands to each reference, best first
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from latente.evaluation.scores import Outcome, Score
from latente.reports import drawing
from latente.reports.answers import ASKED
from latente.reports.glossary import reading, title
from latente.reports.words import number

MARKS = (("D", "◆"), ("^", "▲"), ("s", "■"), ("v", "▼"), ("p", "⬟"), ("X", "✖"))
"""shapes of references: matplotlib's and the same as a character"""
STANDS: dict[Outcome, str] = {"ahead": "better than", "level": "level with", "behind": "worse than"}


def tile(score: Score, at: int) -> dict[str, Any]:
    """A drawing of the score, with a line of words for the run and for each reference, best first."""
    ranked = sorted(score.references.items(), key=lambda item: item[1], reverse=score.better == "higher")
    beside = [(kind, value, *marks) for (kind, value), marks in zip(ranked, itertools.cycle(MARKS))]
    drawn = None
    if math.isfinite(score.value):
        said = "; ".join(f"{kind} {number(value)}" for kind, value in [("this run", score.value), *ranked])
        shapes = [(value, shape) for _, value, shape, _ in beside if math.isfinite(value)]
        drawn = _strip(score, shapes, f"{score.name}: {said}", f"score{at}")
    lines = [(sign, STANDS[score.against(kind)], kind, value) for kind, value, _, sign in beside]
    return {
        "score": score, "asks": ASKED[score.question].asks, "title": title(score.name), "reading": reading(score.name),
        "drawing": drawn, "beside": lines,
    }  # fmt: skip


def _strip(score: Score, references: Sequence[tuple[float, str]], label: str, name: str) -> Any:
    """A line of numbers: the run and its interval on top, references below."""
    ends = [end for end in score.ci or () if math.isfinite(end)]
    sheet, axes = drawing.figure(3.4, 0.62, (0.02, 0.42, 0.96, 0.56))
    axes.set_ylim(-1.6, 1.2)
    low, high = (f([score.value, *ends, *(value for value, _ in references)]) for f in (min, max))
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_xlim(low - margin, high + margin)
    axes.locator_params(axis="x", nbins=5)
    drawing.numbered(axes.xaxis)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    run = {"color": drawing.COLOURS["line0"], "clip_on": False}
    if len(ends) == 2:
        axes.plot(ends, [0.5, 0.5], linewidth=5, alpha=0.35, solid_capstyle="round", **run)
    axes.plot([score.value], [0.5], "o", markersize=8, **run)
    for value, shape in references:
        axes.plot(
            [value], [-0.75], shape, color=drawing.COLOURS["soft"], markersize=6, markeredgewidth=0, clip_on=False
        )
    return drawing.svg(sheet, label, name)
