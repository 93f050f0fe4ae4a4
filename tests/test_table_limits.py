"""Where datasets of rows end: what cannot be kept exactly is refused in one line, and many different numbers are no obstacle."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from latente.data import inference
from latente.data.errors import DataError
from latente.data.forms import Form, Table
from latente.data.table import TableOptions
from latente.data.table_dataset import TableDataset, open_table

N = 400


def opened(source, **options) -> TableDataset:
    return open_table(source, TableOptions(**options), lambda what, done, total: None)


def in_pieces(table: pa.Table) -> Table:
    """A CSV that is read a hundred rows at a time."""
    return Table("pieces", table.schema, lambda: iter(table.to_batches(max_chunksize=100)), None, Form("csv"))


def test_shares_that_leave_nothing_to_train_on():
    frame = pd.DataFrame({"x": np.arange(20) * 1.5, "c": ["a", "b"] * 10})
    with pytest.raises(DataError, match=r"--validation 0.49 and --test 0.49 leave none of the 20"):
        opened(frame, validation=0.49, test=0.49)


def test_decimals_that_are_no_floats_are_refused_not_rounded():
    wide = pa.array([Decimal(f"1234567890123456{i % 7}.89") for i in range(N)], pa.decimal128(38, 2))
    table = pa.table({"x": wide, "v": np.random.default_rng(0).normal(size=N)})
    with pytest.raises(DataError, match="column 'x' holds numbers too large"):
        opened(table)


def test_what_is_said_of_a_column_beyond_its_kind_is_refused():
    frame = pd.DataFrame({"x": np.arange(N) * 1.5, "c": ["a", "b"] * (N // 2)})
    with pytest.raises(DataError, match="'x' says min, max, which is not known"):
        opened(frame, columns={"x": {"kind": "number", "min": 4, "max": 9}})


def test_written_numbers_are_not_counted_one_by_one(monkeypatch):
    monkeypatch.setattr(inference, "COUNTED", 50)
    monkeypatch.setattr(inference, "MOST_LEVELS", 200)
    cells = pa.array(["NA" if i % 9 == 0 else str(i * 3) for i in range(N)])
    columns, _, seen = inference.inferred(in_pieces(pa.table({"x": cells})), TableOptions())
    assert (columns[0].kind, columns[0].marker) == ("number", "NA")
    assert seen["x"].levels is not None and len(seen["x"].levels) <= 50 + 100


def test_a_word_after_many_numbers_makes_a_category_of_all(monkeypatch):
    monkeypatch.setattr(inference, "COUNTED", 50)
    cells = [str(i % 90) for i in range(N)] + ["other"] * 30
    columns, rows, seen = inference.inferred(in_pieces(pa.table({"x": cells})), TableOptions())
    levels = seen["x"].levels
    assert columns[0].kind == "category" and rows == len(cells)
    assert levels is not None and sum(levels.values()) == len(cells) and levels["other"] == 30
