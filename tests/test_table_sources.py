"""Whatever rows people have become the same table, and go back as what they were, or are refused in one clear line."""

import datetime as dt
import json
import os

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from latente.data import named
from latente.data.errors import DataError
from latente.data.forms import Form
from latente.data.table import TableOptions
from latente.data.table_sources import TABLE_SUFFIXES, as_frame, is_table, sniff, write_table

ROWS = pa.table(
    {
        "age": pa.array([39, None, 17], pa.int64()),
        "score": pa.array([0.5, 2.25, None]),
        "city": ["Köln", None, "a, b"],
        "member": [True, False, None],
        "born": pa.array([dt.datetime(1984, 1, 2, 3, 4, 5), None, dt.datetime(2001, 1, 1, 12)], pa.timestamp("us")),
    }
)


def stream_of(path, table):
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


def arrow_of(path, table):
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, 2)


def hub_of(path, table):
    import datasets

    datasets.Dataset(table).save_to_disk(path)


SAVED = {
    "t.parquet": lambda path: pq.write_table(ROWS, path, row_group_size=2),
    "t.arrow": lambda path: arrow_of(path, ROWS),
    "s.arrow": lambda path: stream_of(path, ROWS),
    "t.feather": lambda path: feather.write_feather(ROWS, path),
    "t.xlsx": lambda path: ROWS.to_pandas().astype({"age": "Int64"}).to_excel(path, index=False),
    "hub": lambda path: hub_of(path, ROWS),
}


# ---- what people have ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAVED)
def test_every_kind_of_file_gives_the_same_rows_again_and_again(tmp_path, name):
    SAVED[name](tmp_path / name)
    source = f"hf:{tmp_path / name}" if name == "hub" else tmp_path / name
    table = sniff(source)
    assert table.read().equals(ROWS) and table.read().equals(ROWS)
    assert table.stamp is not None and is_table(source)


FRAMES = {
    "pandas": lambda: ROWS.to_pandas().astype({"age": "Int64"}),
    "polars": lambda: pl.from_arrow(ROWS),
    "arrow": lambda: ROWS,
    "dict": lambda: {name: ROWS[name].to_pylist() for name in ROWS.column_names},
    "rows": lambda: ROWS.to_pylist(),
}


@pytest.mark.parametrize("library", FRAMES)
def test_every_frame_gives_the_same_rows_and_comes_back(library):
    frame = FRAMES[library]()
    table = sniff(frame)
    assert table.form.frame == library and table.stamp is None and is_table(frame)
    found = table.read()
    assert found.column_names == ROWS.column_names and found.to_pylist() == ROWS.to_pylist()
    again = as_frame(found, table.form)
    assert type(again) is type(frame)
    if library == "pandas":
        pd.testing.assert_frame_equal(again, frame)
    elif library == "polars":
        assert again.equals(frame) and again.schema == frame.schema
    elif library != "dict":
        assert again == frame


def test_pandas_dtypes_come_back(tmp_path):
    frame = pd.DataFrame(
        {
            "small": np.array([1, 2], np.int8),
            "half": np.array([0.5, np.nan], np.float32),
            "level": pd.Categorical(["lo", "hi"], ["lo", "hi"], ordered=True),
            "when": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Berlin"),
            "flag": pd.array([True, None], "boolean"),
            7: ["x", None],
        }
    )
    table = sniff(frame)
    again = as_frame(table.read(), Form.from_json(json.loads(json.dumps(table.form.to_json()))))
    pd.testing.assert_frame_equal(again, frame.rename(columns=str))


def test_arrays_rows_and_views(tmp_path):
    assert sniff({"a": np.arange(3), "b": np.array(["x", "y", "z"])}).read().to_pydict() == {
        "a": [0, 1, 2],
        "b": ["x", "y", "z"],
    }
    assert sniff([{"a": 1}, {"b": 2}]).read().to_pydict() == {"a": [1, None], "b": [None, 2]}
    assert sniff({"a": [1.5, float("nan")]}).read()["a"].null_count == 1
    assert sniff(pl.LazyFrame({"a": [1]})).read()["a"].to_pylist() == [1]
    assert sniff(ROWS.to_batches()[0]).read().equals(ROWS)
    indexed = sniff(pd.DataFrame({"a": [1]}, index=["x"]))
    assert "index" in indexed.notes[0] and indexed.schema.names == ["a"]


