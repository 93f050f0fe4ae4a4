"""What an evaluation found: scores, the answers they add up to, and what to look at.

Score ...  ->  Finding: one answer a question, by its worst score
Gallery    items side by side (samples beside reals; a sample and what it is nearest to)
Map        what each token of a target looked at in its source
Chart      lines (a spectrum, a distribution)
Bars       figures of several things, a bar each
Panels     charts and bars of one kind, small, side by side
Matrix     figures of pairs
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_args

import numpy as np

from latente.evaluation.scores import Answer, Question, Score

Say = Callable[[str], None]
"""Is told what is being measured, for whoever waits"""


def silent(stage: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Finding:
    """The answer to one question, in words that say what to do next."""

    question: Question
    answer: Answer
    words: str


@dataclass(frozen=True)
class Map:
    """What each of T tokens of a target looked at among S tokens of its source."""

    source: Sequence[str]
    target: Sequence[str]
    weights: np.ndarray
    """(T,S), at least 0; rows sum to 1"""


@dataclass(frozen=True)
class Gallery:
    """Rows of items, column by column side by side where `paired`: uint8 (n,C,H,W), texts, or the cells of `columns`."""

    title: str
    note: str
    rows: Sequence[tuple[str, np.ndarray | Sequence[str] | Sequence[Sequence[str]]]]
    paired: bool = False
    captions: Sequence[str] = ()
    """under each column of paired rows"""
    columns: Sequence[str] = ()
    """what the cells of items are called, where items are rows of a table"""
    maps: Sequence[Map | None] = ()
    """below the first columns of paired texts"""


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis: {name: (x (n,), y (n,))}."""

    title: str
    note: str
    x: str
    y: str
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]]
    log: bool = False
    """whether y is drawn logarithmically"""
    steps: bool = False
    """whether y stays as it is up to the next x: a histogram, x being where its bins begin and, once more, where the last one ends"""
    marks: Mapping[str, float] = field(default_factory=dict)
    """places on the x axis to compare with, by what they are"""


@dataclass(frozen=True)
class Bars:
    """Figures of several things, a bar each: {name: (n,)}, none below 0."""

    title: str
    note: str
    unit: str
    labels: Sequence[str]
    """of the n things"""
    bars: Mapping[str, np.ndarray]
    top: float | None = None
    """what a bar of full length stands for; the largest figure where None"""


@dataclass(frozen=True)
class Panels:
    """Small charts and bars of the same names, beside each other."""

    title: str
    note: str
    parts: Sequence[Chart | Bars]


@dataclass(frozen=True)
class Matrix:
    """Figures of pairs of the same things, from -1 to 1: {name: (n,n)}."""

    title: str
    note: str
    labels: Sequence[str]
    """of the n things"""
    tables: Mapping[str, np.ndarray]


Figure = Chart | Bars | Panels | Matrix


@dataclass(frozen=True)
class Evaluation:
    """All that was measured of one run. Iterates over its scores; `evaluation["judge_auc"]` is one of them."""

    scores: Sequence[Score]
    galleries: Sequence[Gallery] = ()
    charts: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    """what a reader must know to trust the figures, a line each"""
    made: Mapping[str, Any] = field(default_factory=dict)
    """how it was measured: sizes, seed, hashes; plain values"""
    details: Mapping[str, Any] = field(default_factory=dict)
    """what galleries and charts show, where programs may want it; plain values"""

    def __iter__(self) -> Iterator[Score]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, name: str) -> Score:
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(name)

    @property
    def findings(self) -> list[Finding]:
        """One answer a question, in the order of `Question`: that of its worst score, in the words of all that are as bad."""
        order: list[Answer] = list(get_args(Answer))
        found = []
        for question in get_args(Question):
            said = [score for score in self.scores if score.question == question and score.answer]
            if said:
                worst = order[max(order.index(score.answer) for score in said if score.answer)]
                words = "; ".join(score.verdict for score in said if score.answer == worst)
                found.append(Finding(question, worst, words))
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values for `metrics.json`."""
        return {
            "findings": [vars(finding) for finding in self.findings],
            "scores": [score.to_json() for score in self.scores],
            "notes": list(self.notes),
            "made": dict(self.made),
            "details": dict(self.details),
            "charts": [
                _plain(figure) for figure in self.charts if not isinstance(figure, Matrix)
            ],  # n x n: too long to read
        }


def _plain(value: Any) -> Any:
    """Figures as JSON has them: what is no finite number becomes None."""
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(part) for part in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
