"""What a model that can code costs: bits by image, the cheapest and costliest ones; bytes beside errors for one that loses some.

N images, C channels, H W height and width, L qualities.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latente.evaluation import distances
from latente.evaluation.findings import Chart, Gallery
from latente.evaluation.scores import Answer, Score

SHOWN = 24
QUALITIES = (2, 5, 10, 15, 20, 30, 40, 50, 65, 80)
CODECS = "WebP", "JPEG", "AVIF"
LINES = 100  # points a line is drawn with


def costs(bits: Mapping[str, np.ndarray], images: np.ndarray) -> tuple[Chart, Gallery]:
    """How the bits of images spread, by part of the data (n,), and the test images (N,C,H,W) at both ends: `bits["test"]` (N,)."""
    shares = np.linspace(0, 1, LINES)
    lines = {f"{part} images": (100 * shares, np.quantile(each, shares) / 8) for part, each in bits.items()}
    note = "Few images that cost much are outliers, or mistakes; a test line above the training line is what was learned by heart."
    order = np.argsort(bits["test"], kind="stable")
    rows = [("cheapest to describe", images[order[:SHOWN]]), ("costliest", images[order[::-1][:SHOWN]])]
    gallery = Gallery("What the model expects, and what surprises it", "Of the held-out images, by their bits.", rows)
    return Chart("Bytes by image", note, "per cent of images, cheapest first", "bytes", lines), gallery


def sheet(images: np.ndarray) -> np.ndarray | None:
    """Images (N,C,H,W) as one picture (rows,columns,C), which codecs like better than many small ones; None where they take none."""
    n, channels, height, width = images.shape
    columns = min(n, max(1, 16_000 // width), math.ceil(n**0.5))
    rows = -(-n // columns)
    if rows * height > 16_000 or channels not in (1, 3):
        return None
    found = np.zeros((rows * columns, channels, height, width), np.uint8)
    found[:n] = images
    found = found.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    return found.reshape(rows * height, columns * width, channels)


def picture(sheet: np.ndarray) -> Any:
    """A PIL image of a `sheet`."""
    from PIL import Image

    return Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)


def beside_codecs(bits: np.ndarray, errors: np.ndarray, images: np.ndarray) -> tuple[list[Score], Chart]:
    """Bytes an image beside standard codecs at the same quality: `bits`, `errors` (squared, of a pixel) are (L,N), of images (N,C,H,W)."""
    sizes, quality = bits.mean(1) / 8, psnr(errors.mean(1))
    curves = {name: curve for name in CODECS if (curve := _curve(name, images)) is not None}
    lines = {"this model": (sizes, quality)} | {name: (curve[0], curve[1]) for name, curve in curves.items()}
    chart = Chart(
        "Size and quality", "Up and to the left is better. The codecs get all images on one sheet; the model's weights are not counted.",
        "bytes an image", "PSNR, dB", lines,
    )  # fmt: skip
    middle = len(sizes) // 2
    at = float(quality[middle])
    others = {n: float(np.interp(at, q, b)) for n, (b, q) in curves.items() if q[0] <= at <= q[-1]}
    half = distances.Z * float((bits[middle] / 8).std(ddof=1)) / len(images) ** 0.5 if len(images) > 1 else 0.0
    value = float(sizes[middle])
    words = f"{value:.1f} bytes an image at {at:.1f} dB"
    answer: Answer | None = None
    if others:
        best = min(others, key=lambda name: others[name])
        words += f", where the best of {' and '.join(others)} needs {others[best]:.1f}"
        answer = "good" if value + half < others[best] else "bad"
        words += ": LOSES; train longer, or a larger size" if answer == "bad" else ""
    unit = f"bytes an image at {at:.1f} dB, weights not counted"
    return [
        Score("bytes_per_image", value, (value - half, value + half), "lower", unit, others, words, "predicts", answer)
    ], chart


def psnr(squared_errors: Any) -> Any:
    """dB of mean squared errors of 8-bit numbers."""
    return 10 * np.log10(255**2 / np.maximum(squared_errors, 1e-6))


def _curve(codec: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Bytes an image and PSNR of a codec at several settings, by rising quality; None where it is not there."""
    from PIL import Image, features

    laid = sheet(images)
    if laid is None or (codec != "JPEG" and not features.check(codec.lower())):
        return None
    points: Sequence[tuple[float, float]] = []
    for setting in QUALITIES:
        file = io.BytesIO()
        picture(laid).save(file, codec.upper(), quality=setting)
        back = np.asarray(Image.open(file).convert("L" if laid.shape[2] == 1 else "RGB"), float).reshape(laid.shape)
        points = [*points, (len(file.getvalue()) / len(images), float(psnr(np.square(back - laid).mean())))]
    points = sorted(points, key=lambda point: point[1])
    return np.array([size for size, _ in points]), np.array([quality for _, quality in points])
