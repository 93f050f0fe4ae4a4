"""Data sets of the Hugging Face hub, or saved by its library on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latente.data.errors import DataError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

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


def ordered(parts: dict[str, Any]) -> list[str]:
    """The splits: train, those of other names, validation, test."""
    rank = {"train": 0, "validation": 2, "test": 3}
    return sorted(parts, key=lambda split: rank.get(split, 1))


def schema_of(parts: dict[str, Any]) -> pa.Schema:
    """The columns of a table; labels are their names."""
    import datasets
    import pyarrow as pa

    features = next(iter(parts.values())).features
    kinds = features.arrow_schema
    return pa.schema(
        [(name, pa.string() if isinstance(kind, datasets.ClassLabel) else kinds.field(name).type)
         for name, kind in features.items()]
    )  # fmt: skip


def batches(part: Any, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a split, at most `rows` in a batch, as the columns of `schema_of` its set. Raises DataError when splits differ."""
    import datasets
    import pyarrow as pa

    if list(part.features) != schema.names:
        raise DataError(f"hf: splits of different columns: {', '.join(part.features)} and {', '.join(schema.names)}")
    labels = {name: kind for name, kind in part.features.items() if isinstance(kind, datasets.ClassLabel)}
    for table in part.with_format("arrow").iter(rows):
        for name, kind in labels.items():
            cells = [
                kind.int2str(label) if label is not None and label >= 0 else None for label in table[name].to_pylist()
            ]
            table = table.set_column(schema.get_field_index(name), name, pa.array(cells, pa.string()))
        yield from table.cast(schema).combine_chunks().to_batches(rows)
