"""Numbers and times are whole numbers in order and back, exactly, on the coarsest grid that holds all of them."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latente.data.scales import FORMATS, Counting, Scale, float_keys, key_floats

BIG = 1 << 61
TIMES = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "Europe/Berlin")] + [
    pa.date32(),
    pa.time32("s"),
    pa.time32("ms"),
    pa.time64("us"),
    pa.time64("ns"),
    pa.duration("ms"),
]


def scale_of(*arrays: pa.Array, decimal: str = ".", thousands: str = "") -> Scale:
    counting = Counting(arrays[0].type, decimal, thousands)
    for array in arrays:
        counting.see(array)
    scale = counting.found()
    assert scale is not None
    return scale


def returns(array: pa.Array, scale: Scale | None = None) -> bool:
    """Whether keys and back is the array itself."""
    scale = scale or scale_of(array)
    keys, there, odd = scale.counted(array)
    made = scale.array(keys, there)
    return not odd.any() and made.type == array.type and made.equals(array)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint8(), pa.uint64(), *TIMES], ids=str)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_whole_numbers_and_times(kind, data):
    top = {8: 100, 32: 86_000}.get(kind.bit_width, BIG if pa.types.is_integer(kind) else 86_000_000)
    low = 0 if str(kind).startswith(("uint", "time3", "time6")) else -top
    step = data.draw(st.integers(1, 9))
    units = st.integers(low // step + 1, top // step - 1).map(lambda unit: unit * step)
    found = data.draw(st.lists(st.none() | units, min_size=1, max_size=30))
    carrier = pa.int32() if kind.bit_width == 32 else pa.int64()
    array = pa.array(found, carrier).cast(kind)
    scale = scale_of(array)
    assert returns(array, scale)
    different = {unit for unit in found if unit is not None}
    assert len(different) < 2 or scale.multiple % step == 0
    assert scale_of(*(array[i : i + 1] for i in range(len(array)))) == scale  # batch by batch


def test_the_whole_width_of_nanoseconds():
    units = np.array([-(2**63) + 2, 2**63 - 1, 5, 6])
    assert returns(pa.array(units).cast(pa.timestamp("ns")))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.none() | st.integers(-(10**7), 10**7), min_size=1, max_size=30), st.integers(0, 8), st.integers(1, 25)
)
def test_decimals_are_on_a_grid(units, decimals, step):
    array = pa.array([None if unit is None else unit * step / 10**decimals for unit in units], pa.float64())
    scale = scale_of(array)
    assert scale.kind == "decimal" and scale.decimals <= decimals and returns(array, scale)
    narrow = pa.array([None if unit is None else unit % 1000 / 100 for unit in units], pa.float32())
    assert scale_of(narrow).decimals <= 2 and returns(narrow)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.floats(allow_nan=False), min_size=1, max_size=30))
def test_any_float(values):
    assert returns(pa.array(values, pa.float64()))
    with np.errstate(over="ignore"):
        assert returns(pa.array([None if v is None else np.float32(v) for v in values], pa.float32()))
        assert returns(pa.array([None if v is None else np.float16(v) for v in values], pa.float16()))


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=20))
def test_keys_of_floats_are_in_order(values):
    ordered = np.array(sorted(values))
    keys = float_keys(ordered)
    assert all(a < b for a, b, up in zip(keys, keys[1:], ordered[1:] > ordered[:-1]) if up)
    assert key_floats(keys).tobytes() == ordered.tobytes()


def test_one_negative_zero_does_not_take_the_grid():
    scale = scale_of(pa.array([1.5, -0.0, 2.25]))
    assert (scale.kind, scale.decimals, scale.multiple) == ("decimal", 2, 75)
    assert scale_of(pa.array([0.1, 65504, None], pa.float16())).decimals == 1


def test_decimals_of_arrow():
    assert returns(pa.array([Decimal("1.10"), None, Decimal("-3.25")], pa.decimal128(10, 2)))


# ---- written ---------------------------------------------------------------------------------------------------------


def text_of(unit: int, decimals: int, sign: str, thousands: str) -> str:
    whole, part = divmod(abs(unit), 10**decimals)
    return "-" * (unit < 0) + f"{whole:,}".replace(",", thousands) + (f"{sign}{part:0{decimals}d}" if decimals else "")


@pytest.mark.parametrize(("sign", "thousands"), [(".", ""), (",", ""), (",", "."), (".", ","), (",", " "), (".", "'")])
@settings(max_examples=12, deadline=None)
@given(st.lists(st.none() | st.integers(-(10**9), 10**9), min_size=1, max_size=20), st.integers(0, 4))
def test_written_numbers(sign, thousands, units, decimals):
    array = pa.array([None if u is None else text_of(u, decimals, sign, thousands) for u in units], pa.string())
    assert returns(array, scale_of(array, decimal=sign, thousands=thousands))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_what_python_writes_of_floats_is_the_same_number(values):
    array = pa.array([repr(value) for value in values])
    scale = scale_of(array)
    keys, there, odd = scale.counted(array)
    assert [float(text) for text in scale.array(keys, there).to_pylist()] == values and not odd.any()


@pytest.mark.parametrize("form", FORMATS)
def test_written_times(form):
    moments = [dt.datetime(2020, 12, 31, 13, 14, 15, 120000), dt.datetime(1999, 1, 2, 3, 4, 5), None]
    array = pa.array([moment and moment.strftime(form) for moment in moments])
    scale = scale_of(array)
    assert scale.format == form and returns(array, scale)
    keys, _, _ = scale.counted(array)
    assert scale.key_of(str(array[0])) == keys[0] and scale.key_of(str(array[1])) == keys[1]


def test_the_end_of_time_is_a_time():
    array = pa.array(["1700-03-01", "9999-12-31", None])
    scale = scale_of(array)
    assert scale.kind == "time" and returns(array, scale) and scale.key_of("9999-12-31") == scale.counted(array)[0][1]


def test_days_before_months_are_told_by_all_cells():
    months = pa.array(["01/01/2020", "08/01/2020"]), pa.array(["01/29/2020"])
    scale = scale_of(*months)
    assert scale.format == "%m/%d/%Y" and all(returns(part, scale) for part in months)
    assert scale_of(pa.array(["01/01/2020"]), pa.array(["29/01/2020"])).format == "%d/%m/%Y"


@pytest.mark.parametrize("cells", [["12", "abc"], ["007", "12"], ["1", "2020-01-01"], ["99999999999999999999", "1"]])
def test_what_is_no_number(cells):
    counting = Counting(pa.string())
    counting.see(pa.array(cells))
    assert counting.found() is None


# ---- values that somebody asks for -----------------------------------------------------------------------------------


def test_values_stand_among_the_keys():
    whole = scale_of(pa.array([10, 20, 50]))
    assert [whole.key_of(text) for text in ("20", "25", "20.0", "-10")] == [2, 2.5, 2, -1]
    assert whole.key_of("inf") == np.inf
    fine = scale_of(pa.array([123456.123456789, 0.5]))
    assert fine.key_of("123456.123456789") == fine.counted(pa.array([123456.123456789]))[0][0]
    narrow = pa.array([0.1, 1 / 3], pa.float32())
    assert scale_of(narrow).key_of("0.1") == scale_of(narrow).counted(narrow)[0][0]
    thousands = scale_of(pa.array(["1.234,50", "7,00"]), decimal=",", thousands=".")
    same = ("1.234,5", "1234,50", "1234.5")
    assert len({thousands.key_of(text) for text in same}) == 1
    for text in ("nan", "x", ""):
        with pytest.raises(ValueError, match="is no number"):
            whole.key_of(text)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.time32("s"), dt.time(12, 30), "12:30"),
        (pa.time64("us"), dt.time(9, 30, 1, 5), "9:30:01.000005"),
        (pa.duration("s"), dt.timedelta(hours=5), "5 hours"),
        (pa.timestamp("ms", "Europe/Berlin"), dt.datetime(2020, 7, 1, 10, tzinfo=dt.UTC), "2020-07-01 12:00"),
        (pa.timestamp("us", "Europe/Berlin"), dt.datetime(2020, 7, 1, 10, tzinfo=dt.UTC), "2020-07-01T10:00Z"),
        (pa.date32(), dt.date(2020, 2, 29), "2020-02-29"),
        (pa.timestamp("s"), dt.datetime(9999, 12, 31), "9999-12-31"),
    ],
    ids=str,
)
def test_times_as_people_write_them(kind, value, text):
    array = pa.array([value, None], kind)
    scale = scale_of(array)
    assert scale.key_of(text) == scale.counted(array)[0][0]
    with pytest.raises(ValueError, match="is no time"):
        scale.key_of("soon")


def test_a_time_of_day_in_a_file():
    array = pa.array(["12:30", "23:59"])
    scale = scale_of(array)
    assert scale.key_of("12:30") == scale.counted(array)[0][0] and isinstance(scale.key_of("12:30:30"), float)
