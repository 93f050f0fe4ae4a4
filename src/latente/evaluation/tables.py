"""How good samples of rows are: every figure beside that of real rows, at the same sizes.

    samples, test, fresh, train --judge, quality, copying, use--> Evaluation

test and fresh are two sets of held-out rows: what fresh ones score against test ones is the reference for samples.
N rows, D columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from latente.evaluation.distances import Z
from latente.evaluation.findings import Chart, Evaluation, Gallery, Say, silent
from latente.evaluation.judge import FEWEST, Classifier, Judgement, Scorer, judged
from latente.evaluation.scores import Answer, Score
from latente.evaluation.table_quality import quality, shapes, trends
from latente.rng import key

MOST = 10_000  # rows of a kind that are measured
COPIES = 4_000  # of these, looked up among all training rows
POOL = 200_000  # training rows, at most, that copies are looked for among
USED = 20_000  # rows a model learns from to find out what samples are worth
GLANCED = 2_000
DIRECTIONS = 48  # numbers a category of more levels is compared by
DRAWN = 60  # resamples of an interval
SHOWN = 12  # columns drawn
SIDE = 6  # rows of each kind shown side by side


@dataclass(frozen=True)
class Held:
    """The real rows an evaluation needs. `nats` are -ln p of the first rows of the train and test splits, where the model has a
    likelihood."""

    train: Rows
    test: Rows
    fresh: Rows
    target: int | None = None
    """the column whose prediction says how useful samples are"""
    nats: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def n(self) -> int:
        """How many samples and real rows of each kind are compared."""
        return min(len(self.test), len(self.fresh), MOST)


def boosted_trees(rows: np.ndarray, fake: np.ndarray, seed: int, categorical: Sequence[bool] = ()) -> Scorer:
    """Learns which rows of floats (N,D) are fake, (N,) bool: gradient-boosted trees (Friedman 2001), which need no scaling and take
    missing values as they are. Ranks of levels beyond 254 count as one level."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    given: Any = np.array(categorical or [False] * rows.shape[1], bool)
    model = HistGradientBoostingClassifier(categorical_features=given, random_state=seed % 2**31)
    model.fit(_bounded(rows, given), fake)
    return lambda part: model.decision_function(_bounded(part, given))


def _bounded(rows: np.ndarray, categorical: np.ndarray) -> np.ndarray:
    return np.where(categorical, np.minimum(rows, 253), rows)


CLASSIFIERS: dict[str, Classifier] = {"gradient boosting": boosted_trees}


def classifiers(rows: Rows) -> dict[str, Classifier]:
    return {name: partial(learn, categorical=rows.categorical) for name, learn in CLASSIFIERS.items()}  # type: ignore[call-arg]


def wanted(held: Held) -> int:
    """How many samples `evaluated` makes use of."""
    useful = min(len(held.train), USED) if held.target is not None else 0
    return max(held.n, min(len(held.train), COPIES), useful)


def with_nats(held: Held, nats: tuple[np.ndarray, ...]) -> Held:
    """The same rows, with -ln p of the first training and test ones."""
    return replace(held, nats=(nats[0], nats[1]))


def glance(made: Rows, real: Rows, seed: int) -> tuple[Judgement, float]:
    """What the judge makes of as many samples as real rows, and how far they are from being as alike as can be."""
    return judged(real.values, made.values, classifiers(real), seed), 1 - quality(
        real.values, made.values, real.categorical
    )


def evaluated(samples: Rows, held: Held, seed: int = 0, say: Say = silent) -> Evaluation:
    """Everything that can be measured of `samples`."""
    n = held.n
    random = np.random.default_rng(key(seed, "evaluation"))
    test, fresh = (part.some(np.sort(random.permutation(len(part))[:n])) for part in (held.test, held.fresh))
    scores: list[Score] = []
    charts: list[Chart] = []
    notes: list[str] = []
    if held.nats is not None:
        scores += _likelihood(held)
    if n >= FEWEST:
        part = samples.some(slice(n))
        say("a judge learns to tell samples from real rows")
        kinds = classifiers(test)
        judgement = judged(test.values, part.values, kinds, seed)
        scores.append(judgement.score(judged(test.values, fresh.values, kinds, seed), "rows"))
        say("columns and pairs of columns are compared")
        found, alike = _alike(part, test, fresh, seed)
        scores += found
        charts += alike
        if held.target is not None:
            say("a model is trained on samples and tried on real rows")
            scores += _useful(samples, held, test, seed)
    else:
        notes.append(
            f"{n} held-out rows are too few to judge samples by: at least {FEWEST} are needed, a thousand are better"
        )
    say("looking for copies of training rows")
    found, pairs = _copied(samples.some(slice(COPIES)), held, seed)
    if len(held.train) > POOL:
        notes.append(f"copies were looked for among {POOL:,} of {len(held.train):,} training rows")
    beside = Gallery("Samples beside real rows", "Neither was chosen: they are the first ones.", [
        ("real, held out", [_line(held.test, i) for i in range(min(SIDE, len(held.test)))]),
        ("samples", [_line(samples, i) for i in range(min(SIDE, len(samples)))]),
    ])  # fmt: skip
    made = {"samples": len(samples), "compared": n, "seed": seed}
    return Evaluation([*scores, *found], [beside, pairs], charts, notes, made)


