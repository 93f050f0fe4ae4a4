"""Data sets of the Hugging Face hub, or saved by its library on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latente.data.errors import DataError, first_line

PREFIX = "hf:"


def parts_of(name: str) -> dict[str, Any]:
    """{split: datasets.Dataset} of a hub id, or of a folder written by `save_to_disk`. Raises DataError when it does not load."""
    try:
        import datasets
    except ImportError:
        raise DataError("hf: sources need the datasets library: pip install 'latente[hub]'") from None
    try:
        loaded: Any = datasets.load_from_disk(name) if Path(name).exists() else datasets.load_dataset(name)
    except Exception as error:  # the library raises its own and its transports' errors alike
        raise DataError(f"hf:{name} cannot be loaded: {first_line(error)}") from None
    parts = loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    return {str(split): part for split, part in parts.items()}


def image_column(parts: dict[str, Any]) -> str | None:
    """The first column of images, if there is one."""
    import datasets

    features = next(iter(parts.values())).features
    return next((name for name, kind in features.items() if isinstance(kind, datasets.Image)), None)


def string_columns(parts: dict[str, Any]) -> list[str]:
    """The columns of text."""
    features = next(iter(parts.values())).features
    return [name for name, kind in features.items() if getattr(kind, "dtype", None) in ("string", "large_string")]
