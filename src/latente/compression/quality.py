"""How good lossy images are to be, or how small, and the quality of a `compressor` that makes them so.

    some images: bisect the qualities --> all images: is it so? --no--> a neighbouring quality

Both figures rise with quality, nearly always. N images.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from latente.compression.coders import Lossy

TRIES = 4  # neighbouring qualities that are tried on all images, at most
CHUNK = 2_000  # images at a time


@dataclass(frozen=True)
class Wish:
    """How good lossy images are to be, or how small; neither: as good as the model can."""

    psnr: float | None = None
    """dB, at least, over all pixels"""
    bytes_per_item: float | None = None
    """at most, of the whole file"""

    def __post_init__(self) -> None:
        for name, value in (("psnr", self.psnr), ("bytes-per-item", self.bytes_per_item)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name} {value:g}: a number above 0")
        if self.psnr is not None and self.bytes_per_item is not None:
            raise ValueError("--psnr or --bytes-per-item, not both")

    def __bool__(self) -> bool:
        return self.psnr is not None or self.bytes_per_item is not None


def good(coder: Callable[[int], Lossy], qualities: int, wanted: float, some: np.ndarray, x: np.ndarray) -> int:
    """The least quality whose images (N,C,H,W) are as good as `wanted` dB, looked for on `some` of them. Raises ValueError where there
    is none."""

    @cache
    def reached(quality: int, of_all: bool) -> float:
        images, lossy = x if of_all else some, coder(quality)
        parts = [images[at : at + CHUNK] for at in range(0, len(images), CHUNK)]
        return psnr(sum(squared(lossy.coarse(part), part) for part in parts) / images.size)

    def least(enough: float) -> int:
        found = bisect_left(range(qualities), True, key=lambda quality: reached(quality, False) >= enough)
        return min(found, qualities - 1)

    of_all, found = len(some) < len(x), least(wanted)
    if of_all:
        found = least(wanted + reached(found, False) - reached(found, True))  # by so much some are better than all
    for _ in range(TRIES * of_all):
        enough = reached(found, True) >= wanted
        following = found - 1 if enough else found + 1
        if not 0 <= following < qualities or (enough and reached(following, True) < wanted):
            break
        found = following
    if reached(found, of_all) < wanted:
        found = qualities - 1
    if reached(found, of_all) < wanted:
        raise ValueError(
            f"--psnr {wanted:g}: this model reaches {reached(found, of_all):.2f} dB; train it longer, or a larger size"
        )
    return found


def small(size: Callable[[int], float], qualities: int, most: float) -> int | None:
    """The highest quality of at most so many bytes; None where there is none."""
    above = bisect_left(range(qualities), True, key=lambda quality: size(quality) > most)
    return above - 1 if above else None


def psnr(squared_error: float) -> float:
    """dB, of a mean squared error of 8-bit numbers."""
    return 10 * math.log10(255**2 / squared_error) if squared_error > 0 else math.inf


def squared(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(np.float64) - b).sum())
