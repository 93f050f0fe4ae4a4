"""What kind of data a source is, and the one door to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from latente.data import hub, named
from latente.data import images as pictures
from latente.data import text_sources as texts
from latente.data.cache import Progress
from latente.data.dataset import Dataset, ImageOptions
from latente.data.errors import DataError, first_line
from latente.data.files import below, located, readable
from latente.data.image_sources import bytes_column, open_images
from latente.data.pair_sources import are_pairs
from latente.data.pairing import open_pairs
from latente.data.pairs import PairDataset, PairOptions
from latente.data.table import TableOptions
from latente.data.table_dataset import TableDataset, open_table
from latente.data.table_sources import is_table
from latente.data.text import TextDataset, TextOptions
from latente.data.tokenizing import open_text

Options = ImageOptions | TextOptions | TableOptions | PairOptions
OPTIONS: dict[str, type[Options]] = {
    "image": ImageOptions,
    "text": TextOptions,
    "table": TableOptions,
    "pair": PairOptions,
}
"""how each kind of source is read"""


@overload
def open_source(source: Any, options: PairOptions, progress: Progress | None = None) -> PairDataset: ...
@overload
def open_source(source: Any, options: TableOptions, progress: Progress | None = None) -> TableDataset: ...
@overload
def open_source(source: Any, options: TextOptions, progress: Progress | None = None) -> TextDataset: ...
@overload
def open_source(source: Any, options: ImageOptions, progress: Progress | None = None) -> Dataset: ...
@overload
def open_source(source: Any, options: None = None, progress: Progress | None = None) -> Any: ...
def open_source(
    source: Any, options: Options | None = None, progress: Progress | None = None
) -> Dataset | TextDataset | TableDataset | PairDataset:
    """The dataset a source stands for, read as `options` say; without any, as the kind of data it looks like.

    A source is a path, a name, `hf:NAME`, arrays of images, a text (a str with a line end), a list of texts or of pairs of them, a
    frame of pandas, polars or Arrow, or columns by name; a dataset is given back as it is. Raises DataError, one line, when it
    cannot be used. `progress(what, done, total)` is called now and then.
    """
    if isinstance(source, Dataset | TextDataset | TableDataset | PairDataset):
        return source
    options = options or OPTIONS[kind(source)]()
    wanted = next(name for name, owner in OPTIONS.items() if isinstance(options, owner))
    check_kind(source, wanted)
    tell = progress or (lambda what, done, total: None)
    if isinstance(options, PairOptions):
        return open_pairs(source, options, tell)
    if isinstance(options, TableOptions):
        return open_table(source, options, tell)
    return open_text(source, options, tell) if isinstance(options, TextOptions) else open_images(source, options, tell)


def check_kind(source: Any, wanted: str) -> None:
    """Raises DataError for a named source of another kind of data."""
    for name, sources in named.NAMES.items():
        if name != wanted and isinstance(source, str) and source in sources:
            raise DataError(f"{source} is {_CALLED[name]}, not {_CALLED[wanted]}")


_CALLED = {"image": "images", "text": "text", "table": "a table", "pair": "pairs of texts"}


def kind(source: Any) -> str:
    """ "image", "text", "table" or "pair", by what a source looks like. Raises DataError when there is nothing, or none of them.

    A file with two columns of text is a table, unless pairs are asked for.
    """
    if isinstance(source, Dataset | TextDataset | TableDataset | PairDataset):
        return source.spec.kind
    if are_pairs(source):
        return "pair"
    if is_table(source):
        return "table"
    if not isinstance(source, str | Path):
        listed = isinstance(source, Sequence) and len(source) > 0 and all(isinstance(item, str) for item in source)
        return "text" if listed else "image"
    text = str(source)
    for name, sources in named.NAMES.items():
        if text in sources:
            return name
    if "\n" in text:
        return "text"
    if text.startswith(hub.PREFIX):
        return "image" if hub.image_column(hub.parts_of(text.removeprefix(hub.PREFIX))) else "text"
    path = located(source)
    with readable(path):
        return _of_folder(path) if path.is_dir() else _of_file(path)


def _of_folder(folder: Path) -> str:
    """Images win a tie: a caption for each is not yet a folder of texts."""
    if any(folder.glob("train-images*-ubyte*")):
        return "image"
    seen, read = len(below(folder, pictures.SUFFIXES)), len(below(folder, texts.SUFFIXES))
    if not seen + read:
        raise DataError(
            f"no images in {folder} (png, jpg, webp, gif, bmp, tiff), and no text (txt, md, html, csv, json, py and the "
            "like, jsonl, parquet); sub-folders are searched"
        )
    return "image" if seen >= read else "text"


def _of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return "text" if bytes_column(pq.read_schema(path)) is None else "image"
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as Parquet: {first_line(error)}") from None
    return "image" if suffix in pictures.SUFFIXES | {".npy", ".npz"} or "ubyte" in path.name else "text"


def lasting(source: Any) -> str | None:
    """What a run writes down to open its source again from any folder; None for what is in memory."""
    if not isinstance(source, str | Path) or "\n" in str(source):
        return None
    text = str(source)
    known = any(text in sources for sources in named.NAMES.values())
    return text if known or text.startswith(hub.PREFIX) else str(Path(text).expanduser().resolve())
