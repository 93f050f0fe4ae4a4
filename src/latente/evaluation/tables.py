"""What the judge reads tables with: gradient-boosted trees (Friedman 2001), which need no scaling and take missing values as they are."""

from __future__ import annotations

import numpy as np

from latente.evaluation.judge import Classifier, Scorer


def boosted_trees(rows: np.ndarray, fake: np.ndarray, seed: int) -> Scorer:
    """Learns which rows of floats (N, columns) are fake, (N,) bool. NaN is missing; categories are numbered."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(random_state=seed % 2**31).fit(rows, fake)
    return model.decision_function


CLASSIFIERS: dict[str, Classifier] = {"gradient boosting": boosted_trees}
