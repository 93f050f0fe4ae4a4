"""Rows become a dataset whose splits share nothing, again and again the same, or are refused in one line."""

import datetime as dt
import json
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from latente.data.columns import Columns
from latente.data.conditions import rules
from latente.data.errors import DataError
from latente.data.rules import kept
from latente.data.table import TableOptions
from latente.data.table_dataset import TableDataset, open_table


def quiet(*_):
    pass


def opened(source, **options) -> TableDataset:
    return open_table(source, TableOptions(**options), quiet)


def frame(n=400, seed=0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    start = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 900, n), "D")
    return pd.DataFrame(
        {
            "age": random.integers(17, 90, n),
            "score": np.where(random.random(n) < 0.1, np.nan, random.normal(size=n).round(2) + 0.0),
            "city": random.choice(np.array(["Köln", "Bonn", "Ulm", None]), n, p=[0.5, 0.3, 0.1, 0.1]),
            "member": random.random(n) < 0.4,
            "start": start,
            "end": start + pd.to_timedelta(random.integers(0, 90, n), "D"),
        }
    )


def cells(data: TableDataset, split: str) -> set[str]:
    return {repr(row) for row in data.table(data.splits[split]).to_pylist()}


# ---- splits and fingerprints -----------------------------------------------------------------------------------------


def test_splits_share_no_row_and_do_not_depend_on_the_order():
    rows = pd.concat([frame(), frame()[:150]], ignore_index=True)
    data = opened(rows)
    sets = {name: cells(data, name) for name in data.splits}
    assert not (sets["train"] & sets["test"] or sets["train"] & sets["validation"] or sets["test"] & sets["validation"])
    assert sum(map(len, data.splits.values())) == len(rows) and data.audit.duplicates == 150
    assert abs(len(sets["test"]) - 40) <= 1 and abs(len(sets["validation"]) - 40) <= 1
    shuffled = opened(rows.sample(frac=1, random_state=1))
    assert {name: cells(shuffled, name) for name in data.splits} == sets
    assert shuffled.fingerprint == data.fingerprint and shuffled.spec == data.spec
    assert shuffled.columns.columns == data.columns.columns


def test_rows_are_equal_by_their_values_and_identifiers_have_no_say(tmp_path):
    lines, random = [], np.random.default_rng(0)
    for number in range(300):
        value, city = round(float(random.normal()), 1), random.choice(["Ulm", "Bonn", ""])
        lines.append(f"{number},{value:.2f},{city},x{random.integers(9)}")
        lines.append(
            f"{number + 300},{value:.1f},{city},x{random.integers(9)}"
        )  # the same, written shorter, with another note
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["id,value,city,note", *lines]) + "\n")
    data = opened(path, columns={"note": "ignored"})
    sides = np.empty(600, object)
    for name, rows in data.splits.items():
        sides[rows] = name
    assert all(sides[::2] == sides[1::2])
    assert data.columns["id"].kind == "identifier" and data.audit.duplicates >= 300


def test_a_run_finds_its_splits_again_though_training_made_a_column_constant(tmp_path):
    rows = frame(300)
    rows["rare"] = [f"r{i % 150}" for i in range(300)]  # each level in too few rows to be sampled
    rows["same"] = 5
    data = opened(rows)
    assert data.columns["rare"].kind == "constant"
    data.save_assets(tmp_path)
    again = opened(rows, columns=str(tmp_path))
    assert again.fingerprint == data.fingerprint
    assert all((data.splits[name] == again.splits[name]).all() for name in data.splits)
    changed = rows.copy()
    changed.loc[0, "age"] += 1
    assert opened(changed).fingerprint != data.fingerprint
    assert not len(opened(rows, test=0).splits["test"])


def test_zeros_are_equal_whatever_their_sign():
    rows = pd.DataFrame({"x": np.arange(60) / 4, "y": 0.0})
    rows.loc[len(rows)] = [0.0, -0.0]
    data = opened(rows, columns={"x": "number", "y": "number"})
    assert data.audit.duplicates == 1


