"""How a file of delimited cells is written, told from its beginning.

sample -> delimiter and quote (the pair that makes rows of one width) -> lines before the header -> header or not
       -> what is quoted, padded, trailing -> decimal and thousands signs
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from latente.data.errors import DataError
from latente.data.forms import Form
from latente.data.table import TableOptions

ALONE = "\x1f"
"""stands for a delimiter where cells of the one column hold commas that are not quoted"""
UNQUOTED = "\t|"
"""delimiters of files that are often written without quotes"""
COMMON, _RARE = ",;\t|", ":^~\x01 "
_PREAMBLE = 30
_END = re.compile("\r\n|\r|\n")
_NUMBER = re.compile(r"[+-]?[$€£]?(\d[\d.,'\u2019 \u00a0\u202f]*|[.,]\d+)(e[+-]?\d+)?\s?%?", re.IGNORECASE)
_SAID = re.compile(r"sep=([,;\t|])\r?\n", re.IGNORECASE)
"""what Excel reads as the delimiter of the lines below"""
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?")


@dataclass(frozen=True)
class Layout:
    """Where the rows of a file begin, and how they are written."""

    form: Form
    names: tuple[str, ...]
    width: int
    """cells of a row as it stands: one more than names where lines end with a delimiter"""
    start: int
    """bytes of UTF-8 before the first row"""
    line: int
    """lines before the first row"""
    longest: int
    """characters of the longest row seen"""
    notes: list[str]


@dataclass(frozen=True)
class _Row:
    line: int
    """on which it begins, from 1"""
    end: int
    """the line on which it ends"""
    cells: list[str]


@dataclass(frozen=True)
class _Reading:
    """A sample read with one delimiter and quote."""

    delimiter: str
    quote: str
    spaced: bool
    rows: list[_Row]
    """the header, if any, and what follows"""
    skipped: list[_Row] = field(default_factory=list)
    width: int = 1

    @property
    def fits(self) -> bool:
        """Whether the header is as wide as most rows, but for a delimiter at the end of each row."""
        head, rest = len(self.rows[0].cells), self.rows[1:]
        trailing = head == self.width - 1 and all(not row.cells[-1] for row in rest if len(row.cells) == self.width)
        return head == self.width or (trailing and len(rest) > 0)

    @property
    def score(self) -> tuple[float, ...]:
        alike = (self.fits + sum(len(row.cells) == self.width for row in self.rows[1:])) / len(self.rows)
        cells = [cell for row in self.rows[:200] for cell in row.cells]
        clean = sum(not cell or is_number(cell) or bool(_DATE.fullmatch(cell)) for cell in cells) / len(cells)
        return self.fits, round(alike, 2), self.quote == '"', -len(self.skipped), round(clean, 2), self.width


def is_number(cell: str) -> bool:
    """Whether a cell looks like a number in any country."""
    return _NUMBER.fullmatch(cell.strip()) is not None


def reader_of(
    lines: Iterable[str], delimiter: str, quote: str, spaced: bool, strict: bool = False
) -> Iterator[list[str]]:
    """Python's own reader, set as a Form says."""
    csv.field_size_limit(max(csv.field_size_limit(), 1 << 26))
    quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    return csv.reader(
        lines, delimiter=delimiter, quotechar=quote or None, quoting=quoting, skipinitialspace=spaced, strict=strict
    )


