"""Images without loss: each number is coded with what an exact pixel model expects of it after all before it.

    images (N,C,H,W), cut into chunks -> a walk over all of them at once --whole frequencies--> a range coder a chunk -> bytes

The decoder takes the steps of the encoder: what is expected is computed in one place, and is exact, so it makes no difference how
many images go together. N images, C channels, H W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latente.codec.coding import Decoder, Encoder, frequencies

HALF = 16  # values of half a byte
RARE = 2.0**-5  # what the coder makes of a frequency of 0


def encoded(
    net: Any, images: np.ndarray, labels: np.ndarray | None, counts: Sequence[int]
) -> tuple[list[bytes], np.ndarray]:
    """Images (N,C,H,W) uint8 as chunks of so many each, by the exact network `net`, and the bits each image costs, (N,).

    `labels` (N,) int64 where the network has classes.
    """
    coders = [Encoder() for _ in counts]

    def told(values: np.ndarray, chances: np.ndarray) -> None:
        for part, coder in zip(_parts(counts), coders):
            coder.add(values[part], chances[part])

    total = _read(net, images, labels, told)
    return [coder.finish() for coder in coders], total


def decoded(net: Any, chunks: Sequence[bytes], labels: np.ndarray | None, counts: Sequence[int]) -> np.ndarray:
    """The images, uint8 (N,C,H,W), of chunks of so many each; `labels` as for `encoded`."""
    coders = [Decoder(chunk) for chunk in chunks]

    def taken(logits: Tensor) -> Tensor:
        chances = frequencies(logits)
        values = [coder.take(chances[part]) for part, coder in zip(_parts(counts), coders)]
        return torch.from_numpy(np.concatenate(values)).long()

    return _walk(net, sum(counts), labels, taken)


def bits(net: Any, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """How many bits each image costs, (N,), without the coder's own few."""
    return _read(net, images, labels, lambda values, chances: None)


def _read(
    net: Any, images: np.ndarray, labels: np.ndarray | None, told: Callable[[np.ndarray, np.ndarray], None]
) -> np.ndarray:
    """Goes over known images and gives the bits of each, (N,); `told` hears of every half byte its
    values (N,) and their chances (N,16)."""
    numbers = np.ascontiguousarray(images.transpose(2, 3, 1, 0)).reshape(math.prod(images.shape[1:]), -1)
    halves = iter(part for row in numbers for part in (row // HALF, row % HALF))
    rows, total = np.arange(len(images)), np.zeros(len(images))

    def known(logits: Tensor) -> Tensor:
        values, chances = next(halves), frequencies(logits)
        told(values, chances)
        total[:] -= np.log2(np.maximum(chances[rows, values], RARE) / chances.sum(1))
        return torch.from_numpy(values).long()

    _walk(net, len(images), labels, known)
    return total


def _walk(net: Any, n: int, labels: np.ndarray | None, choose: Callable[[Tensor], Tensor]) -> np.ndarray:
    return net.walk(n, None if labels is None else torch.from_numpy(labels)).through(choose).numpy()


def _parts(counts: Sequence[int]) -> list[slice]:
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts)]