def test_rows_come_back_as_they_were():
    rows = pa.Table.from_pandas(frame(), preserve_index=False)
    data = opened(rows, protect=1)
    everything = np.arange(len(rows))
    assert data.table(everything).equals(rows)
    tokens, rest, exact = data.columns.encode(rows)
    train = data.splits["train"]
    assert (tokens == data.tokens).all() and exact[train].all()
    assert data.columns.table(tokens, rest).take(pa.array(train)).equals(rows.take(pa.array(train)))
    assert np.array_equal(data.cells(everything)[:, 0], np.asarray(rows["age"]))
    assert (data.tokens < np.array(data.spec.fields)).all()
    assert data.batch(np.array([3, 1]))["tokens"].tolist() == data.tokens[[3, 1]].tolist()
    assert sorted(data.order(0, 1)) == sorted(train) and (data.order(0, 1) != data.order(0, 2)).any()
    assert data.target is not None and data.spec.columns[data.target] == "member"


def test_a_run_reads_its_source_again(tmp_path):
    rows = frame().assign(id=range(400), note=None, one="x")
    data = opened(rows, protect=7, columns={"member": "category"})
    data.save_assets(tmp_path)
    again = opened(rows, columns=str(tmp_path))
    assert again.fingerprint == data.fingerprint and again.spec == data.spec and again.columns == data.columns
    assert (again.tokens == data.tokens).all() and (again.keys == data.keys).all()
    other = opened(frame(100, 5).assign(id=range(100), note=None, one="x"), columns=str(tmp_path))
    assert other.spec == data.spec and (other.tokens < np.array(other.spec.fields)).all()
    with pytest.raises(DataError, match="has other columns"):
        opened(rows.drop(columns="age"), columns=str(tmp_path))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_is_read_once(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    rows = frame().assign(id=[f"ID-{n:04d}" for n in range(400)])
    rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
    told = []
    first = open_table(path, TableOptions(), lambda *what: told.append(what))
    number = len(told)
    second = open_table(path, TableOptions(), lambda *what: told.append(what))
    assert number and len(told) == number
    for name in ("fingerprint", "spec", "columns", "levels", "audit", "target"):
        assert getattr(first, name) == getattr(second, name), name
    assert (first.tokens == second.tokens).all() and (first.keys == second.keys).all()
    assert all((first.splits[name] == second.splits[name]).all() for name in first.splits)
    assert first.describe() == second.describe()
    assert opened(path, protect=9).fingerprint != first.fingerprint


def test_a_csv_of_times_and_commas(tmp_path):
    rows = frame()
    path = tmp_path / "rows.csv"
    rows.assign(start=rows.start.dt.strftime("%d.%m.%Y")).to_csv(path, index=False, sep=";", decimal=",")
    data = opened(path, protect=1)
    kinds = {column.name: column.kind for column in data.columns.columns}
    assert kinds == {
        "age": "number",
        "score": "number",
        "city": "category",
        "member": "boolean",
        "start": "datetime",
        "end": "datetime",
    }
    found = data.columns.typed(data.table(np.arange(400)))
    assert found["start"].to_pylist() == rows.start.to_list() and np.array_equal(
        found["score"].to_numpy(), rows.score, True
    )


# ---- what is not learned -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        lambda n: np.arange(7, n + 7),
        lambda n: [f"ID-{i:04d}" for i in range(n)],
        lambda n: [f"u{i}" for i in range(n)],
        lambda n: [str(uuid.UUID(int=int.from_bytes(np.random.default_rng(i).bytes(16)), version=4)) for i in range(n)],
    ],
    ids=["sequence", "padded", "numbered", "uuid"],
)
def test_identifiers_are_made_anew(made):
    rows = frame().assign(key=made(400))
    data = opened(rows)
    assert data.columns["key"].kind == "identifier" and "key" not in data.spec.columns
    rest = np.zeros((100, len(data.columns.learned)), np.int64)
    parts = [data.columns.table(data.tokens[:100], rest, start, seed=3) for start in (0, 100)]
    keys = parts[0]["key"].to_pylist() + parts[1]["key"].to_pylist()
    assert len({*keys, *rows["key"]}) == 600 and type(keys[0]) is type(rows["key"].tolist()[0])
    assert len(str(keys[0])) == len(str(rows["key"].iloc[-1]))
    assert any("identifier" in line for line in data.warnings())


