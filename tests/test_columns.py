"""Columns become tokens and come back; what few rows have is never drawn; conditions mean the same for tokens and for values."""

import datetime as dt
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from latente.data.columns import LEVELS, Column, Columns, as_levels, binned, levelled, pattern_of
from latente.data.conditions import Condition, Rule, conditions, rules
from latente.data.errors import DataError
from latente.data.forms import Form
from latente.data.inference import Seen

CSV, FRAME = Form("csv"), Form("frame", frame="arrow")


def column_of(array: pa.Array, protect: int = 1, form: Form = FRAME, bins: int = 100, wanted=None) -> Column:
    """The column that these training values make."""
    seen = Seen(pa.field("x", array.type), form, wanted)
    seen.see(array, "here")
    column = seen.column("here")
    if column.ordered:
        assert column.scale is not None
        keys, there, odd = column.scale.counted(array)
        return replace(column, bins=binned(keys[there & ~odd], protect, bins), missing=bool((~there).any()))
    if column.sizes:
        counts = Counter(level for level in as_levels(array, column.marker).to_pylist() if level is not None)
        return replace(column, levels=levelled(counts, protect), missing=array.null_count > 0)
    return column


def bits(array: pa.Array) -> list:
    """Values that tell -0.0 from 0.0."""
    return [repr(value) for value in array.to_pylist()]


def some(values, null=True):
    return st.lists(st.none() | values if null else values, min_size=12, max_size=60)


