"""The judge: a fresh classifier that learns to tell real held-out data from samples (Lopez-Paz & Oquab 2017, "Revisiting Classifier
Two-Sample Tests", arXiv:1610.06545).

    real, fake --halves--> learn on one (a fold of it first picks among classifiers) --> scores of the other --> AUC, interval, p, power

An AUC of 0.5 means that it cannot tell, 1 that it always can. What that is worth depends on how much there was to look at, so
every judgement says which AUC it would have caught: too little data is a verdict of its own and never a pass.
M real and N fake items are scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from latente.evaluation.scores import Answer, Score
from latente.rng import key

ALPHA = 0.05
POWER = 0.8
FEWEST = 20  # real items, and samples: nothing can be learnt from less
MARGIN = 0.1  # an AUC this far above 0.5 must be caught, or there was too little data
PERMUTATIONS = 9_999
FOLD = 5  # one in so many of the items learnt from is held back to pick the classifier

Scorer = Callable[[np.ndarray], np.ndarray]
"""Items to scores (n,): the higher, the more likely made by the model."""
Classifier = Callable[[np.ndarray, np.ndarray, int], Scorer]
"""Learns from items, whether each is fake (n,) bool, and a seed."""


@dataclass(frozen=True)
class Judgement:
    """What the judge found, on `items` real ones and as many fakes that it had not learnt from."""

    auc: float
    ci: tuple[float, float]
    """95 % interval"""
    p: float
    """of an AUC at least as high if real and fake were alike; one-sided"""
    detectable: float
    """the smallest true AUC that this test finds four times in five"""
    items: int
    classifier: str
    """the one that judged"""

    @property
    def verdict(self) -> Literal["told apart", "not told apart", "too little data"]:
        if self.p <= ALPHA:
            return "told apart"
        return "not told apart" if self.detectable <= 0.5 + MARGIN else "too little data"

    def score(self, real: Judgement, what: str) -> Score:
        """`judge_auc` beside what the judge makes of real against `real`; `what` is judged ("images")."""
        least, answer = f"{self.detectable:.2f}", "good"
        if self.verdict == "too little data":
            words = (
                f"too little held-out data to judge by: among {self.items} {what} only an AUC above {least} would show"
            )
            answer = "unsure"
        elif self.verdict == "not told apart":
            words = f"the judge cannot tell the samples from real {what}; an AUC of {least} would have shown"
        else:
            words = f"the judge tells the samples from real {what} (AUC {self.auc:.2f}, p = {self.p:.2g})"
            if self.ci[1] <= 0.5 + MARGIN:
                words += ", but hardly"
            elif (
                real.verdict == "told apart" and self.ci[0] <= real.auc
            ):  # the held-out data is of another kind than what was trained on
                words += f", but no better than it tells real {what} from other real ones ({real.auc:.2f})"
                words, answer = words + ": it cannot say how good they are", "unsure"
            else:
                words, answer = words + ": train longer, or a larger size", "unsure" if self.auc < 0.8 else "bad"
        return Score(
            "judge_auc", self.auc, self.ci, "lower", "0.5 = cannot tell", {"real against real": real.auc},
            words, "faithful", answer,
        )  # fmt: skip


def judged(real: np.ndarray, fake: np.ndarray, classifiers: dict[str, Classifier], seed: int = 0) -> Judgement:
    """Judges as many fakes as there are real items, or the other way round: arrays (n,...).

    Raises ValueError for fewer than `FEWEST` of either.
    """
    count = min(len(real), len(fake))
    if count < FEWEST:
        raise ValueError(f"{count} items to judge: at least {FEWEST} real ones and as many samples are needed")
    random = np.random.default_rng(key(seed, "judge"))
    real, fake = (items[random.permutation(len(items))[:count]] for items in (real, fake))
    half = count // 2
    cut = half - (max(2, half // FOLD) if len(classifiers) > 1 else 0)

    def both(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([real[start:stop], fake[start:stop]]), np.arange(2 * (stop - start)) >= stop - start

    learnt, fold, (unseen, made) = both(0, cut), both(cut, half), both(half, count)
    scorers = {name: learn(*learnt, key(seed, "judge", name)) for name, learn in classifiers.items()}
    best = max(scorers, key=lambda name: auc(scorers[name](fold[0]), fold[1]) if cut < half else 0.0)
    if cut < half:  # the one that was picked learns from the fold as well
        scorers[best] = classifiers[best](*both(0, half), key(seed, "judge", best))
    scores = scorers[best](unseen)
    found, n = auc(scores, made), count - half
    return Judgement(found, interval(found, n, n), p_value(scores, made, random), detectable(n, n), n, best)


def membership(train: np.ndarray, held: np.ndarray, what: str) -> Score:
    """Can whoever has the model tell from its likelihood which items it was trained on (Yeom et al. 2018, arXiv:1709.01604)?

    `train`, `held`: -ln p of training and of held-out items, (n,) each; `what` they are ("images").
    """
    value = auc(-np.concatenate([held, train]), np.arange(len(held) + len(train)) >= len(held))
    ci = interval(value, len(held), len(train))
    answer: Answer = "good" if ci[0] <= 0.5 + MARGIN / 2 else "unsure" if value < 0.5 + 2 * MARGIN else "bad"
    words = f"the model does not give away which {what} it was trained on (AUC {value:.2f})"
    if answer != "good":
        words = f"whoever has the model can tell training {what} from others (AUC {value:.2f}): share samples, not the model"
    return Score(
        "membership_auc", value, ci, "lower", "0.5 = cannot tell", {"a model that remembers nothing": 0.5}, words, "copied", answer,
    )  # fmt: skip


# ---- statistics ----------------------------------------------------------------------------------------------------


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal scores sharing their mean, (n,) float64."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]


def auc(scores: np.ndarray, fake: np.ndarray) -> float:
    """The chance that a fake scores above a real one, equal scores counting half. (n,) and (n,) bool."""
    n = int(fake.sum())
    m = len(fake) - n
    return float((_ranks(scores)[fake].sum() - n * (n + 1) / 2) / (m * n))


def p_value(scores: np.ndarray, fake: np.ndarray, random: np.random.Generator) -> float:
    """The share of `PERMUTATIONS` of the scores, the true order counted in, that give an AUC at least as high."""
    ranks, n = _ranks(scores), int(fake.sum())
    found, reached = ranks[fake].sum(), 1
    for start in range(0, PERMUTATIONS, 500):
        rows = min(500, PERMUTATIONS - start)
        drawn = random.permuted(np.broadcast_to(ranks.astype(np.float32), (rows, len(ranks))), axis=1)
        reached += int((drawn[:, :n].sum(1, dtype=np.float64) >= found - 1e-6).sum())
    return reached / (PERMUTATIONS + 1)


def _deviation(value: float, m: int, n: int) -> float:
    """Standard deviation of an estimated AUC where `value` is the true one (Newcombe 2006, Statistics in Medicine 25:559, method 5)."""
    more = (m + n) / 2 - 1
    return (value * (1 - value) * (1 + more * (1 - value) / (2 - value) + more * value / (1 + value)) / (m * n)) ** 0.5


def interval(value: float, m: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The true AUCs from which `value` is no more than 1.96 standard deviations (at 95 %) away (the same method), within 0..1."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    ends = []
    for outside in (0.0, 1.0):
        inside = value
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(value - middle) <= z * _deviation(middle, m, n):
                inside = middle
            else:
                outside = middle
        ends.append(inside)
    return ends[0], ends[1]


def detectable(m: int, n: int) -> float:
    """The smallest true AUC that a one-sided test at `ALPHA` finds with a chance of `POWER`; 1 where none is."""
    z = NormalDist().inv_cdf
    null = ((m + n + 1) / (12 * m * n)) ** 0.5
    for value in np.arange(0.5, 1, 0.0005):
        if value >= 0.5 + z(1 - ALPHA) * null + z(POWER) * _deviation(float(value), m, n):
            return float(value)
    return 1.0