# ---- fidelity and variety ----------------------------------------------------------------------------------------------


def _alike(made: Rows, test: Rows, fresh: Rows, seed: int) -> tuple[list[Score], list[Chart]]:
    kinds, names = test.categorical, test.names
    a, b, c = test.values, fresh.values, made.values
    random = np.random.default_rng(key(seed, "quality"))
    value, usual = quality(a, c, kinds), quality(a, b, kinds)
    half = Z * float(np.std([_resampled(a, c, kinds, random) for _ in range(DRAWN // 6)]))
    columns, pairs = shapes(a, c, kinds), trends(a, c, kinds)
    # Of columns alone: the bins of pairs reach to the extremes, which are others in every draw.
    gap = float(np.nanmean(shapes(a, b, kinds)) - np.nanmean(columns))
    answer: Answer = "good" if gap <= 0.02 else "unsure" if gap <= 0.08 else "bad"
    words = f"columns and pairs of columns are {value:.1%} alike; other real rows: {usual:.1%}"
    worst = int(np.nanargmin(columns))
    if answer != "good":
        words += f"; worst: {names[worst]} ({columns[worst]:.0%}); train longer, or a larger size"
    scores = [Score("quality", value, (value - half, min(1.0, value + half)), "higher", "SDMetrics' quality score, 0 to 1",
                    {"real against real": usual}, words, "faithful", answer)]  # fmt: skip
    words = f"the column that differs most is {names[worst]}: {columns[worst]:.1%} alike"
    scores.append(Score("worst_column", float(columns[worst]), None, "higher", "how alike its values are, 0 to 1",
                        {"real against real": float(shapes(a, b, kinds)[worst])}, words))  # fmt: skip
    if not np.isnan(pairs).all():
        i, j = np.unravel_index(int(np.nanargmin(pairs)), pairs.shape)
        words = f"the pair that differs most is {names[i]} and {names[j]}: {pairs[i, j]:.1%} alike"
        scores.append(Score("worst_pair", float(pairs[i, j]), None, "higher", "how alike both together are, 0 to 1",
                            {"real against real": float(trends(a, b, kinds)[i, j])}, words))  # fmt: skip
    scores.append(_covered(made, test, fresh))
    return scores, [*_marginals(made, test, columns), *_together(made, test)]


def _resampled(a: np.ndarray, c: np.ndarray, kinds: Sequence[bool], random: np.random.Generator) -> float:
    """Quality with other rows of each side, as chance could have had it."""
    return quality(a, c[random.integers(len(c), size=len(c))], kinds)


def _covered(made: Rows, test: Rows, fresh: Rows) -> Score:
    """How much of what real rows hold do samples reach: levels, and tenths of each number."""
    value, usual = (_share(test, part) for part in (made, fresh))
    share = value / max(usual, 1e-9)
    answer: Answer = "good" if share >= 0.95 else "unsure" if share >= 0.8 else "bad"
    words = f"samples reach {value:.0%} of the values of real rows, where as many real ones reach {usual:.0%}"
    if answer != "good":
        words += ": some kinds of row are missing; train longer, or a larger size"
    return Score("coverage", value, None, "higher", "share of levels and of tenths of numbers, mean over columns",
                 {"real against real": usual}, words, "varied", answer)  # fmt: skip


def _share(real: Rows, made: Rows) -> float:
    shares = []
    for c, discrete in enumerate(real.categorical):
        there, new = (part.values[:, c][~np.isnan(part.values[:, c])] for part in (real, made))
        if not len(there):
            continue
        if not discrete:
            edges = np.unique(np.quantile(there, np.linspace(0, 1, 11)[1:-1]))
            there, new = np.digitize(there, edges), np.digitize(new, edges)
        kinds = np.unique(there)
        shares.append(float(np.isin(kinds, new).mean()))
    return float(np.mean(shares)) if shares else 1.0
