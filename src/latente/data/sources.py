"""From what the user points at to a dataset: sniffed, decoded once, hashed, split.

    source -> arrays (.npy .npz IDX, memory, digits) ----------\
           -> encoded pictures (folder, Parquet, hf:) -> cache --> uint8 (N,C,H,W) -> hashes -> splits

Splits go by content: distinct images are ordered by a hash of their pixels; the lowest tenth is the test split, the next
tenth validation (at most 10,000 each), so equal images are never on two sides and file order does not matter. Where a
source brings its own test set, that is the test split, and training images with the same pixels are left out.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from latente.data import named
from latente.data.audit import Audit
from latente.data.images import GREY_MODES, SUFFIXES, DataError, opened, pixels
from latente.spec import ImageSpec

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int], None]
_FORMAT = 1
_CAP = 10_000
_SMALLEST, _LARGEST = 8, 128
_FEWEST = 10


@dataclass(frozen=True)
class DataOptions:
    """How a source is read."""

    image_size: str | None = None
    """64 or 48x64 (height x width): crop the centre and resize; unset: as they are if all alike and at most 128, else 64"""
    color: Literal["auto", "grey", "rgb"] = "auto"
    """auto: grey if every image is"""
    max_bad: float = 0.05
    """share of unreadable files above which reading stops"""
    labels: bool = True
    """use class folders or label arrays as classes"""


@dataclass
class Dataset:
    """Images of one size with their splits. `batch` is what training calls; it copies, so the images may lie on disk."""

    name: str
    spec: ImageSpec
    fingerprint: str
    images: np.ndarray
    """(N,C,H,W) uint8, possibly memory-mapped"""
    labels: np.ndarray | None
    """(N,) int64"""
    items: np.ndarray
    """indices of the readable images"""
    splits: dict[str, np.ndarray]
    """train, validation, test: indices"""
    audit: Audit
    keys: list[str] | None = None
    """relative paths, where images were files"""

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """{"x": uint8 (B,C,H,W)}, and "label": int64 (B,) when there are classes, in the order of `indices`."""
        import torch

        batch = {"x": torch.from_numpy(np.ascontiguousarray(self.images[indices]))}
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[indices])
        return batch

    def names(self, indices: np.ndarray) -> list[str]:
        """What to call these images when they are written again: their relative path without suffix, or their number."""
        if self.keys is None:
            return [f"{i:06d}" for i in indices]
        return [str(Path(self.keys[i]).with_suffix("")) for i in indices]


@dataclass
class _Arrays:
    """Images that are an array already: (N,H,W), (N,H,W,C) or (N,C,H,W) of any number kind."""

    name: str
    x: np.ndarray
    y: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    test: int = 0
    """how many, at the end, are the official test set"""
    stamp: str | None = None
    """what identifies the content without reading it; None: not cached"""


@dataclass
class _Encoded:
    """Pictures to decode. `read(i)` gives a path or bytes."""

    name: str
    keys: list[str]
    read: Callable[[int], Path | bytes]
    labels: list[str] | None = None
    test: list[bool] = field(default_factory=list)
    stamp: str | None = None


def open_source(source: Any, options: DataOptions | None = None, progress: Progress | None = None) -> Dataset:
    """The dataset a path, a name, `hf:NAME`, an array or an (images, labels) pair stands for.

    Raises DataError, one line, when it cannot be used. `progress(what, done, total)` is called now and then.
    """
    options = options or DataOptions()
    tell = progress or (lambda what, done, total: None)
    _wanted_size(options.image_size)
    raw = _sniff(source)
    return _from_arrays(raw, options, tell) if isinstance(raw, _Arrays) else _from_encoded(raw, options, tell)


# ---- what is it? ---------------------------------------------------------------------------------------------------


def _sniff(source: Any) -> _Arrays | _Encoded:
    if not isinstance(source, str | Path):
        return _in_memory(source)
    text = str(source)
    if text == "digits":
        x, y, classes = named.digits()
        return _Arrays("digits", x, y, classes)
    if text == "fashion-mnist":
        return _idx_folder(named.fashion_mnist(), "fashion-mnist", named.FASHION_CLASSES)
    if text.startswith("hf:"):
        return _hub(text.removeprefix("hf:"))
    path = Path(text).expanduser()
    try:
        if not path.exists():
            raise DataError(f"no file, folder or named source called {text!r}; names: {', '.join(named.NAMES)}")
        if path.is_dir():
            if any(path.glob("train-images*-ubyte*")):
                return _idx_folder(path, path.name, ())
            return _folder(path)
        return _file(path)
    except PermissionError as error:
        raise DataError(f"not allowed to read {error.filename}") from None


def _file(path: Path) -> _Arrays | _Encoded:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _Arrays(path.stem, _load_npy(path), stamp=_stamp(path))
    if suffix == ".npz":
        return _npz(path)
    if suffix == ".parquet":
        return _parquet(path)
    if "ubyte" in path.name:
        return _Arrays(path.name.split(".")[0], _idx(path), stamp=_stamp(path))
    if suffix in SUFFIXES:
        raise DataError(f"{path} is one image; point at a folder of at least {_FEWEST}")
    raise DataError(
        f"{path} is not a kind of data latente reads: a folder of images, .npy, .npz, IDX (.gz too) or .parquet"
    )


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}"


def _in_memory(source: Any) -> _Arrays:
    x, y = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    if not hasattr(x, "__array__"):
        raise DataError(f"a source is a path, a name or an array of images, not {type(x).__name__}")
    return _Arrays("array", np.asarray(x), None if y is None else np.asarray(y))


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, MemoryError, OverflowError, UnicodeError) as error:
        raise DataError(
            f"{path} cannot be read as .npy: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None


def _npz(path: Path) -> _Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, SyntaxError, TypeError, MemoryError,
            OverflowError, NotImplementedError, struct.error, UnicodeError) as error:  # fmt: skip
        raise DataError(f"{path} cannot be read as .npz: {error}") from None
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
    if held is None or held.shape[1:] != x.shape[1:] or (y is None) != (held_y is None):
        return _Arrays(path.stem, x, y, stamp=_stamp(path))
    y = None if y is None or held_y is None else np.concatenate([y, held_y])
    return _Arrays(path.stem, np.concatenate([x, held]), y, test=len(held), stamp=_stamp(path))


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


def _idx_folder(folder: Path, name: str, classes: tuple[str, ...]) -> _Arrays:
    def part(split: str, kind: str) -> np.ndarray | None:
        found = sorted(folder.glob(f"{split}-{kind}*-ubyte*"))
        return _idx(found[0]) if found else None

    x, y = part("train", "images"), part("train", "labels")
    held, held_y = part("t10k", "images"), part("t10k", "labels")
    if x is None:
        raise DataError(f"{folder} holds no train-images IDX file")
    if held is None:
        return _Arrays(name, x, y, classes)
    labels = None if y is None or held_y is None else np.concatenate([y, held_y])
    return _Arrays(name, np.concatenate([x, held]), labels, classes, len(held))


def _folder(folder: Path) -> _Encoded:
    found: list[tuple[str, Path]] = []
    for place, subfolders, files in os.walk(folder, followlinks=False):
        subfolders[:] = sorted(d for d in subfolders if not d.startswith("."))
        for file in sorted(files):
            if not file.startswith(".") and Path(file).suffix.lower() in SUFFIXES:
                path = Path(place) / file
                found.append((path.relative_to(folder).as_posix(), path))
    if not found:
        raise DataError(f"no images in {folder} (png, jpg, webp, gif, bmp, tiff; sub-folders are searched)")
    parts = [key.split("/") for key, _ in found]
    split_names = {"train", "test", "val", "validation"}
    tops = {p[0] for p in parts if len(p) > 1}
    official = "test" in tops and tops <= split_names and all(len(p) > 1 for p in parts)
    level = 1 if official else 0
    labelled = all(len(p) > level + 1 for p in parts) and len({p[level] for p in parts}) > 1
    listing = []
    for key, path in found:
        try:
            status = path.stat()
            listing.append((key, status.st_size, status.st_mtime_ns))
        except OSError:
            listing.append((key, -1, -1))
    paths = [path for _, path in found]
    return _Encoded(
        name=folder.resolve().name or "images",
        keys=[key for key, _ in found],
        read=paths.__getitem__,
        labels=[p[level] for p in parts] if labelled else None,
        test=[official and p[0] == "test" for p in parts],
        stamp=json.dumps([str(folder.resolve()), listing]),
    )


def _parquet(path: Path) -> _Encoded:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    image = next(
        (
            n
            for n in ("image", "img", *table.column_names)
            if n in table.column_names and _holds_bytes(table.schema.field(n).type)
        ),
        None,
    )
    if image is None:
        raise DataError(f"{path} has no column of image bytes; it has {', '.join(table.column_names)}")
    column = table.column(image)
    if pa.types.is_struct(column.type):
        column = pa.chunked_array(
            [chunk.field("bytes") for chunk in column.chunks], type=column.type.field("bytes").type
        )
    labels = next((table.column(n).to_pylist() for n in ("label", "labels", "class") if n in table.column_names), None)
    return _Encoded(
        name=path.stem,
        keys=[f"{i:06d}" for i in range(len(column))],
        read=lambda i: column[i].as_py() or b"",
        labels=None if labels is None else [_word(label) for label in labels],
        stamp=_stamp(path),
    )


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and _holds_bytes(f.type) for f in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _word(label: Any) -> str:
    """A label as text that sorts as the label does."""
    return f"{label:04d}" if isinstance(label, int) else str(label)


def _hub(name: str) -> _Encoded:
    try:
        import datasets
    except ImportError:
        raise DataError("hf: sources need the datasets library: pip install 'latente[hub]'") from None
    try:
        loaded: Any = datasets.load_from_disk(name) if Path(name).exists() else datasets.load_dataset(name)
    except Exception as error:  # the library raises its own and its transports' errors alike
        raise DataError(f"hf:{name} cannot be loaded: {str(error).splitlines()[0]}") from None
    parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    first = next(iter(parts.values()))
    image = next((n for n, kind in first.features.items() if isinstance(kind, datasets.Image)), None)
    if image is None:
        raise DataError(f"hf:{name} has no image column; it has {', '.join(first.features)}")
    label = next((n for n, kind in first.features.items() if isinstance(kind, datasets.ClassLabel)), None)
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
    return _Encoded(name.rstrip("/").split("/")[-1], keys, read, labels if label else None, test, stamp)


# ---- arrays --------------------------------------------------------------------------------------------------------


def _from_arrays(raw: _Arrays, options: DataOptions, tell: Progress) -> Dataset:
    x = _channels_first(raw.x, raw.name)
    count, channels, height, width = x.shape
    _enough(count, raw.name)
    size = _wanted_size(options.image_size) or ((height, width) if max(height, width) <= _LARGEST else (64, 64))
    wanted = {"auto": 1 if channels == 1 else 3, "grey": 1, "rgb": 3}[options.color]
    if x.dtype != np.uint8 or channels != wanted or (height, width) != size:
        x = _converted(x, wanted, size, raw.name, tell)
    hashes = _cached_hashes(x, raw.stamp, tell)
    labels, classes = None, ()
    if options.labels and raw.y is not None:
        if raw.y.reshape(-1).shape[0] != count:
            raise DataError(f"{raw.name}: {count} images but {raw.y.reshape(-1).shape[0]} labels")
        values, labels = np.unique(raw.y.reshape(-1), return_inverse=True)
        named_all = raw.classes and np.issubdtype(values.dtype, np.integer) and values.max() < len(raw.classes)
        classes = tuple(raw.classes[v] for v in values) if named_all else tuple(str(v) for v in values)
        labels = labels.astype(np.int64)
        if len(classes) < 2:
            labels, classes = None, ()
    test = np.zeros(count, bool)
    test[count - raw.test :] = raw.test > 0
    audit = Audit(found=count, sizes={f"{width}x{height}": count})
    return _dataset(raw.name, x, hashes, labels, classes, np.arange(count), test, audit, None)


def _channels_first(x: np.ndarray, name: str) -> np.ndarray:
    """A (N,C,H,W) view. 3-D is grey; of 4-D the last axis holds the channels if it is 1, 3 or 4 long, else the second."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3, 4):
        return x.transpose(0, 3, 1, 2)
    if x.ndim == 4 and x.shape[1] in (1, 3, 4):
        return x
    raise DataError(f"{name} has shape {x.shape}; images are (N,H,W), (N,H,W,C) or (N,C,H,W) with 1, 3 or 4 channels")


