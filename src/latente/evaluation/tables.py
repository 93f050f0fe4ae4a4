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

from latente.evaluation import copying
from latente.evaluation.distances import Z
from latente.evaluation.findings import Chart, Evaluation, Gallery, Say, silent
from latente.evaluation.judge import FEWEST, Classifier, Judgement, Scorer, auc, interval, judged, membership
from latente.evaluation.scores import Answer, Score
from latente.evaluation.table_quality import associations, quality, shapes, trends
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
class Rows:
    """Rows as numbers: numbers and times as themselves, categories by the rank of their level, NaN where missing."""

    values: np.ndarray
    """(N,D) float64"""
    names: tuple[str, ...]
    categorical: tuple[bool, ...]
    levels: tuple[tuple[str, ...], ...]
    """of each category its levels by rank; () of a number"""

    def __len__(self) -> int:
        return len(self.values)

    def some(self, at: np.ndarray | slice) -> Rows:
        return replace(self, values=self.values[at])

    def cell(self, row: int, column: int) -> str:
        """A cell in words."""
        value = self.values[row, column]
        if np.isnan(value):
            return "(missing)"
        if not self.categorical[column]:
            return f"{value:.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
        levels = self.levels[column]
        return levels[int(value)] if value < len(levels) else "(another)"


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


def _marginals(made: Rows, test: Rows, columns: np.ndarray) -> list[Chart]:
    """The columns that differ most, as lines over their values."""
    charts = []
    for c in np.argsort(np.nan_to_num(columns, nan=1.0))[:SHOWN]:
        parts = {"samples": made.values[:, c], "real, held out": test.values[:, c]}
        there = test.values[:, c][~np.isnan(test.values[:, c])]
        if not len(there):
            continue
        if test.categorical[c]:
            count = min(20, len(test.levels[c]) or 1)
            lines = {
                name: (np.arange(count), np.array([(v == k).mean() for k in range(count)])) for name, v in parts.items()
            }
            note = "Levels by falling frequency: " + ", ".join(
                f"{k} {level}" for k, level in enumerate(test.levels[c][:count])
            )
            charts.append(Chart(test.names[c], note, "level", "share of rows", lines))
            continue
        at = np.unique(np.quantile(there, np.linspace(0, 1, 101)))
        lines = {
            name: (at, np.searchsorted(np.sort(v[~np.isnan(v)]), at, "right") / max(1, int((~np.isnan(v)).sum())))
            for name, v in parts.items()
        }
        charts.append(
            Chart(test.names[c], "The share of rows up to each value.", test.names[c], "share of rows", lines)
        )
    return charts


def _together(made: Rows, test: Rows) -> list[Chart]:
    """How much pairs of columns go together, in samples over in real rows: a line of pairs by falling strength."""
    if len(test.names) < 2:
        return []
    at = np.triu_indices(len(test.names), 1)
    real, new = (associations(part.values, part.categorical)[at] for part in (test, made))
    order = np.argsort(-real)
    place = np.arange(1, len(order) + 1)
    strongest = ", ".join(f"{test.names[at[0][k]]} with {test.names[at[1][k]]}" for k in order[:3])
    lines = {"samples": (place, new[order]), "real, held out": (place, real[order])}
    note = f"From the strongest pair on ({strongest}): rank correlation of numbers, Cramer's V of all others."
    return [Chart("What goes together", note, "pair of columns", "association, 0 to 1", lines)]


# ---- use and likelihood ------------------------------------------------------------------------------------------------


