"""How good samples of rows are: every figure beside that of real rows, at the same sizes.

    samples, test, fresh, train --judge, quality, copying, use--> Evaluation

test and fresh are two sets of held-out rows: what fresh ones score against test ones is the reference for samples.
N rows, D columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from latente.evaluation import distances, table_copies, table_costs, table_nats, table_use
from latente.evaluation.copying import more_than
from latente.evaluation.distances import Z
from latente.evaluation.findings import Evaluation, Figure, Gallery, Say, silent
from latente.evaluation.judge import FEWEST, Classifier, Judgement, judged
from latente.evaluation.scores import Answer, Score
from latente.evaluation.table_charts import learnt, marginals, together
from latente.evaluation.table_copies import compared
from latente.evaluation.table_nats import likely
from latente.evaluation.table_quality import overall, quality, shapes, trends
from latente.evaluation.table_rows import MOST, Held, Rows, identities
from latente.evaluation.table_trees import boosted_trees
from latente.rng import key

__all__ = ["CLASSIFIERS", "Held", "Rows", "boosted_trees", "evaluated", "glance", "likely", "wanted"]

COPIES = 4_000  # samples looked up among all training rows
REACHED = 3_000  # rows of a kind whose neighbours are looked up
DRAWN = 12  # resamples of an interval
ALPHA = 0.01
SIDE = 8  # rows of each kind shown side by side

CLASSIFIERS: dict[str, Classifier] = {"gradient boosting": boosted_trees}


def classifiers(rows: Rows) -> dict[str, Classifier]:
    return {name: partial(learn, categorical=rows.categorical) for name, learn in CLASSIFIERS.items()}  # type: ignore[call-arg]


def wanted(held: Held) -> int:
    """How many samples `evaluated` makes use of."""
    useful = min(len(held.train), table_use.USED) if held.target is not None else 0
    return max(held.n, min(len(held.train), COPIES), useful)


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
    charts: list[Figure] = []
    galleries: list[Gallery] = []
    notes: list[str] = []
    details: dict[str, Any] = {}
    if held.likely is not None:
        scores += table_nats.likelihood((held.likely.train, held.likely.test), held.likely.simpler)
        found, ends, details["costs"] = table_costs.costs(held.test, held.likely)
        charts += found
        galleries.append(ends)
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
        scores += _varied(part, test, fresh, held, seed)
        if held.target is not None:
            say("a model is trained on samples and tried on real rows")
            found = table_use.useful(samples, held, test, seed)
            scores += found
            charts += learnt(found, test.names[held.target])
    else:
        notes.append(
            f"{n} held-out rows are too few to judge samples by: at least {FEWEST} are needed, a thousand are better"
        )
    if min(len(held.test), len(held.fresh)) > MOST:
        notes.append(
            f"of {len(held.test):,} test rows and {len(held.fresh):,} validation rows, {MOST:,} each were compared"
        )
    say("looking for copies of training rows")
    found, pairs, near, looked = table_copies.copied(samples.some(slice(COPIES)), held.train, held.test, seed)
    if looked < len(held.train):
        notes.append(f"copies were looked for among {looked:,} of {len(held.train):,} training rows")
    beside = Gallery("Samples beside real rows", "Neither was chosen: they are the first ones.", [
        ("real, held out", [held.test.cells(i) for i in range(min(SIDE, len(held.test)))]),
        ("samples", [samples.cells(i) for i in range(min(SIDE, len(samples)))]),
    ], columns=samples.names)  # fmt: skip
    made = {"samples": len(samples), "compared": n, "seed": seed}
    return Evaluation([*scores, *found], [beside, pairs, *galleries], [*charts, near], notes, made, details)


# ---- fidelity and variety ----------------------------------------------------------------------------------------------


def _alike(made: Rows, test: Rows, fresh: Rows, seed: int) -> tuple[list[Score], list[Figure]]:
    kinds, names = test.categorical, test.names
    a, b, c = test.values, fresh.values, made.values
    columns, pairs = shapes(a, c, kinds), trends(a, c, kinds)
    value, usual = overall(columns, pairs), quality(a, b, kinds)
    worst = 0 if np.isnan(columns).all() else int(np.nanargmin(columns))
    i, j = (0, 0) if np.isnan(pairs).all() else np.unravel_index(int(np.nanargmin(pairs)), pairs.shape)
    halves, slack = _noise(a, b, c, kinds, seed, worst, (int(i), int(j)))
    # Of columns alone: the bins of pairs reach to the extremes, which are others in every draw.
    gap = float(np.nanmean(shapes(a, b, kinds)) - np.nanmean(columns)) - slack
    answer: Answer = "good" if gap <= 0.02 else "unsure" if gap <= 0.08 else "bad"
    words = f"columns and pairs of columns are {value:.1%} alike; other real rows: {usual:.1%}"
    scores, weakest = [], []
    if not np.isnan(columns).all():
        weakest.append(f"{names[worst]} ({columns[worst]:.0%})")
        ci = _around(columns[worst], halves[1])
        scores.append(Score("worst_column", float(columns[worst]), ci, "higher", "how alike its values are, 0 to 1",
                            {"real against real": float(shapes(a, b, kinds)[worst])},
                            f"the column that differs most is {names[worst]}: {columns[worst]:.1%} alike"))  # fmt: skip
    if not np.isnan(pairs).all():
        weakest.append(f"{names[i]} with {names[j]} ({pairs[i, j]:.0%})")
        ci = _around(pairs[i, j], halves[2])
        scores.append(Score("worst_pair", float(pairs[i, j]), ci, "higher", "how alike both together are, 0 to 1",
                            {"real against real": float(trends(a, b, kinds)[i, j])},
                            f"the pair that differs most is {names[i]} and {names[j]}: {pairs[i, j]:.1%} alike"))  # fmt: skip
    if answer != "good":
        words += f"; worst: {' and '.join(weakest)}; train longer, or a larger size"
    first = Score("quality", value, _around(value, halves[0]), "higher", "SDMetrics' quality score, 0 to 1",
                  {"real against real": usual}, words, "faithful", answer)  # fmt: skip
    return [first, *scores], [*marginals(made, test, columns), *together(made, test)]


def _around(value: float, half: float) -> tuple[float, float]:
    """An interval of a figure from 0 to 1."""
    return max(0.0, float(value - half)), min(1.0, float(value + half))


def _noise(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, kinds: Sequence[bool], seed: int, column: int, pair: tuple[int, int]
) -> tuple[list[float], float]:
    """What chance does: half of the 95 % interval, for other samples, of the quality of `c` against `a`, of a column and of a pair of
    them; and how far, 95 times of 100, the quality of real rows is from their quality in another draw: that of halves of all real rows."""
    random = np.random.default_rng(key(seed, "quality"))
    drawn = []
    for _ in range(DRAWN):
        again = c[random.integers(len(c), size=len(c))]
        columns, pairs = shapes(a, again, kinds), trends(a, again, kinds)
        drawn.append((overall(columns, pairs), columns[column], pairs[pair]))
    real = np.concatenate([a, b])
    halves = [np.split(real[random.permutation(len(real))], [len(a)]) for _ in range(DRAWN)]
    usual = np.std([quality(one, other, kinds) for one, other in halves], ddof=1)
    return [Z * float(np.nan_to_num(np.std(found, ddof=1))) for found in zip(*drawn)], Z * float(usual)


def _varied(made: Rows, test: Rows, fresh: Rows, held: Held, seed: int) -> list[Score]:
    """How much of what real rows do do samples reach, by their neighbours, by the values of each column, and by repeats."""
    n = min(len(made), REACHED)
    parts = compared([part.some(slice(n)) for part in (test, fresh, made)], test)
    a, b, c = (
        np.round(256 * part).astype(np.float64) for part in parts
    )  # whole: rows at no distance are at exactly none
    (precision, recall), (full, whole) = distances.coverage(a, c), distances.coverage(a, b)
    share = recall / max(whole, 1e-9)
    answer: Answer = "good" if share >= 0.85 else "unsure" if share >= 0.5 else "bad"
    words = f"samples reach {recall:.0%} of real rows, where as many real ones reach {whole:.0%}"
    if answer != "good":
        words += ": some kinds of row are missing; train longer, or a larger size"
    kind = "real against real"
    return [
        Score("precision", precision, distances.share_interval(precision, n), "higher", "share of samples that lie among real rows",
              {kind: full}),
        Score("recall", recall, distances.share_interval(recall, n), "higher", "share of real rows that samples reach", {kind: whole},
              words, "varied", answer),
        _covered(made, test, fresh, seed),
        _distinct(made, held),
    ]  # fmt: skip


def _distinct(made: Rows, held: Held) -> Score:
    """How many samples are the only one of their kind, beside as many rows from all real ones."""
    real = np.concatenate([part.values for part in (held.train, held.test, held.fresh)])
    n = min(len(made), len(real))
    chosen = replace(made, values=real[np.random.default_rng(key("distinct", n)).permutation(len(real))[:n]])
    value, usual = (len(np.unique(identities(part)[0])) for part in (made.some(slice(n)), chosen))
    p = float(more_than(n - value, n, n - usual, n))
    answer: Answer = "good" if p > ALPHA or usual - value <= 0.01 * n else "unsure" if value >= 0.8 * usual else "bad"
    words = f"{value:,} of {n:,} samples are different rows; of as many real ones {usual:,}"
    if answer != "good":
        words += ": the same rows are made again and again; train longer, or another model"
    return Score("distinct_rows", value / n, distances.share_interval(value / n, n), "higher", "share of rows",
                 {"real rows": usual / n}, words, "varied", answer)  # fmt: skip


def _covered(made: Rows, test: Rows, fresh: Rows, seed: int) -> Score:
    """How much of what real rows hold do samples reach: levels, and tenths of each number."""
    random = np.random.default_rng(key(seed, "coverage"))
    drawn = [_share(test, made.some(random.integers(len(made), size=len(made)))) for _ in range(DRAWN)]
    value, usual = (_share(test, part) for part in (made, fresh))
    share = value / max(usual, 1e-9)
    answer: Answer = "good" if share >= 0.95 else "unsure" if share >= 0.8 else "bad"
    words = f"samples reach {value:.0%} of the values of real rows, where as many real ones reach {usual:.0%}"
    if answer != "good":
        words += ": some kinds of row are missing; train longer, or a larger size"
    ci = _around(value, Z * float(np.std(drawn, ddof=1)))
    return Score("coverage", value, ci, "higher", "share of levels and of tenths of numbers, mean over columns",
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