def _converted(x: np.ndarray, channels: int, size: tuple[int, int], name: str, tell: Progress) -> np.ndarray:
    from PIL import Image, ImageOps

    kind = x.dtype
    if not (np.issubdtype(kind, np.number) or kind.kind == "b") or np.issubdtype(kind, np.complexfloating):
        raise DataError(f"{name} holds {kind}, not numbers")
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{name} holds NaN or infinite pixels; replace them before training")
    if kind.kind == "b" or (np.issubdtype(kind, np.floating) and low >= 0 and high <= 1):
        scale, shift = 255.0, 0.0
    elif kind == np.uint16 and high > 255:
        scale, shift = 255 / 65535, 0.0
    elif low >= 0 and high <= 255:
        scale, shift = 1.0, 0.0
    elif np.issubdtype(kind, np.floating) and low >= -1 and high <= 1:
        scale, shift = 127.5, 127.5
    else:
        raise DataError(f"{name} has values from {low:g} to {high:g}; bring them to 0..255 or 0..1 first")
    out = np.empty((len(x), channels, *size), np.uint8)
    for start in range(0, len(x), 256):
        part = np.asarray(x[start : start + 256])
        part = (
            part
            if part.dtype == np.uint8
            else (part.astype(np.float64) * scale + shift).round().clip(0, 255).astype(np.uint8)
        )
        if part.shape[1:] == out.shape[1:]:
            out[start : start + 256] = part
            continue
        for offset, image in enumerate(part):
            picture = Image.fromarray(np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)))
            if picture.mode == "RGBA":
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("L" if channels == 1 else "RGB")
            picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)
            out[start + offset] = np.asarray(picture).reshape(*size, channels).transpose(2, 0, 1)
        tell("converting", start + len(part), len(x))
    return out


