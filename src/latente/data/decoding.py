"""From raw images, an array or encoded files, to one uint8 array (N,C,H,W): converted or decoded once, hashed, cached.

    arrays  --(converted when not 8-bit, or of another size)--> images -> hashes (cached)     --> dataset.py
    encoded --(decoded by all cores into a memory-mapped file)--> images, hashes (both cached)

A cache entry is found again by what identifies the source without reading it: paths, sizes, times of change.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latente.data.audit import Audit
from latente.data.cache import Progress, cache_folder, digest, entry
from latente.data.dataset import LARGEST, SMALLEST, Dataset, ImageOptions, enough, make_dataset, wanted_size
from latente.data.errors import DataError
from latente.data.images import GREY_MODES, grey_palette, opened, pixels

if TYPE_CHECKING:
    from PIL import Image

_FORMAT = 3
_GREY = {("1", False), ("L", False)}
_UNCHANGED = {
    1: _GREY,
    3: _GREY | {("RGB", False), ("P", False)},
}  # by channels: kinds of pictures that lose nothing by becoming that


@dataclass
class Arrays:
    """Images that are an array already: (N,H,W), (N,H,W,C) or (N,C,H,W) of any number kind."""

    name: str
    x: np.ndarray
    y: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    test: int = 0
    """how many, at the end, are the official test set"""
    stamp: str | None = None
    """what identifies the content without reading it; None: not cached"""
    keys: list[str] | None = None
    """what the images are called"""
    renumbered: int = 0
    """names that are no different paths, and are not kept"""


@dataclass
class Encoded:
    """Pictures to decode. `read(i)` gives a path or bytes."""

    name: str
    keys: list[str]
    read: Callable[[int], Path | bytes]
    labels: Sequence[str] | Sequence[int] | None = None
    test: list[bool] = field(default_factory=list)
    stamp: str | None = None
    renumbered: int = 0
    """names that `keys` replace"""
    left_out: tuple[str, ...] = ()
    """what else there is, in words"""


def from_arrays(raw: Arrays, options: ImageOptions, tell: Progress) -> Dataset:
    x = _channels_first(raw.x, raw.name)
    count, channels, height, width = x.shape
    enough(count, raw.name, options.fewest)
    size = wanted_size(options.image_size) or ((height, width) if max(height, width) <= LARGEST else (64, 64))
    wanted = {"auto": 1 if channels == 1 else 3, "grey": 1, "rgb": 3}[options.color]
    if x.dtype != np.uint8 or channels != wanted or (height, width) != size:
        x = _converted(x, wanted, size, raw.name, tell)
    hashes = _cached_hashes(x, raw.stamp, tell)
    labels, classes = None, ()
    if options.labels and raw.y is not None:
        if raw.y.reshape(-1).shape[0] != count:
            raise DataError(f"{raw.name}: {count} images but {raw.y.reshape(-1).shape[0]} labels")
        values, labels = np.unique(raw.y.reshape(-1), return_inverse=True)
        named_all = (
            raw.classes
            and values.size > 0
            and np.issubdtype(values.dtype, np.integer)
            and 0 <= values.min() <= values.max() < len(raw.classes)
        )
        classes = tuple(raw.classes[v] for v in values) if named_all else tuple(str(v) for v in values)
        labels = labels.astype(np.int64)
    test = np.zeros(count, bool)
    test[count - raw.test :] = raw.test > 0
    changed = count * (raw.x.dtype != np.uint8 or channels > wanted)
    audit = Audit(found=count, sizes={f"{width}x{height}": count}, recoloured=changed, renumbered=raw.renumbered)
    return make_dataset(raw.name, x, hashes, labels, classes, np.arange(count), test, audit, raw.keys, options.fewest)


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
    file = None if stamp is None else cache_folder() / f"hashes-{digest(stamp, x.shape, _FORMAT)}.npy"
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


def from_encoded(raw: Encoded, options: ImageOptions, tell: Progress) -> Dataset:
    enough(len(raw.keys), raw.name, options.fewest)
    folder = cache_folder() / f"images-{digest(raw.stamp or os.urandom(8).hex(), options, _FORMAT)}"
    ready = _read_cache(folder) or _decode(raw, options, folder, tell)
    record, images, hashes = ready
    skipped = [(key, reason) for key, reason in record["skipped"]]
    audit = Audit(
        len(raw.keys), skipped, record["sizes"], record["recoloured"], raw.renumbered, _left_out(raw, record["frames"])
    )
    items = np.asarray(record["items"], np.int64)
    labels, classes = None, ()
    if options.labels and raw.labels is not None:
        values = sorted(set(raw.labels))
        classes, place = tuple(map(str, values)), {value: i for i, value in enumerate(values)}
        labels = np.asarray([place[name] for name in raw.labels], np.int64)
    test = np.asarray(raw.test or [False] * len(raw.keys))
    return make_dataset(raw.name, images, hashes, labels, classes, items, test, audit, raw.keys, options.fewest)


def _left_out(raw: Encoded, frames: int) -> tuple[str, ...]:
    """What there is beside the pictures, `frames` of which have several."""
    of = "1 picture" if frames == 1 else f"{frames:,} pictures"
    return raw.left_out + (f"all but the first frame or page of {of}",) * (frames > 0)


def _read_cache(folder: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray] | None:
    try:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r")
        hashes = np.load(folder / "hashes.npy")
    except (OSError, ValueError, EOFError):
        return None
    return (record, images, hashes) if list(images.shape) == record["shape"] and len(hashes) == len(images) else None


def _decode(
    raw: Encoded, options: ImageOptions, folder: Path, tell: Progress
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    skipped: dict[int, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes, kinds, frames, channels, size = _headers(raw, options, skipped, pool)
        with entry(folder, lambda: _read_cache(folder) is not None) as draft:
            _pixels(raw, draft, (len(raw.keys), channels, *size), skipped, pool, tell)
            _bearable(raw, skipped, options)
            record = {
                "shape": [len(raw.keys), channels, *size], "sizes": sizes,
                "frames": frames, "recoloured": sum(n for kind, n in kinds.items() if kind not in _UNCHANGED[channels]),
                "skipped": [(raw.keys[i], reason) for i, reason in sorted(skipped.items())],
                "items": [i for i in range(len(raw.keys)) if i not in skipped],
            }  # fmt: skip
            (draft / "record.json").write_text(json.dumps(record), encoding="utf-8")
    ready = _read_cache(folder)
    assert ready is not None
    return ready


def _headers(
    raw: Encoded, options: ImageOptions, skipped: dict[int, str], pool: ThreadPoolExecutor
) -> tuple[dict[str, int], Counter[tuple[str, bool]], int, int, tuple[int, int]]:
    """How often each size occurs, and each mode with or without transparency; how many pictures have several frames; the channels and
    (height, width) all get. Unreadable ones go to `skipped`."""
    sizes: Counter[str] = Counter()
    kinds: Counter[tuple[str, bool]] = Counter()
    frames = 0
    shapes: set[tuple[int, int]] = set()

    def header(i: int) -> tuple[tuple[int, int], tuple[str, bool], bool] | str:
        try:
            with opened(raw.read(i)) as image:
                turned = (
                    image.getexif().get(0x0112, 1) >= 5 if image.format in ("JPEG", "MPO", "TIFF", "WEBP") else False
                )
                width, height = image.size
                mode = "L" if image.mode == "P" and grey_palette(image) else image.mode
                kind = mode, "transparency" in image.info
                return ((height, width) if turned else (width, height)), kind, _several(image)
        except DataError as error:
            return str(error)
        except Exception as error:  # metadata of a mangled file: whatever the plugin raises, the file is unreadable
            return f"damaged: {type(error).__name__}"

    for i, found in enumerate(pool.map(header, range(len(raw.keys)))):
        if isinstance(found, str):
            skipped[i] = found
            continue
        (width, height), kind, several = found
        frames += several
        sizes[f"{width}x{height}"] += 1
        shapes.add((height, width))
        kinds[kind] += 1
    _bearable(raw, skipped, options)
    size = wanted_size(options.image_size)
    if size is None:
        alike = len(shapes) == 1 and SMALLEST <= min(*next(iter(shapes))) <= max(*next(iter(shapes))) <= LARGEST
        size = next(iter(shapes)) if alike else (64, 64)
    grey = all(mode in GREY_MODES for mode, _ in kinds)
    return dict(sizes), kinds, frames, {"auto": 1 if grey else 3, "grey": 1, "rgb": 3}[options.color], size


def _several(image: Image.Image) -> bool:
    """Whether a picture moves, or has pages."""
    try:
        return image.format in ("GIF", "PNG", "TIFF", "WEBP") and getattr(image, "n_frames", 1) > 1
    except Exception:  # its first frame may be sound all the same
        return False


def _pixels(
    raw: Encoded, draft: Path, shape: tuple[int, int, int, int], skipped: dict[int, str], pool: ThreadPoolExecutor,
    tell: Progress,
) -> None:  # fmt: skip
    """Decodes every picture that is not skipped into `draft`, with its hash; what turns out unreadable goes to `skipped`."""
    images = np.lib.format.open_memmap(draft / "images.npy", "w+", np.uint8, shape)

    def one(i: int) -> str | None:
        try:
            images[i] = pixels(raw.read(i), *shape[1:])
        except DataError as error:
            return str(error)
        return None

    good = [i for i in range(shape[0]) if i not in skipped]
    for done, (i, reason) in enumerate(zip(good, pool.map(one, good)), 1):
        if reason:
            skipped[i] = reason
        if done % 50 == 0 or done == len(good):
            tell("decoding", done, len(good))
    hashes = np.concatenate([content_hashes(images[i : i + 4096]) for i in range(0, shape[0], 4096)])
    images.flush()
    np.save(draft / "hashes.npy", hashes)


def _bearable(raw: Encoded, skipped: dict[int, str], options: ImageOptions) -> None:
    """Raises DataError when more than the allowed share cannot be read."""
    if len(skipped) > options.max_bad * len(raw.keys):
        shown = "; ".join(f"{raw.keys[i]}: {reason}" for i, reason in sorted(skipped.items())[:3])
        raise DataError(
            f"{len(skipped)} of {len(raw.keys)} images in {raw.name} cannot be read ({shown}); mend or remove them"
            + ", or raise --max-bad" * (options.fewest > 0)
        )
    enough(len(raw.keys) - len(skipped), raw.name, options.fewest)
