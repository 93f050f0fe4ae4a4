"""A .latente file of any kind of data: verified as it was written, read item by item, and what is said of a damaged one."""

import json
import random
import shlex
from contextlib import contextmanager

import numpy as np
import pytest

import latente
from latente.cli import main
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.codec.writer import Writer
from latente.compression import Archive, compress, decompress, files, headers
from latente.data.sources import open_source
from spots import damaged, spots

KINDS = {"image": "pixelcnn", "text": "gpt", "table": "table-gpt"}
PARTS = {"image": ("model", "paths"), "text": ("model", "names", "sizes", "tokens"), "table": ("model", "columns")}
THINGS = [(kind, name) for kind, parts in PARTS.items() for name in ("header", *parts, "chunk 0", "chunk 1", "index")]
OUT = {"image": "out.npz", "text": "out", "table": "out.csv"}


@contextmanager
def small():
    """Chunks of 20 images, of 50 rows, of 1,500 bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "PIXELS", 64 * 20)
        patch.setattr(headers, "TABLE", 50)
        patch.setattr(headers, "PIECE", 1_500)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of each kind a run, what it compresses, and the file, of several chunks."""
    folder, draw, found = tmp_path_factory.mktemp("made"), random.Random(0), {}
    digits = open_source("digits")
    np.savez(folder / "set.npz", x=digits.images[:60, 0], y=digits.labels[:60], names=[f"{i} é.png" for i in range(60)])
    (folder / "texts").mkdir()
    for name in ("a.txt", "b é.txt"):
        words = draw.choices(["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs"], k=400)
        (folder / "texts" / name).write_text(" ".join(words))
    rows = [f"{draw.randrange(90)},{draw.choice('abc')},{number * 7919 % 1000}" for number in range(200)]
    (folder / "rows.csv").write_text("\n".join(["age,city,code", *rows]) + "\n")
    for kind, source, settings in (
        ("image", "set.npz", {"size": "tiny"}), ("table", "rows.csv", {"size": "tiny"}),
        ("text", "texts", {"layers": 1, "heads": 2, "width": 16, "context": 16, "tokenizer": "char"}),
    ):  # fmt: skip
        given = str(folder / source)
        run = latente.train(KINDS[kind], given, steps=2, out=folder / kind, quiet=True, **settings)
        with small():
            found[kind] = run, given, compress(run, given, folder / f"{kind}.latente").path
    return found


def same(kind, source, out):
    """Whether what came out is what went in."""
    if kind == "text":
        files = sorted(file.name for file in source.iterdir())
        return files == sorted(file.name for file in out.iterdir()) and all(
            (source / name).read_bytes() == (out / name).read_bytes() for name in files
        )
    if kind == "table":
        return source.read_bytes() == out.read_bytes()
    with np.load(source) as a, np.load(out) as b:
        return sorted(a.files) == sorted(b.files) and all((a[name] == b[name]).all() for name in a.files)


