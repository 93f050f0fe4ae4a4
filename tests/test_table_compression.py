"""Rows in fewer bytes: every cell comes back, a CSV byte for byte; damage is found and named; a forged file is refused."""

import copy
import json
import lzma
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import latente
from forgery import forged, peak
from latente import registry
from latente.cli import main
from latente.codec import exact, layout, walks
from latente.codec.coding import Decoder, Encoder, even_bits
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.codec.writer import Writer
from latente.compression import Archive, cells, chunks, compress, decompress, headers, tables
from latente.data import spreadsheets, table_sources
from latente.data.columns import Columns
from latente.data.errors import DataError
from latente.data.forms import Form
from latente.data.table_sources import sniff, write_table
from latente.models import table_gpt
from latente.rng import keyed
from latente.run import TableRun
from latente.run.base import built
from test_columns import KINDS, column_of, some


def frame(n=600, seed=0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    start = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 900, n), "D")
    return pd.DataFrame(
        {
            "id": np.arange(n),
            "age": random.integers(17, 90, n),
            "score": np.where(random.random(n) < 0.1, np.nan, random.normal(size=n)),
            "city": random.choice(np.array(["Köln", "Bonn", "Ulm", None]), n, p=[0.5, 0.3, 0.1, 0.1]),
            "member": random.random(n) < 0.4,
            "start": start,
            "code": [f"A-{i:05d}-{i * 7919 % 100:02d}" for i in range(n)],
        }
    )


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A model of the rows of a CSV with all that may be odd about one."""
    folder = tmp_path_factory.mktemp("rows")
    path, rows = folder / "rows.csv", frame()
    rows.loc[5, "age"] = 9_999_999  # beyond all bins
    rows.loc[6, "city"] = "Nowhere"  # in too few rows to have a token
    rows.loc[7, "city"] = 'say "so", or; not'
    rows.to_csv(path, index=False)
    run = latente.train("table-gpt", str(path), steps=40, size="tiny", out=folder / "run", quiet=True)
    return run, path


class Keeper(TableRun):
    """What `compress` asks of a run, for an untrained model of any columns."""

    def __init__(self, columns: Columns) -> None:
        self.columns, self.spec, self.family = columns, columns.spec(), registry.load("table-gpt")
        config = table_gpt.Config(width=8)
        self.model = built(self.family, config, self.spec, 0).eval()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=keyed(0)))
        reading = {"encoding": "auto", "delimiter": "auto", "decimal": "auto", "excel_sheet": None}
        self.record = {"model_sha256": None, "config": asdict(config), "data": {"options": reading}}


def keeper(table: pa.Table, form: Form, **wanted) -> Keeper:
    """For a table of the columns that these rows make. Raises DataError where they make none, or nothing to learn."""
    found = [
        replace(column_of(table[name].combine_chunks(), form=form, wanted=wanted.get(name)), name=name)
        for name in table.column_names
    ]
    if not any(column.sizes for column in found):
        raise DataError("nothing to learn")
    return Keeper(Columns(tuple(found), form))


@contextmanager
def resident(most):
    """Fails where the process comes to hold so many MiB more than before."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not say what a process holds")
    with peak(most):
        yield


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=40))
@settings(deadline=None, max_examples=50)
def test_numbers_of_any_size_are_coded_evenly(pairs):
    most = np.array([max(pair) for pair in pairs], np.uint64)
    values = np.array([min(pair) for pair in pairs], np.uint64)
    coder = Encoder()
    coder.even(values, most)
    coded = coder.finish()
    assert (Decoder(coded).even(most) == values).all()
    assert len(coded) * 8 <= even_bits(most).sum() * 1.001 + 64
    assert even_bits(most).sum() <= np.log2(most.astype(float) + 1).sum() + 0.03 * len(pairs)


