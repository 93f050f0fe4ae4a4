"""Rules between columns, checked on rows."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, where pyright does not see them.
from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from latente.data.columns import Column, Columns, as_levels, whole
from latente.data.conditions import OPERATORS, Rule
from latente.data.errors import DataError


def _values(column: Column, table: pa.Table) -> np.ndarray:
    """The column as float64 (n,), times in seconds; NaN where missing."""
    values, scale = column.cells(whole(table[column.name])), column.scale
    return values * scale.seconds if scale is not None and scale.kind == "time" else values


def kept(rule: Rule, table: pa.Table, columns: Columns, known: set[tuple[str | None, ...]] | None = None) -> np.ndarray:
    """Which rows (n,) bool satisfy a rule: of "unique", those whose like did not come before; of "known", those in `known`."""
    if rule.kind in OPERATORS:
        return _compared(rule, table, columns)
    rows = combinations(rule, table)
    if rule.kind == "known":
        assert known is not None
        return np.fromiter((row in known for row in rows), bool, len(rows))
    met: set[tuple[str | None, ...]] = set(known or ())
    first = np.zeros(len(rows), bool)
    for number, row in enumerate(rows):
        first[number] = row not in met
        met.add(row)
    return first


def combinations(rule: Rule, table: pa.Table) -> list[tuple[str | None, ...]]:
    """The cells of each row in the columns of a rule."""
    return list(zip(*(as_levels(whole(table[name])).to_pylist() for name in rule.columns)))


def broken(rule: Rule, table: pa.Table, columns: Columns) -> tuple[int, int]:
    """How many rows break a rule, and the first of them (0 when none does)."""
    for name in rule.columns:
        if columns[name].kind == "identifier" and rule.kind != "unique":
            raise DataError(f"{rule}: {name} is an identifier, which is made anew")
    if rule.kind == "known" or any(columns[name].kind == "identifier" for name in rule.columns):
        return 0, 0  # training rows are what is known; identifiers are unique by themselves
    holds = kept(rule, table, columns)
    return int((~holds).sum()), int(np.argmin(holds))


def _compared(rule: Rule, table: pa.Table, columns: Columns) -> np.ndarray:
    """A missing value on either side breaks nothing."""
    first, second = (columns[name] for name in rule.columns)
    compare = {"=": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal}[rule.kind]
    if first.ordered and second.ordered and first.scale is not None and second.scale is not None:
        if (first.scale.kind == "time") != (second.scale.kind == "time"):
            raise DataError(f"{rule}: one is a time, the other a number")
        with np.errstate(invalid="ignore"):
            a, b = _values(first, table), _values(second, table)
            return compare(a, b) | np.isnan(a) | np.isnan(b)
    if rule.kind not in ("=", "!="):
        raise DataError(f"{rule}: only numbers and times have an order")
    a, b = (as_levels(whole(table[column.name])) for column in (first, second))
    same = pc.equal(a, b) if rule.kind == "=" else pc.not_equal(a, b)
    return np.asarray(pc.fill_null(same, True))
