"""Drawings of numbers: matplotlib draws marks and figures only, and gives an SVG that is part of the page.

Every word of the data's or the run's stands in HTML, where it is escaped, wrapped and set in the reader's own font. Colours are names of
colours of the page, so that a drawing follows it from light to dark.
"""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np

from latente.reports.words import number, shown

COLOURS = {"ink": "#010101", "soft": "#010102", "rule": "#010103", **{f"line{i}": f"#02020{i}" for i in range(5)}}
"""colours of the page by the number that stands for them in a drawing"""
DASHES = ("solid", "dashed", "dotted", "dashdot", (0, (6, 1, 1, 1, 1, 1)))
SHADES = 20  # of a colour, between nothing and all of it
POINTS = 300  # of a line, at most
FOREIGN = (
    r"<defs>\s*<style.*?</style>\s*</defs>|<metadata>.*?</metadata>|<!--.*?-->"  # a style would reach the whole page
)


def figure(
    width: float, height: float, place: tuple[float, float, float, float] = (0.13, 0.12, 0.85, 0.84)
) -> tuple[Any, Any]:
    """(figure, axes), in inches: a drawing with two quiet spines."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(width, height))
    axes = sheet.add_axes(place)
    for part in (sheet.patch, axes.patch, axes.spines["top"], axes.spines["right"]):
        part.set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(COLOURS["rule"])
    axes.tick_params(colors=COLOURS["soft"], labelsize=8, length=3, color=COLOURS["rule"])
    return sheet, axes


def line(axes: Any, at: int, x: Any, y: Any, dots: bool = False) -> None:
    """Line number `at` of a figure, thinned out to what can be seen; what cannot be drawn is a gap."""
    x, y = (np.array([math.nan if v is None else v for v in values], np.float64) for values in (x, y))
    y[~np.isfinite(y) | ((axes.get_yscale() == "log") & (y <= 0))] = math.nan
    step = -(-len(x) // POINTS) or 1
    seen = np.unique(np.append(np.arange(0, len(x), step), len(x) - 1)) if len(x) else np.arange(0)
    axes.plot(x[seen], y[seen], color=COLOURS[f"line{at % 5}"], linestyle="solid" if dots else DASHES[at % 5],
              linewidth=1.6, marker="o" if dots or len(seen) == 1 else None, markersize=3)  # fmt: skip


def stairs(axes: Any, at: int, x: Any, y: Any) -> None:
    """Histogram number `at` of a figure: the first is a line, the others are filled; x holds one end more than y."""
    if len(x) > 1:
        style = {"fill": True, "alpha": 0.35, "linewidth": 0} if at else {"linewidth": 1.6}
        axes.stairs(
            np.nan_to_num(y, posinf=0.0, neginf=0.0), x, color=COLOURS[f"line{at % 5}"], zorder=3 - min(at, 1), **style
        )


def mark(axes: Any, at: int, x: float) -> None:
    """Line number `at` of a figure, upright at x; it is dashed, for it is no distribution."""
    if math.isfinite(x):
        axes.axvline(x, color=COLOURS[f"line{at % 5}"], linestyle=DASHES[1 + at % 4], linewidth=1.6, zorder=4)


def squares(axes: Any, table: np.ndarray) -> None:
    """A square for each figure (n,n), from -1 to 1, the first row on top: one colour above zero, one below, the fainter the nearer."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    count = len(table)
    corners, codes = (
        np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]),
        [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY],
    )
    shades = np.rint(np.nan_to_num(table).clip(-1, 1) * SHADES).astype(int)
    for shade in np.unique(shades[shades != 0]):  # one path each: a square of its own would take ten times the bytes
        places = np.argwhere(shades == shade)[:, ::-1]
        path = Path(np.concatenate([corners + place for place in places]), codes * len(places))
        colour = COLOURS["line0" if shade > 0 else "line1"]
        axes.add_patch(PathPatch(path, facecolor=colour, alpha=abs(shade) / SHADES, linewidth=0))
    axes.set(xlim=(0, count or 1), ylim=(count or 1, 0), aspect="equal")
    for side in axes.spines.values():
        side.set(visible=True, color=COLOURS["rule"])
    step = max(1, -(-count // 12))
    numbers = np.arange(0, count, step)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(numbers + 0.5, [str(n + 1) for n in numbers])
        axis.set_tick_params(length=0)


def ruled(axes: Any, whole: bool) -> None:
    """Gives a figure of lines its numbers and rules; `whole`: x counts something."""
    axes.locator_params(axis="x", nbins=5, integer=whole)
    axes.grid(axis="y", color=COLOURS["rule"], linewidth=0.5)
    axes.set_axisbelow(True)
    if axes.get_yscale() == "linear":
        axes.locator_params(axis="y", nbins=5)
    else:
        from matplotlib.ticker import LogLocator

        low, high = axes.get_ylim()
        finer = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))[int(high < 1000 * low) + int(high < 6 * low)]
        axes.yaxis.set_major_locator(LogLocator(subs=finer))
        axes.minorticks_off()
    numbered(axes.xaxis, axes.yaxis)


def numbered(*sides: Any) -> None:
    for side in sides:
        side.set_major_formatter(lambda value, _: number(value))
        side.set_minor_formatter("")


def svg(sheet: Any, label: str, name: str) -> Any:
    """The figure as an element of the page: its colours the page's, its ids its own, the same bytes for the same figure."""
    from markupsafe import Markup, escape

    file = io.StringIO()
    sheet.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = file.getvalue()
    drawn = re.sub(FOREIGN, "", drawn[drawn.index("<svg") :], flags=re.S)
    ids: dict[str, str] = {}

    def own(found: re.Match[str]) -> str:
        return found[1] + ids.setdefault(found[2], f"{name}-{len(ids)}")

    drawn = re.sub(r'( id="|href="#|url\(#)([^")]+)', own, drawn)
    for colour, code in COLOURS.items():
        drawn = drawn.replace(code, f"var(--{colour})")
    box = re.search(r'viewBox="[^"]*"', drawn)
    assert box is not None
    head = Markup('<svg class="drawing" role="img" aria-label="{}" xmlns:xlink="http://www.w3.org/1999/xlink" {}>')
    head = head.format(escape(shown(label)), Markup(box[0]))
    return head + Markup(re.sub(r"\n\s*", "\n", drawn[drawn.index(">") + 1 :]))