def test_what_the_user_says_a_column_is(tmp_path):
    rows = frame().assign(rank=np.arange(400), zip=np.arange(400) % 7, note=[f"a b {n}" for n in range(400)])
    said = {"rank": "number", "zip": "category", "note": "ignored", "age": {"kind": "identifier"}}
    (tmp_path / "kinds.json").write_text(json.dumps(said))
    for given in (said, str(tmp_path / "kinds.json")):
        data = opened(rows, columns=given)
        assert [data.columns[name].kind for name in said] == ["number", "category", "ignored", "identifier"]
        assert (
            "note" not in data.columns.names
            and data.columns["zip"].levels == data.levels[data.spec.columns.index("zip")]
        )


def test_constants_and_empty_columns_stay(tmp_path):
    rows = frame().assign(
        one="x", two=2.5, day=dt.date(2020, 1, 2), none=None, nan=np.nan, few=[f"v{n}" for n in range(40)] * 10
    )
    data = opened(rows, protect=50)
    learned = {name for name in data.spec.columns}
    assert learned.isdisjoint({"one", "two", "day", "none", "nan", "few"})
    made = data.columns.table(data.tokens[:3], np.zeros((3, len(data.columns.learned)), np.int64))
    assert (
        made.select(["one", "two", "day", "none", "few"]).to_pylist()
        == [{"one": "x", "two": 2.5, "day": dt.date(2020, 1, 2), "none": None, "few": None}] * 3
    )
    assert data.table(np.array([0])).column_names == list(rows.columns) and made.column_names == list(rows.columns)
    assert not any("\n" in line for line in data.warnings())


def test_numbers_of_few_rows_are_empty_not_a_dead_end():
    rows = frame().assign(rare=[float(n) if n < 8 else np.nan for n in range(400)])
    data = opened(rows)
    assert data.columns["rare"].kind == "constant"
    tight = opened(frame(60), protect=20)
    assert all(set(range(sizes[0])) - set(never) for sizes, never in zip(tight.spec.sizes, tight.spec.never))


def test_five_thousand_levels_are_two_fields():
    rows = pd.DataFrame({"zip": [f"{n % 5000:05d}" for n in range(40_000)], "x": np.arange(40_000) % 3})
    data = opened(rows, protect=1)
    assert data.spec.sizes[0] == (7, 1000) and data.spec.fields[:2] == (7, 1000)
    made = data.columns.table(np.asarray(data.tokens), np.zeros((40_000, 2), np.int64))
    told = [text for text, first in zip(made["zip"].to_pylist(), data.tokens[:, 0]) if first > 1]
    assert (
        told == rows["zip"][data.tokens[:, 0] > 1].tolist() and len(set(told)) == len(data.columns["zip"].levels) > 4900
    )


def test_three_thousand_columns():
    random = np.random.default_rng(0)
    data = opened(
        pd.DataFrame(random.integers(0, 3, (40, 3000)), columns=pd.Index([f"c{n}" for n in range(3000)])), protect=1
    )
    assert len(data.spec.columns) > 2900 and data.tokens.shape == (40, len(data.spec.fields))


def test_what_decides_the_target_and_what_is_personal_is_said():
    random, n = np.random.default_rng(0), 2_000
    sold = random.random(n) < 0.3
    rows = pd.DataFrame(
        {"size": random.normal(size=n), "fee": np.where(sold, random.integers(1, 9, n), 0), "sold": sold}
    )
    rows["contact"] = random.choice([f"p{i}@example.org" for i in range(40)], n)
    rows["town"] = random.choice(["Ulm", "Bonn"], n)
    said = opened(rows, target="sold").warnings()
    assert any("fee alone foretells sold in 100.0% of rows" in line for line in said)
    assert any("contact looks personal" in line for line in said)
    assert not any(name in line for line in said for name in ("size", "town"))


# ---- what cannot be learned --------------------------------------------------------------------------------------------


