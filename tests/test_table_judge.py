"""The judge of tables: a column that no longer belongs to its row is seen, real rows are not told from real rows."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from latente.evaluation.judge import judged
from latente.evaluation.tables import CLASSIFIERS


@pytest.fixture(scope="module")
def halves():
    rows = load_breast_cancer().data
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    return rows[:284], rows[284:568]


def test_a_swapped_column_is_told_apart(halves):
    real, fake = halves[0], halves[1].copy()
    fake[:, 0] = np.random.default_rng(1).permutation(fake[:, 0])  # each column as before, on its own
    found = judged(real, fake, CLASSIFIERS)
    assert found.verdict == "told apart" and found.auc > 0.7


def test_real_rows_are_not_told_apart(halves):
    found = judged(*halves, CLASSIFIERS)
    assert found.verdict != "told apart" and found.ci[0] < 0.5


def test_missing_values_are_taken_as_they_are(halves):
    real, fake = (rows.copy() for rows in halves)
    real[::10, 3] = fake[::10, 3] = np.nan
    assert judged(real, fake, CLASSIFIERS).verdict != "told apart"
    fake[::3, 5] = np.nan  # missing oftener than in real rows
    assert judged(real, fake, CLASSIFIERS).verdict == "told apart"
    assert judged(real, fake, CLASSIFIERS, 3) == judged(real, fake, CLASSIFIERS, 3)