@pytest.mark.parametrize(
    ("name", "rows", "target", "kind"),
    [
        ("wine", 178, "class", pa.string()),
        ("breast-cancer", 569, "class", pa.string()),
        ("diabetes", 442, "progression", pa.int64()),
    ],
)
def test_named_tables_are_on_every_machine(name, rows, target, kind):
    table = sniff(name)
    found = table.read()
    assert len(found) == rows and table.schema.names[-1] == target and table.schema.field(target).type == kind
    assert is_table(name) and name in (table.stamp or "")
    if name == "breast-cancer":
        assert set(found["class"].to_pylist()) == {"malignant", "benign"}
    if name == "diabetes":
        assert (
            found["age"].type == pa.int64() and min(found["age"].to_pylist()) == 19 and named.EMBEDDED["table"] == name
        )


def test_adult_is_asked_for_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTE_DATA", str(tmp_path))
    with pytest.raises(DataError, match="adult is not on this machine"):
        sniff("adult")
    (tmp_path / "adult.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="is not the known Adult"):
        sniff("adult")


def test_hub_splits_follow_one_another_and_labels_are_names(tmp_path):
    import datasets

    def part(start):
        label = datasets.ClassLabel(names=["no", "yes"])
        return datasets.Dataset.from_dict(
            {"x": [start, start + 1], "y": [0, 1]},
            features=datasets.Features({"x": datasets.Value("int64"), "y": label}),
        )

    splits = {"test": part(40), "validation": part(30), "train": part(10)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "set")
    table = sniff(f"hf:{tmp_path / 'set'}")
    assert table.read().to_pydict() == {"x": [10, 11, 30, 31, 40, 41], "y": ["no", "yes"] * 3}
    assert table.test == 4 and table.name == "set"


def test_more_rows_than_a_batch_come_in_batches(tmp_path):
    table = pa.table({"a": np.arange(200_000)})
    arrow_of_one = tmp_path / "t.arrow"
    with pa.ipc.new_file(str(arrow_of_one), table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, tmp_path / "t.parquet")
    write_table(tmp_path / "t.csv", table)
    for source in (table, arrow_of_one, tmp_path / "t.parquet", tmp_path / "t.csv"):
        batches = list(sniff(source).batches())
        assert sum(map(len, batches)) == 200_000 and max(map(len, batches)) <= 65_536


# ---- excel ---------------------------------------------------------------------------------------------------------


def book(path, **sheets):
    import openpyxl

    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        page = made.create_sheet(name)
        for row in rows:
            page.append(row)
    made.save(path)
    return path


def test_a_sheet_is_named_and_the_line_says_which_there_are(tmp_path):
    path = book(tmp_path / "t.xlsx", first=[["a"], [1]], second=[["b"], ["x"]])
    table = sniff(path)
    assert table.read().to_pydict() == {"a": [1]} and "'first' of 'first', 'second'" in table.notes[0]
    assert sniff(path, TableOptions(excel_sheet="second")).read().to_pydict() == {"b": ["x"]}
    with pytest.raises(DataError, match="no sheet 'third'; --excel-sheet is one of first, second"):
        sniff(path, TableOptions(excel_sheet="third"))


def test_what_stands_in_a_sheet(tmp_path):
    noon = dt.datetime(2024, 5, 6, 12)
    rows = [
        ["Sales of the year", None, None, None, None],
        [],
        ["shop", "day", "sum", None, "mixed", "when"],
        ["A", dt.date(2024, 5, 6), 1, None, 1, dt.datetime(2024, 5, 6)],
        [],
        ["=B1", None, "#DIV/0!", 2, "two", noon],
    ]
    table = sniff(book(tmp_path / "t.xlsx", page=rows))
    assert table.read().to_pydict() == {
        "shop": ["A", None],
        "day": [dt.date(2024, 5, 6), None],
        "sum": [1, None],
        "column_4": [None, 2],
        "mixed": ["1", "two"],
        "when": [dt.datetime(2024, 5, 6), noon],
    }
    assert table.schema.field("day").type == pa.date32() and table.schema.field("sum").type == pa.int64()
    assert any("above the header" in note for note in table.notes) and any("column_4" in note for note in table.notes)


def test_text_that_looks_like_a_formula_stays_text(tmp_path):
    rows = pa.table({"a": ["=1+1", "+x", "-", "@y", " z ", None], "b": [1, 2, 3, 4, 5, 6]})
    assert sniff(write_table(tmp_path / "t.xlsx", rows)).read().equals(rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (pa.table({"a": ["x" * 40_000]}), "row 1, column 'a': 40,000 characters"),
        (pa.table({"a": ["ok", "\x01"]}), "row 2, column 'a': a control character"),
        (pa.table({"a": np.zeros(1_048_576, np.int8)}), "more than an Excel sheet holds"),
    ],
)
def test_what_a_sheet_cannot_hold_is_refused_and_nothing_is_left(tmp_path, rows, said):
    with pytest.raises(DataError, match=said):
        write_table(tmp_path / "t.xlsx", rows)
    assert not list(tmp_path.iterdir())


