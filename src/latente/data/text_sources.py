"""From what the user points at to documents of text.

    a file, a folder, .jsonl, Parquet, hf:NAME, a name, strings in memory --> Texts --collect--> Corpus --> tokenizing.py

A corpus is one stream of UTF-8 bytes. A single UTF-8 file is used where it lies; all else is written out once.
"""

from __future__ import annotations

import hashlib
import io
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from latente.data import hub, named
from latente.data.cache import Progress
from latente.data.charsets import CHUNK, Charset, as_utf8, charset_of, utf8_of
from latente.data.errors import DataError, first_line
from latente.data.files import below, located, readable, stamp, stamps
from latente.data.text import TextOptions

ROWS = frozenset({".jsonl", ".ndjson", ".parquet"})
_PROSE = "txt text md markdown rst adoc org tex bib html htm xml csv tsv json yaml yml toml ini cfg log srt vtt ipynb abc pgn"
_CODE = (
    "py pyi r jl js ts jsx tsx css c h cc cpp hpp cs java kt go rs rb php pl lua swift scala hs ml clj lisp el sh sql"
)
SUFFIXES = ROWS | {f".{suffix}" for suffix in f"{_PROSE} {_CODE} fa fasta".split()}


@dataclass
class Texts:
    """Documents to read. `fill` hands them to a Collector, in order."""

    name: str
    fill: Callable[[Collector], None]
    stamp: str | None = None
    """what identifies the content without reading it; None: not cached"""
    file: Path | None = None
    """the one plain file that is all there is"""
    size: int = 0
    """bytes to read, where that is known"""


@dataclass
class Corpus:
    """Documents end to end."""

    stream: np.ndarray
    """(n,) uint8: UTF-8, or any bytes for the byte tokenizer"""
    ends: np.ndarray
    """(documents,) int64: the offset at which each ends"""
    test: int | None
    """the offset at which an official test set begins"""
    encodings: dict[str, int]
    duplicates: int = 0


class Collector:
    """Takes documents as they are read, and writes their bytes one after another."""

    def __init__(self, sink: BinaryIO, options: TextOptions, as_bytes: bool, tell: Progress, size: int) -> None:
        self.sink, self.options, self.as_bytes, self.size = sink, options, as_bytes, size
        self.encodings: Counter[str] = Counter()
        self.test: int | None = None
        self.ends = array("q")
        self.hashes = array("Q")
        self.written = 0
        self._tell = tell
        self._hash = hashlib.blake2b(digest_size=8)

    def write(self, data: bytes) -> None:
        """More bytes of the document at hand."""
        self.sink.write(data)
        self._hash.update(data)
        if self.written // CHUNK != (self.written + len(data)) // CHUNK and self.size:
            self._tell("reading", min(self.written + len(data), self.size), self.size)
        self.written += len(data)

    def end(self) -> None:
        """The document at hand ends; one without a byte is none."""
        if self.written == (self.ends[-1] if self.ends else 0):
            return
        self.ends.append(self.written)
        self.hashes.append(int.from_bytes(self._hash.digest(), "little"))
        self._hash = hashlib.blake2b(digest_size=8)

    def row(self, text: str, where: str) -> None:
        """One whole document."""
        self.write(as_utf8(text, where, self.options.bad_bytes))
        self.end()

    def plain(self, path: Path) -> None:
        """A file that is one document."""
        charset = _charset(path, self.options, self.as_bytes)
        for chunk in utf8_of(path, charset, self.options.bad_bytes):
            self.write(chunk)
        self.encodings[str(charset)] += 1
        self.end()

    def corpus(self, stream: np.ndarray) -> Corpus:
        hashes = np.asarray(self.hashes)
        hashes.sort()
        duplicates = int((hashes[1:] == hashes[:-1]).sum())
        return Corpus(stream, np.asarray(self.ends, np.int64), self.test, dict(self.encodings), duplicates)


def collect(texts: Texts, options: TextOptions, as_bytes: bool, folder: Path | None, tell: Progress) -> Corpus:
    """The corpus of a source; what cannot be used where it lies is written to `folder`/text, or kept in memory without one.

    With `as_bytes` plain files are taken as they are, whatever they hold.
    """
    if texts.file is not None:
        charset = _charset(texts.file, options, as_bytes)
        if charset.intact and (length := texts.file.stat().st_size - charset.skip) > 0:
            stream = np.memmap(texts.file, np.uint8, "r", charset.skip)
            return Corpus(stream, np.asarray([length]), None, {str(charset): 1})
    with io.BytesIO() if folder is None else (folder / "text").open("wb") as sink:
        collector = Collector(sink, options, as_bytes, tell, texts.size)
        texts.fill(collector)
        if isinstance(sink, io.BytesIO):
            return collector.corpus(np.frombuffer(sink.getvalue(), np.uint8))
    if not collector.written:
        return collector.corpus(np.empty(0, np.uint8))
    return collector.corpus(np.memmap(folder / "text", np.uint8, "r"))  # type: ignore[operator]


def _charset(path: Path, options: TextOptions, as_bytes: bool) -> Charset:
    if as_bytes:
        return Charset("bytes as they are", intact=True)
    return charset_of(path, options.encoding, options.bad_bytes)


# ---- what people have ----------------------------------------------------------------------------------------------


