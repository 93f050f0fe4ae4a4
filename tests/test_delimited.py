"""CSV and TSV: the cells of a file are read exactly as they are written, in any dialect; what is wrong is named by its line."""

import csv
import re
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from latente.data.errors import DataError
from latente.data.forms import Form
from latente.data.table import TableOptions
from latente.data.table_sources import sniff, write_table


def csv_of(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cells(table):
    return table.read().to_pydict()


def opened(tmp_path, content, name="t.csv", **options):
    return sniff(csv_of(tmp_path, content, name), TableOptions(**options))


# ---- what is written is read ---------------------------------------------------------------------------------------

CELL = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.text(" ,;\t|\"'\r\n#ab1.", max_size=6),
    st.sampled_from(
        ["", "NA", "1,5", "1.234,5", "2020-01-31", "#", "//", "sep=;", '"', '""', "'", "\ufeff", " x", "x "]
    ),
)


@st.composite
def written(draw):
    """A table of any strings, and any form to write it in."""
    width, height = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    names = list("abcd")[:width]
    columns = {name: draw(st.lists(CELL, min_size=height, max_size=height)) for name in names}
    some = st.lists(st.sampled_from(names), unique=True).map(tuple)
    form = Form(
        "csv",
        delimiter=draw(st.sampled_from(",;\t|")),
        quote=draw(st.sampled_from(['"', '"', '"', ""])),
        quoted=draw(some),
        header_quoted=draw(st.booleans()),
        encoding=draw(st.sampled_from(["utf-8", "utf-8", "utf-16"])),
        bom=draw(st.booleans()),
        line_end=draw(st.sampled_from(["\n", "\r\n", "\r"])),
        trailing=draw(st.sampled_from(["", "", "all", "rows"])) if width > 1 else "",
    )
    return columns, form


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written())
def test_any_strings_in_any_dialect_come_back_exactly(tmp_path, drawn):
    columns, form = drawn
    path = tmp_path / "any.csv"
    path.unlink(missing_ok=True)
    write_table(path, pa.table({name: pa.array(column, pa.string()) for name, column in columns.items()}), form)
    if len(columns) == 1:  # a line of nothing is no row
        columns = {"a": [cell or "" for cell in columns["a"]]}
    assert cells(sniff(path)) == columns


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.text("ab\u00e9 ,;'\"\n", min_size=1).map(str.lstrip)] * 3), min_size=1), st.booleans())
@example([("x", "y, z", "w")], True)
def test_a_space_after_the_delimiter_is_no_part_of_a_cell(tmp_path, rows, spaced):
    columns = {name: [row[at] or "x" for row in rows] for at, name in enumerate("abc")}
    path = tmp_path / "any.csv"
    path.unlink(missing_ok=True)
    write_table(path, pa.table(columns), Form("csv", padded=("b", "c"), spaced=spaced))
    assert cells(sniff(path)) == columns


def test_adult_is_written_as_it_is_read_to_the_byte(tmp_path):
    from latente.data import named

    table = sniff("adult")
    assert table.schema.names[-1] == "income" and table.form.padded[0] == "workclass" and "age" not in table.form.padded
    assert set(table.read()["income"].to_pylist()) == {"<=50K", ">50K"}
    again = write_table(tmp_path / "adult.csv", table.read(), table.form)
    assert again.read_bytes() == named.adult().read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,x\n2,y\n",
        "a;b\r\n1,5;x\r\n2,25;y\r\n",
        '"a","b"\n"1","x, y"\n"2","z"\n',
        'a,b\n1,"x"\n2,"y"\n',
        'a\tb\n1\t5" pipe\n2\t"half\n',
        "a|b|\n1|x|\n2|y|\n",
        "a,b\n1,x,\n2,y,\n",
        'a, b\n1, "x, y"\n2, "z"\n'.replace("a, b", "a,b"),
        "1,5.5\n2,6.5\n4,7.5\n",
        'a,b\n,x\n"",y\n',
        "a,b\r1,x\r2,y\r",
    ],
)
def test_a_file_is_written_in_its_own_form(tmp_path, text):
    table = opened(tmp_path, text)
    assert write_table(tmp_path / "again.csv", table.read(), table.form).read_bytes().decode() == text


def test_a_form_survives_json(tmp_path):
    import json

    form = opened(tmp_path, 'x;"y"\n1,5;"a"\n2,5;"b"\n').form
    assert form.quoted == ("y",) and form.decimal == ","
    assert Form.from_json(json.loads(json.dumps(form.to_json()))) == form