# ---- what is it? ---------------------------------------------------------------------------------------------------


def test_parquet_is_text_images_or_a_table_by_its_columns(tmp_path):
    def parquet(**columns):
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        return is_table(tmp_path / "t.parquet")

    assert not parquet(text=["a"])
    assert not parquet(text=["a"], label=[1])
    assert not parquet(story=["a"])
    assert not parquet(image=[b"x"], label=[1])
    assert parquet(text=["a"], title=["b"])
    assert parquet(story=["a"], label=[1])
    assert parquet(x=[1])


def test_hub_sets_are_told_apart_by_their_columns(tmp_path):
    hub_of(tmp_path / "rows", pa.table({"a": ["x"], "b": [1]}))
    hub_of(tmp_path / "prose", pa.table({"text": ["x"], "b": [1]}))
    assert is_table(f"hf:{tmp_path / 'rows'}") and not is_table(f"hf:{tmp_path / 'prose'}")


def test_what_is_no_table(tmp_path):
    (tmp_path / "t.csv").write_text("a\n1\n")
    (tmp_path / "t.txt").write_text("a,b\n")
    assert is_table(tmp_path / "t.csv") and is_table(str(tmp_path / "t.csv"))
    assert not is_table(tmp_path) and not is_table(tmp_path / "t.txt")
    for other in ("digits", "pydoc", "a,b\n1,2\n", ["a", "b"], np.zeros((3, 8, 8)), (np.zeros((3, 8, 8)), np.zeros(3))):
        assert not is_table(other)
    assert {".csv", ".tsv", ".parquet", ".arrow", ".feather", ".xlsx"} <= TABLE_SUFFIXES


