"""What images cost a model that codes: bytes by image, the cheapest and costliest ones; bytes beside errors for one that loses some.

N images, C channels, H W height and width, L qualities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latente.evaluation import codecs, distances
from latente.evaluation.codecs import psnr
from latente.evaluation.costs import ends, histogram, summary
from latente.evaluation.findings import Chart, Gallery
from latente.evaluation.scores import Answer, Score

SHOWN = 12
NAME = 24  # characters of a file's name below its picture


@dataclass(frozen=True)
class Rates:
    """What a codec with loss makes of the first N images of the test split, at L qualities."""

    bits: np.ndarray
    """(L,N)"""
    errors: np.ndarray
    """mean squared errors of an image's pixels (L,N)"""
    train: np.ndarray
    """bits of the first training images at the middle quality (n,)"""
    made: Callable[[np.ndarray], np.ndarray]
    """what comes out of some of the N images (n,) at the middle quality, uint8 (n,C,H,W)"""

    @property
    def middle(self) -> int:
        """Of the qualities, the one whose figures are shown."""
        return len(self.bits) // 2

    @property
    def quality(self) -> str:
        """The middle quality in words."""
        decibels = float(psnr(self.errors[self.middle].mean()))
        return (
            f"quality {self.middle + 1} of {len(self.bits)}, {decibels:.1f} dB over {self.bits.shape[1]:,} test images"
        )


def costs(
    bits: Mapping[str, np.ndarray], images: np.ndarray, names: Sequence[str], marks: Mapping[str, float],
    rates: Rates | None = None,
) -> tuple[Chart, list[Gallery], dict[str, Any]]:  # fmt: skip
    """How bytes spread over images, the costliest and the cheapest test images, and both as plain values.

    `bits` (n,) by part of the data, `bits["test"]` (N,) those of the `images` (N,C,H,W) with their `names`; `marks`: bytes an image that
    others need. Where the model loses some, `rates` show what comes out.
    """
    sizes = {part: each / 8 for part, each in bits.items()}
    at = f"At {rates.quality}. " if rates else ""
    note = f"{at}Few images that cost much are outliers, or mistakes. The model's weights are not counted."
    chart = histogram("Bytes by image", note, "bytes", "images", sizes, marks)
    galleries: list[Gallery] = []
    told: dict[str, Any] = {"unit": "bytes an image", **summary(sizes)}
    for end, which in ends(sizes["test"], SHOWN).items():
        rows = [("original" if rates else "image", images[which])]
        figures = [{"image": names[i], "bytes": float(sizes["test"][i])} for i in which]
        if rates:
            rows.append(("what comes out", rates.made(which)))
            for figure, error in zip(figures, rates.errors[rates.middle, which]):
                figure["psnr"] = float(psnr(error))
        note = f"{at}Held-out images. Below each: its bytes{', its own quality' if rates else ''}, its name."
        captions = [_caption(**figure) for figure in figures]
        galleries.append(Gallery(f"{end.capitalize()} images", note, rows, True, captions))
        told[end] = figures
    return chart, galleries, told


def _caption(image: str, bytes: float, psnr: float | None = None) -> str:
    """Lines that stand below a picture: of a path the last part, which is found again in `metrics.json`."""
    name = Path(image).name
    quality = [] if psnr is None else [f"{psnr:.1f} dB"]
    return "\n".join([f"{bytes:.1f} bytes", *quality, name if len(name) <= NAME else f"…{name[1 - NAME :]}"])


def beside_codecs(rates: Rates, images: np.ndarray) -> tuple[Score, Chart]:
    """Bytes an image beside standard codecs at the same quality, of images (N,C,H,W)."""
    sizes, quality = rates.bits.mean(1) / 8, psnr(rates.errors.mean(1))
    curves = {name: curve for name in codecs.SETTINGS if (curve := codecs.curve(name, images)) is not None}
    chart = Chart(
        "Size and quality", "Up and to the left is better. The codecs get all images on one sheet; the model's weights are not counted.",
        "bytes an image", "PSNR, dB", {"this model": (sizes, quality), **curves},
    )  # fmt: skip
    value, at = float(sizes[rates.middle]), float(quality[rates.middle])
    others = {n: float(np.interp(at, q, b)) for n, (b, q) in curves.items() if q[0] <= at <= q[-1]}
    each = rates.bits[rates.middle] / 8
    half = distances.Z * float(each.std(ddof=1)) / len(each) ** 0.5 if len(each) > 1 else 0.0
    words = f"{value:.1f} bytes an image at {at:.1f} dB"
    answer: Answer | None = None
    if others:
        best = min(others, key=lambda name: others[name])
        words += f", where the best of {', '.join(others)} needs {others[best]:.1f}"
        answer = "good" if value + half < others[best] else "bad"
        words += ": LOSES; train longer, or a larger size" if answer == "bad" else ""
    unit = f"bytes an image at {at:.1f} dB, weights not counted"
    ci = (value - half, value + half)
    return Score("bytes_per_image", value, ci, "lower", unit, others, words, "predicts", answer), chart