def layout(path: Path, sample: str, complete: bool, options: TableOptions, form: Form, empty: bool = False) -> Layout:
    """What the beginning of a file says. `form` brings kind, encoding and mark; the rest is found out or taken from options.

    Raises DataError when the sample holds no row (or, `empty`, no header), or a header that names two columns alike.
    """
    line_end, notes = _line_end(sample)
    best = _best(sample, complete, options, notes)
    if best is None:
        raise DataError(f"{path} is empty: it holds no rows and no header")
    header = not _headerless(best)
    width = max(best.width, len(best.rows[0].cells)) if best.fits else len(best.rows[0].cells)
    body = best.rows[1:] if header else best.rows
    if not body and not empty:
        raise DataError(f"{path} has a header and no rows under it; add rows")
    before = best.rows[0].end if header else best.rows[0].line - 1
    prefix = "".join(_lines(sample, before))
    form = replace(
        form, delimiter=best.delimiter, quote=best.quote, spaced=best.spaced, header=header, line_end=line_end
    )
    form = replace(form, trailing=_trailing(best, width, header))
    if best.skipped:
        notes.append(_skipped(best.skipped))
    names = _names(path, best.rows[0], width - bool(form.trailing), header, notes)
    if form.trailing:
        notes.append("lines end with a delimiter; the empty column after it is left out")
    columns = [[row.cells[at] for row in body if len(row.cells) == width] for at in range(len(names))]
    form = _outside(form, _raw(sample, complete, best.delimiter, best.quote), best.rows[0].line, names, width)
    decimal, thousands = _signs(columns, form.delimiter, options.decimal)
    form = replace(form, decimal=decimal, thousands=thousands)
    longest = max(sum(map(len, row.cells)) + len(row.cells) for row in best.rows)
    return Layout(form, names, width, len(prefix.encode()), before, longest, notes)


# ---- delimiter and quote -------------------------------------------------------------------------------------------


def _best(sample: str, complete: bool, options: TableOptions, notes: list[str]) -> _Reading | None:
    wanted = _wanted(options.delimiter)
    if not wanted and (said := _SAID.match(sample)):
        wanted = said.group(1)
    readings = list(_readings(sample, complete, wanted or COMMON))
    if not readings:
        return None
    if wanted:
        return max(readings, key=lambda reading: reading.score)
    wide = [reading for reading in readings if reading.width > 1 and len(reading.rows[0].cells) > 1]
    if not wide:
        others = [
            r for r in _readings(sample, complete, _RARE) if r.width == len(r.rows[0].cells) > 1 and not r.skipped
        ]
        wide = [r for r in others if len(r.rows) > 2 and r.score[1] == 1 and r.score[4] > 0.4]
    if wide:
        return max(wide, key=lambda reading: reading.score)
    alone = max(readings, key=lambda r: (r.delimiter == ",", r.quote == '"'))
    if all(len(row.cells) == 1 for row in alone.rows):
        return alone
    return max(_readings(sample, complete, ALONE), key=lambda reading: reading.score)


def _wanted(delimiter: str) -> str:
    """What --delimiter says, "" for auto. Raises DataError for what cannot be one."""
    if delimiter == "auto":
        return ""
    spelled = {"tab": "\t", "\\t": "\t", "space": " "}.get(delimiter, delimiter)
    if len(spelled) != 1 or spelled in '"\r\n' or ord(spelled) > 127:
        raise DataError(f"--delimiter {delimiter!r}: one sign, as ',' ';' '|', or tab")
    return spelled


def _readings(sample: str, complete: bool, delimiters: str) -> Iterator[_Reading]:
    for delimiter in delimiters:
        if delimiter not in sample and delimiter != delimiters[0]:
            continue
        quotes = ['"']
        if '"' in sample and delimiter in UNQUOTED:
            quotes = _quotes_of_tabs(sample, complete, delimiter)
        if '"' not in sample and re.search(rf"(^|{re.escape(delimiter)})'", sample, re.MULTILINE):
            quotes.append("'")
        for quote in quotes:
            spaced = quote == '"' and delimiter != " " and _space_before_quotes(sample, complete, delimiter)
            if rows := list(_rows(sample, complete, delimiter, quote, spaced)):
                yield _without_preamble(_Reading(delimiter, quote, spaced, rows), sample)


def _quotes_of_tabs(sample: str, complete: bool, delimiter: str) -> list[str]:
    """The quotes to try: files of tabs are often written without, and a quote is then a sign like others."""
    cells = [cell for row in _raw(sample, complete, delimiter, '"') for cell in row.cells if cell.startswith('"')]
    enclosed = sum(_enclosed(cell, '"') for cell in cells)
    if enclosed == len(cells):
        return ['"']
    return ['"', ""] if enclosed else [""]