# ---- what people have ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_delimiter_encoding_and_line_end_are_found_out(tmp_path, delimiter, encoding, line_end):
    rows = [
        ["name", "city", "sum"],
        ["Ren\u00e9e", "K\u00f6ln am Rhein", "1.5"],
        ["Zo\u00eb", "M\u00e1laga", ""],
        ["Bj\u00f6rk", "\u00c5rhus", "22.25"],
    ]
    content = line_end.join(delimiter.join(row) for row in rows).encode(encoding)
    table = opened(tmp_path, content)
    assert cells(table) == {
        "name": ["Ren\u00e9e", "Zo\u00eb", "Bj\u00f6rk"],
        "city": [row[1] for row in rows[1:]],
        "sum": ["1.5", None, "22.25"],
    }
    assert (table.form.delimiter, table.form.line_end, table.form.bom) == (delimiter, line_end, encoding == "utf-8-sig")
    assert table.form.encoding == encoding.removesuffix("-sig") and not table.notes


@pytest.mark.parametrize(
    ("text", "decimal", "thousands"),
    [
        ("a;b\n1,5;2\n", ",", ""),
        ("a;b\n1.234,5;2\n", ",", "."),
        ("a;b\n1.234;2,5\n", ",", "."),
        ("a;b\n1 234,5;2\n12,5;3\n", ",", " "),
        ("a\tb\n1,234\tx\n12\ty\n", ".", ","),
        ("a\tb\n1,234,567\tx\n", ".", ","),
        ('a,b\n"1,234.5",2\n', ".", ","),
        ("a,b\n1.234,2\n", ".", ""),
        ("a;b\n0,123;2\n", ",", ""),
        ("a;b\n1,234;2\n2,345;3\n", ",", ""),
        ("a;b\n1'234'567.5;x\n", ".", "'"),
        ("a,b\n1234,2\n", ".", ""),
        ("a;b\nx, y;2\n1,5 kg;3\n", ".", ""),
    ],
)
def test_decimal_and_thousands_signs_are_told_and_cells_stay_text(tmp_path, text, decimal, thousands):
    table = opened(tmp_path, text)
    assert (table.form.decimal, table.form.thousands) == (decimal, thousands)
    rows = list(csv.reader(text.splitlines(), delimiter=table.form.delimiter))
    assert [list(row.values()) for row in table.read().to_pylist()] == rows[1:]
    assert opened(tmp_path, text, decimal=",").form.decimal == ","


@pytest.mark.parametrize(
    ("text", "columns", "note"),
    [
        ("1,2\n3,4.5\n", {"column_1": ["1", "3"], "column_2": ["2", "4.5"]}, "no header"),
        ("5.1,a\n4.9,b\n4.7,a\n", {"column_1": ["5.1", "4.9", "4.7"], "column_2": ["a", "b", "a"]}, "no header"),
        ("id,2019,2020\nx,5,6\n", {"id": ["x"], "2019": ["5"], "2020": ["6"]}, None),
        ("0,1,2\n7,3,9\n", {"0": ["7"], "1": ["3"], "2": ["9"]}, None),
        ("a,,b\n1,2,3\n", {"a": ["1"], "column_2": ["2"], "b": ["3"]}, "no name in the header: called column_2"),
        ("column_2,\n1,2\n", {"column_2": ["1"], "column_2_": ["2"]}, "called column_2_"),
        ("# made by hand\n# in 2024\na,b\n1,2\n", {"a": ["1"], "b": ["2"]}, "lines 1 to 2 above the header"),
        ("#id\tb\n1\t2\n", {"#id": ["1"], "b": ["2"]}, None),
        (
            "Sales by shop\n\nid,n,m\n1,2,3\n4,5,6\n",
            {"id": ["1", "4"], "n": ["2", "5"], "m": ["3", "6"]},
            "line 1 above",
        ),
        ("sep=;\na;b\n1;2,5\n", {"a": ["1"], "b": ["2,5"]}, "line 1 above the header"),
        ("\n\na,b\n\n1,2\n\n", {"a": ["1"], "b": ["2"]}, None),
        ("a,b\n1,2\r\n3,4\n", {"a": ["1", "3"], "b": ["2", "4"]}, "mixed line ends"),
        ("a,b,\n1,2,\n3,4,\n", {"a": ["1", "3"], "b": ["2", "4"]}, "lines end with a delimiter"),
        ("a\n1\n2\n", {"a": ["1", "2"]}, None),
        ("name\nDoe, John\nSmith, Jane\n", {"name": ["Doe, John", "Smith, Jane"]}, None),
        ('a,b\n"x\ny",1\n"he said ""no""",2\n', {"a": ["x\ny", 'he said "no"'], "b": ["1", "2"]}, None),
        ("a b\n1 2\n3 4\n", {"a": ["1", "3"], "b": ["2", "4"]}, None),
        ("a,b\n1,2", {"a": ["1"], "b": ["2"]}, None),
    ],
)
def test_what_stands_in_a_file(tmp_path, text, columns, note):
    table = opened(tmp_path, text)
    assert cells(table) == columns
    assert table.schema == pa.schema([(name, pa.string()) for name in columns])
    assert [note in said for said in table.notes] == ([True] if note else [])