COLUMNS = {
    "int8": pa.array([1, None, -128, 127], pa.int8()),
    "uint64": pa.array([2**64 - 1, 0, None, 5], pa.uint64()),
    "floats": pa.array([1.5, float("nan"), None, -0.0]),
    "float32": pa.array([0.1, None, 3e38, float("-inf")], pa.float32()),
    "bool": pa.array([True, None, False, True]),
    "text": pa.array(["", None, "Köln\n\0", "x" * 300]),
    "large": pa.array(["a", "", None, "b"], pa.large_string()),
    "levels": pa.array(["a", "b", None, "a"]).dictionary_encode(),
    "day": pa.array([1, None, -5, 20_000], pa.date32()),
    "clock": pa.array([1, None, 5, 80_000], pa.time32("s")),
    "moment": pa.array([1, None, -5, 2**60], pa.timestamp("ns", "UTC")),
    "while": pa.array([1, None, -5, 2**60], pa.duration("us")),
    "money": pa.array(["1.50", None, "-3.00", "0.01"]).cast(pa.decimal128(9, 2)),
    "none": pa.nulls(4),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_any_column_is_kept_as_it_is(name):
    array = COLUMNS[name]
    kind = "dictionary[string]" if name == "levels" else str(array.type)
    for part in (array, array.slice(1, 2), array.slice(0, 0)):
        back, rest = cells.unpacked(memoryview(cells.packed(part) + b"rest"), len(part), kind)
        assert bytes(rest) == b"rest"
        assert back.type.equals(part.type) or name == "levels"
        assert cells.packed(back) == cells.packed(part)
        assert str(back.to_pylist()) == str(part.to_pylist())


def test_a_column_of_lists_is_refused():
    with pytest.raises(DataError, match="cannot be kept"):
        cells.packed(pa.array([[1], [2]]))


def test_a_csv_comes_back_byte_for_byte_and_is_as_small_as_the_model_promises(writer, tmp_path, monkeypatch):
    run, path = writer
    monkeypatch.setattr(headers, "TABLE", 250)
    found = compress(run, str(path), tmp_path / "rows.latente")
    assert found.items == 600 and found.raw == path.stat().st_size and not found.notes and found.psnr is None
    assert abs(found.modelled / found.expected - 1) < 0.02
    back = decompress(tmp_path / "rows.latente", tmp_path / "back.csv")
    assert back.read_bytes() == path.read_bytes()
    with Archive(tmp_path / "rows.latente") as archive:
        assert len(archive) == 600 and len(archive.reader) == 3
        assert archive[5]["age"] == "9999999" and archive[6]["city"] == "Nowhere" and archive[599]["id"] == "599"
        with pytest.raises(IndexError):
            archive[600]


def test_other_rows_of_the_same_columns_come_back_too(writer, tmp_path):
    run, _ = writer
    rows = frame(50, seed=1)
    rows["age"] = rows["age"].astype(str)
    rows.loc[3, "age"] = "unknown"  # no number at all
    rows.loc[4, "age"] = "017"
    rows["city"] = "ä" * 3
    path = tmp_path / "other.csv"
    rows.to_csv(path, index=False, sep=";", lineterminator="\r\n")
    compress(run, str(path), tmp_path / "other.latente")
    assert decompress(tmp_path / "other.latente", tmp_path / "back.csv").read_bytes() == path.read_bytes()
    typed = decompress(tmp_path / "other.latente", tmp_path / "back.parquet")
    back = pd.read_parquet(typed)
    assert back["age"][3] == "unknown"  # a column with a word among its numbers stays as it is written
    assert back["id"].dtype == "int64" and (back["id"] == rows["id"]).all()


def test_what_is_not_written_as_we_would_is_said(writer, tmp_path, capsys):
    run, path = writer
    other = tmp_path / "other.csv"
    other.write_bytes(path.read_bytes().removesuffix(b"\n"))  # no end of the last line
    assert main(["compress", str(run.path), str(other), "--out", str(tmp_path / "set.latente")]) == 0
    out = capsys.readouterr().out
    assert "every cell comes back, but some lines" in out and "the same, but for what is noted" in out
    assert main(["decompress", str(tmp_path / "set.latente"), "--out", str(tmp_path / "back.csv")]) == 0
    assert (tmp_path / "back.csv").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["pandas", "parquet"])
def test_typed_rows_come_back_with_their_types(tmp_path, kind):
    rows = frame(300)
    rows["kind"] = pd.Categorical(rows["city"].fillna("none"))
    rows["late"] = rows["start"].dt.tz_localize("UTC")
    rows["small"] = rows["age"].astype("int8")
    source = rows
    if kind == "parquet":
        source = tmp_path / "rows.parquet"
        rows.to_parquet(source)
    run = latente.train("table-gpt", source, steps=2, size="tiny", out=tmp_path / "run", quiet=True)
    compress(run, source, tmp_path / "set.latente", external_model=True)
    out = decompress(tmp_path / "set.latente", tmp_path / "back.parquet", run=run)
    pd.testing.assert_frame_equal(pd.read_parquet(out), rows, check_categorical=False)


def test_ignored_columns_come_back(tmp_path):
    rows = frame(200)
    run = latente.train(
        "table-gpt", rows, columns={"score": "ignored"}, steps=2, size="tiny", out=tmp_path / "run", quiet=True
    )
    compress(run, rows, tmp_path / "set.latente")
    back = pd.read_parquet(decompress(tmp_path / "set.latente", tmp_path / "back.parquet"))
    pd.testing.assert_series_equal(back["score"], rows["score"])


def test_a_damaged_chunk_is_named_and_the_others_are_written(writer, tmp_path, monkeypatch, capsys):
    run, path = writer
    monkeypatch.setattr(headers, "TABLE", 250)
    compress(run, str(path), tmp_path / "set.latente")
    content = bytearray((tmp_path / "set.latente").read_bytes())
    with Reader(bytes(content)) as reader:
        content[reader._table.offsets[1] + 40] ^= 4
    (tmp_path / "set.latente").write_bytes(content)
    with pytest.raises(Damaged, match="chunk 1"):
        decompress(tmp_path / "set.latente", tmp_path / "back.csv")
    assert (
        main(["decompress", str(tmp_path / "set.latente"), "--out", str(tmp_path / "back.csv"), "--skip-damaged"]) == 1
    )
    assert "chunk 1 is damaged" in capsys.readouterr().err
    lines = path.read_bytes().splitlines(keepends=True)
    assert (tmp_path / "back.csv").read_bytes() == b"".join([*lines[:251], *lines[501:]])


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(model="table-vae"),
        lambda h: h.update(model="../evil"),
        lambda h: h.update(items=-1),
        lambda h: h.update(size=1 << 30),
        lambda h: h["spec"]["sizes"].__setitem__(0, [1 << 40]),
        lambda h: h["spec"].update(columns=[]),
        lambda h: h["config"].update(width=1 << 20),
        lambda h: h["config"].update(more=1),
        lambda h: h.update(columns="0"),
        lambda h: h.update(weights="0"),
        lambda h: h.update(bits=60),
        lambda h: h.pop("bits"),
    ],
)  # fmt: skip
def test_a_forged_header_is_refused(writer, tmp_path, change):
    run, path = writer
    compress(run, str(path), tmp_path / "set.latente", verify=False)
    with pytest.raises(ValueError, match=r"cannot be opened|items were added"):
        Archive(forged(tmp_path / "set.latente", tmp_path / "forged.latente", change))