def _space_before_quotes(sample: str, complete: bool, delimiter: str) -> bool:
    """Whether cells are written as in `1, "a, b"`, where the space is neither part of the cell nor in the way of the quote."""
    if re.search(rf'{re.escape(delimiter)} +"', sample) is None:
        return False
    rows = _raw(sample, complete, delimiter, '"')
    return any(cell.startswith(" ") and _enclosed(cell, '"') for row in rows for cell in row.cells)


def _raw(sample: str, complete: bool, delimiter: str, quote: str) -> list[_Row]:
    """The first rows with cells as they stand, quotes and all; the last of an incomplete sample is left out."""
    sign, mark = re.escape(delimiter), re.escape(quote)
    enclosed = rf" *{mark}(?:[^{mark}]|{mark}{mark})*+{mark}(?=[{sign}\r\n]|\Z)|" if quote else ""
    cell = re.compile(rf"({enclosed}[^{sign}\r\n]*)({sign}|\r\n|\r|\n|\Z)")
    rows: list[_Row] = []
    line, first, cells, at = 1, 1, [], 0
    while at < len(sample) and len(rows) < 5000:
        found = cell.match(sample, at)
        assert found is not None  # the second way to read a cell takes anything
        cells.append(found[1])
        at = found.end()
        line += len(_END.findall(found[0]))
        if found[2] != delimiter:
            rows += [_Row(first, line, cells)] if cells != [""] else []
            first, cells = line, []
    return rows if complete or at < len(sample) else rows[:-1]


def _rows(sample: str, complete: bool, delimiter: str, quote: str, spaced: bool) -> Iterator[_Row]:
    """The rows of a sample that are not blank; the last of an incomplete one may be cut and is left out."""
    reader = reader_of(io.StringIO(sample, newline=""), delimiter, quote, spaced)
    before, kept = 0, None
    try:
        for cells in reader:
            if kept is not None:
                yield kept
            end = reader.line_num  # type: ignore[attr-defined]
            kept = _Row(before + 1, end, cells) if cells else None
            before = end
    except csv.Error:
        return
    if kept is not None and (complete or before == 1):
        yield kept


def _without_preamble(reading: _Reading, sample: str) -> _Reading:
    """The reading from its header on: comments, `sep=` and titles above it are no part of the table."""
    rows = reading.rows
    counts = Counter(len(row.cells) for row in rows)
    width = max(counts, key=lambda count: (counts[count], count))
    lines = list(_lines(sample, rows[min(len(rows) - 1, _PREAMBLE)].end))
    at = 0
    while at < min(len(rows) - 1, _PREAMBLE) and _above(rows, at, width, lines):
        at += 1
    return replace(reading, rows=rows[at:], skipped=rows[:at], width=width)