def test_options_go_before_what_is_found_out(tmp_path):
    assert cells(opened(tmp_path, "a,b;c\n1,2;3\n", delimiter=";")) == {"a,b": ["1,2"], "c": ["3"]}
    assert cells(opened(tmp_path, "a\tb\n1\t2\n", delimiter="tab")) == {"a": ["1"], "b": ["2"]}
    assert cells(opened(tmp_path, "a,b\n\u0416,2\n".encode("cp1251"), encoding="cp1251"))["a"] == ["\u0416"]
    for wrong in ({"delimiter": "ab"}, {"delimiter": '"'}, {"decimal": "x"}, {"encoding": "klingon"}):
        with pytest.raises(DataError, match=f"--{next(iter(wrong))}"):
            opened(tmp_path, "a,b\n1,2\n", **wrong)


def test_ten_thousand_columns(tmp_path):
    names = [f"c{i}" for i in range(10_000)]
    table = opened(tmp_path, "\n".join([",".join(names), *[",".join(map(str, range(10_000)))] * 3]))
    assert table.read()["c9999"].to_pylist() == ["9999"] * 3


def test_a_cell_longer_than_all_before_is_read(tmp_path):
    text = "a,b\n" + "1,x\n" * 400_000 + f"2,{'y' * 6_000_000}\n3,z\n"
    rows = opened(tmp_path, text).read()
    assert len(rows) == 400_002 and len(rows["b"][400_000].as_py()) == 6_000_000 and rows["a"][-1].as_py() == "3"


# ---- what is wrong -------------------------------------------------------------------------------------------------

FAR = "1,2\n" * 300_000
WRONG = [
    ("a,b\n1,2\n3\n", "line 3: 1 cell where the header names 2; mend"),
    ("a,b\n1,2,3\n4,5\n", "line 2: 3 cells where the header names 2; quote"),
    ('a,b\n"x\ny",1\n2\n', "line 4: 1 cell where"),
    ("a,b\n" + FAR + "1,2,3\n", "line 300002: 3 cells"),
    ('a,b\n1,"x\n2,y\n', "line 2, column 'b': a quoted cell is never closed"),
    ('a,b\n1,"x', "line 2, column 'b': a quoted cell is never closed"),
    (
        "a,b\n" + FAR + '1,"x\n' + FAR,
        "line 300002: a quoted cell|line 300002, column 'b': a quoted cell is never closed",
    ),
    ('a,b\n1,"x\n2,"y"\n3,4\n', "line 2: a quoted cell goes on to line 3, where text follows its quote"),
    ('a,b\n1,"x\n2,"y",z\n3,4\n', "lines 2 to 3 make one row of 3 cells"),
    ("a,b,a\n1,2,3\n", "line 1: columns 1 and 3 are both called 'a'; rename one"),
    ("a,b\n1,\0\n", "line 2: byte 6 is zero"),
    (b"a,b\n" + "\u00e9,2\n".encode() * 9 + b"\xff,2\n", "line 11: byte 49 is damaged UTF-8"),
    ("a,b\n", "a header and no rows"),
    ("", "is empty"),
    ("\n\n", "is empty"),
    (b"PK\x03\x04 and so on", "is not a CSV but a zip archive, as Excel files are: give it the suffix .xlsx"),
    (b"PAR1", "a Parquet file: give it the suffix .parquet"),
    (b"\x1f\x8b\x08", "compressed"),
    ("\n<!DOCTYPE html><html>", "is not a CSV but a web page"),
    ('{"a": 1}', "is not a CSV but JSON"),
    ("a,b,\n1,2,\n" + "3,4,\n" * 300_000 + "5,6,7\n", "line 300003: 3 cells where the header names 2"),
]


@pytest.mark.parametrize(("content", "said"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_said_in_one_line_that_names_it(tmp_path, content, said):
    path = csv_of(tmp_path, content)
    with pytest.raises(DataError) as error:
        for _ in sniff(path).batches():
            pass
    message = str(error.value)
    assert "\n" not in message and str(path) in message and re.search(said, message), message


def test_a_character_the_encoding_lacks_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(DataError, match="cannot be written in cp1252"):
        write_table(tmp_path / "t.csv", pa.table({"a": ["\u0416"]}), Form("csv", encoding="cp1252"))
    assert not list(tmp_path.iterdir())


# ---- more than memory ----------------------------------------------------------------------------------------------

_PEAK = """
import resource, sys
from latente.data.table_sources import sniff
table = sniff(sys.argv[1])
rows = [sum(len(batch) for batch in table.batches()) for _ in range(2)]
assert rows[0] == rows[1] and all(len(batch) <= 65536 for batch in table.batches())
print(rows[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for rows in (20_000, 600_000):
        path = csv_of(
            tmp_path, "a,b,c,d\n" + "12345678901234567890,some words of text,3.14159,\n" * rows, f"{rows}.csv"
        )
        done = subprocess.run([sys.executable, "-c", _PEAK, path], capture_output=True, text=True, check=True)
        count, peak = map(int, done.stdout.split())
        assert count == rows
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 60_000  # KB; the file is 30 MB