@pytest.mark.parametrize("part", [b"", b"\0" * 40, b"[]"])
def test_forged_columns_are_refused(writer, tmp_path, part):
    run, path = writer
    compress(run, str(path), tmp_path / "set.latente", verify=False)
    out = forged(tmp_path / "set.latente", tmp_path / "forged.latente", lambda h: None, parts={"columns": part})
    with pytest.raises(ValueError, match="cannot be opened"):
        Archive(out)


def test_forged_chunks_are_damaged_and_nothing_else(writer, tmp_path):
    run, path = writer
    compress(run, str(path), tmp_path / "set.latente", verify=False)
    random = np.random.default_rng(0)

    def garbled(payload):
        content = bytearray(payload)
        for at in random.integers(0, len(content), 3):
            content[at] = random.integers(256)
        return bytes(content[: random.integers(1, len(content) + 1)]) if random.random() < 0.3 else bytes(content)

    for turn in range(40):
        out = forged(tmp_path / "set.latente", tmp_path / f"forged{turn}.latente", lambda h: None, payload=garbled)
        with Archive(out) as archive:
            for number in range(len(archive.reader)):
                try:
                    found = archive.chunk(number)
                except Damaged as error:
                    assert error.part == f"chunk {number}"
                else:
                    assert len(found) == len(archive.reader.items_of(number))


def test_what_cannot_be_compressed_is_said(writer, tmp_path):
    run, path = writer
    with pytest.raises(DataError, match="other columns"):
        compress(run, frame()[["age", "city"]], tmp_path / "a.latente")
    with pytest.raises(DataError, match="the run was trained on string"):
        compress(run, frame(), tmp_path / "a.latente")
    with pytest.raises(ValueError, match="loses nothing"):
        compress(run, str(path), tmp_path / "a.latente", psnr=30)
    other = latente.train("table-vae", frame(200), steps=2, size="tiny", out=tmp_path / "vae", quiet=True)
    with pytest.raises(ValueError, match="is no codec"):
        compress(other, frame(200), tmp_path / "a.latente")
    assert not [*tmp_path.glob("*.latente"), *tmp_path.glob(".tmp-*")]


def test_without_its_weights_a_file_needs_its_run(writer, tmp_path):
    run, path = writer
    whole, small = (
        compress(run, str(path), tmp_path / f"{name}.latente", external_model=name == "small").size
        for name in ("whole", "small")
    )
    assert small < whole
    with pytest.raises(ValueError, match="give the run"):
        Archive(tmp_path / "small.latente")
    other = latente.train("table-gpt", str(path), steps=3, size="tiny", out=tmp_path / "other", quiet=True)
    with pytest.raises(ValueError, match="not the weights"):
        Archive(tmp_path / "small.latente", other)
    assert decompress(tmp_path / "small.latente", tmp_path / "back.csv", run=run).read_bytes() == path.read_bytes()


def test_a_wide_row_makes_smaller_chunks(writer, tmp_path, monkeypatch):
    run, path = writer
    monkeypatch.setattr(headers, "ROWS", 20_000)
    compress(run, str(path), tmp_path / "set.latente")
    with Archive(tmp_path / "set.latente") as archive:
        assert len(archive.reader) > 2 and len(archive) == 600
    assert decompress(tmp_path / "set.latente", tmp_path / "back.csv").read_bytes() == path.read_bytes()


def test_the_walk_expects_what_the_model_does(writer):
    run, _ = writer
    x = run.reopened().tokens[:300].astype(np.int64)
    net = exact.exact(run.model, 12)

    def bits_of(counts):
        order, coders = net.order({}), [Encoder() for _ in counts]
        return walks.encoded(
            lambda rows: net.walk(rows.stop - rows.start), lambda rows: x[rows].T[order], coders, counts
        )

    bits = bits_of([300])
    assert np.abs(bits - run._nats(x, 0) / np.log(2)).max() < 0.1
    assert (bits_of([100]) == bits[:100]).all()


# ---- chunk by chunk ------------------------------------------------------------------------------------------------


def bomb(run, path, folder, count, n=4_000):
    """A file of so many chunks of 8 MB of cells, some 10 kB each."""
    compress(run, str(path), folder / "small.latente", verify=False)
    with Reader(folder / "small.latente") as reader:
        header, parts = dict(reader.header), {name: reader.part(name) for name in reader.parts}
    row = {
        "id": "1",
        "age": "50",
        "score": "0.5",
        "city": "Ulm",
        "member": "True",
        "start": "2021-01-01",
        "code": "y" * 2_000,
    }
    content = b"".join(cells.packed(pa.array([cell] * n)) for cell in row.values())
    payload = chunks.kept(content, None) + len(content).to_bytes(4, "little")
    with Writer(folder / "bomb.latente", header | {"items": count * n}, parts) as made:
        for _ in range(count):
            made.add(payload, n)
    return folder / "bomb.latente"