def _above(rows: Sequence[_Row], at: int, width: int, lines: Sequence[str]) -> bool:
    """Whether a row is clearly not yet the header."""
    cells, line, following = rows[at].cells, lines[rows[at].line - 1], lines[rows[at + 1].line - 1]
    if at == 0 and _SAID.fullmatch(line):
        return True
    if line.lstrip().startswith(("#", "//")):
        names = len(cells) == width == len(rows[at + 1].cells) and any(map(is_number, rows[at + 1].cells))
        return not names or following.lstrip().startswith("#")
    filled = sum(bool(cell.strip()) for cell in cells)
    wide = [row.cells for row in rows[at + 1 : _PREAMBLE + 1] if len(row.cells) == width and all(row.cells[:-1])]
    titled = width >= 3 and filled <= max(1, width // 3) and len(wide) > 1
    return titled and not all(map(is_number, wide[0]))


def _skipped(rows: Sequence[_Row]) -> str:
    first, last = rows[0].line, rows[-1].end
    where = f"line {first}" if first == last else f"lines {first} to {last}"
    return f"{where} above the header left out: {rows[0].cells[0][:40]!r}{' ...' if len(rows) > 1 else ''}"


# ---- header --------------------------------------------------------------------------------------------------------


def _headerless(reading: _Reading) -> bool:
    """Whether the first row is data: numbers where the column has numbers, and levels that come again."""
    first, rest = reading.rows[0].cells, [row.cells for row in reading.rows[1:1001]]
    columns = [[cells[at] for cells in rest if len(cells) > at and cells[at].strip()] for at in range(len(first))]
    numeric = [bool(column) and all(map(is_number, column)) for column in columns]
    if not any(numeric) or not all(is_number(cell) for cell, number in zip(first, numeric) if number):
        return False
    others = [(cell, column) for cell, column, number in zip(first, columns, numeric) if not number and cell.strip()]
    if others:
        return any(cell in column for cell, column in others)
    return not (_counting(first) and rest and not _counting(rest[0]))


def _counting(cells: Sequence[str]) -> bool:
    """Whether cells count up by one, as the names 0, 1, 2 or 2019, 2020, 2021 do."""
    cells = [cell.strip() for cell in cells]
    whole = len(cells) > 2 and all(cell.isdecimal() for cell in cells)
    return whole and all(int(b) - int(a) == 1 for a, b in zip(cells, cells[1:]))


def _names(path: Path, row: _Row, columns: int, header: bool, notes: list[str]) -> tuple[str, ...]:
    """The names of the columns, made up where there are none. Raises DataError when two are alike."""
    if not header:
        notes.append(f"no header: the first row holds data; columns are called column_1 to column_{columns}")
        return tuple(f"column_{number}" for number in range(1, columns + 1))
    names = [name.strip() for name in row.cells[:columns]]
    return unique_names(names, f"{path}, line {row.line}", notes)


def unique_names(names: Sequence[str], where: str, notes: list[str]) -> tuple[str, ...]:
    """Names with made-up ones for those that are empty. Raises DataError when two are alike."""
    found: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if name and name in found:
            raise DataError(f"{where}: columns {found[name]} and {number} are both called {name!r}; rename one")
        found[name] = number
    named, empty = [], []
    for number, name in enumerate(names, 1):
        made = f"column_{number}"
        while not name and made in found:
            made += "_"
        named.append(name or made)
        empty += [made] if not name else []
    if empty:
        notes.append(f"no name in the header: called {', '.join(empty[:5])}{' ...' if len(empty) > 5 else ''}")
    return tuple(named)


# ---- what stands around the cells ----------------------------------------------------------------------------------


def _line_end(sample: str) -> tuple[str, list[str]]:
    """The most common line end, and a note where there are several."""
    pairs = sample.count("\r\n")
    counts = {"\r\n": pairs, "\n": sample.count("\n") - pairs, "\r": sample.count("\r") - pairs}
    ends = {"\r\n": "CR LF", "\n": "LF", "\r": "CR"}
    found = [end for end in counts if counts[end]]
    most = max(found, key=lambda end: counts[end], default="\n")
    mixed = len(found) > 1 and '"' not in sample
    notes = [f"mixed line ends: {', '.join(f'{counts[e]} {ends[e]}' for e in found)}; written with {ends[most]}"]
    return most, notes if mixed else []


def _trailing(reading: _Reading, width: int, header: bool) -> str:
    first, rest = reading.rows[0].cells, [row.cells for row in reading.rows[1:]]
    if width < 2 or (rest and any(len(cells) == width and cells[-1] for cells in rest)):
        return ""
    if not header:
        return "" if len(first) < 2 or first[-1] or not rest else "all"
    if len(first) == width - 1:
        return "rows"
    return "all" if rest and not first[-1].strip() else ""


def _outside(form: Form, raw: Sequence[_Row], start: int, names: Sequence[str], width: int) -> Form:
    """Which columns are always quoted or padded, told from the rows as they stand; the first begins on line `start`."""
    body = [row.cells for row in raw if row.line >= start + form.header and len(row.cells) == width]
    padded, quoted = [], []
    for at, name in enumerate(names):
        cells = [cells[at] for cells in body if cells[at]]
        bare = [cell[0] == " " for cell in cells if cell[0] != form.quote]
        if at and form.delimiter != " " and sum(bare) > 0.99 * len(bare):
            padded.append(name)
        if form.quote and cells and all(_enclosed(cell, form.quote) for cell in cells):
            quoted.append(name)
    head = next((row.cells for row in raw if row.line == start), [])
    enclosed = (
        bool(form.quote) and form.header and any(head) and all(_enclosed(cell, form.quote) for cell in head if cell)
    )
    return replace(form, padded=tuple(padded), quoted=tuple(quoted), header_quoted=enclosed)


def _enclosed(cell: str, quote: str) -> bool:
    cell = cell.lstrip(" ")
    return len(cell) > 1 and cell[0] == quote == cell[-1]


def _lines(sample: str, count: int) -> Iterator[str]:
    for _, line in zip(range(count), io.StringIO(sample, newline="")):
        yield line


# ---- numbers -------------------------------------------------------------------------------------------------------

_GROUP = {",": ",", ".": r"\.", "'": "['\u2019]", " ": " ", "\u00a0": "\u00a0", "\u202f": "\u202f"}


def _signs(columns: Sequence[Sequence[str]], delimiter: str, wanted: str) -> tuple[str, str]:
    """The decimal sign and the thousands sign ("" for none). Raises DataError for a --decimal that is neither . nor ,"""
    if wanted not in ("auto", ".", ","):
        raise DataError(f"--decimal {wanted!r}: . or ,")
    numbers = [[cell.strip() for cell in column[:2000] if cell.strip()] for column in columns]
    numbers = [column for column in numbers if column and all(map(is_number, column))]
    decimal = wanted if wanted != "auto" else _decimal(numbers, delimiter)
    votes = {sign: sum(_grouped(column, sign, decimal) for column in numbers) for sign in _GROUP if sign != decimal}
    most = max(votes, key=lambda sign: votes[sign])
    return decimal, most if votes[most] else ""


def _decimal(columns: Sequence[Sequence[str]], delimiter: str) -> str:
    comma, dot = (sum(_evidence(column, sign) for column in columns) for sign in ",.")
    if comma == dot == 0 and delimiter != ",":  # 1,234 alone says neither; files with ; are written where , is decimal
        comma = sum(all(re.fullmatch(r"[+-]?\d{1,3},\d{3}", cell) for cell in column) for column in columns)
    return "," if comma > dot else "."


def _evidence(column: Sequence[str], sign: str) -> int:
    """Cells in which a sign can only be decimal: not three digits after it, or no thousands before it."""
    s, other = re.escape(sign), re.escape("." if sign == "," else ",")
    few, after = rf"\d*{s}(\d{{1,2}}|\d{{4,}})", rf"(0|\d{{4,}}|\d{{1,3}}([{other}'\u2019 \u00a0\u202f]\d{{3}})+){s}\d+"
    only = re.compile(rf"[+-]?({few}|{after}|\d+{s}\d+e[+-]?\d+)", re.IGNORECASE)
    return sum(only.fullmatch(cell) is not None for cell in column)


def _grouped(column: Sequence[str], sign: str, decimal: str) -> bool:
    """Whether the numbers of a column have this sign between thousands: where one has it, all that are large enough do."""
    grouped = re.compile(rf"[+-]?[$€£]?[1-9]\d{{0,2}}({_GROUP[sign]}\d{{3}})+({re.escape(decimal)}\d*)?")
    small = re.compile(rf"[+-]?[$€£]?\d{{0,3}}({re.escape(decimal)}\d*)?")
    found = [grouped.fullmatch(cell) is not None for cell in column]
    return any(found) and all(has or small.fullmatch(cell) is not None for has, cell in zip(found, column))
