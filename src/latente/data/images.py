"""Pictures in and out: one decoding rule, one writing rule, and contact sheets to look at.

The rule, for every picture: turn it upright (EXIF), put transparency on white, bring 16-bit and float pixels to 8 bits,
make it grey or RGB, crop the centre to the wanted shape, resize with an antialiasing filter (Lanczos).
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from latente.data.errors import DataError
from latente.drafts import draft

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"})
LONGEST = 1 << 12, 255  # bytes of the path of a file, and of each of its parts
OUTPUTS = "a folder, .npy, .npz or .parquet"


def opened(content: bytes | Path) -> Image.Image:
    """An image whose header was read. Raises DataError with a short reason."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
    except Image.DecompressionBombError:
        raise DataError("too many pixels (a decompression bomb?)") from None
    except UnidentifiedImageError:
        raise DataError("not an image") from None
    except (OSError, ValueError, SyntaxError, OverflowError, MemoryError, TypeError, KeyError, IndexError) as error:
        raise DataError(f"cannot be opened: {error}") from None


def grey_palette(image: Image.Image) -> bool:
    """Whether a palette image holds greys alone, as every grey GIF does."""
    colours = np.reshape(image.getpalette() or (), (-1, 3))
    return bool((colours == colours[:, :1]).all())


def pixels(content: bytes | Path, channels: int, height: int, width: int) -> np.ndarray:
    """One picture as (C,H,W) uint8 by the rule above. Raises DataError with a short reason."""
    from PIL import Image, ImageOps

    image = opened(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.draft("L" if channels == 1 else "RGB", (2 * width, 2 * height))  # JPEG: decode near the wanted size
            image.load()
            image = _eight_bit(ImageOps.exif_transpose(image))
            if "A" in image.getbands() or "transparency" in image.info:
                image = image.convert("RGBA")
                ground = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(ground, image)
            image = image.convert("L" if channels == 1 else "RGB")
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    except Image.DecompressionBombError:
        raise DataError("too many pixels (a decompression bomb?)") from None
    except (
        OSError,
        ValueError,
        SyntaxError,
        OverflowError,
        MemoryError,
        TypeError,
        KeyError,
        IndexError,
        EOFError,
    ) as error:
        raise DataError(f"damaged: {error}") from None
    except Exception as error:  # Pillow's plugins raise struct.error, zlib.error and others on mangled files
        raise DataError(f"damaged: {type(error).__name__} {error}") from None
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)