MOMENT = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0)
)
KINDS = {
    "whole": (some(st.integers(-50, 50).map(lambda n: 5 * n)), pa.int64()),
    "decimal": (some(st.integers(-9999, 9999).map(lambda n: n / 100)), pa.float64()),
    "float": (some(st.floats(allow_nan=False)), pa.float64()),
    "extreme": (some(st.sampled_from([-0.0, 0.0, 5e-324, -5e-324, 1.7e308, -1.7e308, np.inf, -np.inf, 0.1])), pa.float64()),
    "narrow": (some(st.floats(allow_nan=False, width=32)), pa.float32()),
    "truth": (some(st.booleans()), pa.bool_()),
    "level": (some(st.sampled_from(["a", "", "ß", "a b", "NA", "\n"])), pa.string()),
    "level of a frame": (some(st.sampled_from(["lo", "hi", "mid"])), pa.dictionary(pa.int32(), pa.string())),
    "number of a frame": (some(st.sampled_from([1, 2, 30])), pa.dictionary(pa.int32(), pa.int64())),
    "date": (some(st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31))), pa.date32()),
    **{f"time {unit}": (some(MOMENT), pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    "zone": (some(MOMENT), pa.timestamp("us", "America/New_York")),
    "clock": (some(st.times()), pa.time64("us")),
    "span": (some(st.timedeltas(dt.timedelta(-9), dt.timedelta(9))), pa.duration("us")),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_tokens_and_back(kind, data):
    values, arrow = KINDS[kind]
    array = pa.array(data.draw(values), arrow)
    assume(array.null_count < len(array))
    column = column_of(array)
    if column.kind == "constant":
        assert column.anew(len(array), 0, 0).equals(array)
        return
    tokens, rest, exact = column.encode(array)
    assert tokens.shape[1] == len(column.sizes) and (tokens >= 0).all() and (tokens < np.array(column.sizes)).all()
    made = column.decode(tokens, rest)
    assert made.type == array.type
    assert [a for a, e in zip(bits(made), exact) if e] == [a for a, e in zip(bits(array), exact) if e]
    assert exact.all() or kind == "extreme"  # -0.0 among decimals
    drawn = column.decode(tokens, column.draw(tokens, np.random.default_rng(0).random(len(tokens))))
    again, _, _ = column.encode(drawn)
    assert (again == tokens).all() and drawn.type == array.type


@pytest.mark.parametrize(
    "array",
    [
        pa.array([5, 86_399], pa.int32()).cast(pa.time32("s")),
        pa.array([5, 86_399_000_000_001]).cast(pa.time64("ns")),
        pa.array([5, -7]).cast(pa.duration("ms")),
        pa.array([5, 10**9]).cast(pa.timestamp("ms", "Europe/Berlin")),
        pa.array([1.5, -0.25], pa.float16()),
        pa.array([b"a", b"b"]),
        pa.array([1, 2], pa.int8()).dictionary_encode(),
    ],
    ids=lambda array: str(array.type),
)
def test_any_type_can_be_a_category(array):
    column = column_of(array, wanted="category")
    tokens, rest, exact = column.encode(array)
    made = column.decode(tokens, rest)
    assert exact.all() and made.type == array.type and made.to_pylist() == array.to_pylist()


WRITTEN = {
    "fixed": (st.integers(-99999, 99999).map(lambda n: f"{n / 100:.2f}"), CSV),
    "comma": (st.integers(0, 99999).map(lambda n: f"{n / 1000:.3f}".replace(".", ",")), Form("csv", decimal=",")),
    "thousands": (st.integers(0, 10**9).map(lambda n: f"{n:,}".replace(",", ".")), Form("csv", decimal=",", thousands=".")),
    "iso": (MOMENT.map(lambda moment: f"{moment:%Y-%m-%d %H:%M:%S}"), CSV),
    "german": (MOMENT.map(lambda moment: f"{moment:%d.%m.%Y}"), CSV),
    "american": (MOMENT.map(lambda moment: f"{moment:%m/%d/%Y}"), CSV),
    "month": (MOMENT.map(lambda moment: f"{moment:%d-%b-%Y}"), CSV),
}  # fmt: skip


@pytest.mark.parametrize("marker", [None, "NA", "?"])
@pytest.mark.parametrize("kind", WRITTEN)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_written_cells_and_back(kind, marker, data):
    cells, form = WRITTEN[kind]
    values = [*data.draw(some(cells, null=False)), marker, marker]
    array = pa.array(values, pa.string())
    column = column_of(array, form=form)
    assert column.ordered and column.missing and column.marker == marker
    tokens, rest, exact = column.encode(array)
    same = [text == other for text, other in zip(column.decode(tokens, rest).to_pylist(), values)]
    assert all(s for s, e in zip(same, exact) if e)
    assert all(s or float(text.replace(",", ".")) == 0 for s, text in zip(same, values)) if marker else all(same)
    drawn = column.decode(tokens, column.draw(tokens, np.random.default_rng(0).random(len(tokens))))
    assert (column.encode(drawn)[0] == tokens).all()


def test_cells_as_nobody_would_write_them_are_not_exact():
    column = column_of(pa.array(["+5", "6", "7."] * 10), form=CSV)
    tokens, rest, exact = column.encode(pa.array(["+5", "6", "7.", "x", None]))
    assert exact.tolist() == [False, True, False, False, True] and len(set(tokens[:3, 0])) == 3
    assert column.decode(tokens, rest).to_pylist()[1] == "6"


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(-40, 40) | st.integers(-(10**6), 10**6), max_size=300), st.integers(0, 7), st.integers(2, 30)
)
def test_bins_hold_enough_rows_and_no_extremes(values, protect, bins):
    keys, least = np.array(values, np.int64), max(1, protect)
    found = binned(keys, protect, bins)
    ordered = np.sort(keys)
    last = None
    for low, high in found:
        assert low <= high and (last is None or low > last)
        assert ((keys >= low) & (keys <= high)).sum() >= least
        assert ordered[least - 1] <= low and high <= ordered[-least]
        last = high
    if protect <= 1:
        assert all(any(low <= key <= high for low, high in found) for key in keys)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=30, max_size=200), st.randoms())
def test_drawn_values_are_of_many(values, random):
    array = pa.array(values)
    column = column_of(array, protect=5)
    if not column.bins:
        return
    tokens = np.array([[1 + random.randrange(len(column.bins))] for _ in range(50)])
    uniform = np.array([random.choice([0.0, random.random(), 1 - 2**-53]) for _ in tokens])
    drawn = np.array(column.decode(tokens, column.draw(tokens, uniform)))
    ordered = np.sort(values)
    assert ordered[4] <= drawn.min() and drawn.max() <= ordered[-5]


def test_levels_of_few_rows_are_one_token():
    array = pa.array(["a"] * 9 + ["b"] * 5 + ["c"] * 4 + [None])
    column = column_of(array, protect=5)
    assert column.levels == ("a", "b") and column.never == (1,)
    tokens, _, exact = column.encode(pa.array(["a", "c", "never met", None]))
    assert tokens[:, 0].tolist() == [2, 1, 1, 0] and exact.tolist() == [True, False, False, True]


