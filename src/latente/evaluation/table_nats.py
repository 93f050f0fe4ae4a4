"""What the generative model foresees of rows, beside models that are counted.

    tokens of training rows --counts--> each column on its own | a tree of pairs of columns --> -ln p of test rows

N rows, F fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from latente.evaluation.distances import Z
from latente.evaluation.judge import membership
from latente.evaluation.scores import Answer, Score
from latente.evaluation.table_rows import Likelihood

ALONE, TREE = "each column on its own", "pairs of columns, counted (Chow-Liu tree)"
DENSE = 1 << 22  # counts of one pair, at most
FIELDS = 128  # at most, whose pairs are all counted


def likely(
    nats: tuple[np.ndarray, np.ndarray], fields: np.ndarray | None, tokens: tuple[np.ndarray, np.ndarray], sizes: Sequence[int],
    owners: Sequence[int], numbers: np.ndarray,
) -> Likelihood:  # fmt: skip
    """What a model foresees beside counting.

    `nats` are -ln p of training and of test rows, `fields` (N,F) of each field of the same test rows; `tokens` (N,F) of all training rows
    and of those test rows, of `sizes` tokens a field; `owners` the column of each field; `numbers` (N,) of the test rows in the source.
    """
    starts = np.unique(owners, return_index=True)[1]
    cells = None if fields is None else np.add.reduceat(fields, starts, axis=1)
    each = np.add.reduceat(alone(*tokens, sizes).mean(0), starts)
    return Likelihood(*nats, cells, simpler(*tokens, sizes), each, numbers)


def likelihood(nats: tuple[np.ndarray, np.ndarray], simpler: Mapping[str, np.ndarray]) -> list[Score]:
    """Nats a test row costs, beside what it costs in `simpler` models; and whether the model knows its training rows.

    `nats` are -ln p of training and of test rows, `simpler` that of the same test rows, by what foresees them.
    """
    train, test = nats
    half = _slack(test)
    value, known = float(test.mean()), float(train.mean())
    words, answer = f"a held-out row costs {value:.2f} nats, a training row {known:.2f}", None
    references = {kind: float(cost.mean()) for kind, cost in simpler.items()} or {"training rows": known}
    if simpler:
        won = {kind: cost - test for kind, cost in simpler.items()}
        ahead = [bool(gain.mean() > _slack(gain)) for gain in won.values()]
        behind = [bool(gain.mean() < -_slack(gain)) for gain in won.values()]
        answer: Answer | None = "good" if all(ahead) else "bad" if all(behind) else "unsure"
        words += "".join(f", by {kind} {cost:.2f}" for kind, cost in references.items())
        words += "" if answer == "good" else ": what goes together is not all learnt; train longer, or a larger size"
    score = Score(
        "nats_per_row", value, (value - half, value + half), "lower", "nats per row", references, words, "predicts", answer,
    )  # fmt: skip
    return [score, membership(train, test, "rows")]


def _slack(values: np.ndarray) -> float:
    """Half of the 95 % interval of a mean."""
    return Z * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0


def simpler(train: np.ndarray, test: np.ndarray, sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """-ln p of test rows by counted models, by what they are; tokens (N,F) each, of `sizes` tokens a field."""
    train, test = (np.asarray(part, np.int64) for part in (train, test))
    each = alone(train, test, sizes)
    found = {ALONE: each.sum(1)}
    if 1 < len(sizes) <= FIELDS:
        found[TREE] = _tree(train, test, sizes, each)
    return found


def alone(train: np.ndarray, test: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """-ln p of each field of test rows (N,F), as often as its token is among training rows; tokens (N,F) each, of `sizes` a field."""
    counts = [np.bincount(train[:, f], minlength=size) + 1.0 for f, size in enumerate(sizes)]
    return np.stack([-np.log(own[test[:, f]] / own.sum()) for f, own in enumerate(counts)], 1)


def _tree(train: np.ndarray, test: np.ndarray, sizes: Sequence[int], each: np.ndarray) -> np.ndarray:
    """Each field is foreseen from one other, so that together the pairs tell most (Chow & Liu 1968, IEEE Trans. Inf. Theory 14:462).

    Counts of a pair are completed by those of the field alone, `each` (N,F), as often as there were different ones (Witten & Bell 1991).
    """
    parents = _parents(_told(train, sizes))
    cost = np.zeros(len(test))
    for field, parent in enumerate(parents):
        if parent is None:
            cost += each[:, field]
            continue
        pairs = train[:, parent] * sizes[field] + train[:, field]
        seen, counts = np.unique(pairs, return_counts=True)
        asked = test[:, parent] * sizes[field] + test[:, field]
        at = np.minimum(np.searchsorted(seen, asked), len(seen) - 1)
        both = np.where(seen[at] == asked, counts[at], 0)
        often = np.bincount(train[:, parent], minlength=sizes[parent])[test[:, parent]]
        kinds = np.bincount(seen // sizes[field], minlength=sizes[parent])[test[:, parent]]
        weight = np.maximum(kinds, 1)
        cost -= np.log((both + weight * np.exp(-each[:, field])) / (often + weight))
    return cost


def _told(train: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """What each pair of fields tells of one another, in nats (F,F), less what chance would tell; none where too many are to be counted."""
    n, found = len(train), np.zeros((len(sizes), len(sizes)))
    for i, j in combinations(range(len(sizes)), 2):
        if sizes[i] * sizes[j] > DENSE:
            continue
        counts = np.bincount(train[:, i] * sizes[j] + train[:, j], minlength=sizes[i] * sizes[j])
        table = counts.reshape(sizes[i], sizes[j])
        sides = table.sum(1), table.sum(0)
        a, b = np.nonzero(table)
        shares = table[a, b] / n
        told = float((shares * np.log(shares * n * n / (sides[0][a] * sides[1][b]))).sum())
        chance = ((sides[0] > 0).sum() - 1) * ((sides[1] > 0).sum() - 1) / (2 * n)
        found[i, j] = found[j, i] = max(0.0, told - chance)
    return found


def _parents(told: np.ndarray) -> list[int | None]:
    """Of each field the one that foresees it in the tree of most told (Prim's); None for the first, and where nothing is told."""
    count = len(told)
    best, source, free = np.full(count, -1.0), np.zeros(count, int), np.ones(count, bool)
    parents: list[int | None] = [None] * count
    for _ in range(count):
        field = int(np.where(free, best, -np.inf).argmax())
        parents[field] = int(source[field]) if best[field] > 0 else None
        free[field] = False
        better = free & (told[field] > best)
        best[better], source[better] = told[field][better], field
    return parents
