"""From what the user points at to a dataset of images.

source -> arrays (.npy .npz IDX, memory, digits)    --> decoding.py --> dataset.py
       -> encoded pictures (folder, Parquet, hf:)
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from latente.data import hub, named
from latente.data.cache import Progress
from latente.data.dataset import Dataset, ImageOptions, wanted_size
from latente.data.decoding import Arrays, Encoded, from_arrays, from_encoded
from latente.data.errors import DataError, first_line
from latente.data.files import below, besides, located, readable, stamp, stamps
from latente.data.images import SUFFIXES, are_paths


def open_images(source: Any, options: ImageOptions, tell: Progress) -> Dataset:
    """The dataset a path, a name, `hf:NAME`, an array or an (images, labels) pair stands for.

    Raises DataError, one line, when it cannot be used.
    """
    wanted_size(options.image_size)
    raw = _sniff(source, options.fewest)
    return from_arrays(raw, options, tell) if isinstance(raw, Arrays) else from_encoded(raw, options, tell)


def _sniff(source: Any, fewest: int) -> Arrays | Encoded:
    if not isinstance(source, str | Path):
        return _in_memory(source)
    text = str(source)
    if text == "digits":
        x, y, classes = named.digits()
        return Arrays("digits", x, y, classes)
    if text == "fashion-mnist":
        return _idx_folder(named.fashion_mnist(), "fashion-mnist", named.FASHION_CLASSES)
    if text.startswith(hub.PREFIX):
        return _hub(text.removeprefix(hub.PREFIX))
    path = located(source)
    with readable(path):
        if path.is_dir():
            if any(path.glob("train-images*-ubyte*")):
                return _idx_folder(path, path.name, ())
            return _folder(path, fewest)
        return _file(path, fewest)


def _file(path: Path, fewest: int) -> Arrays | Encoded:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return Arrays(path.stem, _load_npy(path), stamp=stamp(path))
    if suffix == ".npz":
        return _npz(path)
    if suffix == ".parquet":
        return _parquet(path)
    if "ubyte" in path.name:
        return Arrays(path.name.split(".")[0], _idx(path), stamp=stamp(path))
    if suffix in SUFFIXES:
        if fewest:
            raise DataError(f"{path} is one image; point at a folder of at least {fewest}")
        return Encoded(path.stem, [path.name], [path].__getitem__, stamp=stamp(path))
    raise DataError(f"{path} is not a source of images: a folder of them, .npy, .npz, IDX (.gz too) or .parquet")


def _in_memory(source: Any) -> Arrays:
    x, y = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    if not hasattr(x, "__array__"):
        raise DataError(f"a source is a path, a name or an array of images, not {type(x).__name__}")
    return Arrays("array", np.asarray(x), None if y is None else np.asarray(y))


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of a mangled header, NumPy raises whatever its parser met
        raise DataError(f"{path} cannot be read as .npy: {first_line(error)}") from None


def _npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # of a mangled file, NumPy and zipfile raise whatever their parsers met
        raise DataError(f"{path} cannot be read as .npz: {first_line(error)}") from None
    images = next((n for n in ("x_train", "x", "images", "train_images", "data") if n in arrays), None)
    images = images or next((n for n, a in arrays.items() if a.ndim in (3, 4)), None)
    if images is None:
        raise DataError(
            f"{path} holds no array of images (N,H,W) or (N,H,W,C); it has {', '.join(arrays) or 'nothing'}"
        )
    x = arrays[images]
    y = next((arrays[n] for n in ("y_train", "y", "labels", "label", "train_labels") if n in arrays), None)
    held = next((arrays[n] for n in ("x_test", "test_images") if n in arrays and images != n), None)
    held_y = next((arrays[n] for n in ("y_test", "test_labels") if n in arrays), None)
    classes, names = (_words(arrays.get(name)) for name in ("classes", "names"))
    if held is None or held.shape[1:] != x.shape[1:] or (y is None) != (held_y is None):
        keys = names if len(names) == len(x) and are_paths(names) else None
        unkept = len(names) if keys is None else 0
        return Arrays(path.stem, x, y, tuple(classes), stamp=stamp(path), keys=keys, renumbered=unkept)
    y = None if y is None or held_y is None else np.concatenate([y, held_y])
    return Arrays(path.stem, np.concatenate([x, held]), y, tuple(classes), len(held), stamp(path))


def _words(array: np.ndarray | None) -> list[str]:
    """What an array of text holds."""
    return [] if array is None or array.ndim != 1 or array.dtype.kind != "U" else array.tolist()


def _idx(path: Path) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        if zero != 0 or kind != 8 or dimensions not in (1, 3, 4):
            raise ValueError("not an IDX file of bytes")
        return values.reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} cannot be read as IDX: {error}") from None


def _idx_folder(folder: Path, name: str, classes: tuple[str, ...]) -> Arrays:
    def part(split: str, kind: str) -> np.ndarray | None:
        found = sorted(folder.glob(f"{split}-{kind}*-ubyte*"))
        return _idx(found[0]) if found else None

    x, y = part("train", "images"), part("train", "labels")
    held, held_y = part("t10k", "images"), part("t10k", "labels")
    if x is None:
        raise DataError(f"{folder} holds no train-images IDX file")
    if held is None:
        return Arrays(name, x, y, classes)
    labels = None if y is None or held_y is None else np.concatenate([y, held_y])
    return Arrays(name, np.concatenate([x, held]), labels, classes, len(held))


def _folder(folder: Path, fewest: int) -> Encoded:
    found = below(folder, SUFFIXES)
    if not found:
        raise DataError(f"no images in {folder} (png, jpg, webp, gif, bmp, tiff; sub-folders are searched)")
    parts = [key.split("/") for key, _ in found]
    split_names = {"train", "test", "val", "validation"}
    tops = {p[0] for p in parts if len(p) > 1}
    official = "test" in tops and tops <= split_names and all(len(p) > 1 for p in parts)
    level = 1 if official else 0
    labelled = all(len(p) > level + 1 for p in parts) and (not fewest or len({p[level] for p in parts}) > 1)
    paths, (others, links) = [path for _, path in found], besides(folder, SUFFIXES)
    return Encoded(
        name=folder.resolve().name or "images",
        keys=[key for key, _ in found],
        read=paths.__getitem__,
        labels=[p[level] for p in parts] if labelled else None,
        test=[official and p[0] == "test" for p in parts],
        stamp=stamps(folder, found),
        left_out=_few(others, "other file", "other files") + _few(links, "link to a folder", "links to folders"),
    )


def _parquet(path: Path) -> Encoded:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {first_line(error)}") from None
    image = bytes_column(table.schema)
    if image is None:
        raise DataError(f"{path} has no column of image bytes; it has {', '.join(table.column_names)}")
    column = table.column(image)
    paths: list[Any] = []
    if pa.types.is_struct(column.type):
        paths = _field(column, "path").to_pylist() if column.type.get_field_index("path") >= 0 else []
        column = _field(column, "bytes")
    keys = paths if are_paths(paths) and paths else [f"{i:06d}" for i in range(len(column))]
    of = next((name for name in ("label", "labels", "class") if name in table.column_names), None)
    labels = None if of is None else table.column(of).to_pylist()
    if labels and not all(type(label) is int for label in labels):
        labels = list(map(str, labels))
    others = [name for name in table.column_names if name not in (image, of)]
    return Encoded(
        name=path.stem,
        keys=keys,
        read=lambda i: column[i].as_py() or b"",
        labels=labels,
        stamp=stamp(path),
        renumbered=0 if keys is paths else sum(1 for name in paths if name),
        left_out=_few(others, "column", "columns"),
    )


def _few(names: list[str], one: str, several: str) -> tuple[str, ...]:
    """How many there are of something, and the first of them; nothing where there are none."""
    shown = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
    return (f"{len(names):,} {several if len(names) > 1 else one} ({shown})",) * bool(names)


def _field(column: Any, name: str) -> Any:
    """A field of a column of structs."""
    import pyarrow as pa

    return pa.chunked_array([chunk.field(name) for chunk in column.chunks], type=column.type.field(name).type)


def bytes_column(schema: Any) -> str | None:
    """The column of a Parquet schema that holds encoded pictures, if one does."""
    names = [n for n in ("image", "img", *schema.names) if n in schema.names]
    return next((n for n in names if _holds_bytes(schema.field(n).type)), None)


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and _holds_bytes(f.type) for f in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _hub(name: str) -> Encoded:
    parts = hub.parts_of(name)
    image = hub.image_column(parts)
    features = next(iter(parts.values())).features
    if image is None:
        raise DataError(f"hf:{name} has no image column; it has {', '.join(features)}")
    import datasets

    label = next((n for n, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None)
    rows, labels, test = [], [], []
    for split, part in parts.items():
        part = part.cast_column(image, datasets.Image(decode=False))
        rows += [(part, i) for i in range(len(part))]
        test += [split == "test"] * len(part)
        if label:
            labels += [part.features[label].int2str(i) for i in part[label]]

    def read(i: int) -> Path | bytes:
        part, row = rows[i]
        cell = part[row][image]
        return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"])

    keys = [f"{i:06d}" for i in range(len(rows))]
    stamp = json.dumps([name, [part._fingerprint for part in parts.values()]])
    return Encoded(name.rstrip("/").split("/")[-1], keys, read, labels if label else None, test, stamp)
