"""Were training rows copied? The tests of `copying`, for rows of numbers and categories.

    rows --compared by--> numbers: how many training rows are smaller, 0 to 1; categories: alike 0, unlike 1; missing: a state of its own

Equal rows that are no copies occur in any table of few values, so every test has that of real rows beside it. N rows, P numbers a row
is compared by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latente.evaluation import copying
from latente.evaluation.findings import Chart, Gallery
from latente.evaluation.scores import Score
from latente.evaluation.table_charts import nearness
from latente.evaluation.table_rows import Rows, identities
from latente.rng import key

POOL = 200_000  # training rows, at most, that copies are looked for among
NUMBERS = 100_000_000  # that training rows are compared by, at most, all in all
CURVE = 2_000  # held-out rows whose nearness is drawn
DIRECTIONS = 48  # numbers a category of more levels is compared by


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


def copied(samples: Rows, train: Rows, test: Rows, seed: int) -> tuple[list[Score], Gallery, Chart, int]:
    """The tests, the samples most like a copy beside what they are nearest to, how near samples lie beside held-out rows, and how many
    training rows were looked at."""
    if not len(test):
        raise ValueError("there are no held-out rows to compare with: train with --test above 0")
    random = np.random.default_rng(key(seed, "pool"))
    most = min(
        POOL,
        NUMBERS // sum(2 if not d else min(len(n) + 2, DIRECTIONS) for d, n in zip(train.categorical, train.levels)),
    )
    if len(train) > most:
        train = train.some(np.sort(random.permutation(len(train))[:most]))
    made, known, other = compared((samples, train, test), train)
    which, there, held = identities(samples, train, test)
    _, place, count = np.unique(there, return_inverse=True, return_counts=True)
    # Of rows that occur often most are in the training split: each counts once where it is asked to which split samples lie nearer.
    once = Points(known[np.unique(there, return_index=True)[1]]), Points(other[np.unique(held, return_index=True)[1]])
    scores, found = copying.tested(
        made, Points(known), Points(other), np.isin(which, there), int((count[place] > 1).sum()), seed, "rows", once
    )
    order = found.suspicious
    rows = [
        ("sample", [samples.cells(i) for i in order]),
        ("nearest training row", [train.cells(int(found.which[i])) for i in order]),
    ]
    captions = ["equal" if found.exact[i] else f"{found.to_train[i]:.3f} / {found.to_test[i]:.3f}" for i in order]
    note = (
        "The samples that lie much nearer to a training row than to any held out; cells that differ are bold. Below each: its "
        "distance from the one / from the nearest held-out row."
    )
    near = nearness(found.to_train, copying.nearest(other[:CURVE], Points(known))[0])
    return scores, Gallery("Most like a copy", note, rows, True, captions, train.names), near, len(train)
