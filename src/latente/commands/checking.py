"""The commands that say how good something is: `evaluate`, `compare`, `verify`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from latente.flags import flags, parsed


@dataclass
class Evaluate:
    """Measure a trained model beside data it never saw, and write RUN/report/report.html. Exit code 1 when a --fail-if holds."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    seed: int = 0
    """of the samples that are measured, where any are drawn"""
    json: bool = False
    """print RUN/report/metrics.json instead of a table"""
    fail_if: list[str] | None = None
    """conditions such as "nats_per_char>1.8" that make the exit code 1"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


def evaluate(words: list[str], started: float) -> int:
    given = parsed(flags(Evaluate), words, "latente evaluate")
    from rich.console import Console

    from latente import reports, run
    from latente.evaluation import scores as of

    for text in given.fail_if or ():
        of.condition(text)  # one that cannot be read is refused before anything is measured
    opened = run.load(given.run, model_file=given.model_file)
    with Console(stderr=True).status("the data is opened") as status:
        evaluation = opened.evaluate(seed=given.seed, say=status.update)
    page = reports.write(opened, evaluation, opened.reopened().describe())
    failed = [text for text in given.fail_if or () if of.check(evaluation.scores, text)]
    if given.json:
        print((page.parent / "metrics.json").read_text(encoding="utf-8"), end="")
    else:
        Console().print(of.table(evaluation.scores))
        for finding in evaluation.findings:
            print(f"{finding.question:<10} {finding.answer:<7} {finding.words}")
        for note in evaluation.notes:
            print(note)
        told = reports.verdict(opened, evaluation)
        print(f"verdict    {told['sentence']}\nnext       {told['next']}\nreport     {page}")
    for text in failed:
        print(f"latente: {text} holds", file=sys.stderr)
    return 1 if failed else 0


@dataclass
class Compare:
    """Runs that were evaluated, side by side: a table here, and a page."""

    runs: Annotated[list[Path], "positional"]
    """the run directories"""
    out: Path = Path("compare.html")
    """the page to write, as compare.html; an older one is replaced"""


def compare(words: list[str], started: float) -> int:
    given = parsed(flags(Compare), words, "latente compare")
    import json

    from rich.console import Console

    from latente import reports, run

    if len(given.runs) < 2:
        raise ValueError("compare needs at least two runs")
    if given.out.suffix != ".html":
        raise ValueError(f"--out {given.out}: a page ends in .html")
    measured = []
    for path in given.runs:
        opened, file = run.load(path), path / "report" / "metrics.json"
        if not file.is_file():
            raise ValueError(f"{path} was not evaluated yet: latente evaluate {shlex.quote(str(path))}")
        measured.append((opened, json.loads(file.read_text(encoding="utf-8"))))
    Console().print(reports.comparison(measured))
    print(f"page       {reports.compare(measured, given.out)}")
    return 0


@dataclass
class Verify:
    """Make again what was made, by its sidecar (PATH.latente.json), and say whether it is the same. Exit code 1 when it is not."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    path: Annotated[Path, "positional"]
    """what `latente sample`, `translate --out`, `fill`, `encode`, `reconstruct` or `denoise` wrote"""
    source: str | None = None
    """encode, reconstruct, denoise, fill: the images or rows it was made of; translate: the file of lines, for a .txt; no file says where
    they are"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


def verify(words: list[str], started: float) -> int:
    given = parsed(flags(Verify), words, "latente verify")
    from latente import provenance, run

    provenance.read(given.path)  # what is wrong with it is said before the run is opened
    verdict = provenance.verify(run.load(given.run, model_file=given.model_file), given.path, given.source)
    print("\n".join(verdict.said))
    return 1 if verdict.outcome == "differs" else 0