def test_a_file_of_next_to_nothing_is_written_out_in_bounded_memory(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(table_sources, "_HELD", 1 << 23)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # which takes longer than all else
    path = bomb(*writer, tmp_path, 30)
    assert path.stat().st_size < 600_000
    for suffix in (".csv", ".parquet", ".arrow"):
        with resident(200):  # of 250 MB; 64 MiB are LZMA's own
            out = decompress(path, tmp_path / f"out{suffix}")
        assert out.stat().st_size > (100_000 if suffix == ".parquet" else 240_000_000)
        if suffix != ".csv":
            found = sniff(out)
            assert sum(batch.num_rows for batch in found.batches()) == 120_000
            assert found.schema.field("age").type == pa.int64() and found.schema.field("member").type == pa.bool_()
        out.unlink()


def test_more_rows_than_a_sheet_holds_are_refused_before_they_are_decoded(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(spreadsheets, "MOST_ROWS", 11_999)
    told = []
    with pytest.raises(DataError, match="12,000 rows of 7 columns are more than an Excel sheet holds"):
        decompress(bomb(*writer, tmp_path, 3), tmp_path / "out.xlsx", say=told.append)
    assert not told and not (tmp_path / "out.xlsx").exists()


def described(path, change):
    """(header, part) of a file whose columns are said to be others, of which its hash and its spec know."""
    with Reader(path) as reader:
        record = json.loads(chunks.unsqueezed(reader.part("columns"), headers.DESCRIBED))
    change(record)
    content = json.dumps(record).encode()
    return content, {"columns": chunks.squeezed(content)}


def forged_columns(path, out, change):
    content, parts = described(path, change)

    def told(header):
        header["columns"] = chunks.digest(content)
        try:
            header["spec"] = asdict(Columns.from_json(content.decode()).spec(header["spec"]["target"]))
        except (ValueError, AssertionError):
            return  # it keeps its own

    return forged(path, out, told, parts=parts)


def test_levels_that_are_said_to_be_long_do_not_fill_memory(writer, tmp_path):
    run, path = writer
    compress(run, str(path), tmp_path / "set.latente", verify=False)
    at = [column.name for column in run.columns.columns].index("city")
    bad = forged_columns(
        tmp_path / "set.latente",
        tmp_path / "bad.latente",
        lambda record: record["columns"][at]["levels"].__setitem__(0, "x" * (1 << 20)),
    )
    with resident(150), Archive(bad) as archive, pytest.raises(Damaged, match="more bytes than it can hold"):
        archive.chunk(0)


# ---- where it goes -------------------------------------------------------------------------------------------------


def test_where_it_goes_is_looked_at_before_anything_is_decoded(writer, tmp_path):
    run, path = writer
    compress(run, str(path), tmp_path / "set.latente", verify=False)
    (tmp_path / "mine.csv").write_text("mine")
    (tmp_path / "link.csv").symlink_to("nowhere")
    told = []
    for name, said in (
        ("mine.csv", "exists already"),
        ("link.csv", "exists already"),
        ("out.txt", "rows go to"),
        ("out", "rows go to"),
    ):
        with pytest.raises(DataError, match=said):
            decompress(tmp_path / "set.latente", tmp_path / name, say=told.append)
    assert not told and (tmp_path / "mine.csv").read_text() == "mine"
    assert decompress(tmp_path / "set.latente", tmp_path / "out.CSV").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".feather", ".xlsx"])
def test_nothing_that_comes_meanwhile_is_replaced(writer, tmp_path, suffix):
    run, path = writer
    compress(run, str(path), tmp_path / "set.latente", verify=False)
    out = tmp_path / f"out{suffix}"
    with pytest.raises(ValueError, match=r"already exists|exists already"):
        decompress(tmp_path / "set.latente", out, say=lambda line: out.write_text("mine"))
    assert out.read_text() == "mine" and not [*tmp_path.glob(".tmp-*")]


@pytest.mark.parametrize(
    ("how", "suffix", "when"),
    [
        (signal.SIGKILL, ".csv", "decoded"),
        (signal.SIGKILL, ".parquet", "written"),
        (signal.SIGTERM, ".csv", "written"),
        (signal.SIGTERM, ".xlsx", "decoded"),
    ],
)
def test_a_kill_midway_leaves_nothing_under_the_name(writer, tmp_path, monkeypatch, how, suffix, when):
    """When some of the rows are decoded, or all of them written and not yet under their name."""
    run, path = writer
    monkeypatch.setattr(headers, "TABLE", 30)
    compress(run, str(path), tmp_path / "set.latente", verify=False)
    out = tmp_path / "out" / f"rows{suffix}"
    body = f"""
import os, sys
from latente import cli
from latente.compression.tables import PackedTables
from latente.data import table_sources

def decode(packed, numbers, own=PackedTables.decode):
    if numbers[0] > 0:  # not the first of those that are decoded together
        os.kill(os.getpid(), {how:d})
    return own(packed, numbers)

def write(*given, own=table_sources._write):
    own(*given)
    os.kill(os.getpid(), {how:d})

if {when!r} == "decoded":
    PackedTables.decode = decode
else:
    table_sources._write = write
sys.exit(cli.main(["decompress", {str(tmp_path / "set.latente")!r}, "--out", {str(out)!r}]))
"""
    found = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True)
    assert found.returncode == (-how if how == signal.SIGKILL else 130), found.stderr
    left = [file.name for file in out.parent.iterdir()]
    assert all(name.startswith(".tmp-") for name in left) and (not left or how == signal.SIGKILL)
    assert sniff(decompress(tmp_path / "set.latente", out)).read().num_rows == 600


