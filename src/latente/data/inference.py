"""Finds out what the columns of a table are, in one pass over rows of any number."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, where pyright does not see them.
from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from latente.data.columns import KINDS, Column, Kind, as_levels, pattern_of, type_name
from latente.data.errors import DataError, first_line
from latente.data.forms import Form, Table
from latente.data.scales import MARKERS, Counting, Scale
from latente.data.table import TableOptions

MOST_LEVELS = 1 << 21  # different values of a column that are counted
NEARLY = 0.9  # share of different values from which a written column is an identifier, or text
TRUTHS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"ja", "nein"}, {"oui", "non"})
COUNTED = 1 << 12  # different cells of written numbers that are counted one by one
_SAMPLE = 2_000


class Seen:
    """What was seen of one column."""

    def __init__(self, field: pa.Field, form: Form, wanted: Kind | None, levels_only: bool = False) -> None:
        self.name, self.kind = field.name, field.type
        self.wanted: Kind | None = wanted
        self.csv = form.kind in ("csv", "tsv")
        self.rows = self.missing = 0
        self.dropped = False
        """whether cells are no longer counted one by one"""
        self.lost = False
        """whether one that is no number came after that"""
        self.levels: Counter[str] | None = Counter()
        self.counting: Counting | None = None
        written = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        counted = pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
        if (
            not levels_only
            and wanted not in ("category", "boolean", "ignored")
            and (
                counted
                or pa.types.is_temporal(field.type)
                or (written and (self.csv or wanted in ("number", "datetime")))
            )
        ):
            self.counting = Counting(field.type, form.decimal, form.thousands)
            if not written:
                self.levels = None

    def see(self, array: pa.Array, where: str) -> None:
        self.rows += len(array)
        self.missing += array.null_count
        if self.wanted == "ignored":
            return
        if self.counting is not None:
            self.counting.see(array)
            if self.counting.scale is None and self.levels is None:
                raise DataError(
                    f"{where}: column {self.name!r} holds numbers too large to be counted; name it a category, or ignored"
                )
            self.lost |= self.dropped and self.counting.scale is None
        if self.levels is not None and not self.lost:
            self._count(array, where)
            if self.counting is not None and self.counting.scale is not None and len(self.levels) > COUNTED:
                self.levels, self.dropped = Counter({m: self.levels[m] for m in MARKERS if m in self.levels}), True

    def _count(self, array: pa.Array, where: str) -> None:
        assert self.levels is not None
        if self.wanted == "identifier" and len(self.levels) > MOST_LEVELS:
            return  # what they look like is known
        try:
            found = pc.value_counts(as_levels(array))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{where}: column {self.name!r} of {self.kind} cannot be read as cells ({first_line(error)}); name it ignored"
            ) from None
        values, counts = found.field("values").to_pylist(), found.field("counts").to_pylist()
        self.levels.update({value: count for value, count in zip(values, counts) if value is not None})
        if len(self.levels) > MOST_LEVELS and self.wanted != "identifier":
            raise DataError(
                f"{where}: column {self.name!r} has more than {MOST_LEVELS:,} different values; name it ignored, or an identifier"
            )

    # ---- the answer -------------------------------------------------------------------------------------------------

    def column(self, where: str) -> Column:
        """What the column is. Bins and levels come later, from training rows. Raises DataError for what cannot be learned."""
        name = self.name
        kind = type_name(self.kind)
        if self.wanted == "ignored":
            return Column(name, "ignored", kind)
        scale = self.counting.found() if self.counting is not None else None
        marker = self._marker() if scale is not None and scale.written else None
        present = (
            self.rows - self.missing
            if self.levels is None or self.dropped
            else sum(self.levels.values())
            - (sum(self.levels[m] for m in MARKERS) if scale is not None and scale.written else 0)
        )
        if not present:
            return Column(name, "constant", kind, levels=(), missing=True)
        if scale is not None and (self.wanted in (None, "number", "datetime", "identifier")):
            if scale.written and not self._reached(scale):
                scale = None
            else:
                found: Kind = "datetime" if scale.kind == "time" else "number"
                if self.wanted == "identifier":
                    found = "identifier"
                elif self.wanted is not None and self.wanted != found:
                    raise DataError(f"{where}: column {name!r} is a {found}, not a {self.wanted}")
                return Column(name, found, kind, scale, marker=marker)
        if self.wanted in ("number", "datetime"):
            raise DataError(f"{where}: column {name!r} is no {self.wanted}: it holds {self._odd()!r}")
        return self._of_levels(where, kind)

    def _reached(self, scale: Scale) -> bool:
        return scale.kind != "time" or bool(scale.format)

    def _odd(self) -> str:
        for value in self.levels or ():
            if value not in MARKERS and not re.fullmatch(r"[+-]?[\d., ]+", value):
                return value[:40]
        return next(iter(self.levels or {"": 0}))[:40]

    def _marker(self) -> str | None:
        """What is written for a missing value, where nothing is not the commonest."""
        found = {marker: self.levels[marker] for marker in MARKERS if self.levels and self.levels.get(marker)}
        best = max(found, key=lambda marker: found[marker], default=None)
        return None if best is None or found[best] <= self.missing else best

    def _of_levels(self, where: str, kind: str) -> Column:
        assert self.levels is not None
        name, levels, rows = self.name, self.levels, sum(self.levels.values())
        if self.wanted == "identifier":
            return self._identifier(kind) or Column(name, "identifier", kind, pattern=("0123456789",) * 12)
        if self.wanted is None and len(levels) == 1 and not self.missing:
            return Column(name, "constant", kind, levels=tuple(levels))
        if self.wanted is None and len(levels) > NEARLY * rows and rows > 50 and not kind.startswith("dictionary"):
            made = self._identifier(kind)
            if made is not None:
                return made
            shown = next(iter(levels))[:60]
            raise DataError(
                f"{where}: column {name!r} is free text or nearly unique ({len(levels):,} different values in {rows:,} rows: {shown!r}), "
                f'which is not learned yet; leave it out: --columns with {{"{name}": "ignored"}}'
            )
        truth = kind == "bool" or {level.lower() for level in levels} in TRUTHS
        if self.wanted is not None:
            return Column(name, self.wanted, kind)
        return Column(name, "boolean" if truth else "category", kind)

    def _identifier(self, kind: str) -> Column | None:
        """A written identifier: signs in places of their own, or a number after what is the same for all."""
        assert self.levels is not None
        values = list(self.levels)
        if any(" " in value for value in values[:_SAMPLE]) or max(map(len, values)) > 64:
            return None
        begin = _common(values).rstrip("0123456789")
        ends = [value.removeprefix(begin) for value in values]
        pattern = pattern_of(values)
        if all(end.isascii() and end.isdigit() and len(end) < 19 for end in ends):
            numbers = [int(end) for end in ends]
            least = min(map(len, ends))
            plain = all(end[0] != "0" or len(end) == least for end in ends)
            if plain and (pattern is None or max(numbers) - min(numbers) < 2 * len(numbers)):
                return Column(self.name, "identifier", kind, pattern=("#", begin, str(max(numbers)), str(least)))
        return None if pattern is None else Column(self.name, "identifier", kind, pattern=pattern)


def _common(values: list[str]) -> str:
    """What all of them begin with."""
    low, high = min(values), max(values)
    same = 0
    while same < min(len(low), len(high)) and low[same] == high[same]:
        same += 1
    return low[:same]


def wanted_kinds(options: TableOptions, names: list[str]) -> dict[str, Kind]:
    """What the user says columns are. Raises DataError for an unknown column or kind."""
    given = options.columns
    if given is None:
        return {}
    where = "--columns"
    if not isinstance(given, Mapping):
        where = str(given)
        try:
            given = json.loads(Path(given).expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f'--columns {where} cannot be read as JSON, as {{"zip": "category"}}: {first_line(error)}'
            ) from None
    if not isinstance(given, Mapping):
        raise DataError(f'{where}: {{"column": "kind", ...}}, not {type(given).__name__}')
    found: dict[str, Kind] = {}
    for name, kind in given.items():
        more = [str(key) for key in kind if key != "kind"] if isinstance(kind, Mapping) else []
        kind = kind.get("kind") if isinstance(kind, Mapping) else kind
        if more:
            raise DataError(f"{where}: {name!r} says {', '.join(more)}, which is not known; only kind is")
        if name not in names:
            raise DataError(f"{where}: no column {name!r}; there are {', '.join(names[:40])}")
        if kind not in KINDS or kind == "constant":
            raise DataError(
                f"{where}: {name!r} cannot be {kind!r}; one of {', '.join(k for k in KINDS if k != 'constant')}"
            )
        found[name] = kind
    return found


def inferred(table: Table, options: TableOptions) -> tuple[list[Column], int, dict[str, Seen]]:
    """What the columns are, how many rows there are, and what was seen. Reads the table once; again where what looked like many
    numbers is none."""
    wanted = wanted_kinds(options, table.schema.names)
    rows, seen = _read(table, wanted, frozenset())
    lost = frozenset(name for name, one in seen.items() if one.lost)
    if lost:
        rows, seen = _read(table, wanted, lost)
    if not rows:
        raise DataError(f"{table.name} holds no rows")
    return [one.column(table.name) for one in seen.values()], rows, seen


def _read(table: Table, wanted: Mapping[str, Kind], levels_only: frozenset[str]) -> tuple[int, dict[str, Seen]]:
    """How many rows there are, and what was seen; no numbers are looked for in `levels_only`."""
    seen = {
        field.name: Seen(field, table.form, wanted.get(field.name), field.name in levels_only) for field in table.schema
    }
    rows = 0
    for batch in table.batches():
        rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns):
            seen[name].see(column, table.name)
    return rows, seen
