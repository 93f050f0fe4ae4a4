"""Numbers and times as whole numbers in order: what a bin is a range of.

values of a column <--Scale--> keys: int64, higher = later or larger, one for every value the column can have

decimal   key * multiple + offset, in units of 10^-decimals     1.5, 2.25 -> 150, 225
float     the bits of a float64, turned so that they are in order: where no decimal grid holds all values
time      the same as decimal, in the unit of an Arrow time, or counted from 1970 in the units of a written format
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, where pyright does not see them.
from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Style = Literal["", "fixed", "minimal", "repr"]
EXACT = 1 << 53
MOST_DECIMALS = 9
MARKERS = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "none", "?", "-", "--", "#N/A")
"""what stands for a missing value among written numbers and times"""
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%b %d %Y",
          "%b %d, %Y", "%B %d, %Y", "%d %B %Y")  # fmt: skip
_TIMES = (
    "",
    " %H:%M",
    " %H:%M:%S",
    "T%H:%M:%S",
    "T%H:%M",
    "T%H:%M:%SZ",
    " %H:%M:%S.%f",
    "T%H:%M:%S.%f",
    "T%H:%M:%S.%fZ",
)
FORMATS = (*(date + time for time in _TIMES for date in _DATES), "%H:%M:%S", "%H:%M")


@dataclass(frozen=True)
class Scale:
    """How the values of one column of numbers or times are counted, and written again."""

    kind: Literal["decimal", "float", "time"]
    type: str
    """the Arrow type of the source; string where the values are written"""
    decimals: int = 0
    multiple: int = 1
    offset: int = 0
    style: Style = ""
    """of written numbers: as many decimals for all, as few as it takes, or the shortest that is the same float"""
    decimal_sign: str = "."
    thousands: str = ""
    format: str = ""
    """of written times, as strftime takes it"""

    @property
    def written(self) -> bool:
        return self.type in ("string", "large_string")

    @property
    def seconds(self) -> float:
        """Of times: how long one of what they are counted in is."""
        return _nanoseconds("timestamp[us]" if self.written else self.type) / 1e9

    # ---- in ---------------------------------------------------------------------------------------------------------

    def counted(self, array: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys (n,) int64; which are there (n,) bool; and which hold a value this scale has no key for (n,) bool."""
        if self.written:
            return self._counted_text(array)
        there = ~np.asarray(array.is_null())
        if self.kind == "time":
            return self._gridded(_integers(array, self.type), there)
        values = np.asarray(
            pc.fill_null(array.cast(pa.float64()), 0.0)
            if not pa.types.is_integer(array.type)
            else pc.fill_null(array, 0)
        )
        if values.dtype.kind == "f":
            there &= ~np.isnan(values)
            return (
                (float_keys(values), there, np.zeros(len(values), bool))
                if self.kind == "float"
                else self._scaled(values, there)
            )
        return self._gridded(values.astype(np.int64), there)

    def _scaled(self, values: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with np.errstate(over="ignore", invalid="ignore"):
            units = np.rint(values * 10.0**self.decimals)
            fits = (
                np.isfinite(units)
                & (np.abs(units) < EXACT)
                & (self._values(np.where(np.isfinite(units), units, 0)) == values)
            )
        keys, there, odd = self._gridded(np.where(fits, units, 0).astype(np.int64), there)
        return keys, there, odd | (there & ~fits)

    def _gridded(self, units: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        keys = (units - self.offset) // self.multiple
        return keys, there, there & (keys * self.multiple + self.offset != units)

    def _values(self, units: np.ndarray) -> np.ndarray:
        values = units / 10.0**self.decimals
        return self._rounded(values)

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        """As the source's type holds them."""
        narrow = {"float": np.float32, "halffloat": np.float16}.get(self.type)
        with np.errstate(over="ignore"):
            return values if narrow is None else values.astype(narrow).astype(np.float64)

    def _counted_text(self, array: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By different cells, of which there are mostly fewer."""
        coded = array.dictionary_encode() if not pa.types.is_dictionary(array.type) else array
        cells, at = coded.dictionary.cast(pa.string()), np.asarray(pc.fill_null(coded.indices, len(coded.dictionary)))
        there, keys, odd = self._cells(cells)
        there, keys, odd = (np.append(part, part.dtype.type(0)) for part in (there, keys, odd))
        return keys[at], there[at], odd[at]

    def _cells(self, cells: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        plain = pc.utf8_trim_whitespace(cells)
        missing = np.asarray(pc.is_in(plain, pa.array(MARKERS)))
        if self.kind == "time":
            units, good = _moments(plain, self.format)
            good &= ~missing
            keys, _, odd = self._gridded(units, good)
            return ~missing, keys, odd | (~missing & ~good)
        plain = plainly(plain, self.decimal_sign, self.thousands)
        good = np.asarray(pc.match_substring_regex(plain, NUMBER)) & ~missing
        values = np.asarray(pc.if_else(pa.array(good), plain, "0").cast(pa.float64()))
        keys, _, odd = (
            (float_keys(values), good, np.zeros(len(good), bool))
            if self.kind == "float"
            else self._scaled(values, good)
        )
        return ~missing, keys, odd | (~missing & ~good)

    # ---- out --------------------------------------------------------------------------------------------------------

    def numbers(self, keys: np.ndarray) -> np.ndarray:
        """The values as float64; of times, in the unit they are counted in."""
        if self.kind == "float":
            return key_floats(keys)
        units = keys * self.multiple + self.offset
        return self._values(units) if self.kind == "decimal" else units.astype(np.float64)

    def key_of(self, text: str) -> float:
        """Where a value that somebody writes stands among the keys: between two of them for one the scale does not have.

        Raises ValueError for what is no number or time.
        """
        if self.kind == "time":
            units, per = _written_time(text, self)
            place, over = divmod(units - self.offset * per, self.multiple * per)
            return place + over / (self.multiple * per) if over else place
        plain = text.strip()
        if self.written:
            if self.thousands and re.fullmatch(rf"[+-]?\d{{1,3}}({re.escape(self.thousands)}\d{{3}})+(\D\d*)?", plain):
                plain = plain.replace(self.thousands, "")
            plain = plain.replace(self.decimal_sign, ".")
        try:
            value = float(plain)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise ValueError(f"{text!r} is no number")
        value = float(self._rounded(np.array([value]))[0])
        if self.kind == "float":
            return int(float_keys(np.array([value + 0.0]))[0])
        unit = value * 10.0**self.decimals
        if math.isinf(unit):
            return unit
        whole = round(unit)
        if float(self._values(np.array([float(whole)]))[0]) != value:
            return (unit - self.offset) / self.multiple
        place, over = divmod(whole - self.offset, self.multiple)
        return place + over / self.multiple if over else place

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Keys (n,) in which equal numbers are one: -0.0 is 0.0."""
        return np.where(keys == -1, 0, keys) if self.kind == "float" else keys

    def array(self, keys: np.ndarray, there: np.ndarray) -> pa.Array:
        """An Arrow array of the source's type; null where nothing is `there`."""
        mask = ~there
        if self.written:
            return pc.if_else(
                pa.array(there), self._texts(np.where(there, keys, keys[there][0] if there.any() else 0)), None
            )
        kind = arrow_type(self.type)
        if self.kind == "float":
            return pa.array(key_floats(keys), mask=mask).cast(kind, safe=False)
        units = keys * self.multiple + self.offset
        if self.kind == "time":
            return (
                pa.array(units.astype(np.int64), mask=mask)
                .cast(pa.int32() if self.type in ("date32[day]", "time32[s]", "time32[ms]") else pa.int64())
                .cast(kind)
            )
        if pa.types.is_integer(kind):
            return pa.array(units, mask=mask).cast(kind)
        return pa.array(self._values(units), mask=mask).cast(kind, safe=False)

    def _texts(self, keys: np.ndarray) -> pa.Array:
        different, at = np.unique(keys, return_inverse=True)
        if self.kind == "time":
            units = (different * self.multiple + self.offset).astype("datetime64[us]").astype(object)
            texts = [moment.strftime(self.format) for moment in units]
        elif self.kind == "float":
            texts = [_signed(repr(value), self) for value in key_floats(different).tolist()]
        else:
            texts = [_decimal(int(unit), self) for unit in (different * self.multiple + self.offset).tolist()]
        return pa.array(texts, pa.string()).take(pa.array(at))


NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def plainly(cells: pa.Array, decimal_sign: str, thousands: str) -> pa.Array:
    """Written numbers without what separates thousands, and with a point."""
    if thousands:
        cells = pc.replace_substring(cells, thousands, "")
    return cells if decimal_sign == "." else pc.replace_substring(cells, decimal_sign, ".")


def _decimal(unit: int, scale: Scale) -> str:
    whole, part = divmod(abs(unit), 10**scale.decimals)
    text = f"{whole:,}".replace(",", scale.thousands) if scale.thousands else str(whole)
    digits = f"{part:0{scale.decimals}d}" if scale.decimals else ""
    if scale.style == "minimal":
        digits = digits.rstrip("0")
    return ("-" if unit < 0 else "") + text + (scale.decimal_sign + digits if digits else "")


def _signed(text: str, scale: Scale) -> str:
    return text.replace(".", scale.decimal_sign)


def _moments(cells: pa.Array, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds from 1970 (n,) int64 of written times, and which have this format (n,) bool."""
    import pandas as pd

    found = pd.to_datetime(cells.to_pandas(), format=form, errors="coerce", utc=True)
    good = np.array(found.notna(), bool)
    units = np.array(
        found.dt.tz_localize(None).fillna(pd.Timestamp(0)).to_numpy().astype("datetime64[us]").astype(np.int64)
    )
    for number in np.flatnonzero(~good):  # pandas counts nanoseconds, which end in 2262
        moment = _moment(cells[int(number)].as_py() or "", form)
        if moment is not None:
            units[number], good[number] = (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1), True
    return units, good


def _moment(text: str, form: str) -> dt.datetime | None:
    try:
        return dt.datetime.strptime(text, form)
    except ValueError:
        return None


def _written_time(text: str, scale: Scale) -> tuple[int, int]:
    """A time that somebody writes, and how many of what it is counted in are one unit of the scale. Raises ValueError."""
    import pandas as pd

    text = text.strip()
    per = _nanoseconds("timestamp[us]" if scale.written else scale.type)
    try:
        if scale.type.startswith("duration"):
            return int(pd.Timedelta(text).value), per
        clock = scale.type.startswith("time32") or scale.type.startswith("time64")
        if clock or scale.format in ("%H:%M:%S", "%H:%M"):
            day = 0 if clock else (dt.datetime(1900, 1, 1) - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
            moment = dt.time.fromisoformat("0" + text if text[1:2] == ":" else text)
            seconds = moment.hour * 3600 + moment.minute * 60 + moment.second
            return day * 1000 + (seconds * 10**6 + moment.microsecond) * 1000, per
        units, good = _moments(pa.array([text]), scale.format) if scale.format else (np.zeros(1), np.zeros(1))
        if good[0]:
            return int(units[0]) * 1000, per
        moment = pd.Timestamp(text)
        if moment is pd.NaT:
            raise ValueError
        zone = scale.type.partition("tz=")[2].rstrip("]")
        if zone and moment.tzinfo is None:
            moment = moment.tz_localize(zone)
        if moment.tzinfo is not None:
            moment = moment.tz_convert("UTC").tz_localize(None)
        return int(moment.asm8.astype(np.int64)) * _nanoseconds(f"[{moment.unit}]"), per
    except (ValueError, OverflowError, KeyError):
        raise ValueError(f"{text!r} is no time") from None


def float_keys(values: np.ndarray) -> np.ndarray:
    """Bits of float64 in the order of the numbers, int64."""
    bits = np.ascontiguousarray(values, np.float64).view(np.int64)
    return bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))


def key_floats(keys: np.ndarray) -> np.ndarray:
    """The inverse of `float_keys`."""
    keys = np.ascontiguousarray(keys, np.int64)
    return (keys ^ ((keys >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))).view(np.float64)


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of this name, as `str` of one gives it, of numbers and times."""
    if name.startswith("timestamp["):
        unit, _, zone = name[10:-1].partition(", tz=")
        return pa.timestamp(unit, zone or None)
    if name.startswith("duration["):
        return pa.duration(name[9:-1])
    if name.startswith("decimal"):
        digits, scale = name[name.index("(") + 1 : -1].split(",")
        return (pa.decimal256 if name.startswith("decimal256") else pa.decimal128)(int(digits), int(scale))
    named = {"date32[day]": pa.date32(), "date64[ms]": pa.date64(), "time32[s]": pa.time32("s"), "time32[ms]": pa.time32("ms"),
             "time64[us]": pa.time64("us"), "time64[ns]": pa.time64("ns"), "double": pa.float64(), "float": pa.float32(),
             "halffloat": pa.float16()}  # fmt: skip
    return named.get(name) or pa.type_for_alias(name)


def _integers(array: pa.Array, kind: str) -> np.ndarray:
    wide = (
        array.cast(pa.int32()).cast(pa.int64())
        if kind in ("date32[day]", "time32[s]", "time32[ms]")
        else array.cast(pa.int64())
    )
    return np.asarray(pc.fill_null(wide, 0))


def _nanoseconds(kind: str) -> int:
    if kind == "date32[day]":
        return 86_400 * 10**9
    unit = kind[kind.index("[") + 1 : -1].split(",")[0]
    return {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]


# ---- finding one ---------------------------------------------------------------------------------------------------


class Counting:
    """Finds the scale of a column of numbers or times, batch by batch; `scale` is None once there is none that holds all values."""

    def __init__(self, kind: pa.DataType, decimal_sign: str = ".", thousands: str = "") -> None:
        written = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
        name = "string" if written else str(kind)
        self.scale: Scale | None = Scale(
            "time" if pa.types.is_temporal(kind) else "decimal", name, decimal_sign=decimal_sign, thousands=thousands
        )
        self.formats: dict[str, Counting] | None = None  # of written times, those that all cells so far have
        self.most, self.least, self.trailing, self.exponent = 0, MOST_DECIMALS + 1, False, False
        self.first: int | None = None
        self.step = 0

    def see(self, array: pa.Array) -> None:
        if self.scale is None or not len(array):
            return
        if self.scale.written:
            self._see_text(array)
        else:
            self._see(array)

    def _see(self, array: pa.Array) -> None:
        assert self.scale is not None
        if self.scale.kind == "time":
            there = ~np.asarray(array.is_null())
            self._step(_integers(array, self.scale.type)[there])
            return
        if pa.types.is_decimal(array.type):
            if not _are_floats(pc.drop_null(array)):
                self.scale = None
                return
            self._see_floats(np.asarray(pc.drop_null(array).cast(pa.float64())))
        elif pa.types.is_integer(array.type):
            values = pc.drop_null(array)
            if len(values) and (pc.max(values).as_py() >= 1 << 62 or pc.min(values).as_py() <= -(1 << 62)):
                self.scale = None
                return
            self._step(np.asarray(values.cast(pa.int64())))
        else:
            values = np.asarray(pc.drop_null(array).cast(pa.float64()))
            self._see_floats(values[~np.isnan(values)])

    def _see_floats(self, values: np.ndarray) -> None:
        assert self.scale is not None
        while self.scale.kind == "decimal":
            units, _, odd = replace(self.scale, multiple=1, offset=0)._scaled(values, np.ones(len(values), bool))
            if not odd.any():
                self._step(units)
                return
            if self.scale.decimals == MOST_DECIMALS or (not np.isfinite(values).all()):
                self.scale = replace(self.scale, kind="float", decimals=0, multiple=1, offset=0)
            else:
                self.scale = replace(self.scale, decimals=self.scale.decimals + 1)
                self.step *= 10
                self.first = None if self.first is None else self.first * 10

    def _step(self, units: np.ndarray) -> None:
        if not len(units):
            return
        self.first = int(units[0]) if self.first is None else self.first
        low, high = min(int(units.min()), self.first), max(int(units.max()), self.first)
        if high - low >= 1 << 63:
            self.step = 1
            return
        self.step = math.gcd(self.step, int(np.gcd.reduce(np.unique(units) - self.first)))

    def _see_text(self, array: pa.Array) -> None:
        cells = pc.utf8_trim_whitespace(pc.drop_null(pc.unique(array)).cast(pa.string()))
        cells = cells.filter(pc.invert(pc.is_in(cells, pa.array(MARKERS))))
        if not len(cells):
            return
        if self.formats is None and self.first is None and self.least > MOST_DECIMALS:
            self.formats = {form: Counting(pa.string()) for form in _formats(cells)}
        if self.formats:
            self._see_times(cells)
        else:
            self._see_numbers(cells)

    def _see_times(self, cells: pa.Array) -> None:
        for form in list(self.formats or ()):
            scale = Scale("time", "string", format=form)
            _, units, odd = scale._cells(cells)
            if odd.any() or not pc.all(pc.equal(scale._texts(units), cells)).as_py():
                self.formats.pop(form)  # type: ignore[union-attr]
            else:
                self.formats[form]._step(units)  # type: ignore[index]
        self.scale = None
        for form, own in (self.formats or {}).items():
            self.scale, self.first, self.step = Scale("time", "string", format=form), own.first, own.step
            return

    def _see_numbers(self, cells: pa.Array) -> None:
        assert self.scale is not None
        plain = plainly(cells, self.scale.decimal_sign, self.scale.thousands)
        if (
            not pc.all(pc.match_substring_regex(plain, NUMBER)).as_py()
            or pc.any(pc.match_substring_regex(plain, r"^[+-]?0\d")).as_py()
        ):
            self.scale = None
            return
        point = np.asarray(pc.find_substring(plain, "."))
        places = np.where(point < 0, 0, np.asarray(pc.utf8_length(plain)) - point - 1)
        self.exponent |= bool(pc.any(pc.match_substring_regex(plain, "[eE]")).as_py())
        self.most, self.least = max(self.most, int(places.max())), min(self.least, int(places.min()))
        self.trailing |= bool(pc.any(pc.match_substring_regex(plain, r"\.(\d*0)?$")).as_py())
        values = np.asarray(plain.cast(pa.float64()))
        if self.scale.kind == "decimal":
            if self.exponent or self.most > MOST_DECIMALS or np.abs(values).max() * 10.0**self.most >= EXACT:
                whole = self.most == 0 and not self.exponent
                self.scale = None if whole else replace(self.scale, kind="float", decimals=0, style="repr")
                return
            if self.most > self.scale.decimals:
                lift = 10 ** (self.most - self.scale.decimals)
                self.step, self.first = self.step * lift, None if self.first is None else self.first * lift
                self.scale = replace(self.scale, decimals=self.most)
            self._step(np.rint(values * 10.0**self.scale.decimals).astype(np.int64))

    def found(self) -> Scale | None:
        """The scale that holds every value seen."""
        if self.scale is None or self.scale.kind == "float":
            return self.scale
        multiple = max(1, self.step)
        style: Style = ""
        if self.scale.written and self.scale.kind == "decimal":
            style = "fixed" if self.most == self.least or self.trailing else "minimal"
        return replace(self.scale, multiple=multiple, offset=(self.first or 0) % multiple, style=style)


def _are_floats(decimals: pa.Array) -> bool:
    """Whether all of them come back from float64."""
    try:
        return decimals.cast(pa.float64()).cast(decimals.type, safe=False).equals(decimals)
    except pa.ArrowInvalid:
        return False


def _formats(cells: pa.Array) -> list[str]:
    """The formats of time that some of the cells have."""
    sample = cells.slice(0, 200)
    if not pc.all(pc.match_substring_regex(sample, r"^[\w ,:./+-]*\d[-/. :,][\w ,:./+-]*$")).as_py():
        return []
    if pc.any(pc.match_substring_regex(sample, NUMBER)).as_py():
        return []
    found, one = [], sample[0].as_py()
    for form in FORMATS:
        if _moment(one, form) is None:
            continue
        scale = Scale("time", "string", format=form)
        _, units, odd = scale._cells(sample)
        if not odd.any() and pc.all(pc.equal(scale._texts(units), sample)).as_py():
            found.append(form)
    return found