# ---- verification --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), THINGS)
def test_a_file_that_was_written_wrong_never_gets_its_name(made, tmp_path, monkeypatch, kind, name):
    """As a disk may do it: a bit of the draft is another one."""
    own, told = Writer.finish, []

    def finish(writer):
        draft = own(writer)
        damaged(draft, name, draft)
        told.append(draft)
        return draft

    run, source, _ = made[kind]
    monkeypatch.setattr(Writer, "finish", finish)
    with (
        small(),
        pytest.raises(ValueError, match=r"nothing is written, for it could not be read again: .*damaged") as error,
    ):
        compress(run, source, tmp_path / "set.latente")
    assert len(told) == 1 and list(tmp_path.iterdir()) == [] and ".tmp" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("image", lambda job: job.parts.update(paths=job.parts["paths"][:-9] + bytes(9))),
        ("image", lambda job: job.parts.pop("paths")),
        ("image", lambda job: job.names.__setitem__(3, "another")),
        ("image", lambda job: setattr(job, "class_names", job.class_names[::-1])),
        ("image", lambda job: job.header.update(classes=[51, *9 * [1]])),
        ("image", lambda job: job.parts.update(model=job.parts["model"][:-8] + bytes(8))),
        ("text", lambda job: job.parts.update(sizes=job.parts["names"])),
        ("text", lambda job: job.header.update(folder=False)),
        ("text", lambda job: job.header.update(fingerprint="0" * 16)),
        ("text", lambda job: job.parts.update(tokens=job.parts["names"])),
        ("table", lambda job: job.parts.pop("columns")),
        ("table", lambda job: job.parts.update(model=job.parts["model"][:-8] + bytes(8))),
        ("table", lambda job: job.header.update(columns="0" * 16)),
    ],
)  # fmt: skip
def test_a_file_that_says_something_else_never_gets_its_name(made, tmp_path, monkeypatch, kind, change):
    """As a mistake of ours would make it: sound, but not what was given."""
    jobs = {"image": "ImageJob", "text": "TextJob", "table": "TableJob"}
    own, (run, source, _) = getattr(files, jobs[kind]), made[kind]

    class Job(own):
        def __init__(self, *given):
            super().__init__(*given)
            change(self)

    monkeypatch.setattr(files, jobs[kind], Job)
    with small(), pytest.raises(ValueError):
        compress(run, source, tmp_path / "set.latente")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [*KINDS, "lossy"])