BAD = {
    "no rows": (lambda: frame()[:0], {}, "no rows"),
    "one row": (lambda: frame()[:1], {}, "too few"),
    "the same row": (lambda: pd.concat([frame()[:1]] * 50), {}, "all rows are the same"),
    "free text": (lambda: frame().assign(note=[f"word {n} of {n * 7}" for n in range(400)]), {}, "free text"),
    "unknown kind": (frame, {"columns": {"age": "color"}}, "cannot be 'color'"),
    "constant is no wish": (frame, {"columns": {"age": "constant"}}, "cannot be 'constant'"),
    "unknown column": (frame, {"columns": {"Age": "number"}}, "no column 'Age'"),
    "no number": (frame, {"columns": {"city": "number"}}, "is no number"),
    "no time": (frame, {"columns": {"age": "datetime"}}, "not a datetime"),
    "not JSON": (frame, {"columns": "nowhere.json"}, "cannot be read"),
    "a list": (lambda: frame().assign(tags=[[1, 2]] * 400), {}, "name it ignored"),
    "nothing to learn": (lambda: pd.DataFrame({"id": range(100)}), {}, "no column to learn"),
    "target": (frame, {"target": "sex"}, "--target sex"),
    "rule": (frame, {"rules": ("start <= End",)}, "no column 'End'"),
    "broken rule": (frame, {"rules": ("end < start",)}, "breaks the rule end < start in"),
    "rule of kinds": (frame, {"rules": ("age <= start",)}, "one is a time"),
    "rule of levels": (frame, {"rules": ("age <= city",)}, "have an order"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_learned_is_one_line(name):
    made, options, match = BAD[name]
    with pytest.raises(DataError, match=match) as error:
        opened(made(), **options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_file_with_nothing_to_learn(tmp_path):
    pd.DataFrame({"id": [f"a{n:03d}" for n in range(100)], "one": "x"}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="no column to learn"):
        opened(tmp_path / "t.csv")


def test_lists_and_mixed_types(tmp_path):
    rows = frame().assign(tags=[[n] for n in range(400)])
    assert "tags" not in opened(rows, columns={"tags": "ignored"}).columns.names
    (tmp_path / "t.csv").write_text("a,b\n" + "12,1\nabc,2\n" * 30 + "".join(f"12,{n}\n" for n in range(50)))
    assert opened(tmp_path / "t.csv").columns["a"].kind == "category"


# ---- rules -------------------------------------------------------------------------------------------------------------


def test_rules_hold_for_training_rows():
    given = ("start <= end", "known(city, member)", "end >= start", "age != score")
    assert opened(frame(), rules=given).rules == given
    with pytest.raises(DataError, match=r"unique\(city\)"):
        opened(frame(), rules=("unique(city)",))
    keyed = frame().assign(key=[f"k{n}" for n in range(400)])
    assert opened(keyed, rules=("unique(key)",)).rules
    with pytest.raises(DataError, match="made anew"):
        opened(keyed, rules=("known(key)",))


def test_rules_between_times_of_other_units():
    rows = frame()
    table = pa.table(
        {"start": pa.array(rows.start.dt.date), "end": pa.array(rows.end).cast(pa.timestamp("ns")), "x": rows.age}
    )
    data = opened(table, rules=("start <= end",))
    rule = rules(["end < start"], data.columns.names)[0]
    assert not kept(rule, table, data.columns).any()


def test_rules_keep_the_rows_they_are_for():
    data = opened(frame())
    made = data.table(np.arange(4)).select(["age", "city"]).set_column(0, "age", pa.array([1, 1, None, None]))
    made = made.set_column(1, "city", pa.array(["Ulm", "Ulm", None, "Bonn"]))
    unique, known = rules(["unique(age, city)", "known(city)"], data.columns.names)
    assert kept(unique, made, data.columns).tolist() == [True, False, True, True]
    assert kept(known, made, data.columns, {("Ulm",), (None,)}).tolist() == [True, True, True, False]


def test_the_columns_of_a_dataset_are_kept(tmp_path):
    data = opened(frame())
    data.save_assets(tmp_path)
    assert Columns.load(tmp_path) == data.columns
    data.preview({"tokens": np.asarray(data.tokens[:20])}, tmp_path / "seen")
    assert len(pd.read_csv(tmp_path / "seen.csv")) == 20