def _eight_bit(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode not in {"I", "F"} and not image.mode.startswith("I;16"):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    float_top = 1.0 if values.max(initial=0) <= 1 else 255.0
    top = float_top if image.mode == "F" else 65535.0
    return Image.fromarray((np.clip(values / top, 0, 1) * 255).round().astype(np.uint8), "L")


Part = tuple[np.ndarray, np.ndarray | None, Sequence[str] | None]
"""images (n,C,H,W) uint8, the class of each, the name of each: a path below a folder"""


def write_images(
    path: str | Path,
    x: Any,
    labels: Any = None,
    classes: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> Path:
    """Writes (N,C,H,W) uint8 as PNG files in a folder (class sub-folders when labelled), .npy, .npz or .parquet; `names` have no
    suffix.

    The target appears whole or not at all. Raises DataError when it exists or its suffix is unknown.
    """
    x = np.asarray(x)
    labels = None if labels is None else np.asarray(labels)
    names = None if names is None else [f"{name}.png" for name in names]
    return write_parts(path, x.shape[1:], [(x, labels, names)], None if labels is None else classes)


def write_parts(
    path: str | Path, shape: Sequence[int], parts: Iterable[Part], classes: Sequence[str] | None = None
) -> Path:
    """As `write_images`, of images (C,H,W) that come part by part: no more than one is held. `classes` where they are labelled; names
    are those of the files."""
    path = Path(path)
    check_output(path)
    write = {"": _write_folder, ".npy": _write_npy, ".npz": _write_npz, ".parquet": _write_parquet}[path.suffix]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft(path) as hidden:
            write(hidden, shape, parts, classes)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def check_output(path: str | Path) -> None:
    """Raises DataError when images cannot be written to `path`: asked before the work, not after it."""
    path = Path(path)
    if path.exists():
        raise DataError(f"{path} exists already; choose another --out")
    if path.suffix not in {"", ".npy", ".npz", ".parquet"}:
        raise DataError(f"cannot write images to {path.name}: --out is {OUTPUTS}")


def are_paths(names: Sequence[Any]) -> bool:
    """Whether names are different paths below a folder, as files can have them."""
    return all(map(is_path, names)) and len({str(Path(name)) for name in names}) == len(names)


def is_path(name: Any) -> bool:
    """Whether a name can be that of a file below a folder."""
    try:
        if not isinstance(name, str) or len(os.fsencode(name)) > LONGEST[0]:
            return False
    except UnicodeError:
        return False
    path = Path(name)
    parts = path.parts
    return (
        "\0" not in name
        and not path.is_absolute()
        and bool(path.name)
        and ".." not in parts
        and all(len(os.fsencode(part)) <= LONGEST[1] for part in parts)
    )


def is_png(name: str) -> bool:
    return name.lower().endswith(".png")


def png_names(names: Sequence[str]) -> list[str]:
    """Different names for PNG files of images with different names: those that do not end in .png have it behind them."""
    taken, found = set(filter(is_png, names)), []
    for name in names:
        if not is_png(name):
            name = suffixed(name, ".png", taken)
            taken.add(name)
        found.append(name)
    return found


def suffixed(name: str, suffix: str, taken: Collection[str]) -> str:
    """A path with a suffix behind it, as often as it takes to be none of those `taken`, and cut before it where its last part would be
    too long for a file's name."""
    folder, slash, last = name.rpartition("/")
    behind = suffix
    while True:
        while last and len(os.fsencode(last + behind)) > LONGEST[1]:
            last = last[:-1]
        if (found := folder + slash + last + behind) not in taken:
            return found
        behind += suffix


def classed(name: str, of: str) -> str:
    """The name of an image of a class, with the class's folder in it: in front, where it is not there already."""
    folder = _class_folder(of)
    return name if folder in Path(name).parts[:-1][:2] else f"{folder}/{name}"


def _class_folder(of: str) -> str:
    return of.replace("/", "-")


def class_numbers(classes: Sequence[str]) -> np.ndarray | None:
    """The numbers that classes are called by, int64; None where one is called otherwise."""
    try:
        numbers = np.array([int(name) for name in classes], np.int64)
    except (ValueError, OverflowError):
        return None
    return numbers if list(map(str, numbers)) == list(classes) else None


def _write_folder(folder: Path, shape: Sequence[int], parts: Iterable[Part], classes: Sequence[str] | None) -> None:
    folder.mkdir()
    number = 0
    for x, labels, names in parts:
        for at, image in enumerate(x):
            name = names[at] if names else f"{number:06d}.png"
            target = folder / (classed(name, classes[int(labels[at])]) if classes and labels is not None else name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:  # two names may be one to a file system
                picture(image).save(file, "PNG")
            number += 1


def _write_npy(path: Path, shape: Sequence[int], parts: Iterable[Part], classes: Sequence[str] | None) -> None:
    with path.open("wb") as file:
        _stream(file, np.uint8, _frame(shape), (_frames(x) for x, _, _ in parts))


def _write_npz(path: Path, shape: Sequence[int], parts: Iterable[Part], classes: Sequence[str] | None) -> None:
    """x; y, numbers of classes; what classes those are that are not called by numbers; and names."""
    numbers, called = class_numbers(classes) if classes else None, []
    # An array in an archive begins with how long it is, so both are written out before.
    with tempfile.TemporaryFile(dir=path.parent) as x, tempfile.TemporaryFile(dir=path.parent) as y:

        def seen() -> Iterator[np.ndarray]:
            for images, labels, names in parts:
                if classes is not None and labels is not None:
                    y.write(np.asarray(labels if numbers is None else numbers[labels], np.int64).tobytes())
                called.extend(names or ())
                yield _frames(images)

        y.write(_array_head(np.int64, (0,)))
        count = _stream(x, np.uint8, _frame(shape), seen())
        y.seek(0)
        y.write(_array_head(np.int64, (count,)))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, file in (("x", x), ("y", y)) if classes is not None else (("x", x),):
                file.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    shutil.copyfileobj(file, member)
            for name, words in (("classes", classes if classes and numbers is None else ()), ("names", called)):
                if words:
                    _write_words(archive, name, words)


def _write_words(archive: zipfile.ZipFile, name: str, words: Sequence[str]) -> None:
    """An array of text, a part at a time: as wide as the longest, it may be large."""
    kind = np.dtype(f"<U{max(1, *map(len, words))}")
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        member.write(_array_head(kind, (len(words),)))
        for start in range(0, len(words), 1024):
            member.write(np.array(words[start : start + 1024], kind).tobytes())


def _stream(file: IO[bytes], kind: Any, frame: tuple[int, ...], arrays: Iterable[np.ndarray]) -> int:
    """Writes arrays (n, *frame) one behind the other as one .npy; how long it became."""
    file.write(_array_head(kind, (0, *frame)))
    count = 0
    for array in arrays:
        file.write(array.tobytes())
        count += len(array)
    file.seek(0)
    file.write(_array_head(kind, (count, *frame)))
    return count


def _array_head(kind: Any, shape: tuple[int, ...]) -> bytes:
    """What a .npy begins with: as long for any count, since numpy leaves room for it to grow."""
    head = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(kind))
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
    return head.getvalue()


def _frame(shape: Sequence[int]) -> tuple[int, ...]:
    channels, height, width = shape
    return (height, width) if channels == 1 else (height, width, channels)


def _frames(x: np.ndarray) -> np.ndarray:
    return x[:, 0] if x.shape[1] == 1 else x.transpose(0, 2, 3, 1)


def _write_parquet(path: Path, shape: Sequence[int], parts: Iterable[Part], classes: Sequence[str] | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    if classes is not None:
        called = class_numbers(classes) if classes else None
        fields.append(("label", pa.string() if classes and called is None else pa.int64()))
    number = 0
    with pq.ParquetWriter(path, pa.schema(fields)) as file:
        for x, labels, names in parts:
            columns: dict[str, Any] = {"image": []}
            for at, image in enumerate(x):
                buffer = io.BytesIO()
                picture(image).save(buffer, "PNG")
                columns["image"].append(
                    {"bytes": buffer.getvalue(), "path": names[at] if names else f"{number:06d}.png"}
                )
                number += 1
            if classes is not None and labels is not None:
                words = classes if called is None else called
                columns["label"] = [words[i] for i in labels] if classes else labels
            file.write_table(pa.table(columns, pa.schema(fields)))


def picture(image: np.ndarray) -> Image.Image:
    """A PIL image of one (C,H,W) uint8 array, C = 1 or 3."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)))


def contact_sheet(rows: Sequence[tuple[str, Any]], path: Path | None = None, columns: int = 12) -> Image.Image:
    """A page of titled rows of images, each (N,C,H,W) uint8, wrapped at `columns`; small images are enlarged in whole steps."""
    from PIL import Image, ImageDraw, ImageFont

    blocks = [(title, np.asarray(images)) for title, images in rows]
    height, width = blocks[0][1].shape[2:]
    scale = max(1, round(56 / max(height, width)))
    cell_h, cell_w, gap, head, edge = height * scale, width * scale, 3, 24, 14
    lines = [max(1, -(-len(images) // columns)) for _, images in blocks]
    page = Image.new(
        "RGB",
        (
            2 * edge + columns * (cell_w + gap) - gap,
            2 * edge + sum(n * (cell_h + gap) + (head if t else 0) for n, (t, _) in zip(lines, blocks)),
        ),
        "white",
    )
    draw, font, top = ImageDraw.Draw(page), ImageFont.load_default(14), edge
    for count, (title, images) in zip(lines, blocks):
        if title:
            draw.text((edge, top + 2), title, fill="#333333", font=font)
            top += head
        for number, image in enumerate(images):
            row, column = divmod(number, columns)
            tile = picture(image).convert("RGB").resize((cell_w, cell_h), Image.Resampling.NEAREST)
            page.paste(tile, (edge + column * (cell_w + gap), top + row * (cell_h + gap)))
        top += count * (cell_h + gap)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path)
    return page