def _useful(samples: Rows, held: Held, test: Rows, seed: int) -> list[Score]:
    """What a model trained on samples alone makes of real rows, beside one trained on as many real rows."""
    assert held.target is not None
    n = min(len(samples), len(held.train), USED)
    random = np.random.default_rng(key(seed, "use"))
    real = held.train.some(np.sort(random.permutation(len(held.train))[:n]))
    if not held.train.categorical[held.target]:
        return [_regressed(samples.some(slice(n)), real, test, held.target, seed)]
    known = np.unique(held.train.values[:, held.target][~np.isnan(held.train.values[:, held.target])])
    (value, f1, ranks), (usual, best, _) = (
        _classified(part, test, held.target, known, seed) for part in (samples.some(slice(n)), real)
    )
    gap = usual - value
    answer: Answer = "good" if gap <= 0.02 else "unsure" if gap <= 0.1 else "bad"
    name = test.names[held.target]
    words = f"trained on {n:,} samples, a model ranks {name} of real rows with an AUC of {value:.3f}; on as many real rows, {usual:.3f}"
    if answer != "good":
        words += ": add real rows to it, or train longer"
    ci = interval(value, *ranks) if min(ranks) > 1 else None
    return [
        Score(
            "tstr_auc",
            value,
            ci,
            "higher",
            "0.5 = no better than chance",
            {"trained on real rows": usual},
            words,
            "useful",
            answer,
        ),
        Score("tstr_macro_f1", f1, None, "higher", "mean over classes, 0 to 1", {"trained on real rows": best}),
    ]


