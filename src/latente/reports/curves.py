"""What metrics.jsonl tells of a training.

metrics.jsonl -------> panels: a drawing a figure, training and validation in one; events are upright lines
              -------> happened: the events in words
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from latente import checkpoint
from latente.reports import drawing
from latente.reports.words import number, told

if TYPE_CHECKING:
    from latente.run import Run

Record = Mapping[str, Any]
Points = Sequence[tuple[float, Any]]
LOOKS = {"judge_auc": "judge's guesses: 0.5 = cannot tell", "distance": "distance of samples from real"}
"""what looks at samples recorded, on the page"""
FELL = 2.5  # times its median: a first fall or a spike, beside which nothing else would show


def records(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; none where a run was handed on without it."""
    return checkpoint.read_metrics(run.path) if (run.path / "metrics.jsonl").is_file() else []


def happened(lines: Sequence[Record]) -> list[tuple[int, str]]:
    """(step, what happened) of the events among the lines."""
    return [(line["step"], _event(line)) for line in lines if "event" in line]


def _event(line: Record) -> str:
    if line["event"] == "end moved":
        return f"the end moved from step {line['from']:,} to {line['to']:,}, to fit the time given"
    if line["event"] == "rolled back":
        why = line.get("why", "the losses were no longer numbers")
        return f"{why}: back to step {line['to']:,}, at {line['lr_scale']:g} times the learning rate"
    if line["event"] == "ending":
        left = f"it winds up, to step {line['to']:,}" if line["to"] > line["step"] else "it ends here"
        return f"{line['why']}: {left}"
    rest = ", ".join(f"{name} {told(value)}" for name, value in line.items() if name not in ("step", "event"))
    return f"{line['event']}{': ' * bool(rest)}{rest}"


def panels(lines: Sequence[Record]) -> list[dict[str, Any]]:
    """A drawing a figure: training, and validation where it has one of that name. What the judge saw comes first, then totals."""
    series: dict[str, list[tuple[float, Any]]] = {}
    for line in lines:
        for name, value in line.items():
            if "/" in name:
                series.setdefault(name, []).append((line["step"], value))
    phases = list(dict.fromkeys(name.split("/")[0] for name in series if not name.startswith("validation/")))
    found: dict[str, dict[str, Points]] = {}
    for name, points in series.items():
        phase, term = name.split("/", 1)
        owner, role = (phase, "training") if phase != "validation" else (phases[0] if phases else "", "validation")
        alone = role == "validation" and f"{owner}/{term}" not in series
        title = LOOKS.get(term, term) if alone else term if len(phases) < 2 else f"{owner} {term}"
        found.setdefault(title, {})[role] = points
    events = [line["step"] for line in lines if "event" in line]
    order = sorted(found.items(), key=lambda item: (item[0] not in LOOKS.values(), "total" not in item[0]))
    return [_panel(title, roles, events, f"curve{i}") for i, (title, roles) in enumerate(order)]


def _panel(title: str, roles: Mapping[str, Points], events: Sequence[int], name: str) -> dict[str, Any]:
    sheet, axes = drawing.figure(3.6, 2.0)
    values = np.array([v for points in roles.values() for _, v in points if v is not None and math.isfinite(v)])
    if len(values) and values.min() > 0 and values.max() > FELL * np.median(values):
        axes.set_yscale("log")
    for role, points in roles.items():
        steps, of = zip(*_parted(points))
        drawing.line(axes, int(role == "validation"), steps, of, dots=role == "validation")
    for step in events:
        axes.axvline(step, color=drawing.COLOURS["soft"], linewidth=0.8, linestyle=(0, (2, 2)))
    drawing.ruled(axes, True)
    said = ", ".join(f"{role} ends at {number(points[-1][1])}" for role, points in roles.items())
    return {
        "title": title.replace("_", " "),
        "roles": list(roles),
        "drawing": drawing.svg(sheet, f"{title} over steps; {said}", name),
    }


def _parted(points: Points) -> Iterator[tuple[float, Any]]:
    """The points, with a gap where a run went back to an earlier step."""
    before = -math.inf
    for step, value in points:
        if step <= before:
            yield step, None
        yield step, value
        before = step
