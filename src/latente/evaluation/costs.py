"""What single items cost a model that codes: how their costs spread, and which are the cheapest and the costliest.

An item is an image, a row, or a line of text; N of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from latente.evaluation.findings import Chart

BINS = 32
OUTLIERS = 0.005  # share of the items of each end that lie in the outermost bins, whatever they cost
QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}


def histogram(
    title: str, note: str, unit: str, items: str, costs: Mapping[str, np.ndarray], marks: Mapping[str, float]
) -> Chart:
    """How the costs of `items` spread, (n,) of each part of the data, beside what others need on average (`marks`)."""
    low, high = (np.quantile(np.concatenate(list(costs.values())), share) for share in (OUTLIERS, 1 - OUTLIERS))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    lines = {
        f"{part} {items}": (edges, 100 * np.histogram(each.clip(edges[0], edges[-1]), edges)[0] / len(each))
        for part, each in costs.items()
    }
    note = f"{note} Test {items} further right than training {items}: what was learned by heart. Outermost bins hold what lies beyond."
    return Chart(title, note, unit, f"% of {items}", lines, steps=True, marks=marks)


def summary(costs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Mean and quantiles of costs (n,), by part of the data."""
    return {
        part: {"items": len(each), "mean": float(each.mean())}
        | {name: float(value) for name, value in zip(QUANTILES, np.quantile(each, list(QUANTILES.values())))}
        for part, each in costs.items()
    }


def ends(costs: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Which of the costs (N,) are the highest and which the lowest, `count` of each at most, the outermost first."""
    order = np.argsort(costs, kind="stable")
    return {"costliest": order[::-1][:count], "cheapest": order[:count]}