def test_many_levels_are_two_fields():
    array = pa.array([f"level {n}" for n in range(5 * LEVELS - 300)] * 2)
    column = column_of(array, wanted="category")
    assert column.sizes == (2 + 5, LEVELS)
    tokens, rest, exact = column.encode(array)
    assert exact.all() and column.decode(tokens, rest).equals(array) and (tokens < np.array(column.sizes)).all()
    masks = column.allowed(Condition("x", "=", "level 1234"))
    assert [mask.sum() for mask in masks] == [1, 1]
    assert column.decode(np.array([[int(mask.argmax()) for mask in masks]]), rest[:1]).to_pylist() == ["level 1234"]


def test_columns_are_kept_in_json(tmp_path):
    arrays = [
        pa.array([1.5, None, np.inf] * 9),
        pa.array(["ä", "b"] * 9),
        pa.array([dt.date(2020, 1, day) for day in range(1, 29)]),
    ]
    columns = Columns(tuple(column_of(array) for array in arrays), Form("csv", padded=("a",)))
    columns.save(tmp_path)
    assert Columns.load(tmp_path) == columns
    (tmp_path / "columns.json").write_text('{"columns": [{}]}')
    with pytest.raises(DataError, match="does not say what the columns"):
        Columns.load(tmp_path)


@pytest.mark.parametrize("values", [["ID-0001", "ID-0300"], ["a7", "a12", "a100"], [3, 1, 2]])
def test_numbered_identifiers_go_on(values):
    if isinstance(values[0], str) and len(values) == 2:
        values = [f"ID-{n:04d}" for n in range(1, 301)]
    array = pa.array(values)
    column = column_of(array, wanted="identifier")
    if column.scale is not None:
        column = replace(column, pattern=("1", "3"))
    made = column.anew(5, 10, 0).to_pylist()
    more = column.anew(5, 15, 0).to_pylist()
    assert len({*made, *more, *values}) == 10 + len(values)
    assert made[0] in ("ID-0311", "a111", 14)


@pytest.mark.parametrize(
    "values, most",
    [(["AB-07-x", "CD-13-y"], 10**9), (["a1", "a2", "b1", "b3"], 60), (["é7f0" * 8, "é01a" * 8], 10**9)],
)
def test_identifiers_are_all_different_while_there_are_so_many(values, most):
    column = replace(column_of(pa.array(values * 10), wanted="identifier"), pattern=pattern_of(values))
    many = min(most, 5_000)
    made = [
        made for start in range(0, many, 1_000) for made in column.anew(min(1_000, many - start), start, 7).to_pylist()
    ]
    assert len(set(made)) == len(made) == many and made != sorted(made)
    assert all(sign in signs for text in made[:50] for sign, signs in zip(text, column.pattern))


# ---- conditions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["whole", "decimal", "float", "extreme", "truth", "level", "date", "time ns", "clock"])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_tokens_are_allowed_where_some_value_holds(kind, data):
    values, arrow = KINDS[kind]
    array = pa.array([*data.draw(values), None], arrow)
    assume(len(set(bits(array))) > 2)
    column = column_of(array, bins=data.draw(st.sampled_from([8, 100])))
    value = data.draw(st.sampled_from(["", *dict.fromkeys(as_levels(array).drop_null().to_pylist())]))
    operator = data.draw(st.sampled_from(["=", "!=", *(["<", "<=", ">", ">="] if column.ordered and value else [])]))
    condition = Condition("x", operator, value)
    tokens, _, _ = column.encode(array)
    held = column.holds(array, condition)
    allowed = column.allowed(condition)[0]
    assert allowed[tokens[held, 0]].all()
    ends = [(np.full((1, 1), token), rest) for token in np.flatnonzero(allowed) if token != 1 or column.ordered
            for rest in ([0, column.bins[token - 1][1] - column.bins[token - 1][0]] if column.ordered and token else [0])]  # fmt: skip
    met = {
        int(token[0, 0]) for token, rest in ends if column.holds(column.decode(token, np.array([rest])), condition)[0]
    }
    within = operator == "=" and column.ordered and value  # a value between the ends
    assert within or met == {int(token[0, 0]) for token, _ in ends}


