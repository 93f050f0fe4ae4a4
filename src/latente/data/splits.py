"""Splits by content: what is equal is on one side, and the order of the items does not matter.

Distinct items are ordered by a hash; the lowest ones are the test split, the next ones validation. Where a source brings its own
test set, that is the test split, and training items that are in it are left out.
"""

from __future__ import annotations

import numpy as np

from latente.data.errors import DataError

CAP = 50_000  # distinct items held out for each purpose, at most
FEWEST = 20


def mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the input reaches every bit of the output."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def split(
    hashes: np.ndarray, official: int | None, validation: float, test: float, name: str, what: str = "rows"
) -> dict[str, np.ndarray]:
    """Item numbers of the train, validation and test splits, each ascending, for mixed hashes (N,) uint64.

    `official` is the item at which the source's own test set begins; `validation` and `test` are shares of the distinct items.
    Raises DataError, in terms of `what` the items are, for too few of them.
    """
    items = np.arange(len(hashes))
    given = items[official:] if official is not None else items[:0]
    rest = items[:official] if official is not None else items
    if len(given):
        rest = rest[~np.isin(hashes[rest], hashes[given])]
    ranked = np.unique(hashes[rest])  # sorted; the hash is mixed, so its order is a fixed shuffle
    if len(ranked) < FEWEST:
        raise DataError(
            f"{name} holds {len(ranked)} different {what}: too few to train on; at least {FEWEST} are needed"
        )
    held = 0 if official is not None or not test else min(CAP, max(1, round(test * len(ranked))))
    fresh = min(CAP, max(1, round(validation * len(ranked))))
    if held + fresh >= len(ranked):
        raise DataError(
            f"--validation {validation} and --test {test} leave none of the {len(ranked)} different {what} of "
            f"{name} to train on; hold out less"
        )
    mine = hashes[rest]
    first = ranked[held] if held else ranked[0]
    last = ranked[held + fresh]
    return {
        "train": rest[mine >= last],
        "validation": rest[(mine >= first) & (mine < last)],
        "test": given if official is not None else rest[mine < first],
    }