# ---- what there is of rows -----------------------------------------------------------------------------------------


def test_a_table_without_rows_comes_back(writer, tmp_path):
    run, path = writer
    head = path.read_bytes().splitlines(keepends=True)[0]
    (tmp_path / "none.csv").write_bytes(head)
    found = compress(run, str(tmp_path / "none.csv"), tmp_path / "none.latente")
    assert found.items == 0 and found.raw == len(head) and not found.notes
    with Archive(tmp_path / "none.latente") as archive:
        assert len(archive) == 0
    assert decompress(tmp_path / "none.latente", tmp_path / "back.csv").read_bytes() == head
    for suffix in (".parquet", ".arrow", ".xlsx"):
        back = sniff(decompress(tmp_path / "none.latente", tmp_path / f"back{suffix}"), empty=True)
        assert back.read().num_rows == 0 and back.schema.names == list(frame().columns)
        assert suffix == ".xlsx" or back.schema.field("age").type == pa.int64()
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="other columns"):
        compress(run, str(tmp_path / "other.csv"), tmp_path / "other.latente")
    (tmp_path / "nothing.csv").write_text("")
    with pytest.raises(DataError, match="is empty"):
        compress(run, str(tmp_path / "nothing.csv"), tmp_path / "other.latente")


def test_typed_tables_without_rows_come_back(tmp_path):
    rows = pa.table(
        {"age": [1, 2, 3, 4] * 5, "city": ["a", "b"] * 10, "kind": pa.array(["u", "v"] * 10).dictionary_encode()}
    )
    run, none = keeper(rows, Form("frame", frame="pandas")), rows.slice(0, 0)
    sources = [
        none,
        none.to_pandas(),
        pd.DataFrame(columns=rows.column_names),
        {name: [] for name in rows.column_names},
    ]
    for suffix in (".parquet", ".arrow", ".xlsx"):
        sources.append(write_table(tmp_path / f"none{suffix}", none))
    for number, source in enumerate(sources):
        assert compress(run, source, tmp_path / f"{number}.latente").items == 0
        back = pq.read_table(decompress(tmp_path / f"{number}.latente", tmp_path / f"{number}.parquet"))
        assert back.schema.types == rows.schema.types and len(back) == 0


def test_levels_that_differ_from_chunk_to_chunk_go_to_an_arrow_file(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "TABLE", 10)
    cells_ = [f"level {i // 7}" for i in range(60)]
    rows = pa.table({"n": list(range(60)), "kind": pa.array(cells_).dictionary_encode()})
    compress(keeper(rows, Form("frame", frame="arrow")), rows, tmp_path / "set.latente")
    for suffix in (".arrow", ".feather", ".parquet", ".xlsx", ".csv"):
        back = sniff(decompress(tmp_path / "set.latente", tmp_path / f"back{suffix}")).read()
        assert [str(cell) for cell in back["kind"].to_pylist()] == cells_
    monkeypatch.setattr(table_sources, "_HELD", 80)
    with pytest.raises(DataError, match="column 'kind' has too many different values for an Arrow file"):
        decompress(tmp_path / "set.latente", tmp_path / "more.arrow")
    assert not (tmp_path / "more.arrow").exists()


def test_a_word_among_truth_values_is_kept_in_a_typed_file(tmp_path):
    train, path = pa.table({"n": ["1", "2"] * 10, "ok": ["True", "false"] * 10}), tmp_path / "rows.csv"
    path.write_text("n,ok\n1,true\n2,maybe\n3,\n")
    compress(keeper(train, Form("csv")), str(path), tmp_path / "set.latente")
    back = pq.read_table(decompress(tmp_path / "set.latente", tmp_path / "back.parquet"))
    assert back["ok"].to_pylist() == ["true", "maybe", None] and back["n"].to_pylist() == [1, 2, 3]
    path.write_text("n,ok\n1,TRUE\n2,false\n3,\n")
    compress(keeper(train, Form("csv")), str(path), tmp_path / "other.latente")
    back = pq.read_table(decompress(tmp_path / "other.latente", tmp_path / "other.parquet"))
    assert back["ok"].to_pylist() == [True, False, None]


def test_a_file_is_as_long_as_the_models_own_bound(tmp_path):
    """What the network of floating-point numbers expects, the place inside the bins, weights, columns and odd cells: all of the file
    but a hundredth of that."""
    random_, n = np.random.default_rng(0), 30_000
    hidden = random_.integers(0, 8, n)
    rows = {f"level {i}": (hidden * (i + 1) + random_.integers(0, 3, n)) % 11 for i in range(8)}
    rows |= {"count": random_.poisson(3 + hidden), "price": np.round(random_.lognormal(3, 1, n), 2), "id": np.arange(n)}
    path = tmp_path / "rows.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    run = latente.train(
        "table-gpt", str(path), steps=60, size="tiny", out=tmp_path / "run", quiet=True, columns={"id": "identifier"}
    )
    found = compress(run, str(path), tmp_path / "rows.latente", verify=False)
    tokens, *_ = run.columns.encode(run.sniffed(path).read())
    bits = run._nats(tokens, 0).sum() / np.log(2)
    for column, own in run.columns.each(tokens):
        if column.ordered:
            bits += np.log2(column.widths(own).astype(float) + 1).sum()
    with Reader(found.path) as reader:
        parts = sum(len(reader.part(name)) for name in reader.parts)
        payloads = [reader.chunk(number)[chunks.HEAD : -4] for number in range(len(reader))]
        side = sum(len(payload) - 4 - int.from_bytes(payload[:4], "little") for payload in payloads)
    assert found.path.stat().st_size <= 1.01 * (bits / 8 + parts + side)
    assert bits / 8 > 2 * parts and side < 0.5 * bits / 8