def sniff(source: Any, options: TextOptions) -> Texts:
    """The documents a path, a name, `hf:NAME`, a text or a list of texts stands for. Raises DataError, one line."""
    if not isinstance(source, str | Path):
        return _in_memory("texts", source)
    text = str(source)
    if "\n" in text:
        return _in_memory("text", [text])
    if text == "shakespeare":
        return _one("shakespeare", named.shakespeare())
    if text == "pydoc":
        documents = named.pydoc()
        content = hashlib.blake2b("".join(documents).encode(), digest_size=16).hexdigest()
        return Texts("pydoc", partial(_fill_rows, documents, "pydoc"), f"pydoc {content}")
    if text.startswith(hub.PREFIX):
        return _hub(text.removeprefix(hub.PREFIX), options.column)
    path = located(source)
    with readable(path):
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            raise DataError(f"{path} is neither a file nor a folder; write what comes out of it to a file first")
        return _one(path.stem, path)


def _in_memory(name: str, texts: Any) -> Texts:
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"a source of text is a path, a name, a text or a list of texts, not {type(texts).__name__}")
    return Texts(name, partial(_fill_rows, texts, name))


def _fill_rows(texts: Sequence[str], name: str, into: Collector) -> None:
    for number, text in enumerate(texts):
        into.row(text, f"{name}, number {number}")
    into.encodings["text in memory"] += 1


def _one(name: str, path: Path) -> Texts:
    rows = path.suffix.lower() in ROWS
    fill = partial(_fill_files, [path])
    return Texts(name, fill, stamp(path), None if rows else path, path.stat().st_size)


def _folder(folder: Path) -> Texts:
    found = sorted(below(folder, SUFFIXES))
    if not found:
        raise DataError(
            f"no text in {folder} (.txt, .md, .html, .csv, .json, .py and the like, .jsonl, .parquet; sub-folders are searched)"
        )
    paths = [path for _, path in found]
    size = sum(path.stat().st_size for path in paths)
    return Texts(folder.resolve().name or "texts", partial(_fill_files, paths), stamps(folder, found), size=size)


def _fill_files(paths: Sequence[Path], into: Collector) -> None:
    for path in paths:
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            _parquet(path, into)
        elif suffix in ROWS:
            _json_lines(path, into)
        else:
            into.plain(path)


def _json_lines(path: Path, into: Collector) -> None:
    options = into.options
    charset = charset_of(path, options.encoding, options.bad_bytes)
    column = options.column
    for number, line in enumerate(lines(utf8_of(path, charset, options.bad_bytes)), 1):
        if line.strip():
            where = f"{path}, line {number}"
            row = json_row(line, where)
            column = column or text_column(
                where, list(row), [name for name, cell in row.items() if isinstance(cell, str)]
            )
            cell = row.get(column)
            if not isinstance(cell, str) and (column not in row or cell is not None):
                raise DataError(f"{where}: no text in column {column!r}; mend the row, or name another --column")
            into.row(cell or "", where)
    into.encodings[str(charset)] += 1


def json_row(line: bytes, where: str) -> dict[str, Any]:
    """The object that a line of JSON is. Raises DataError for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {first_line(error)}; mend or remove it") from None
    if not isinstance(row, dict):
        raise DataError(f'{where}: a row is an object, as {{"text": "..."}}, not {type(row).__name__}')
    return row


def lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What stands between line feeds; the last is empty where the bytes end with one."""
    kept = b""
    for chunk in chunks:
        *whole, kept = (kept + chunk).split(b"\n")
        yield from whole
    yield kept


def text_column(where: str, names: Sequence[str], strings: Sequence[str], column: str | None = None) -> str:
    """The column to read: `column`, else "text", else the only one of strings. Raises DataError listing what there is."""
    if column is None and "text" in strings:
        return "text"
    if column is None and len(strings) == 1:
        return strings[0]
    if column is not None and column in strings:
        return column
    missing = (
        "no column is called text, and not one alone holds strings" if column is None else f"no text column {column!r}"
    )
    raise DataError(f"{where}: {missing}; name one with --column: {', '.join(names) or 'there is none'}")


def _parquet(path: Path, into: Collector) -> None:
    for number, cell in enumerate(_parquet_cells(path, into.options.column)):
        into.row(cell or "", f"{path}, row {number}")
    into.encodings["Parquet"] += 1


def _parquet_cells(path: Path, wanted: str | None) -> Iterator[str | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            strings = [field.name for field in file.schema_arrow if _is_text(field.type)]
            column = text_column(str(path), file.schema_arrow.names, strings, wanted)
            for batch in file.iter_batches(1024, columns=[column]):
                yield from batch.column(0).to_pylist()
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {first_line(error)}") from None


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _hub(name: str, wanted: str | None) -> Texts:
    parts = hub.parts_of(name)
    features = next(iter(parts.values())).features
    column = text_column(f"hf:{name}", list(features), hub.string_columns(parts), wanted)
    rank = {"train": 0, "validation": 2, "test": 3}
    ordered = sorted(parts, key=lambda split: rank.get(split, 1))

    def fill(into: Collector) -> None:
        for split in ordered:
            if split == "test" and len(ordered) > 1:
                into.test = into.written
            number = 0
            for batch in parts[split].select_columns([column]).iter(1024):
                for cell in batch[column]:
                    into.row(cell or "", f"hf:{name}, {split} row {number}")
                    number += 1
        into.encodings["hub"] += 1

    key = json.dumps([name, column, [parts[split]._fingerprint for split in ordered]])
    return Texts(name.rstrip("/").split("/")[-1], fill, key)