# ---- what is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.parquet", b"a,b\n1,2\n", "cannot be read as Parquet"),
        ("t.arrow", b"a,b\n1,2\n", "cannot be read as Arrow"),
        ("t.feather", b"ARROW1 and no more", "cannot be read as Arrow"),
        ("t.xlsx", b"a,b\n1,2\n", "cannot be read as Excel"),
        ("t.xlsx", b"PK\x03\x04", "cannot be read as Excel"),
        ("t.xls", b"\xd0\xcf", "save it as .xlsx"),
        ("t.parquet", b"", "is empty"),
        ("t.png", b"x", "not a source of rows"),
    ],
)
def test_a_file_that_is_not_what_its_suffix_says(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as error:
        sniff(tmp_path / name).read()
    assert "\n" not in str(error.value) and name in str(error.value)


def test_no_rows_no_columns_and_two_of_a_name_are_refused(tmp_path):
    empty = ROWS.slice(0, 0)
    pq.write_table(empty, tmp_path / "t.parquet")
    arrow_of(tmp_path / "t.arrow", empty)
    twice = pa.table([[1], [2]], ["a", "a"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    for source in (
        tmp_path / "t.parquet",
        tmp_path / "t.arrow",
        empty,
        empty.to_pandas(),
        book(tmp_path / "t.xlsx", p=[["a"]]),
    ):
        with pytest.raises(DataError, match="no rows"):
            sniff(source)
    with pytest.raises(DataError, match="no columns"):
        sniff({})
    for source in (tmp_path / "twice.parquet", twice, pd.DataFrame([[1, 2]], columns=["a", "a"])):
        with pytest.raises(DataError, match="two columns are called 'a'"):
            sniff(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"a": [1, "x"]}, "column 'a' mixes kinds of values"),
        (pd.DataFrame({"a": [1, "x"]}), "column 'a' mixes kinds of values"),
        ({"a": [1], "b": [1, 2]}, "not equally long: a 1, b 2"),
        ({"a": np.zeros((2, 2))}, "column 'a' has 2 dimensions"),
        (pd.DataFrame({("a", "b"): [1]}), "several levels"),
        (3, "not int"),
        ("nowhere.csv", "no file, folder or named source"),
    ],
)
def test_what_is_wrong_with_a_source_is_said_in_one_line(source, said):
    with pytest.raises(DataError, match=said) as error:
        sniff(source)
    assert "\n" not in str(error.value)


def test_folders_and_files_that_must_not_be_read(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        sniff(tmp_path)
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    table = sniff(path)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        list(table.batches())
    if os.geteuid() != 0:
        path.write_text("a,b\n1,2\n")
        path.chmod(0)
        with pytest.raises(DataError, match="not allowed to read"):
            sniff(path)


# ---- the way back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather", ".xlsx"])
def test_typed_files_give_back_what_was_written(tmp_path, suffix):
    assert sniff(write_table(tmp_path / f"t{suffix}", ROWS)).read().equals(ROWS)


def test_what_is_typed_becomes_text_in_a_csv(tmp_path):
    typed = ROWS.append_column("whole", pa.array([1.0, 1e20, 0.1])).append_column("list", pa.array([[1], None, []]))
    text = write_table(tmp_path / "t.csv", typed).read_text(encoding="utf-8")
    assert text.splitlines() == [
        "age,score,city,member,born,whole,list",
        "39,0.5,Köln,true,1984-01-02 03:04:05,1.0,[1]",
        ",2.25,,false,,1e+20,",
        '17,,"a, b",,2001-01-01 12:00:00,0.1,[]',
    ]
    assert write_table(tmp_path / "t.tsv", ROWS).read_text(encoding="utf-8").startswith("age\tscore\t")


def test_csv_and_tsv_keep_all_but_each_others_delimiter(tmp_path):
    (tmp_path / "in.csv").write_bytes(b"a;b\r\n1,5;x\r\n")
    table = sniff(tmp_path / "in.csv")
    assert write_table(tmp_path / "out.tsv", table.read(), table.form).read_bytes() == b"a\tb\r\n1,5\tx\r\n"
    (tmp_path / "in.tsv").write_bytes(b"a\tb\n1,5\tx\n")
    table = sniff(tmp_path / "in.tsv")
    assert write_table(tmp_path / "out.csv", table.read(), table.form).read_bytes() == b'a,b\n"1,5",x\n'


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    write_table(path, ROWS)
    with pytest.raises(DataError, match="exists already"):
        write_table(path, ROWS)
    with pytest.raises(DataError, match="rows go to"):
        write_table(tmp_path / "t.doc", ROWS)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_table(tmp_path / "file" / "t.csv", ROWS)

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("latente.data.table_sources.write_delimited", broken)
    with pytest.raises(DataError, match="No space left"):
        write_table(tmp_path / "u.csv", ROWS)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "t.csv"]
