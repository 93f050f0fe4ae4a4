"""Samples read back from the files they were written to, item by item, to be compared with what a run makes again.

A file may come from a stranger: nothing in it is run, arrays are read without pickle, and what a head promises is checked first.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from latente.data.columns import as_levels, whole
from latente.data.errors import DataError, first_line
from latente.data.images import opened, pixels
from latente.data.table_sources import sniff
from latente.run import CHUNK, Run, TableRun

UNLIKE = 256  # a distance no two pictures have: nothing was there to compare


class Unlike(Exception):
    """Samples that cannot be compared one by one; the message says why."""


def files_in(folder: Path) -> dict[str, Path]:
    """The regular files in a folder and below, by relative path; hidden ones, which systems strew about, left out."""
    found: dict[str, Path] = {}
    for place, subfolders, files in os.walk(folder, followlinks=False):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths = [Path(place) / name for name in files if not name.startswith(".")]
        found |= {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return found


def place(number: int, made: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Where `write_images` puts a picture within a folder."""
    folder = f"{classes[int(made['label'][number])].replace('/', '-')}/" if "label" in made and classes else ""
    return f"{folder}{number:06d}.png"


def named(folder: Path, names: list[str], wrong: list[int]) -> dict[str, tuple[str, ...]]:
    found = files_in(folder)
    return {
        "changed": tuple(names[i] for i in wrong if names[i] in found),
        "missing": tuple(name for name in names if name not in found),
        "added": tuple(sorted(found.keys() - set(names))),
    }


@contextmanager
def mangled() -> Iterator[None]:
    """Turns whatever the readers of numpy, zipfile and Arrow raise on mangled files into Unlike."""
    try:
        yield
    except Unlike:
        raise
    except Exception as error:
        raise Unlike(f"it cannot be read: {first_line(error)}") from None


def count(path: Path, kind: str) -> int:
    """How many samples a file says it holds, read from its head where it has one; of a .txt, how many there can be at most."""
    with mangled():
        if path.is_dir():
            return len(files_in(path))
        if kind == "table":
            return len(sniff(path).read())
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.ParquetFile(path).metadata.num_rows
        if kind == "image":
            with _member(path, "x") as (file, size):
                shape, _ = _header(file)
            if size < math.prod(shape):
                raise Unlike("it is cut short")
            return shape[0] if shape else 0
        if path.suffix == ".jsonl":
            return len(path.read_bytes().splitlines())
        return _plain(_decoded(path)).count("\n\n") + 1


def items(
    path: Path, run: Run, made: Mapping[str, Any], expected: Sequence[Any], names: list[str] | None
) -> Iterator[Any]:
    """What `path` holds, item by item, as (C,H,W) uint8 or str; None for one that is missing, damaged or of another label."""
    with mangled():
        if names is not None:
            for name in names:
                yield _picture(path / name, run.spec)
        elif run.spec.kind == "table":
            yield from rows_of(sniff(path).read())
        elif path.suffix == ".parquet":
            yield from _rows(path, run.spec, made)
        elif run.spec.kind == "image":
            yield from _frames(path, run.spec, made)
        elif path.suffix == ".jsonl":
            yield from (_text(json.loads(line)) for line in path.read_bytes().splitlines())
        elif path.suffix == ".txt":
            yield from _passages(_decoded(path), expected)
        else:
            raise Unlike(f"{run.spec.kind}s are not written to such files")


def rows_of(table: pa.Table) -> list[tuple[str | None, ...]]:
    """Rows as texts, cell by cell; None for a missing one."""
    return list(zip(*(as_levels(whole(column)).to_pylist() for column in table.columns)))


def rewritten(run: TableRun, table: pa.Table, suffix: str) -> list[tuple[str | None, ...]]:
    """Rows as they come back from a file of this kind."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return rows_of(sniff(run.write(Path(folder) / f"rows{suffix}", table)).read())
        except DataError as error:
            raise Unlike(str(error)) from None


def _picture(content: bytes | Path, spec: Any) -> np.ndarray | None:
    try:
        if isinstance(content, Path):
            if not content.is_file() or content.stat().st_size > 16 * spec.dimensions + (1 << 20):
                return None
            content = content.read_bytes()
        with opened(content) as image:
            if image.size != (spec.width, spec.height):
                return None
        return pixels(content, *spec.shape)
    except DataError:
        return None


def _rows(path: Path, spec: Any, made: Mapping[str, Any]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    file, number = pq.ParquetFile(path), 0
    columns = [name for name in ("image", "label", "text") if name in file.schema_arrow.names]
    for batch in file.iter_batches(CHUNK, columns=columns):
        for row in batch.to_pylist():
            if spec.kind == "text":
                yield _text(row)
                continue
            image = row.get("image")
            content = image.get("bytes") if isinstance(image, dict) else image
            label = int(made["label"][number]) if "label" in made and "label" in row else None
            wanted = row.get("label") if label is None else spec.classes[label] if spec.classes else label
            yield _picture(content, spec) if row.get("label") == wanted and isinstance(content, bytes) else None
            number += 1


def _frames(path: Path, spec: Any, made: Mapping[str, Any]) -> Iterator[np.ndarray | None]:
    """Of a .npy or .npz; labels are compared where the file has any."""
    n, (channels, height, width) = len(made["x"]), spec.shape
    with _member(path, "x") as (file, _):
        frames = _array(file, (n, height, width) if channels == 1 else (n, height, width, channels), np.uint8)
    x, labels = frames[:, None] if channels == 1 else frames.transpose(0, 3, 1, 2), made.get("label")
    if path.suffix == ".npz" and labels is not None:
        with zipfile.ZipFile(path) as archive:
            labelled = "y.npy" in archive.namelist()
        if labelled:
            with _member(path, "y") as (file, _):
                alike = _array(file, (n,), labels.dtype) == labels
            yield from (image if same else None for image, same in zip(x, alike))
            return
    yield from x


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], int]]:
    """An array file open at its start, and how many bytes it says it is long: a .npy, or what a .npz holds by that name."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            yield file, archive.getinfo(f"{name}.npy").file_size
    else:
        with path.open("rb") as file:
            yield file, path.stat().st_size


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array that a .npy holds."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _array(file: IO[bytes], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    found = _header(file)
    if found != (shape, np.dtype(dtype)):
        raise Unlike(f"it holds {found[1]} numbers of shape {found[0]}, not {np.dtype(dtype)} of {shape}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _text(row: Any) -> str | None:
    text = row.get("text") if isinstance(row, dict) else None
    return text if isinstance(text, str) else None


def _decoded(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")  # a byte that is not UTF-8 then equals nothing


def _plain(body: str) -> str:
    """What a .txt says whatever editor saved it: without byte-order mark, \\n between lines, no newline at the end."""
    return body.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n")


def _passages(body: str, texts: Sequence[str]) -> Iterator[str]:
    """The texts of a .txt. An empty line stands between two, but also within some, so the expected ones show where they end."""
    whole = "\n\n".join(texts)
    if _plain(body) == _plain(f"{whole}\n"):
        yield from texts
        return
    at = 0
    for text, following in zip(texts, [*texts[1:], None]):
        end = at + len(text)
        if not (
            body.startswith(text, at)
            and (body[end:] in ("", "\n") if following is None else body.startswith("\n\n", end))
        ):
            end = len(body) if following is None else body.find(f"\n\n{following}", at)
            end = body.find("\n\n", at) if end < 0 else end
        yield body[at:] if end < 0 else body[at:end]
        at = len(body) if end < 0 else end + 2
