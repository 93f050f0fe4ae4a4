"""Rows in fewer bytes: every cell comes back, a CSV byte for byte; damage is found and named; a forged file is refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import latente
from forgery import forged
from latente.cli import main
from latente.codec import exact, walks
from latente.codec.coding import Decoder, Encoder, even_bits
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.compression import Archive, cells, compress, decompress, headers
from latente.data.errors import DataError


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
