"""How good lossy images are to be, or how small, and the quality of a `compressor` that makes them so.

    some images: bisect the qualities --> all images: is it so? --no--> a neighbouring quality
                                                            |
                                                            +--> as many images of the next quality as the wish allows

Both figures rise with quality, nearly always. N images.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TRIES = 4  # neighbouring qualities that are tried on all images, at most
CHUNK = 2_000  # images at a time
GOLDEN = 2_654_435_769  # 2^32 divided by the golden ratio


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


class Point(NamedTuple):
    """How good images are coded: about `better` of them, evenly spread, by the quality after `quality`, the others by that."""

    quality: int
    better: int = 0
    nested: bool = True
    """whether the images that are better are among those of any point with more of them: in all files but early ones"""

    @property
    def levels(self) -> int:
        """How many qualities that takes."""
        return 1 + (self.better > 0)

    def each(self, numbers: range, items: int) -> np.ndarray:
        """0 or 1 for each of the images `numbers` of so many, int64: which of the qualities it has."""
        at = np.arange(numbers.start, numbers.stop, dtype=np.uint64)
        if not self.nested:
            return ((at + 1) * self.better // items - at * self.better // items).astype(np.int64)
        turns = at * GOLDEN & 0xFFFFFFFF  # multiples of the golden ratio, in 2^32 of a turn, fill it evenly
        return (turns * items >> 32 < self.better).astype(np.int64)


def good(errors: Callable[[int, bool], np.ndarray], qualities: int, wanted: float, size: int) -> Point:
    """The fewest bits whose images, of `size` numbers each, are as good as `wanted` dB, looked for on some of them first. `errors` gives
    the squared errors of a quality, (N,), of all images or of some. Raises ValueError where there is no such quality."""

    def reached(quality: int, of_all: bool) -> float:
        return psnr(errors(quality, of_all).mean() / size)

    def least(enough: float) -> int:
        found = bisect_left(range(qualities), True, key=lambda quality: reached(quality, False) >= enough)
        return min(found, qualities - 1)

    found = least(wanted)
    found = least(wanted + reached(found, False) - reached(found, True))  # by so much some are better than all
    for _ in range(TRIES):
        enough = reached(found, True) >= wanted
        following = found - 1 if enough else found + 1
        if not 0 <= following < qualities or (enough and reached(following, True) < wanted):
            break
        found = following
    if reached(found, True) < wanted:
        found = qualities - 1
    if reached(found, True) < wanted:
        raise ValueError(
            f"--psnr {wanted:g}: this model reaches {reached(found, True):.2f} dB; train it longer, or a larger size"
        )
    if not found:
        return Point(0)
    low, high = errors(found - 1, True), errors(found, True)
    n, most = len(low), len(low) * size * 255**2 / 10 ** (wanted / 10)

    def suffices(better: int) -> bool:
        return np.where(Point(found - 1, better).each(range(n), n), high, low).sum() <= most

    better = bisect_left(range(n), True, key=suffices)  # a point that is enough, and nearly always the first
    return Point(found - 1, better) if better < n else Point(found)


def small(size: Callable[[int], float], qualities: int, most: float, n: int) -> Point | None:
    """As good as can be with `n` images in at most so many bytes, `size` being those of a quality; None where there is nothing."""
    found = bisect_left(range(qualities), True, key=lambda quality: size(quality) > most) - 1
    if found < 0:
        return None
    if found == qualities - 1:
        return Point(found)
    return Point(found, min(n - 1, int((most - size(found)) / (size(found + 1) - size(found)) * n)))


def psnr(squared_error: float) -> float:
    """dB, of a mean squared error of 8-bit numbers."""
    return 10 * math.log10(255**2 / squared_error) if squared_error > 0 else math.inf


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sum of squared errors of each image, (N,)."""
    return np.square(a.astype(np.float64) - b).reshape(len(a), -1).sum(1)
