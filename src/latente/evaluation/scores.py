"""A measured figure with its direction, unit, interval and references: the one form in which results leave this room."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

Outcome = Literal["ahead", "level", "behind"]
Question = Literal["right", "predicts", "faithful", "varied", "copied", "useful"]
Answer = Literal["good", "unsure", "bad"]
CONDITION = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Score:
    """One figure measured on held-out data.

    `references` holds the same figure for others, by what they are ("xz alone", "real against real"); the one hardest to beat
    is *the* reference.
    """

    name: str
    """with sign and unit: `nats_per_char`"""
    value: float
    ci: tuple[float, float] | None
    """95 % interval (low, high); None where it was not measured"""
    better: Literal["higher", "lower", "nearer"]
    """nearer: to the references"""
    unit: str
    references: Mapping[str, float] = field(default_factory=dict)
    verdict: str = ""
    """what it means in words, and what to do about it"""
    question: Question = "faithful"
    """what it helps to answer: are targets right; does the model predict held-out data; are samples faithful, varied, copied, useful"""
    answer: Answer | None = None
    """what it says to that; None where it only informs"""

    @property
    def reference_kind(self) -> str | None:
        """What the best of the references is; None without any."""
        if self.better == "nearer":
            return min(self.references, key=lambda kind: abs(self.references[kind] - self.value), default=None)
        best = max if self.better == "higher" else min
        return best(self.references, key=lambda kind: self.references[kind], default=None)

    @property
    def reference(self) -> float | None:
        """The best of the references."""
        kind = self.reference_kind
        return None if kind is None else self.references[kind]

    def against(self, kind: str) -> Outcome:
        """How the value stands to one reference: "level" where the interval holds both. A value that is no number is behind."""
        other = self.references[kind]
        if (self.ci and self.ci[0] <= other <= self.ci[1]) or self.value == other:
            return "level"
        ahead = {"higher": self.value > other, "lower": self.value < other, "nearer": False}[self.better]
        return "ahead" if ahead else "behind"

    def to_json(self) -> dict[str, Any]:
        """Plain values for `metrics.json`; what is not a finite number becomes None."""
        return {
            "name": self.name,
            "value": _finite(self.value),
            "ci": [_finite(end) for end in self.ci] if self.ci else None,
            "reference": None if self.reference is None else _finite(self.reference),
            "reference_kind": self.reference_kind,
            "references": {kind: _finite(value) for kind, value in self.references.items()},
            "better": self.better,
            "unit": self.unit,
            "verdict": self.verdict,
            "question": self.question,
            "answer": self.answer,
        }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def table(scores: Sequence[Score]) -> Table:
    """The scores for a terminal: value, interval, and on a line of its own each reference, best first, and who wins."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    result = Table(box=SIMPLE_HEAD, pad_edge=False)
    result.add_column("score", overflow="fold")
    result.add_column("value", justify="right", no_wrap=True)
    result.add_column("95 % interval", no_wrap=True)
    result.add_column("beside", overflow="fold")
    words = {"ahead": ("better than", "green"), "level": ("level with", "yellow"), "behind": ("WORSE than", "red")}
    for score in scores:
        beside = Text()
        for kind in sorted(score.references, key=lambda k: score.references[k], reverse=score.better == "higher"):
            word, colour = words[score.against(kind)]
            beside.append("\n" if beside else "").append(word, colour).append(f" {kind} ({score.references[kind]:.4g})")
        name = Text(score.name).append(f"\n{score.unit}\n{score.better} is better", "dim")
        interval = f"{score.ci[0]:.4g} to {score.ci[1]:.4g}" if score.ci else "not measured"
        result.add_row(name, Text(f"{score.value:.4g}", "bold"), interval, beside or Text("no reference"))
    return result


def condition(text: str) -> tuple[str, str, float]:
    """Score, operator (> >= < <=) and number of a condition such as `nats_per_char>1.8`. Raises ValueError where it cannot be read."""
    match = CONDITION.fullmatch(text)
    if not match:
        raise ValueError(f"cannot read {text!r}: write SCORE>NUMBER (or >= < <=), as in judge_auc>0.8")
    return match[1], match[2], float(match[3])


def check(scores: Sequence[Score], text: str) -> bool:
    """Whether a condition holds.

    Raises ValueError for one that cannot be read, for a score that is not there, and for a value that is no number: it would make any
    condition false, and what is asked here is mostly whether to fail.
    """
    name, operator, limit = condition(text)
    known = ", ".join(score.name for score in scores) or "none"
    value = next((score.value for score in scores if score.name == name), None)
    if value is None:
        raise ValueError(f"no score {name!r} in {text!r}; known: {known}")
    if math.isnan(value):
        raise ValueError(f"{name} is not a number, so {text!r} cannot be checked")
    return {">": value > limit, ">=": value >= limit, "<": value < limit, "<=": value <= limit}[operator]
