"""What a column is, and its values as tokens, and back.

    array --encode--> tokens (n, fields), rest (n,): the place inside the bin --decode--> the same array

    number, datetime    token 0 missing, then bins: ranges of whole numbers (scales.py) that hold enough training rows
    category, boolean   token 0 missing, token 1 rare or unknown, then levels by falling frequency; more than LEVELS of them are two
                        fields: which thousand, which of it
    identifier          no token: made anew, in the pattern of the source
    constant, ignored   no token: always the same, or left out

Levels, bins and bounds come from training rows alone, and nothing fewer than `protect` of them share is ever sampled.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, where pyright does not see them.
from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from latente.data.conditions import Condition
from latente.data.errors import DataError
from latente.data.forms import Form
from latente.data.scales import Scale, arrow_type, float_keys, key_floats
from latente.data.table_sources import DELIMITED, write_table
from latente.spec import TableSpec

Kind = Literal["number", "category", "boolean", "datetime", "identifier", "constant", "ignored"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEVELS = 1_000  # tokens of levels in one field
OWN = 256  # with so few different numbers each has a bin of its own
WORTH, LEAST = 50, 8  # a bin is learned from so many rows, unless there were fewer than so many bins
FILE = "columns.json"


@dataclass(frozen=True)
class Column:
    """One column of the source. What it takes to encode and decode is here and JSON-friendly."""

    name: str
    kind: Kind
    type: str
    """the Arrow type of the source; string where values are written"""
    scale: Scale | None = None
    """of numbers and times"""
    bins: tuple[tuple[int, int], ...] = ()
    """of numbers and times: the least and the largest key of each, in order"""
    levels: tuple[str, ...] = ()
    """of categories: by falling frequency; of a constant: its value"""
    missing: bool = False
    """whether training rows have missing values"""
    marker: str | None = None
    """what is written for a missing value; None: nothing"""
    pattern: tuple[str, ...] = ()
    """of written identifiers: the signs each place may have, or "#", how all begin, the largest number after it and how many digits it
    has at least; of numbers and times: the least and the largest key"""

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many tokens each field has; none where nothing is learned."""
        if self.kind in ("number", "datetime"):
            return (1 + len(self.bins),)
        if self.kind not in ("category", "boolean"):
            return ()
        if len(self.levels) <= LEVELS:
            return (2 + len(self.levels),)
        return 2 + -(-len(self.levels) // LEVELS), LEVELS

    @property
    def never(self) -> tuple[int, ...]:
        """Tokens of the first field that are not sampled."""
        unknown = () if self.kind in ("number", "datetime") else (1,)
        return unknown if self.missing else (0, *unknown)

    @property
    def ordered(self) -> bool:
        return self.kind in ("number", "datetime")

    # ---- in ---------------------------------------------------------------------------------------------------------

    def encode(self, array: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens (n, fields) int64, rest (n,) int64, and whether they say all there is (n,) bool."""
        if self.scale is not None and self.ordered:
            keys, there, odd = self.scale.counted(array)
            tokens, rest, exact = self.tokens(keys, there & ~odd, there & odd)
            return tokens, rest, exact & same(array, self.decode(tokens, rest))
        codes = self.codes(array)
        return self.tokens(codes, codes >= 0, np.zeros(len(codes), bool))

    def tokens(self, keys: np.ndarray, there: np.ndarray, odd: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `encode`, from keys; of a category, from codes, len(levels) being an unknown one. `odd` values have no key."""
        nothing = np.zeros(len(keys), np.int64)
        if self.ordered:
            if not self.bins:
                return nothing[:, None], nothing, ~there & ~odd
            low, high = np.array(self.bins, np.int64).T
            at = np.minimum(np.searchsorted(high, keys), len(high) - 1)
            before = np.maximum(at - 1, 0)
            near = (keys < low[at]) & (at > 0) & (_gap(keys, high[before]) < _gap(low[at], keys))
            at = np.where(near, before, at)
            inside = np.clip(keys, low[at], high[at])
            known = there & ~odd
            tokens = np.where(known, at + 1, 0)
            rest = np.where(known, inside - low[at], 0)
            return tokens[:, None], rest, np.where(known, inside == keys, ~there) & ~odd
        exact = there & (keys < len(self.levels)) | ~there
        if len(self.sizes) == 1:
            return np.where(there, np.where(keys < len(self.levels), keys + 2, 1), 0)[:, None], nothing, exact
        known = there & (keys < len(self.levels))
        first = np.where(there, np.where(known, keys // LEVELS + 2, 1), 0)
        return np.stack([first, np.where(known, keys % LEVELS, 0)], 1), nothing, exact

    def codes(self, array: pa.Array) -> np.ndarray:
        """The rank of each level (n,) int64: len(levels) for an unknown one, -1 for a missing one."""
        return ranks(as_levels(array, self.marker), pa.array(self.levels, pa.string()))

    def written(self, array: pa.Array) -> pa.Array:
        """Values of any type as text where the source has text: truth values as the levels that mean them."""
        if self.type != "string":
            return array
        if not pa.types.is_boolean(array.type):
            return array.cast(pa.string())
        true, false = (
            next((level for word in words for level in self.levels if level.lower() == word), words[0])
            for words in (("true", "1"), ("false", "0"))
        )
        return pc.if_else(array, true, false)

    # ---- out --------------------------------------------------------------------------------------------------------

    def decode(self, tokens: np.ndarray, rest: np.ndarray) -> pa.Array:
        """The array of the source's type that tokens (n, fields) and rest (n,) stand for; unknown levels are null."""
        tokens = tokens.astype(np.int64)  # unsigned ones have nothing below 0
        first = tokens[:, 0]
        if self.ordered:
            assert self.scale is not None
            low = np.array([low for low, _ in self.bins] or [0], np.int64)
            return self._marked(self.scale.array(low[np.maximum(first - 1, 0)] + rest, first > 0))
        levels = pa.array([*self.levels, None], pa.string())
        return self.typed(levels.take(pa.array(self.level_ranks(tokens))))

    def level_ranks(self, tokens: np.ndarray) -> np.ndarray:
        """The ranks (n,) of the levels that tokens (n, fields) stand for; len(levels) for those that stand for none."""
        first = tokens[:, 0]
        rank = first - 2 if len(self.sizes) == 1 else (first - 2) * LEVELS + tokens[:, 1]
        return np.where(first < 2, len(self.levels), np.minimum(rank, len(self.levels) - 1))

    def typed(self, levels: pa.Array) -> pa.Array:
        """Levels, null where missing, as an array of the source's type."""
        return self._marked(as_typed(levels, self.type))

    def _marked(self, array: pa.Array) -> pa.Array:
        return array if self.marker is None else pc.fill_null(array, self.marker)

    def draw(self, tokens: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Rest (n,) int64, even among the values inside each bin, from `uniform` numbers in 0..1 (n,)."""
        if not self.ordered or not self.bins:
            return np.zeros(len(tokens), np.int64)
        assert self.scale is not None
        if self.scale.kind != "float":
            wide = self.widths(tokens)
            return np.minimum((uniform * (wide.astype(np.float64) + 1)).astype(np.uint64), wide).astype(np.int64)
        low, high = self._ends(tokens)
        a, b = key_floats(low), key_floats(high)
        with np.errstate(invalid="ignore", over="ignore"):
            between = a + uniform * (b - a)
        between = np.where(np.isfinite(between), between, np.where(uniform < 0.5, a, b))
        return np.clip(float_keys(between), low, high) - low

    def widths(self, tokens: np.ndarray) -> np.ndarray:
        """The most that rest can be (n,) uint64, of numbers or times; 0 where nothing is there."""
        low, high = self._ends(tokens)
        return np.where(tokens[:, 0] > 0, high.astype(np.uint64) - low.astype(np.uint64), np.uint64(0))

    def _ends(self, tokens: np.ndarray) -> np.ndarray:
        """The least and the largest key of the bins, (2,n) int64."""
        return np.array(self.bins, np.int64)[np.maximum(tokens[:, 0].astype(np.int64) - 1, 0)].T

    # ---- for evaluation and conditions -------------------------------------------------------------------------------

    def cells(self, array: pa.Array) -> np.ndarray:
        """The column as float64 (n,): numbers and times as numbers, levels as their rank, NaN where missing."""
        if self.ordered:
            assert self.scale is not None
            keys, there, odd = self.scale.counted(array)
            return np.where(there & ~odd, self.scale.numbers(keys), np.nan)
        codes = self.codes(array).astype(np.float64)
        codes[codes < 0] = np.nan
        return codes

    @property
    def truths(self) -> bool:
        """Whether truth values are written, as true and false in any letters."""
        if self.kind != "boolean" or self.type != "string":
            return False
        return {level.lower() for level in self.levels} <= {"true", "false"}

    @property
    def parsed(self) -> bool:
        """Whether `values` are no longer what is written."""
        return self.truths or (self.scale is not None and self.scale.written)

    def odd(self, array: pa.Array) -> bool:
        """Whether a cell holds what `values` does not keep."""
        if self.truths:
            words = pc.utf8_lower(pc.drop_null(as_levels(array, self.marker)))
            return pc.all(pc.is_in(words, pa.array(["true", "false"]))).as_py() is False
        return self.scale is not None and self.scale.written and bool(self.scale.counted(array)[2].any())

    def values(self, array: pa.Array) -> pa.Array:
        """Written numbers as int64 or float64, written times as timestamps, what is written for a missing value as null."""
        if self.truths:
            return pc.equal(pc.utf8_lower(as_levels(array, self.marker)), "true")
        if self.scale is None or not self.scale.written:
            return array if self.marker is None else as_levels(array, self.marker)
        keys, there, odd = self.scale.counted(array)
        mask = ~there | odd
        if self.scale.kind == "time":
            return pa.array(keys * self.scale.multiple + self.scale.offset, pa.int64(), mask=mask).cast(
                pa.timestamp("us")
            )
        if self.scale.kind == "decimal" and not self.scale.decimals:
            return pa.array(keys * self.scale.multiple + self.scale.offset, pa.int64(), mask=mask)
        return pa.array(self.scale.numbers(keys), pa.float64(), mask=mask)

    def allowed(self, condition: Condition) -> list[np.ndarray]:
        """For each field, the tokens (size,) bool that some value satisfying the condition has. Raises DataError for a condition that
        cannot be one on this column."""
        sizes = self.sizes
        if not sizes:
            raise DataError(f"{condition}: {self.name} is not learned ({self.kind}), so it cannot be asked for")
        if condition.value == "" and condition.operator in ("=", "!="):
            missing = np.arange(sizes[0]) == 0
            return [missing if condition.operator == "=" else ~missing] + [np.ones(size, bool) for size in sizes[1:]]
        if not self.ordered:
            return self._allowed_levels(condition)
        assert self.scale is not None
        key = self._key(condition)
        low, high = self.scale.places(np.array(self.bins or [(0, -1)], np.int64)).T
        able = {"=": (low <= key) & (key <= high), "!=": (low != key) | (high != key), "<": low < key, "<=": low <= key,
                ">": high > key, ">=": high >= key}[condition.operator]  # fmt: skip
        if isinstance(key, float) and condition.operator in ("=", "!="):
            able = np.full(len(low), condition.operator == "!=")
        return [np.concatenate([[condition.operator == "!="], able[: len(self.bins)]])]

    def _key(self, condition: Condition) -> float:
        assert self.scale is not None
        try:
            return self.scale.key_of(condition.value)
        except ValueError as error:
            raise DataError(f"{condition}: {error}; {self.name} is a {self.kind}") from None

    def _level(self, value: str) -> str:
        """A level as the source writes it: of a boolean, true is True."""
        alike = [level for level in self.levels if level.lower() == value.lower()] if self.kind == "boolean" else []
        return alike[0] if alike else value

    def _allowed_levels(self, condition: Condition) -> list[np.ndarray]:
        sizes = self.sizes
        if condition.operator not in ("=", "!="):
            raise DataError(f"{condition}: {self.name} is a {self.kind}: only = and != are for it")
        value = self._level(condition.value)
        if value not in self.levels:
            shown = ", ".join(self.levels[:12]) + (", ..." if len(self.levels) > 12 else "")
            raise DataError(f"{condition}: {self.name} has no such level that is sampled; there are {shown}")
        rank = self.levels.index(value)
        tokens = self.tokens(np.array([rank]), np.ones(1, bool), np.zeros(1, bool))[0][0]
        masks = [np.arange(size) == token for size, token in zip(sizes, tokens)]
        if condition.operator == "=":
            return masks
        first = ~masks[0] if len(sizes) == 1 else np.ones(sizes[0], bool)
        first[1] = False
        return [first, *(np.ones(size, bool) for size in sizes[1:])]

    def holds(self, array: pa.Array, condition: Condition) -> np.ndarray:
        """Which values (n,) satisfy a condition; a missing one satisfies only those that ask for it, and != of a value."""
        if self.ordered:
            assert self.scale is not None
            keys, there, odd = self.scale.counted(array)
            there &= ~odd
            if condition.value == "":
                return ~there if condition.operator == "=" else there
            key = self._key(condition)
            compare = {
                "=": np.equal,
                "!=": np.not_equal,
                "<": np.less,
                "<=": np.less_equal,
                ">": np.greater,
                ">=": np.greater_equal,
            }
            held = compare[condition.operator](self.scale.places(keys), key)
            if isinstance(key, float) and condition.operator in ("=", "!="):  # between two values, or beyond all
                held = np.full(len(keys), condition.operator == "!=")
            return held & there | (~there & (condition.operator == "!="))
        levels = as_levels(array, self.marker)
        if condition.value == "":
            missing = np.asarray(levels.is_null())
            return missing if condition.operator == "=" else ~missing
        same = np.asarray(pc.fill_null(pc.equal(levels, self._level(condition.value)), False))
        return same if condition.operator == "=" else ~same

    def anew(self, n: int, start: int, seed: int) -> pa.Array:
        """`n` values of a column that is not learned; the first is number `start` of the sample. Identifiers are all different, while
        there are so many."""
        if self.kind == "constant":
            value = self.levels[0] if self.levels else None
            return self._marked(as_typed(pa.array([value] * n, pa.string()), self.type))
        assert self.kind == "identifier"
        if self.scale is not None:
            keys = np.arange(start, start + n, dtype=np.int64) + int(self.pattern[1]) + 1
            wide = (
                replace(self.scale, type="int64") if "int" in self.scale.type else self.scale
            )  # a number may outgrow its type
            return wide.array(keys, np.ones(n, bool))
        if self.pattern[0] == "#":  # a number after what is the same for all
            begin, last, width = self.pattern[1], int(self.pattern[2]), int(self.pattern[3])
            return as_typed(pa.array([f"{begin}{last + 1 + start + i:0{width}d}" for i in range(n)]), self.type)
        columns = [np.array(list(signs))[at] for signs, at in zip(self.pattern, self._signs(n, start, seed))]
        texts = [""] * n if not columns else ["".join(signs) for signs in zip(*columns)]
        return as_typed(pa.array(texts, pa.string()), self.type)

    def _signs(self, n: int, start: int, seed: int) -> list[np.ndarray]:
        """Which of its signs each place of identifiers has, (n,) a place: the last ones run through all they can be, in a shuffled order,
        those before are drawn."""
        sizes, total, first = [len(signs) for signs in self.pattern], 1, len(self.pattern)
        while first and total * sizes[first - 1] < 1 << 31:
            first -= 1
            total *= sizes[first]
        same, own = np.random.default_rng(seed), np.random.default_rng([seed, start])
        step = next(step for step in [*same.integers(total, size=1000).tolist(), 1] if math.gcd(step, total) == 1)
        index = (int(same.integers(total)) + step * (np.arange(start, start + n) % total)) % total
        found = [own.integers(size, size=n) for size in sizes[:first]]
        for size in reversed(sizes[first:]):
            found.insert(first, index % size)
            index //= size
        return found


def _gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) - b.astype(np.float64)


def same(array: pa.Array, other: pa.Array) -> np.ndarray:
    """Which places (n,) bool hold the same, down to the sign of zero; what is not a number is not there."""
    if pa.types.is_floating(array.type):
        first, second = (np.asarray(pc.fill_null(one.cast(pa.float64()), np.nan)) for one in (array, other))
        return (first == second) & (np.signbit(first) == np.signbit(second)) | np.isnan(first) & np.isnan(second)
    return np.asarray(pc.fill_null(pc.equal(array, other), False)) | np.asarray(array.is_null()) & np.asarray(
        other.is_null()
    )


def ranks(levels: pa.Array, known: pa.Array) -> np.ndarray:
    """The place of each level among the `known` ones (n,) int64: their number for an unknown one, -1 for a missing one."""
    coded = levels.dictionary_encode()
    places = pc.fill_null(pc.index_in(coded.dictionary, known), len(known))
    found = np.append(np.asarray(places, np.int64), -1)
    return found[np.asarray(pc.fill_null(coded.indices, len(coded.dictionary)))]


def as_levels(array: pa.Array, marker: str | None = None) -> pa.Array:
    """Any column as strings; what is written for a missing value is null."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
    levels = array.cast(pa.string())
    return levels if marker is None else pc.if_else(pc.equal(levels, marker), None, levels)


def type_name(kind: pa.DataType) -> str:
    """What `Column.type` calls an Arrow type."""
    return f"dictionary[{kind.value_type}]" if pa.types.is_dictionary(kind) else str(kind)


def as_typed(levels: pa.Array, name: str) -> pa.Array:
    """Levels as an array of the source's type."""
    if name in ("string", "large_string", "string_view"):
        return levels.cast(pa.type_for_alias(name)) if name != "string" else levels
    if name.startswith("dictionary"):  # dictionary[int64]
        return as_typed(levels, name.partition("[")[2][:-1] or "string").dictionary_encode()
    if name == "null":
        return pa.nulls(len(levels))
    if name.startswith("time32") or name.startswith("time64"):  # which Arrow reads of days alone
        days = pc.binary_join_element_wise("1970-01-01", levels, " ")
        return days.cast(pa.timestamp("ns")).cast(arrow_type(name))
    if name.startswith("duration"):
        return levels.cast(pa.int64()).cast(arrow_type(name))
    return levels.cast(pa.bool_() if name == "bool" else arrow_type(name))


# ---- learning from training rows ---------------------------------------------------------------------------------------


def binned(keys: np.ndarray, protect: int, bins: int) -> tuple[tuple[int, int], ...]:
    """Ranges of keys that hold at least `protect` of the `keys` (n,), evenly many where there are more than OWN different ones, and no
    more ranges than the rows can teach.

    The `protect` - 1 least and largest are beyond all bins. A value with as many rows as a bin has one of its own.
    """
    least, bins = max(1, protect), max(LEAST, min(bins, len(keys) // WORTH))
    if len(keys) < least:
        return ()
    keys = np.sort(keys)
    keys = keys[(keys >= keys[least - 1]) & (keys <= keys[-least])]
    values, counts = np.unique(keys, return_counts=True)
    few = len(values) <= min(OWN, max(bins, len(keys) // WORTH))
    wanted = least if few else max(least, -(-len(keys) // bins))
    found: list[tuple[int, int]] = []
    start, held, previous = None, 0, 0
    for value, count in zip(values.tolist(), counts.tolist()):
        if count >= wanted:
            if start is not None and held >= least:
                found.append((start, previous))
            found.append((value, value))
            start, held = None, 0
            continue
        start = value if start is None else start
        held, previous = held + count, value
        if held >= wanted:
            found.append((start, value))
            start, held = None, 0
    if start is not None and held >= least:
        found.append((start, previous))
    elif start is not None and found and not few:
        found[-1] = (found[-1][0], previous)
    return tuple(found)


def levelled(values: Mapping[str, int], protect: int) -> tuple[str, ...]:
    """Levels of at least `protect` rows by falling frequency, then by text."""
    kept = [(level, count) for level, count in values.items() if count >= max(1, protect)]
    return tuple(level for level, _ in sorted(kept, key=lambda pair: (-pair[1], pair[0])))


def pattern_of(values: Sequence[str]) -> tuple[str, ...] | None:
    """The signs each place of written identifiers may have; None where they are not alike."""
    if len({len(value) for value in values}) != 1:
        return None
    sets = [sorted(set(signs)) for signs in zip(*values)]
    return tuple("".join(_widened(signs)) for signs in sets)


def _widened(signs: list[str]) -> list[str]:
    """All digits where several are met, and so with letters."""
    if len(signs) < 2:
        return signs
    text = "".join(signs)
    groups = ("0123456789", "abcdef", "ABCDEF", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    wide = [group for group in groups if re.search(f"[{group}]", text)]
    hexadecimal = [group for group in groups[:3] if group in wide]
    chosen = "".join(hexadecimal)
    return sorted(set(chosen) | set(text)) if set(text) <= set(chosen) else sorted(set("".join(wide)) | set(text))


# ---- all of them -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """The columns of a source in their order, and the form it was written in."""

    columns: tuple[Column, ...]
    form: Form = field(default_factory=lambda: Form("frame", frame="pandas"))

    @property
    def learned(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.sizes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.kind != "ignored")

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise DataError(f"no column {name!r}; there are {', '.join(column.name for column in self.columns)}")

    def spec(self, target: int | None = None) -> TableSpec:
        learned = self.learned
        return TableSpec(
            tuple(column.name for column in learned),
            tuple(column.sizes for column in learned),
            tuple(column.ordered for column in learned),
            tuple(column.never for column in learned),
            target,
        )

    def encode(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens (n,F), rest (n, learned columns), and which of them say all there is (n, learned columns)."""
        parts = [column.encode(whole(table[column.name])) for column in self.learned]
        tokens, rest, exact = zip(*parts) if parts else ((), (), ())
        return np.concatenate(tokens, 1), np.stack(rest, 1), np.stack(exact, 1)

    def draw(self, tokens: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Rest (n, learned columns) from uniform numbers of the same shape."""
        parts = [column.draw(own, uniform[:, i]) for i, (column, own) in enumerate(self.each(tokens))]
        return np.stack(parts, 1)

    def table(self, tokens: np.ndarray, rest: np.ndarray, start: int = 0, seed: int = 0) -> pa.Table:
        """Rows in the source's types and order; identifiers are made anew, counted from `start`, and drawn by `seed`."""
        made = {column.name: column.decode(own, rest[:, i]) for i, (column, own) in enumerate(self.each(tokens))}
        for number, column in enumerate(self.columns):
            if column.kind in ("identifier", "constant"):
                made[column.name] = column.anew(len(tokens), start, seed + number)
        return pa.table({name: made[name] for name in self.names})

    def typed(self, table: pa.Table) -> pa.Table:
        """The same rows with numbers and times in place of what is written, as a file or a frame that knows types wants them."""
        return pa.table({name: self[name].values(whole(table[name])) for name in table.column_names})

    def write(self, path: str | Path, table: pa.Table) -> Path:
        """Writes rows to a .csv or .tsv as the source is written, or to a .parquet, .arrow, .feather or .xlsx with their types. Raises
        DataError when `path` exists or is none of these."""
        return write_table(path, table if Path(path).suffix.lower() in DELIMITED else self.typed(table), self.form)

    def cells(self, table: pa.Table) -> np.ndarray:
        """(n, learned columns) float64, as `Column.cells`."""
        return np.stack([column.cells(whole(table[column.name])) for column in self.learned], 1)

    def each(self, tokens: np.ndarray) -> list[tuple[Column, np.ndarray]]:
        """The learned columns, each with its own of tokens (n,F)."""
        ends = np.cumsum([len(column.sizes) for column in self.learned])
        return list(zip(self.learned, np.split(tokens, ends[:-1], 1)))

    def save(self, folder: str | Path) -> None:
        """Writes FOLDER/columns.json."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / FILE).write_text(self.to_json(), encoding="utf-8")

    def to_json(self) -> str:
        record = {"format": 1, "form": self.form.to_json(), "columns": [asdict(column) for column in self.columns]}
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def load(cls, folder: str | Path) -> Columns:
        """What `save` wrote. Raises DataError when it cannot be that."""
        path = Path(folder) / FILE
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} does not say what the columns of this run are: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> Columns:
        """What `to_json` made. Raises ValueError when it cannot be that."""
        try:
            record, columns = json.loads(text), []
            for one in record["columns"]:
                scale = Scale(**one["scale"]) if one["scale"] else None
                bins = tuple((int(low), int(high)) for low, high in one["bins"])
                lists = {name: tuple(map(str, one[name])) for name in ("levels", "pattern")}
                columns.append(replace(Column(**{**one, **lists, "bins": bins}), scale=scale))
            return cls(tuple(columns), Form.from_json(record["form"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no columns: {error!r}") from None


def whole(column: Any) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return column
