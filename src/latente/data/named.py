"""Named sources: data sets that need no path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from latente.data.errors import DataError

NAMES = ("digits", "fashion-mnist")
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


def digits() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """scikit-learn's 1,797 handwritten digits: images (N,8,8) uint8 (0..16 brought to 0..255), labels, class names."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    return (found.images * (255 / 16)).round().astype(np.uint8), found.target.astype(np.int64), tuple("0123456789")


def fashion_mnist() -> Path:
    """The folder that holds Fashion-MNIST's four IDX files. Raises DataError saying how to get them."""
    places = [_DEBIAN]
    if os.environ.get("LATENTE_DATA"):
        places.insert(0, Path(os.environ["LATENTE_DATA"]) / "fashion-mnist")
    for place in places:
        if (place / "train-images-idx3-ubyte.gz").exists() or (place / "train-images-idx3-ubyte").exists():
            return place
    raise DataError(
        "fashion-mnist is not on this machine: apt-get install dataset-fashion-mnist, "
        "or put its four IDX files in the folder fashion-mnist of $LATENTE_DATA"
    )
