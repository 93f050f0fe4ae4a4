"""Images, sampled or made of other images: {"x": uint8 (N,C,H,W)}, and "label" (N,) or "name"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from latente.data.errors import DataError
from latente.data.images import check_output, class_numbers, opened, pixels, write_images
from latente.provenance import arrays
from latente.provenance.kind import Kind, Made, check_count, files
from latente.run import CHUNK

_MOST = 1 << 32  # bytes of pixels
_ROOM = 1 << 20  # bytes of a picture's file beside its pixels


class Images(Kind):
    """In a folder of PNG, .npy, .npz or .parquet. They are apart by the largest difference of a pixel, of 255."""

    name = "image"
    options: ClassVar = {"label": str, "temperature": float, "truncation": float}
    some = frozenset({"temperature", "truncation"})

    def items(self, made: Made) -> Sequence[np.ndarray]:
        return made["x"]

    def check_output(self, path: Path) -> None:
        check_output(path)

    def write(self, path: Path, made: Made, spec: Any) -> None:
        write_images(path, made["x"], made.get("label"), spec.classes, made.get("name"))

    def fits(self, n: int, options: Mapping[str, Any], spec: Any) -> bool:
        return n * spec.dimensions <= _MOST

    def check_count(self, path: Path, n: int) -> None:
        if path.is_dir():  # some may be missing, and are named then
            found = len(files(path))
            check_count(found if 2 * found < n else n, n, self.name)
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            check_count(pq.ParquetFile(path).metadata.num_rows, n, self.name)
        else:
            check_count(arrays.length(path, "x"), n, self.name)

    def places(self, made: Made, spec: Any) -> list[str]:
        if "name" in made:
            return [f"{name}.png" for name in made["name"]]
        labels = made["label"] if spec.classes and "label" in made else [None] * len(made["x"])
        folders = ["" if label is None else f"{spec.classes[int(label)].replace('/', '-')}/" for label in labels]
        return [f"{folder}{number:06d}.png" for number, folder in enumerate(folders)]

    def read(self, path: Path, made: Made, spec: Any) -> Iterator[np.ndarray | None]:
        if path.is_dir():
            return (_picture(path / place, spec) for place in self.places(made, spec))
        return _rows(path, made, spec) if path.suffix == ".parquet" else _frames(path, made, spec)

    def distance(self, expected: np.ndarray, found: np.ndarray) -> float:
        return int(np.abs(expected.astype(np.int16) - found).max())

    def measured(self, far: Sequence[float | None]) -> tuple[str, float | None]:
        largest = max((distance for distance in far if distance is not None), default=None)
        return "" if largest is None else f"; a pixel differs by up to {largest} of 255", largest


def _picture(content: bytes | Path, spec: Any) -> np.ndarray | None:
    try:
        if isinstance(content, Path):
            if not content.is_file() or content.stat().st_size > 16 * spec.dimensions + _ROOM:
                return None
            content = content.read_bytes()
        with opened(content) as image:
            if image.size != (spec.width, spec.height):
                return None
        return pixels(content, *spec.shape)
    except DataError:
        return None


def _rows(path: Path, made: Made, spec: Any) -> Iterator[np.ndarray | None]:
    """Of a .parquet; labels are compared where the file has any."""
    import pyarrow.parquet as pq

    file, number, labels = pq.ParquetFile(path), 0, made.get("label")
    columns = [name for name in ("image", "label") if name in file.schema_arrow.names]
    for batch in file.iter_batches(CHUNK, columns=columns):
        for row in batch.to_pylist():
            image = row.get("image")
            content, called = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
            label = None if labels is None or "label" not in row else int(labels[number])
            wanted = row.get("label") if label is None else spec.classes[label] if spec.classes else label
            alike = str(row.get("label")) == str(wanted)  # classes called by numbers are numbers there, or words
            if called is not None and "name" in made:
                alike &= called == f"{made['name'][number]}.png"
            yield _picture(content, spec) if alike and isinstance(content, bytes) else None
            number += 1


def _frames(path: Path, made: Made, spec: Any) -> Iterator[np.ndarray | None]:
    """Of a .npy or .npz; labels are compared where the file has any."""
    n, (channels, height, width), labels = len(made["x"]), spec.shape, made.get("label")
    shape = (n, height, width) if channels == 1 else (n, height, width, channels)
    frames = arrays.array(path, "x", shape, np.uint8)
    x, alike = frames[:, None] if channels == 1 else frames.transpose(0, 3, 1, 2), np.ones(n, bool)
    if path.suffix == ".npz" and labels is not None and arrays.holds(path, "y"):
        numbers = class_numbers(spec.classes) if spec.classes else None
        alike = arrays.array(path, "y", (n,), np.int64) == (labels if numbers is None else numbers[labels])
    yield from (image if same else None for image, same in zip(x, alike))
