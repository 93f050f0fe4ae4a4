"""From what the user points at to pairs of texts.

    .tsv or .txt with tabs, .jsonl, two aligned files, a name, pairs in memory --> Pairs
    .csv, Parquet, Arrow, Excel, hf:NAME, a frame --table_sources.py--> two of its columns --> Pairs

A line ends at a line feed only, so that two files stay aligned whatever else they hold.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latente.data import hub, named, table_sources
from latente.data.charsets import charset_of, utf8_of
from latente.data.errors import DataError
from latente.data.files import located, readable
from latente.data.pairs import PairOptions
from latente.data.table import TableOptions
from latente.data.text_sources import json_row, lines

_TABS, _JSON = (".tsv", ".tab", ".txt", ".dat", ""), (".jsonl", ".ndjson")
_HEADERS = ({"source", "target"}, {"src", "tgt"}, {"src", "trg"}, {"input", "output"})
_MADE_FOR = {"roman": ("char", "char"), "cmudict": ("char", "word")}
"""the tokenizers a named source is made for"""


@dataclass
class Pairs:
    """Pairs as they were read: texts side by side, "" where there is none."""

    name: str
    source: list[str]
    target: list[str]
    where: Callable[[int], str]
    """what pair number n is called to its owner"""
    test: int | None = None
    """the pair at which an official test set begins"""
    tokenizers: tuple[str, str] = ("char", "char")
    notes: list[str] = field(default_factory=list)
    """what was done that the user should know, a line each"""


def are_pairs(source: Any) -> bool:
    """Whether what is in memory is a list of (source, target)."""
    listed = isinstance(source, Sequence) and not isinstance(source, str | bytes) and len(source) > 0
    return listed and all(isinstance(item, tuple | list) and list(map(type, item)) == [str, str] for item in source)


def sniff(source: Any, options: PairOptions) -> Pairs:
    """The pairs a path, a name, `hf:NAME`, a frame or a list of (source, target) stands for. Raises DataError, one line."""
    if are_pairs(source):
        return _listed(source, "pairs")
    if not isinstance(source, str | Path):
        if isinstance(source, Sequence) and not table_sources.is_table(source):
            raise DataError("pairs in memory are a list of (source, target), two strings each")
        return _of_table(source, options)
    text = str(source)
    if text in _MADE_FOR:
        found = _listed(named.roman() if text == "roman" else named.cmudict(), text)
        found.tokenizers = _MADE_FOR[text]
        return found
    if text.startswith(hub.PREFIX):
        return _of_table(source, options)
    path = located(source)
    with readable(path):
        if path.is_dir():
            raise DataError(f"{path} is a folder; name one file of pairs, or a file and its --targets")
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty: it holds no pairs")
        if options.targets is not None:
            return _aligned(path, located(options.targets), options)
        suffix = path.suffix.lower()
        if suffix in _JSON:
            return _json_lines(path, options)
        return _tabs(path, options) if suffix in _TABS else _of_table(path, options)


def _listed(pairs: Sequence[Sequence[str]], name: str) -> Pairs:
    source, target = ([pair[side] for pair in pairs] for side in (0, 1))
    return Pairs(name, source, target, lambda n: f"{name}, pair {n}")


def _read(path: Path, options: PairOptions) -> list[str]:
    """The lines of a file without their ends."""
    charset = charset_of(path, options.encoding, options.bad_bytes)
    found = [line.removesuffix(b"\r").decode() for line in lines(utf8_of(path, charset, options.bad_bytes))]
    return found if found[-1] else found[:-1]


def _aligned(path: Path, other: Path, options: PairOptions) -> Pairs:
    with readable(other):
        source, target = _read(path, options), _read(other, options)
    if len(source) != len(target):
        raise DataError(
            f"{path} has {len(source):,} lines and {other} {len(target):,}: line n of one goes with line n of the other"
        )
    return Pairs(path.stem, source, target, lambda n: f"{path}, line {n + 1}")


# ---- lines with tabs -----------------------------------------------------------------------------------------------


def _tabs(path: Path, options: PairOptions) -> Pairs:
    written = _read(path, options)
    quoted = _quoted(written) if any(line.startswith('"') or '\t"' in line for line in written) else None
    rows = quoted or [(number, line.split("\t")) for number, line in enumerate(written, 1) if line.strip()]
    if not rows:
        raise DataError(f"{path} holds no pairs, only blank lines")
    ((width, _),) = Counter(len(cells) for _, cells in rows).most_common(1)
    if width < 2:
        raise DataError(
            f"{path} has no tab in its lines: a line is a source, a tab and a target; or name the file of targets with --targets"
        )
    for number, cells in rows:
        if len(cells) != width:
            raise DataError(
                f"{path}, line {number} has {len(cells) - 1} tabs, other lines {width - 1}: a tab inside a text is to be taken "
                "out, or all such texts written in quotes"
            )
    names = [cell.strip() for cell in rows[0][1]]
    wanted = {options.source_column, options.target_column} - {None}
    low = {name.lower() for name in names}
    headed = wanted <= set(names) if wanted else any(header <= low for header in _HEADERS)
    names = names if headed else [str(number) for number in range(1, width + 1)]
    places = _chosen(str(path) + ("" if headed else ", which has no header"), names, names, options)
    body = rows[headed:]
    source, target = ([cells[place] for _, cells in body] for place in places)
    numbers = [number for number, _ in body]
    return Pairs(path.stem, source, target, lambda n: f"{path}, line {numbers[n]}")


def _quoted(written: Sequence[str]) -> list[tuple[int, list[str]]] | None:
    """(line, cells) where quotes enclose cells throughout, as spreadsheets write them; None where they are signs like others."""
    reader = csv.reader((f"{line}\n" for line in written), delimiter="\t", strict=True)
    rows: list[tuple[int, list[str]]] = []
    limit = csv.field_size_limit(1 << 30)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, cells))
    except csv.Error:
        return None
    finally:
        csv.field_size_limit(limit)
    return rows if len({len(cells) for _, cells in rows}) == 1 else None


# ---- rows with names -----------------------------------------------------------------------------------------------


def _json_lines(path: Path, options: PairOptions) -> Pairs:
    """Rows {"source": ..., "target": ...}."""
    charset = charset_of(path, options.encoding, options.bad_bytes)
    made: list[list[str]] = [[], []]
    numbers: list[int] = []
    names: list[str] | None = None
    for number, line in enumerate(lines(utf8_of(path, charset, options.bad_bytes)), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = json_row(line, where)
        if names is None:
            known = list(row)
            strings = [name for name, cell in row.items() if isinstance(cell, str)]
            names = [known[place] for place in _chosen(where, known, strings, options)]
        for side, name in zip(made, names):
            cell = row.get(name)
            if not isinstance(cell, str) and (name not in row or cell is not None):
                raise DataError(f"{where}: no text in column {name!r}; mend the row, or name other columns")
            side.append(cell or "")
        numbers.append(number)
    return Pairs(path.stem, *made, where=lambda n: f"{path}, line {numbers[n]}")


def _of_table(source: Any, options: PairOptions) -> Pairs:
    """Two columns of a table; those inside a structure, as `translation.en`, count as columns."""
    import pyarrow as pa

    found = table_sources.sniff(source, TableOptions(encoding=options.encoding))
    table = found.read().flatten()
    strings = [
        one.name
        for one in table.schema
        if pa.types.is_string(one.type) or pa.types.is_large_string(one.type) or pa.types.is_string_view(one.type)
    ]
    places = _chosen(found.name, table.column_names, strings, options)
    made = []
    for place in places:
        try:
            cells = table.column(place).cast(pa.string())
        except pa.ArrowException:
            raise DataError(f"{found.name}: column {table.column_names[place]!r} is not text; name another") from None
        made.append([cell or "" for cell in cells.to_pylist()])
    return Pairs(found.name, *made, where=lambda n: f"{found.name}, row {n}", test=found.test, notes=found.notes)


def _chosen(where: str, names: Sequence[str], strings: Sequence[str], options: PairOptions) -> tuple[int, int]:
    """The places of the source and the target among columns. Raises DataError listing them when it cannot be told."""
    listed = ", ".join(names[:20])
    if options.source_column is not None and options.target_column is not None:
        wanted = (options.source_column, options.target_column)
        for flag, name in zip(("source", "target"), wanted):
            if name not in names:
                raise DataError(f"{where}: no column {name!r} for --{flag}-column; there are {listed}")
        return names.index(wanted[0]), names.index(wanted[1])
    if {"source", "target"} <= set(strings):
        return names.index("source"), names.index("target")
    if len(strings) == 2:
        return names.index(strings[0]), names.index(strings[1])
    raise DataError(
        f"{where}: pairs are two columns of text, and there are {listed}; name two with --source-column and --target-column"
    )
