"""What the standard codecs make of images: bytes without loss, and bytes beside errors at several settings.

All images are laid on one sheet, which codecs like better than many small ones. N images, C channels, H W height and width.
"""

from __future__ import annotations

import io
import lzma
import math
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

QUALITIES = (2, 5, 10, 15, 20, 30, 40, 50, 65, 80)
FEWER = (5, 15, 30, 50, 80)  # of a program, which takes longer
SETTINGS = {"WebP": QUALITIES, "JPEG": QUALITIES, "AVIF": QUALITIES, "JPEG XL": FEWER}
PROGRAMS = "cjxl", "djxl"  # of JPEG XL, which Pillow does not know
WAIT = 300  # seconds for one of them


def sheet(images: np.ndarray) -> np.ndarray | None:
    """Images (N,C,H,W) as one picture (rows,columns,C); None where codecs take none of such a size or number of channels."""
    n, channels, height, width = images.shape
    columns = min(n, max(1, 16_000 // width), math.ceil(n**0.5))
    rows = -(-n // columns)
    if rows * height > 16_000 or channels not in (1, 3):
        return None
    found = np.zeros((rows * columns, channels, height, width), np.uint8)
    found[:n] = images
    found = found.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    return found.reshape(rows * height, columns * width, channels)


def lossless(images: np.ndarray) -> dict[str, int]:
    """Bytes that general codecs need for images (N,C,H,W) that come back as they were, all together."""
    result = {"xz": len(lzma.compress(images.tobytes(), preset=6))}
    laid = sheet(images)
    if laid is not None:
        file = io.BytesIO()
        _picture(laid).save(file, "WEBP", lossless=True, method=4)
        result["WebP"] = len(file.getvalue())
    return result


def curve(codec: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Bytes an image and PSNR of one of `SETTINGS`, by rising quality; None where it is not there, or does not work."""
    from PIL import Image

    laid = sheet(images)
    if laid is None or not _there(codec):
        return None
    points: list[tuple[float, float]] = []
    for quality in SETTINGS[codec]:
        try:
            coded, written = (_by_programs if codec == "JPEG XL" else _by_pillow)(_picture(laid), codec, quality)
        except (OSError, subprocess.SubprocessError):  # not a codec's word on images: it is left out
            return None
        back = np.asarray(Image.open(io.BytesIO(written)).convert("L" if laid.shape[2] == 1 else "RGB"), float)
        points.append((coded / len(images), float(psnr(np.square(back.reshape(laid.shape) - laid).mean()))))
    sizes, decibels = zip(*sorted(points, key=lambda point: point[1]))
    return np.array(sizes), np.array(decibels)


def psnr(squared_errors: Any) -> Any:
    """dB of mean squared errors of 8-bit numbers."""
    return 10 * np.log10(255**2 / np.maximum(squared_errors, 1e-6))


def _there(codec: str) -> bool:
    from PIL import features

    if codec == "JPEG XL":
        return all(map(shutil.which, PROGRAMS))
    return codec == "JPEG" or bool(features.check(codec.lower()))


def _picture(sheet: np.ndarray) -> Any:
    """A PIL image of a `sheet`."""
    from PIL import Image

    return Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)


def _by_pillow(picture: Any, codec: str, quality: int) -> tuple[int, bytes]:
    """Bytes of a picture, and a file of what comes out."""
    file = io.BytesIO()
    picture.save(file, codec.upper(), quality=quality)
    return len(file.getvalue()), file.getvalue()


def _by_programs(picture: Any, codec: str, quality: int) -> tuple[int, bytes]:
    """As `_by_pillow`, by the two `PROGRAMS`. Raises OSError or SubprocessError where they do not work."""
    with tempfile.TemporaryDirectory() as folder:
        raw, coded, back = (Path(folder) / name for name in ("raw.ppm", "coded.jxl", "back.ppm"))
        picture.save(raw)
        for words in (["cjxl", "-q", str(quality), raw, coded], ["djxl", coded, back]):
            subprocess.run([*words, "--quiet"], check=True, capture_output=True, timeout=WAIT)
        return coded.stat().st_size, back.read_bytes()
