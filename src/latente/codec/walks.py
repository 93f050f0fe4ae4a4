"""Values coded one after another for many items at once, each with what an exact network expects of it after all before it.

    items, cut into chunks -> a walk over all of them --whole frequencies--> a range coder a chunk -> bytes

A walk is an object whose `through(choose)` asks for the values in order: `choose` maps logits (N,K) to values (N,). The decoder takes
the steps of the encoder, and what is expected is exact, so it makes no difference how many items go together. N items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latente.codec.coding import Decoder, Encoder, frequencies

RARE = 2.0**-5  # what the coder makes of a frequency of 0


def encoded(walk: Any, values: Iterable[np.ndarray], coders: Sequence[Encoder], counts: Sequence[int]) -> np.ndarray:
    """Adds the `values` of N items, (N,) each, in the order of the walk, to the coders of chunks of so many items; what each item
    costs, in bits (N,)."""
    parts, rows, known = _parts(counts), np.arange(sum(counts)), iter(values)
    total = np.zeros(len(rows))

    def told(logits: Tensor) -> Tensor:
        here, chances = next(known), frequencies(logits)
        for part, coder in zip(parts, coders):
            coder.add(here[part], chances[part])
        total[:] -= np.log2(np.maximum(chances[rows, here], RARE) / chances.sum(1))
        return torch.from_numpy(here).long()

    walk.through(told)
    return total


def decoded(walk: Any, coders: Sequence[Decoder], counts: Sequence[int]) -> Tensor:
    """What the walk gives at its end, from chunks of so many items each."""
    parts = _parts(counts)

    def taken(logits: Tensor) -> Tensor:
        chances = frequencies(logits)
        return torch.from_numpy(
            np.concatenate([coder.take(chances[part]) for part, coder in zip(parts, coders)])
        ).long()

    return walk.through(taken)


def _parts(counts: Sequence[int]) -> list[slice]:
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts)]