def test_conditions_of_numbers():
    array = pa.array([10, 20, 30, None] * 6)
    column = column_of(array)
    for text, wanted in {"=20": [20], "!=20": [10, 30, None], "<20": [10], "<=20": [10, 20], ">25": [30], ">=30": [30], "=25": [],
         "!=25": [10, 20, 30, None],"=": [None], "!=": [10, 20, 30], "<1e999": [10, 20, 30], "=inf": []}.items():  # fmt: skip
        condition = conditions({"x": text}, ["x"])[0]
        held = column.holds(array[:4], condition)
        assert [v for v, h in zip(array[:4].to_pylist(), held) if h] == wanted, text
        assert sorted(np.flatnonzero(column.allowed(condition)[0])) == sorted(
            [10, 20, 30].index(v) + 1 if v else 0 for v in wanted
        ), text
    for text, match in {"=x": "is no number", "=nan": "is no number"}.items():
        with pytest.raises(DataError, match=match):
            column.allowed(conditions({"x": text}, ["x"])[0])


def test_negative_zero_is_zero():
    column = column_of(pa.array([-0.0, 0.0, np.inf, 1e-300] * 9))
    zero = pa.array([-0.0, 0.0])
    assert column.holds(zero, Condition("x", "=", "0")).all() and not column.holds(zero, Condition("x", "<", "0")).any()
    assert column.allowed(Condition("x", "=", "0"))[0][column.encode(zero)[0][:, 0]].all()


def test_conditions_of_levels_are_refused_in_one_line():
    column = column_of(pa.array(["a", "b"] * 9))
    for condition, match in ((Condition("x", "<", "a"), "only = and !="), (Condition("x", "=", "c"), "no such level")):
        with pytest.raises(DataError, match=match):
            column.allowed(condition)
    with pytest.raises(DataError, match="not learned"):
        column_of(pa.array(["a", "a"])).allowed(Condition("x", "=", "a"))


NAMES = ["age", "age>60", "sex", "a b", "when"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("age>60, sex=Female", ["age>60", "sex=Female"]),
        ("age>60=yes", ["age>60=yes"]),
        ("a b == 5 ,sex!=", ["a b=5", "sex!="]),
        ("sex='a, b', age<=1.5", ["sex=a, b", "age<=1.5"]),
        ('sex=O\'Brien, age="1"', ["sex=O'Brien", "age=1"]),
        (["age>=1", "age<2"], ["age>=1", "age<2"]),
        ({"age": ">= 60", "sex": None, "a b": True}, ["age>=60", "sex=", "a b=true"]),
        ({"age": np.float64(1.5), "sex": float("nan"), "when": np.True_}, ["age=1.5", "sex=", "when=true"]),
        ({"when": dt.date(2020, 1, 2), "a b": pd.NA}, ["when=2020-01-02", "a b="]),
    ],
)
def test_conditions_are_read(given, wanted):
    assert [str(condition) for condition in conditions(given, NAMES)] == wanted


@pytest.mark.parametrize("given", ["Age>60", "age", "=5", {"Age": 5}, "age 60"])
def test_conditions_that_cannot_be_read(given):
    with pytest.raises(DataError) as error:
        conditions(given, NAMES)
    assert "\n" not in str(error.value)


def test_rules_are_read():
    given = ["age <= when", "age>=when", "unique(age, a b)", "known( sex )", "age == when"]
    wanted = [
        Rule("<=", ("age", "when")),
        Rule("<=", ("when", "age")),
        Rule("unique", ("age", "a b")),
        Rule("known", ("sex",)),
        Rule("=", ("age", "when")),
    ]
    assert rules(given, NAMES) == wanted
    for bad in ("age", "age < Sex", "unique()", "many(age)"):
        with pytest.raises(DataError):
            rules([bad], NAMES)


@pytest.mark.parametrize(
    ("cells", "true", "false"),
    [(["True", "False"], "True", "False"), (["true", "FALSE"], "true", "FALSE"), (["1", "0"], "1", "0")],
)
def test_truth_values_are_written_as_the_column_knows_them(cells, true, false):
    column = column_of(pa.array(cells * 10), form=Form("csv"), wanted="boolean")
    made = column.written(pa.array([True, False, None]))
    assert made.to_pylist() == [true, false, None]
    assert column.written(pa.array(cells)).to_pylist() == cells
