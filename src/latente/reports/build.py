"""The report: a run and what was measured of it become one self-contained page, and the same figures as JSON.

    Evaluation --> answers (verdict, cards), tiles, pictures, charts --\
    metrics.jsonl --> curves --------------------------------------------> template.html -> RUN/report/report.html
    run.json --> making (facts, the command) ---------------------------/
    Evaluation, verdict, audit, events, facts -------> RUN/report/metrics.json -> comparing
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latente import checkpoint
from latente.evaluation.findings import Evaluation
from latente.reports import answers, charts, curves, making, page, pictures
from latente.reports.tiles import tile

if TYPE_CHECKING:
    from latente.run import Run


def report(run: Run, *, source: Any = None, seed: int = 0) -> Path:
    """Evaluates a run and writes its report; gives the path of the page. `source` as for `Run.evaluate`."""
    return write(run, run.evaluate(source=source, seed=seed), run.reopened(source).describe())


def write(run: Run, evaluation: Evaluation, audit: Sequence[tuple[str, str]]) -> Path:
    """Writes RUN/report/report.html and RUN/report/metrics.json, each in one step; gives the path of the page.

    `audit` is what `describe()` says of the run's dataset. An older report is replaced.
    """
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    made, lines = making.facts(run), curves.records(run)
    scores = sorted(evaluation.scores, key=lambda score: list(answers.ASKED).index(score.question))
    verdict, events = answers.verdict(run, evaluation), curves.happened(lines)
    told = {"verdict": verdict, "audit": dict(audit), "events": [{"step": step, "what": what} for step, what in events]}
    checkpoint.write_json(folder / "metrics.json", {**told, **evaluation.to_json(), "run": made})
    return page.written(
        folder / "report.html",
        "template.html",
        run=made,
        verdict=verdict,
        cards=answers.cards(run, evaluation),
        tiles=[tile(score, i) for i, score in enumerate(scores)],
        scores=scores,
        notes=evaluation.notes,
        galleries=pictures.shown(evaluation.galleries),
        charts=charts.shown(evaluation.charts),
        panels=curves.panels(lines),
        events=events,
        audit=audit,
        made=making.settings(made, evaluation.made),
    )