def content_hashes(x: np.ndarray) -> np.ndarray:
    """(N,) uint64: one hash of each row's bytes, computed by the whole block."""
    flat = np.ascontiguousarray(x).reshape(len(x), -1)
    padded = np.zeros((len(x), -(-flat.shape[1] // 8) * 8), np.uint8)
    padded[:, : flat.shape[1]] = flat
    words = padded.view("<u8").astype(np.uint64)
    with np.errstate(over="ignore"):
        odd = _mix(np.arange(1, words.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
        return _mix((_mix(words + odd) * odd).sum(axis=1, dtype=np.uint64))


def _mix(v: np.ndarray) -> np.ndarray:
    """A bijection on 64 bits in which every input bit moves every output bit (the finaliser of splitmix64)."""
    v = (v ^ (v >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    v = (v ^ (v >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return v ^ (v >> np.uint64(31))


def _cached_hashes(x: np.ndarray, stamp: str | None, tell: Progress) -> np.ndarray:
    file = None if stamp is None else _cache() / f"hashes-{_digest(stamp, x.shape, _FORMAT)}.npy"
    if file is not None and file.exists():
        try:
            found = np.load(file)
            if found.shape == (len(x),):
                return found
        except (ValueError, OSError, EOFError):
            file.unlink(missing_ok=True)
    hashes = np.empty(len(x), np.uint64)
    step = max(1, (1 << 24) // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), step):
        hashes[start : start + step] = content_hashes(x[start : start + step])
        tell("hashing", min(len(x), start + step), len(x))
    if file is not None:
        draft = file.with_name(f".tmp-{os.getpid()}-{file.name}")
        np.save(draft, hashes)  # the name ends in .npy, so numpy adds nothing to it
        draft.replace(file)
    return hashes


# ---- encoded pictures ----------------------------------------------------------------------------------------------


def _from_encoded(raw: _Encoded, options: DataOptions, tell: Progress) -> Dataset:
    _enough(len(raw.keys), raw.name)
    folder = _cache() / f"images-{_digest(raw.stamp or os.urandom(8).hex(), options, _FORMAT)}"
    ready = _read_cache(folder) or _decode(raw, options, folder, tell)
    record, images, hashes = ready
    audit = Audit(found=len(raw.keys), skipped=[(k, r) for k, r in record["skipped"]], sizes=record["sizes"])
    items = np.asarray(record["items"], np.int64)
    labels, classes = None, ()
    if options.labels and raw.labels is not None:
        classes = tuple(sorted(set(raw.labels)))
        place = {name: i for i, name in enumerate(classes)}
        labels = np.asarray([place[name] for name in raw.labels], np.int64)
        if len(classes) < 2:
            labels, classes = None, ()
    test = np.asarray(raw.test or [False] * len(raw.keys))
    return _dataset(raw.name, images, hashes, labels, classes, items, test, audit, raw.keys)


def _read_cache(folder: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray] | None:
    try:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r")
        hashes = np.load(folder / "hashes.npy")
    except (OSError, ValueError, EOFError):
        return None
    return (record, images, hashes) if list(images.shape) == record["shape"] and len(hashes) == len(images) else None


def _decode(
    raw: _Encoded, options: DataOptions, folder: Path, tell: Progress
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    count = len(raw.keys)
    skipped: dict[int, str] = {}
    sizes: Counter[str] = Counter()
    shapes: set[tuple[int, int]] = set()
    grey = True

    def header(i: int) -> tuple[tuple[int, int], str] | str:
        try:
            with opened(raw.read(i)) as image:
                turned = (
                    image.getexif().get(0x0112, 1) >= 5 if image.format in ("JPEG", "MPO", "TIFF", "WEBP") else False
                )
                return (image.size[::-1] if turned else image.size), image.mode
        except DataError as error:
            return str(error)
        except Exception as error:  # metadata of a mangled file: whatever the plugin raises, the file is unreadable
            return f"damaged: {type(error).__name__}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for i, found in enumerate(pool.map(header, range(count))):
            if isinstance(found, str):
                skipped[i] = found
                continue
            (width, height), mode = found
            sizes[f"{width}x{height}"] += 1
            shapes.add((height, width))
            grey = grey and mode in GREY_MODES
        _bearable(raw, skipped, options)
        size = _wanted_size(options.image_size)
        if size is None:
            alike = len(shapes) == 1 and _SMALLEST <= min(*next(iter(shapes))) <= max(*next(iter(shapes))) <= _LARGEST
            size = next(iter(shapes)) if alike else (64, 64)
        channels = {"auto": 1 if grey else 3, "grey": 1, "rgb": 3}[options.color]
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
            try:
                shape = (count, channels, *size)
                images = np.lib.format.open_memmap(draft / "images.npy", "w+", np.uint8, shape)

                def one(i: int) -> str | None:
                    try:
                        images[i] = pixels(raw.read(i), channels, *size)
                    except DataError as error:
                        return str(error)
                    return None

                good = [i for i in range(count) if i not in skipped]
                for done, (i, reason) in enumerate(zip(good, pool.map(one, good)), 1):
                    if reason:
                        skipped[i] = reason
                    if done % 50 == 0 or done == len(good):
                        tell("decoding", done, len(good))
                _bearable(raw, skipped, options)
                hashes = np.concatenate([content_hashes(images[i : i + 4096]) for i in range(0, count, 4096)])
                images.flush()
                record = {
                    "shape": list(shape), "sizes": dict(sizes), "skipped": [(raw.keys[i], r) for i, r in sorted(skipped.items())],
                    "items": [i for i in range(count) if i not in skipped],
                }  # fmt: skip
                np.save(draft / "hashes.npy", hashes)
                (draft / "record.json").write_text(json.dumps(record), encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)  # a damaged cache of the same source
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            if _read_cache(folder) is None:  # else: another process finished the same source first
                raise DataError(
                    f"cannot write the cache {folder.parent}: {error.strerror}; set LATENTE_CACHE to another folder"
                ) from None
    ready = _read_cache(folder)
    assert ready is not None
    return ready


def _bearable(raw: _Encoded, skipped: dict[int, str], options: DataOptions) -> None:
    """Raises DataError when more than the allowed share cannot be read."""
    if len(skipped) > options.max_bad * len(raw.keys):
        shown = "; ".join(f"{raw.keys[i]}: {reason}" for i, reason in sorted(skipped.items())[:3])
        raise DataError(
            f"{len(skipped)} of {len(raw.keys)} images in {raw.name} cannot be read ({shown}); mend or remove them, or raise --max-bad"
        )
    _enough(len(raw.keys) - len(skipped), raw.name)


# ---- together ------------------------------------------------------------------------------------------------------


def _dataset(name: str, images: np.ndarray, hashes: np.ndarray, labels: np.ndarray | None, classes: tuple[str, ...],
             items: np.ndarray, test: np.ndarray, audit: Audit, keys: list[str] | None) -> Dataset:  # fmt: skip
    height, width = images.shape[2:]
    if min(height, width) < _SMALLEST:
        raise DataError(
            f"{name}: images of {width}x{height} are too small; {_SMALLEST}x{_SMALLEST} is the least (--image-size {_SMALLEST})"
        )
    spec = ImageSpec(int(images.shape[1]), int(height), int(width), classes)
    mine = hashes[items]
    audit.duplicates = len(items) - len(np.unique(mine))
    if labels is not None:
        pairs = np.unique(np.stack([mine, labels[items].astype(np.uint64)], 1), axis=0)
        audit.conflicts = int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
    splits = split(hashes, items, test)
    audit.leaks = len(items) - sum(map(len, splits.values()))
    fingerprint = hashlib.blake2b(np.sort(mine).tobytes() + repr(spec).encode(), digest_size=16).hexdigest()
    return Dataset(name, spec, fingerprint, images, labels, items, splits, audit, keys)


def split(hashes: np.ndarray, items: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of the train, validation and test splits by the rule on top of this file. Raises DataError for too few images."""
    official = items[test[items]]
    rest = items[~test[items]]
    if len(official):
        rest = rest[~np.isin(hashes[rest], hashes[official])]
    ranked = np.unique(hashes[rest])  # sorted; the hash is mixed, so its order is a fixed shuffle
    if len(ranked) < (2 if len(official) else 3):
        raise DataError(
            f"only {len(ranked)} different images: too few to train and to check; at least {_FEWEST} are needed"
        )
    share = min(_CAP, max(1, len(ranked) // 10))
    first = ranked[share - 1] if not len(official) else None
    last = ranked[2 * share - 1] if not len(official) else ranked[share - 1]
    mine = hashes[rest]
    held = official if first is None else rest[mine <= first]
    validation = rest[(mine <= last)] if first is None else rest[(mine > first) & (mine <= last)]
    return {"train": rest[mine > last], "validation": validation, "test": held}


def _enough(count: int, name: str) -> None:
    if count < _FEWEST:
        raise DataError(
            f"{name} holds {count} image{'s' * (count != 1)}: too few to train on; at least {_FEWEST} are needed"
        )


def _wanted_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) from "64" or "48x64". Raises DataError for anything else."""
    if text is None:
        return None
    parts = str(text).lower().split("x")
    if not (len(parts) <= 2 and all(p.isascii() and p.isdigit() for p in parts)):
        raise DataError(f"--image-size {text!r} is not a size; say 64, or 48x64 (height x width)")
    height, width = int(parts[0]), int(parts[-1])
    if not all(_SMALLEST <= side <= _LARGEST for side in (height, width)):
        raise DataError(f"--image-size {text}: sides go from {_SMALLEST} to {_LARGEST}")
    return height, width


def _cache() -> Path:
    """Where decoded sources are kept: $LATENTE_CACHE, or latente in the user's cache folder; made if missing."""
    place = (
        os.environ.get("LATENTE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latente"
    )
    try:
        Path(place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot make the cache {place}: {error.strerror}; set LATENTE_CACHE to another folder"
        ) from None
    return Path(place)


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