def test_a_file_that_decodes_to_something_else_never_gets_its_name(made, tmp_path, monkeypatch, kind):
    run, source = (made["image" if kind == "lossy" else kind])[:2]
    if kind == "lossy":
        run = latente.train("compressor", source, steps=2, size="tiny", out=tmp_path / "run", quiet=True)
    content = {"text": files.PackedTexts, "table": files.PackedTables}.get(kind, files.PackedImages)
    own, told = content.plain, []

    def plain(packed, numbers):
        found = own(packed, numbers)
        told.append(len(found))
        return [*found[:-1], found[-1][:-1] + bytes([found[-1][-1] ^ 1])]

    compress(run, source, tmp_path / "right.latente")
    monkeypatch.setattr(content, "plain", plain)
    with pytest.raises(ValueError, match="what was decoded is not what was coded"):
        compress(run, source, tmp_path / "wrong.latente")
    assert told and sorted(file.name for file in tmp_path.iterdir() if file.name != "run") == ["right.latente"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_given_is_read_again_once(made, tmp_path, monkeypatch, kind):
    (run, source, _), own = made[kind], Reader.chunk
    for verify in (True, False):
        read = []
        monkeypatch.setattr(Reader, "chunk", lambda *given, read=read: read.append(given[1]) or own(*given))
        with small():
            path = compress(run, source, tmp_path / f"{verify}.latente", verify=verify).path
        monkeypatch.setattr(Reader, "chunk", own)
        assert read == (list(range(len(Reader(path)))) if verify else [])
        assert same(kind, path.__class__(source), decompress(path, tmp_path / f"{verify} {OUT[kind]}"))


# ---- random access -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_read_by_number_and_in_order(made, monkeypatch, kind):
    with Archive(made[kind][2]) as archive:
        read, own = [], archive.reader.chunk
        monkeypatch.setattr(archive.reader, "chunk", lambda number: read.append(number) or own(number))
        every = [*archive]
        assert len(every) == len(archive) and read == [*range(len(archive.reader))]
        read.clear()
        size = len(archive.reader.items_of(0))
        for at in (0, 1, size - 1, size, size + 1, np.int64(size), 0, -1, -len(archive)):
            assert np.array_equal(archive[at], every[at])
        assert read == [0, 1, 0, len(archive.reader) - 1, 0]  # a chunk is kept until another is read
        for beyond in (len(archive), -len(archive) - 1):
            with pytest.raises(IndexError):
                archive[beyond]
        for wrong in (slice(0, 3), "7", 1.0, None):
            with pytest.raises(TypeError, match=r"archive\.chunk"):
                archive[wrong]
        if kind != "image":
            assert archive.names is None and archive.labels is None and archive.classes == ()
            return
        assert archive.names == [f"{number} é.png" for number in range(60)]
        assert archive.labels.tolist() == open_source("digits").labels[:60].tolist()
        assert archive.classes == tuple("0123456789") and len(set(read)) == 3


def test_a_missing_chunk_is_missed_while_going_through(made, tmp_path):
    path = damaged(made["image"][2], "chunk 1", tmp_path / "bad.latente")
    with Archive(path) as archive:
        assert archive[0].shape == archive[59].shape == (1, 8, 8)
        for read in (lambda: list(archive), lambda: archive[25], lambda: archive.labels):
            with pytest.raises(Damaged, match="chunk 1"):
                read()
    content = made["image"][2].read_bytes()
    path.write_bytes(content[: spots(made["image"][2])["chunk 2"][5]])
    with Archive(path) as archive:
        assert len(archive) == 40 and archive[39].shape == (1, 8, 8)
        with pytest.raises(Damaged, match="chunk 2"):
            list(archive)


# ---- what is said --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), THINGS)
def test_a_way_out_is_named_where_there_is_one(made, tmp_path, capsys, kind, name):
    path, out = damaged(made[kind][2], name, tmp_path / "bad.latente"), tmp_path / OUT[kind]
    assert main(["decompress", str(path), "--out", str(out)]) == 1 and not out.exists()
    said = capsys.readouterr().err
    assert f"{name} is damaged" in said and said.count("\n") == 1
    bearable = "--skip-damaged" in said
    assert bearable == (name not in ("header", "model", "tokens", "columns"))
    assert main(["decompress", str(path), "--out", str(out), "--skip-damaged"]) == 1
    said = capsys.readouterr().err
    assert out.exists() == bearable and name in said and "--skip-damaged" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_command_that_is_advised_works(made, tmp_path, capsys, kind):
    run, source, _ = made[kind]
    for number, words in enumerate(([], ["--external-model"])):
        path, out = tmp_path / f"a file {number}.latente", tmp_path / f"{number} {OUT[kind]}"
        assert main(["compress", str(run.path), source, "--out", str(path), *words]) == 0
        (advised,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: latente ")]
        given = shlex.split(advised)[2:]
        assert given[-1] == "..." and main([*given[:-1], str(out)]) == 0
        assert same(kind, path.__class__(source), out)


def test_a_file_that_grew_is_said_to_have(made, tmp_path, capsys):
    run, source, _ = made["image"]
    assert main(["compress", str(run.path), source, "--out", str(tmp_path / "a.latente")]) == 0
    said = capsys.readouterr().out
    assert "larger than the data" in said and "--external-model leaves" in said and "one in" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_another_run_than_it_needs_is_said_to_be_another(made, tmp_path, kind):
    run, source, _ = made[kind]
    path = compress(run, source, tmp_path / "a.latente", external_model=True, verify=False).path
    with pytest.raises(ValueError, match="give the run it was made with"):
        Archive(path)
    for other, (given, _, _) in made.items():
        if other != kind:
            with pytest.raises(ValueError, match=f"this is not the run it was made with, a {KINDS[kind]}") as error:
                Archive(path, given)
            assert "give the run" not in str(error.value)
    header = json.loads(json.dumps(Reader(path).header))
    assert header["weights"]
    with Archive(path, run) as archive:
        assert len(archive) == header["items"]


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_help_names_what_is_given(capsys, command):
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert ("RUN SOURCE" if command == "compress" else "FILE") in said.splitlines()[0]
    assert "STR" not in said and "  .tsv" not in said.replace("│", "")
    assert main(["--help"]) == 0 and "attention-rnn  Recurrent" in capsys.readouterr().out