def _classified(
    train: Rows, test: Rows, target: int, known: np.ndarray, seed: int
) -> tuple[float, float, tuple[int, int]]:
    """AUC (mean of one against the rest), macro-F1, and how many rows the AUC is from."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import f1_score

    inputs = [c for c in range(len(train.names)) if c != target]
    given: Any = np.array([train.categorical[c] for c in inputs], bool)
    (x, y), (u, v) = (_split(part, inputs, given, target) for part in (train, test))
    if len(np.unique(y)) < 2 or len(np.unique(v)) < 2:
        return 0.5, 0.0, (1, 1)
    model: Any = HistGradientBoostingClassifier(categorical_features=given, random_state=seed % 2**31).fit(x, y)
    chances = model.predict_proba(u)
    areas, sizes = [], []
    for code in known:
        truth = v == code
        if truth.any() and not truth.all():
            mine = np.flatnonzero(model.classes_ == code)
            score = chances[:, mine[0]] if len(mine) else np.zeros(len(u))
            areas.append(auc(score, truth))
            sizes.append((int((~truth).sum()), int(truth.sum())))
    f1 = float(f1_score(v, model.classes_[chances.argmax(1)], average="macro"))
    return float(np.mean(areas)) if areas else 0.5, f1, min(sizes, key=min) if sizes else (1, 1)


def _split(part: Rows, inputs: Sequence[int], given: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    there = ~np.isnan(part.values[:, target])
    return _bounded(part.values[there][:, list(inputs)], given), part.values[there, target]


def _regressed(samples: Rows, real: Rows, test: Rows, target: int, seed: int) -> Score:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.metrics import r2_score

    inputs = [c for c in range(len(test.names)) if c != target]
    given: Any = np.array([test.categorical[c] for c in inputs], bool)
    u, v = _split(test, inputs, given, target)

    def explained(part: Rows) -> float:
        x, y = _split(part, inputs, given, target)
        model: Any = HistGradientBoostingRegressor(categorical_features=given, random_state=seed % 2**31).fit(x, y)
        return float(r2_score(v, model.predict(u)))

    value, usual = explained(samples), explained(real)
    gap = usual - value
    answer: Answer = "good" if gap <= 0.05 else "unsure" if gap <= 0.2 else "bad"
    words = f"trained on samples, a model explains {value:.0%} of {test.names[target]} of real rows; on as many real rows, {usual:.0%}"
    return Score(
        "tstr_r2",
        value,
        None,
        "higher",
        "share of variance explained",
        {"trained on real rows": usual},
        words,
        "useful",
        answer,
    )


def _likelihood(held: Held) -> list[Score]:
    """Nats a test row costs, beside what independent columns cost; and whether the model knows its training rows."""
    assert held.nats is not None
    train, test = held.nats
    half = Z * float(test.std(ddof=1)) / len(test) ** 0.5 if len(test) > 1 else 0.0
    value = float(test.mean())
    score = Score("nats_per_row", value, (value - half, value + half), "lower", "nats per row", {"training rows": float(train.mean())},
                  f"a held-out row costs {value:.2f} nats, a training row {train.mean():.2f}", "predicts", None)  # fmt: skip
    return [score, membership(train, test, "rows")]


# ---- copies --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Points:
    """Rows by what they are compared by, float32 (N,P)."""

    array: np.ndarray

    def __len__(self) -> int:
        return len(self.array)

    def points(self, part: slice) -> np.ndarray:
        return self.array[part]

    def some(self, at: np.ndarray) -> Points:
        return Points(self.array[at])


def compared(parts: Sequence[Rows], real: Rows) -> list[np.ndarray]:
    """What rows are compared by, float32 (N,P) each: numbers as shares of `real` ones that are smaller, so from 0 to 1; levels by
    directions at right angles (or nearly so, where there are many), the square of whose distance is 1; a missing cell is a level."""
    columns: list[list[np.ndarray]] = [[] for _ in parts]
    for c, discrete in enumerate(real.categorical):
        there = np.sort(real.values[:, c][~np.isnan(real.values[:, c])])
        for found, part in zip(columns, parts):
            values = part.values[:, c]
            missing = np.isnan(values)
            if discrete:
                found.append(
                    _directions(np.where(missing, 0, values + 1).astype(np.int64), max(len(real.levels[c]), 1) + 2)
                )
                continue
            share = (np.searchsorted(there, values, "left") + np.searchsorted(there, values, "right")) / (
                2 * max(1, len(there))
            )
            found.append(np.where(missing, 0.5, share)[:, None])
            found.append(missing[:, None] * 1.0)
    return [np.concatenate(found, 1).astype(np.float32) for found in columns]


def _directions(codes: np.ndarray, count: int) -> np.ndarray:
    if count <= DIRECTIONS:
        return np.eye(count)[np.minimum(codes, count - 1)] / np.sqrt(2)
    signs = np.random.default_rng(key("directions", count)).choice([-1.0, 1.0], (count, DIRECTIONS))
    return signs[np.minimum(codes, count - 1)] / np.sqrt(2 * DIRECTIONS)


def _copied(samples: Rows, held: Held, seed: int) -> tuple[list[Score], Gallery]:
    random = np.random.default_rng(key(seed, "pool"))
    train = (
        held.train.some(np.sort(random.permutation(len(held.train))[:POOL])) if len(held.train) > POOL else held.train
    )
    made, known, other = compared((samples, train, held.test), train)
    marks = _marks(train)
    counts: dict[bytes, int] = {}
    for mark in marks:
        counts[mark] = counts.get(mark, 0) + 1
    exact = np.array([mark in counts for mark in _marks(samples)])
    among = sum(count for count in counts.values() if count > 1)
    if not len(held.test):
        raise ValueError("there are no held-out rows to compare with: train with --test above 0")
    scores, found = copying.tested(made, Points(known), Points(other), exact, among, seed, "rows")
    order = found.suspicious
    rows = [
        ("sample", [_line(samples, i, train, int(found.which[i])) for i in order]),
        ("nearest training row", [_line(train, int(found.which[i]), samples, i) for i in order]),
    ]
    captions = ["equal" if found.exact[i] else f"{found.to_train[i]:.3f} / {found.to_test[i]:.3f}" for i in order]
    note = (
        "The samples that lie much nearer to a training row than to any held out; cells that differ stand in [brackets]. Under each: its \
distance from the one / from the nearest held-out row."
    )
    return scores, Gallery("Most like a copy", note, rows, paired=True, captions=captions)


def _marks(rows: Rows) -> list[bytes]:
    return [row.tobytes() for row in np.ascontiguousarray(np.nan_to_num(rows.values, nan=-1e300))]


def _line(rows: Rows, at: int, other: Rows | None = None, beside: int = 0) -> str:
    """A row, cell by cell; what differs from another in brackets."""
    cells = []
    for c, name in enumerate(rows.names):
        text = rows.cell(at, c)
        same = other is None or text == other.cell(beside, c)
        cells.append(f"{name}: {text}" if same else f"{name}: [{text}]")
    return "\n".join(cells)