QUICK = [{"id": lzma.FILTER_LZMA2, "preset": 1}]  # the real one takes longer to begin than a small table to code


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(chunks, "FILTERS", QUICK)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # which takes longer than all else


ODD = st.sampled_from(
    [
        *("", " ", '"', '""', "a,b", "a;b", "\n", "\r\n", "\r", "x\ny", "'", "\t", "é漢😀", "#", "=1+1", "\ufeff"),
        *("NA", "-", "NaN", "1e5", "+5", "5.", ".5", "007", "1,5", "1.5", "-0", "-0.0", "inf", "1e999"),
        *("true", "2021-01-01", "2021-13-01"),
    ]
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
WORDS = {
    "whole": st.integers(-50, 50).map(str),
    "decimal": st.integers(-9999, 9999).map(lambda n: f"{n / 100:.2f}"),
    "float": st.floats(allow_nan=False, allow_infinity=False).map(repr),
    "truth": st.sampled_from(["True", "False"]),
    "day": st.dates().map(str),
    "moment": st.datetimes().map(lambda moment: moment.replace(microsecond=0).isoformat(" ")),
    "level": st.sampled_from(["red", "green", "blue"]),
    "constant": st.just("same"),
    "identifier": st.integers(10**6, 10**7 - 1).map(lambda n: f"A{n}"),
    "text": TEXT,
    "none": st.none(),
}


def alike(a: pa.Table, b: pa.Table) -> bool:
    """Whether they have the same types, names and values, down to the sign of zero and what is not a number."""
    return a.schema.names == b.schema.names and all(
        (own.type == other.type or pa.types.is_dictionary(own.type))
        and [repr(cell) for cell in own.to_pylist()] == [repr(cell) for cell in other.to_pylist()]
        for own, other in zip(a.columns, b.columns)
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_every_written_table_comes_back(data, quick, tmp_path_factory):
    """Rows unlike those that were learned, of any kind of column, in a CSV of any form."""
    folder = tmp_path_factory.mktemp("written")
    kinds = data.draw(st.lists(st.sampled_from([*WORDS]), min_size=1, max_size=4))
    names = [f"{kind} {number}" for number, kind in enumerate(kinds)]

    def drawn(odd, n):
        columns = (data.draw(st.lists(WORDS[kind] | st.none() | odd, min_size=n, max_size=n)) for kind in kinds)
        return pa.table({name: pa.array(column, pa.string()) for name, column in zip(names, columns)})

    form = Form(
        "csv",
        delimiter=data.draw(st.sampled_from(",;\t|")),
        quote=data.draw(st.sampled_from('""\'')),
        line_end=data.draw(st.sampled_from(["\n", "\r\n"])),
        bom=data.draw(st.booleans()),
    )
    learned = drawn(st.none(), 20)
    try:
        run = keeper(learned, form)
    except DataError:
        assume(False)
    rows = drawn(ODD | TEXT, data.draw(st.sampled_from([0, 1, 2, 30])))
    path = write_table(folder / "rows.csv", rows, form)
    try:
        source = run.sniffed(path, empty=True)
        table = source.read()
    except DataError:
        assume(False)  # few odd cells can look like another form of file
    assume(source.schema.names == names)
    found = compress(run, path, folder / "rows.latente")
    assert found.items == len(table)
    again = decompress(found.path, folder / "again.csv")
    if not found.notes:
        assert again.read_bytes() == path.read_bytes()
    with Archive(found.path) as archive:
        parts = [archive.chunk(number) for number in range(len(archive.reader))]
    assert alike(pa.concat_tables(parts) if parts else table.slice(0, 0), table)
    typed = pq.read_table(decompress(found.path, folder / "again.parquet"))
    assert len(typed) == len(table) and typed.column_names == names
    for name in names:
        if pa.types.is_string(typed[name].type) and run.columns[name].marker is None:
            assert typed[name].to_pylist() == table[name].to_pylist()


@settings(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_every_typed_table_comes_back(data, quick, tmp_path_factory):
    """Rows unlike those that were learned, of any type of column, in a Parquet file and in memory."""
    folder = tmp_path_factory.mktemp("typed")
    kinds = {
        **KINDS,
        "text": (some(TEXT), pa.string()),
        "large": (some(TEXT), pa.large_string()),
        "unsigned": (some(st.integers(0, 2**62)), pa.uint64()),
        "money": (some(st.decimals(-999, 999, places=2)), pa.decimal128(9, 2)),
        "time": (some(st.integers(0, 86_399)), pa.time32("s")),
        "constant": (some(st.just(7), null=False), pa.int16()),
        "none": (some(st.none()), pa.string()),
    }
    chosen = data.draw(st.lists(st.sampled_from([*kinds]), min_size=1, max_size=4))

    def drawn(n):
        columns = {}
        for number, kind in enumerate(chosen):
            values, arrow = kinds[kind]
            cells_ = data.draw(values)
            columns[f"{kind} {number}"] = pa.array((cells_ * n)[:n], arrow)
        return pa.table(columns)

    path = folder / "rows.parquet"

    def kept(table):  # a Parquet file has no moments of whole seconds
        pq.write_table(table, path)
        return pq.read_table(path)

    try:
        run = keeper(kept(drawn(30)), Form("parquet"))
    except DataError:
        assume(False)
    rows = kept(drawn(data.draw(st.sampled_from([0, 1, 2, 40]))))
    for number, source in enumerate((path, rows)):
        found = compress(run, source, folder / f"{number}.latente")
        assert found.items == len(rows)
        assert alike(rows, pq.read_table(decompress(found.path, folder / f"{number}.parquet")))
        assert alike(rows, sniff(decompress(found.path, folder / f"{number}.arrow"), empty=True).read())


# ---- damage and forgery --------------------------------------------------------------------------------------------


@pytest.fixture
def small(quick, tmp_path, monkeypatch):
    """A file of 40 rows in four chunks, and the CSV they are from."""
    monkeypatch.setattr(headers, "TABLE", 10)
    path = tmp_path / "rows.csv"
    lines = [f"{i * i % 13},{'red' if i % 3 else 'blue'},{i / 4},{i},word {i * 7919 % 97}\n" for i in range(40)]
    path.write_text("n,colour,x,id,note\n" + "".join(lines))
    table = sniff(path)
    run = keeper(table.read(), table.form, id="identifier", note="ignored")
    return compress(run, path, tmp_path / "set.latente").path, path


def once(function, key):
    """The function, which is not asked again for what it has done: what is read right is decoded once."""
    known = {}

    def call(*given):
        if key(*given) not in known:
            known[key(*given)] = function(*given)
        return known[key(*given)]

    return call


def test_no_flip_or_cut_gives_a_crash_or_a_wrong_row(small, tmp_path, monkeypatch):
    """10,000 files, as many damaged in each of their parts."""
    path, source = small
    whole, (head, *lines) = path.read_bytes(), source.read_bytes().splitlines(keepends=True)
    parts = [b"".join(lines[at : at + 10]) for at in range(0, 40, 10)]
    with Reader(path) as reader:
        starts = [0, *(offset for offset, _, _ in reader._parts.values()), *reader._table.offsets]
    ends = [*starts[1:], len(whole) - layout.FOOTER.size]
    regions = [*zip(starts, ends), (len(whole) - layout.FOOTER.size, len(whole))]
    assert len(regions) == 9  # head, columns, model, four chunks, index, footer
    for name, key in (
        ("network", lambda held, packed: packed),
        ("_tables", lambda rows, payloads, counts: (*payloads,)),
    ):
        monkeypatch.setattr(tables, name, once(getattr(tables, name), key))
    draw, read, some_lost = random.Random(0), 0, 0
    with resident(200):
        for number in range(10_000):
            start, stop = regions[number % len(regions)]
            content, at, length = bytearray(whole), draw.randrange(start, stop), draw.randrange(1, 9)
            match draw.randrange(8):
                case 0 | 1 | 2:
                    content[at] ^= 1 << draw.randrange(8)
                case 3:
                    content[at : at + length] = draw.randbytes(length)
                case 4:
                    del content[at:]
                case 5:
                    del content[at : at + length]
                case 6:
                    content[at:at] = draw.randbytes(length)
                case 7:
                    other = draw.randrange(len(whole))
                    content[at : at + length] = whole[other : other + length]
            out, lost = tmp_path / f"{number}.csv", [] if number % 2 else None
            try:
                decompress(bytes(content), out, lost=lost)
            except ValueError:
                assert not out.exists()
                continue
            found, read = out.read_bytes(), read + 1
            out.unlink()
            gone = {int(damage.part[6:]) for damage in lost or () if damage.part != "index"}
            if missing := [damage for damage in lost or () if "and any after it" in str(damage)]:
                gone |= {*range(int(missing[0].part[6:]), 4)}
            assert found == head + b"".join(part for at, part in enumerate(parts) if at not in gone)
            some_lost += 0 < len(gone) < 4
    assert read > 1_000 and some_lost > 500
    assert {file.name for file in tmp_path.iterdir()} == {"rows.csv", "set.latente"}


CHANGES = {
    "decimals": lambda r: r["columns"][0]["scale"].update(decimals=10**6),
    "thousands": lambda r: r["columns"][0]["scale"].update(thousands="x" * 10**4),
    "format": lambda r: r["columns"][0]["scale"].update(format="%Y" * 10**4),
    "multiple": lambda r: r["columns"][0]["scale"].update(multiple=0),
    "offset": lambda r: r["columns"][0]["scale"].update(offset=1 << 70),
    "scale of a type": lambda r: r["columns"][0]["scale"].update(type="double"),
    "no scale": lambda r: r["columns"][0].update(scale=None),
    "bins": lambda r: r["columns"][0]["bins"].reverse(),
    "a bin": lambda r: r["columns"][0]["bins"].__setitem__(0, [1]),
    "marker": lambda r: r["columns"][0].update(marker="x" * 10**4),
    "kind": lambda r: r["columns"][0].update(kind="numbers"),
    "type": lambda r: r["columns"][4].update(type="int63"),
    "type of lists": lambda r: r["columns"][4].update(type="list<item: string>"),
    "level": lambda r: r["columns"][1]["levels"].__setitem__(0, 7),
    "more": lambda r: r["columns"][0].update(more=1),
    "less": lambda r: r["columns"][0].pop("missing"),
    "twice": lambda r: r["columns"].append(r["columns"][4]),
    "none": lambda r: r["columns"].clear(),
    "many": lambda r: r["columns"].extend(r["columns"][4] | {"name": f"{i}"} for i in range(50)),
    "surrogate": lambda r: r["columns"][4].update(name="\ud800"),
    "delimiter": lambda r: r["form"].update(delimiter="x" * 10**4),
    "no delimiter": lambda r: r["form"].update(delimiter=""),
    "quote": lambda r: r["form"].update(quote="\n"),
    "line end": lambda r: r["form"].update(line_end="x" * 10**4),
    "encoding": lambda r: r["form"].update(encoding="there is none"),
    "no encoding of text": lambda r: r["form"].update(encoding="hex"),
    "trailing": lambda r: r["form"].update(trailing="sometimes"),
    "padded": lambda r: r["form"].update(padded="n"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_forged_columns_of_each_kind_are_refused(small, tmp_path, name, monkeypatch):
    monkeypatch.setattr(headers, "COLUMNS", 50)
    bad = forged_columns(small[0], tmp_path / "bad.latente", CHANGES[name])
    with resident(150), pytest.raises(ValueError, match="cannot be opened") as error:
        decompress(bad, tmp_path / "out.csv")
    assert "\n" not in str(error.value) and not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    "content",
    [b"[" + b"[]," * 8_000_000 + b"[]]", b"[" * 100_000, b"1" * 5_000, b'"\xff"', b" " * (1 << 26)],
    ids=range(5),
)
def test_columns_of_a_stranger_do_not_fill_memory(small, tmp_path, content):
    bad = forged(small[0], tmp_path / "bad.latente", lambda h: None, parts={"columns": chunks.squeezed(content)})
    assert bad.stat().st_size < 50_000
    with resident(800), pytest.raises(ValueError, match="cannot be opened"):
        Archive(bad)


def leaves(value, path=()):
    """The places of all values in JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from leaves(each, (*path, key))


def test_a_sound_file_of_odd_columns_is_refused_or_damaged_and_nothing_else(small, tmp_path):
    path, _ = small
    draw, opened = random.Random(0), 0
    values = [
        *(None, True, -1, 0, 1, 2**62, -(2**63), 1e300, [], {}, ["a", "b"], [[0, 1]], "", "x", "\t", "'", "utf-16"),
        *("string", "int64", "double", "dictionary[string]", "timestamp[us]", "%Y-%m-%d", "time", "float"),
        *("number", "category", "ignored", "constant"),
    ]

    def change(record):
        for _ in range(draw.randrange(1, 3)):
            *places, last = draw.choice([*leaves(record)])
            inner = record
            for place in places:
                inner = inner[place]
            inner[last] = copy.deepcopy(draw.choice(values))

    with resident(300):
        for number in range(200):
            bad = forged_columns(path, tmp_path / "bad.latente", change)
            out = tmp_path / f"{number}{draw.choice(['.csv', '.parquet', '.arrow', '.xlsx'])}"
            try:
                with Archive(bad) as archive:
                    opened += 1
                    archive.write(out, [])
            except ValueError as error:
                assert "\n" not in str(error) and not out.exists()
            bad.unlink()
            out.unlink(missing_ok=True)
    assert opened > 5


def test_a_frame_is_as_likely_as_the_csv_it_is_of(writer):
    run, path = writer
    rows = pd.read_csv(path)
    assert rows["member"].dtype == bool
    pd.testing.assert_frame_equal(run.log_prob(rows), run.log_prob(str(path)))
    pd.testing.assert_frame_equal(run.predict(rows, "city"), run.predict(str(path), "city"))
    pd.testing.assert_frame_equal(run.fill(rows), run.fill(str(path)))
    assert (run.fill(rows)["member"] == rows["member"]).all()


def test_a_gap_among_truth_values_is_filled_as_in_the_csv(writer, tmp_path):
    run, path = writer
    rows = pd.read_csv(path)[:50].astype({"member": "boolean"})
    rows.loc[[2, 7], "member"] = None
    rows.to_csv(tmp_path / "gaps.csv", index=False)
    full = run.fill(rows)
    pd.testing.assert_frame_equal(full, run.fill(str(tmp_path / "gaps.csv")))
    assert full["member"].notna().all()
    predicted = run.predict(rows, "member")
    pd.testing.assert_frame_equal(predicted, run.predict(str(tmp_path / "gaps.csv"), "member"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow", ".xlsx"])
def test_a_place_that_cannot_be_written_to_is_one_line(writer, tmp_path, capsys, suffix):
    run, path = writer
    compress(run, str(path), tmp_path / "set.latente", verify=False)
    (tmp_path / "file").write_text("mine")
    before, out = sorted(tmp_path.iterdir()), tmp_path / "file" / f"back{suffix}"
    assert main(["decompress", str(tmp_path / "set.latente"), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("latente: ") and str(tmp_path / "file") in line
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "file").read_text() == "mine"
