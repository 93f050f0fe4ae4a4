"""The file of `latente compress`: what goes in comes out, any damage is found and named, and it costs no more than it has to."""

import errno
import io
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latente.codec import layout
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.codec.writer import Writer

START, FOOTER = 22, 16  # bytes before the head, and at the end
NAMES = {"model": 200, "names": 40, "labels": 0}
SIZES = [(100, 3), (0, 2), (100, 3), (260, 300), (1, 1), (130, 0)]  # bytes and items; two chunks are of the same size
OWNERS = [*NAMES, *(f"chunk {i}" for i in range(len(SIZES)))]
FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def written(folder, header, chunks, parts=None):
    """The bytes of a file with these chunks: [(payload, items), ...]."""
    path = Path(folder) / "set.latente"
    path.unlink(missing_ok=True)
    with Writer(path, header, parts) as writer:
        for payload, items in chunks:
            writer.add(payload, items)
    return path.read_bytes()


class Sample:
    """A file, and where everything in it lies, told from its bytes alone."""

    def __init__(self, folder, declared, seed=0):
        draw = random.Random(seed)
        self.parts = {name: draw.randbytes(size) for name, size in NAMES.items()}
        self.chunks = [(draw.randbytes(size), items) for size, items in SIZES]
        self.header = {"codec": "test", "spec": {"kind": "image", "size": [8, 8]}}
        if declared:
            self.header["items"] = sum(items for _, items in SIZES)
        self.content = written(folder, self.header, self.chunks, self.parts)
        self.head = START + struct.unpack_from("<I", self.content, 10)[0]
        varint = lambda n: 1 if n < 128 else 2  # noqa: E731
        frames = [varint(size + 1) + varint(items) + 8 + size for size, items in SIZES]
        self.ends = list(accumulate([*NAMES.values(), *frames], initial=self.head))[1:]
        self.firsts = list(accumulate((items for _, items in SIZES), initial=0))

    def owner(self, place):
        """The name of what the byte at `place` belongs to."""
        if place < self.head:
            return "header"
        return next((name for name, end in zip(OWNERS, self.ends) if place < end), "index")

    def check(self, reader, *damaged, numbers=None):
        """Everything but what is `damaged` reads back right, and that says it is damaged."""
        for name, part in self.parts.items():
            if name in damaged:
                with pytest.raises(Damaged) as error:
                    reader.part(name)
                assert error.value.part == name
            else:
                assert reader.part(name) == part
        for i in range(len(SIZES)) if numbers is None else numbers:
            if f"chunk {i}" in damaged:
                with pytest.raises(Damaged) as error:
                    reader.chunk(i)
                assert error.value.part == f"chunk {i}"
            else:
                assert reader.chunk(i) == self.chunks[i][0]
                assert reader.items_of(i) == range(self.firsts[i], self.firsts[i + 1])


@pytest.fixture(scope="module", params=[True, False], ids=["items declared", "items unknown"])
def sample(request, tmp_path_factory):
    return Sample(tmp_path_factory.mktemp("sample"), request.param)


def named(reader):
    return [damage.part for damage in reader.damages()]


def flipped(content, place, bit):
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


def check(what, *pieces, key=b""):
    return blake2b(b"".join(pieces), digest_size=8, key=key, person=what).digest()


def deflated(content):
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(content) + packer.flush()


def forged(text, rest=b"", version=layout.VERSION, checks=b""):
    """A file whose head holds `text` and `checks` of parts, and whose own check is right."""
    head = deflated(text) + checks
    lead = struct.pack("<HI", version, len(head))
    return b"\xabLAT\r\n\x1a\n" + lead + check(b"head", lead, head) + head + rest


def forged_index(index, frames=b"", text=b"[{},[]]"):
    """A file with these frames and an index that is `index` deflated, whose checks are right."""
    content, trailer = forged(text), b"\0" + deflated(index)
    end = struct.pack("<I8s4s", len(trailer), check(b"index", trailer, key=content[14:22]), b"\xabEND")
    return content + frames + trailer + end


# ---- what goes in comes out ----------------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@FOLDER
@given(
    st.dictionaries(st.text().filter(lambda key: key != "items"), plain, max_size=4),
    st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 1000)), max_size=12),
    st.dictionaries(st.sampled_from(["model", "names", "labels", "chunk"]), st.binary(max_size=300)),
)
def test_whatever_is_written_is_read(tmp_path, header, chunks, parts):
    content = written(tmp_path, header, chunks, parts)
    assert [file.name for file in tmp_path.iterdir()] == ["set.latente"]
    for source in (content, io.BytesIO(content), tmp_path / "set.latente", str(tmp_path / "set.latente")):
        with Reader(source) as reader:
            assert reader.header == header
            assert {name: reader.part(name) for name in reader.parts} == parts
            assert [(reader.chunk(i), len(reader.items_of(i))) for i in range(len(reader))] == chunks
            assert reader.items == sum(items for _, items in chunks)
            assert reader.damages() == reader.incomplete() == []


@FOLDER
@given(st.lists(st.integers(0, 3), max_size=12))
def test_every_item_is_in_one_chunk(tmp_path, counts):
    reader = Reader(written(tmp_path, {}, [(b"", items) for items in counts]))
    assert [item for i in range(len(reader)) for item in reader.items_of(i)] == list(range(sum(counts)))
    assert all(item in reader.items_of(reader.chunk_of(item)) for item in range(reader.items))
    for read, beyond in [(reader.chunk, len(counts)), (reader.items_of, -1), (reader.chunk_of, sum(counts))]:
        with pytest.raises(IndexError):
            read(beyond)


def test_a_chunk_is_read_alone(tmp_path):
    draw = random.Random(0)
    chunks = [(draw.randbytes(1 << 16), 1) for _ in range(64)]
    path = tmp_path / "set.latente"
    with Writer(path, {}, {"model": bytes(1 << 20)}) as writer:
        for chunk in chunks:
            writer.add(*chunk)
    tracemalloc.start()
    with Reader(path) as reader:
        order = draw.sample(range(64), 64)
        assert all(reader.chunk(i) == chunks[i][0] for i in order)
    assert tracemalloc.get_traced_memory()[1] < 1 << 19
    tracemalloc.stop()


def test_threads_share_a_reader(tmp_path):
    draw = random.Random(0)
    chunks = [(draw.randbytes(3000), 1) for _ in range(40)]
    written(tmp_path, {}, chunks)
    wrong = []
    with Reader(tmp_path / "set.latente") as reader:

        def work(seed):
            for i in random.Random(seed).sample(range(40), 40) * 10:
                try:
                    wrong.extend([i] if reader.chunk(i) != chunks[i][0] else [])
                except Damaged:
                    wrong.append(i)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert not wrong


def test_the_format_is_what_it_was():
    """A file of this version, byte for byte. When this fails, files that people have can no longer be read."""
    content = bytes.fromhex(FIRST)
    reader = Reader(content)
    assert reader.header == {"codec": "golden", "items": 5, "name": "é"}
    assert (reader.part("model"), reader.part("names")) == (b"weights", b"")
    assert [reader.chunk(i) for i in range(3)] == [b"first", b"", b"third chunk"]
    assert [reader.items_of(i) for i in range(3)] == [range(0, 2), range(2, 4), range(4, 5)]
    assert reader.damages() == []


def test_names_that_are_no_unicode_come_back(tmp_path):
    header = {"names": [os.fsdecode(b"caf\xe9.png"), "\U0001f600", "\0"]}
    assert Reader(written(tmp_path, header, [])).header == header


# ---- what it costs -------------------------------------------------------------------------------------------------


def deflated_json(content):
    """Bytes of the deflated header: what is left of the head without the checks of the parts."""
    size = struct.unpack_from("<I", content, 10)[0]
    unpacker = zlib.decompressobj(-15)
    unpacker.decompress(content[START : START + size])
    return size - len(unpacker.unused_data)


@pytest.mark.parametrize("size", [0, 100, 8_000, 30_000, 2_000_000])
def test_one_chunk_costs_little(tmp_path, size):
    content = written(tmp_path, {"codec": "gpt", "items": 1}, [(bytes(size), 1)])
    assert len(content) - size - deflated_json(content) < 64


def test_many_chunks_cost_little_each(tmp_path):
    draw = random.Random(0)
    sizes = [draw.randrange(5_000, 15_000) for _ in range(300)]
    chunks = [(bytes(size), 256) for size in sizes]
    content = written(tmp_path, {"codec": "gpt"}, chunks, {"model": bytes(999)})
    over = len(content) - sum(sizes) - 999 - deflated_json(content)
    assert over < 64 + 15 * len(sizes)


# ---- whole or not at all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_when_the_body_fails(tmp_path, error):
    with pytest.raises(error), Writer(tmp_path / "set.latente", {}) as writer:
        writer.add(b"payload", 1)
        assert not (tmp_path / "set.latente").exists()
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_nothing_under_the_name(tmp_path):
    body = f"""
import os, signal
from latente.codec.writer import Writer
with Writer({str(tmp_path / "set.latente")!r}, {{}}) as writer:
    writer.add(bytes(1 << 20), 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", body]).returncode == -signal.SIGKILL
    assert not (tmp_path / "set.latente").exists()


def test_what_exists_is_never_overwritten(tmp_path):
    path = tmp_path / "set.latente"
    with pytest.raises(ValueError, match="already exists; choose another --out"), Writer(path, {}) as writer:
        writer.add(b"payload", 1)
        path.write_text("came meanwhile")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["came meanwhile"]
    for taken in (path, tmp_path, tmp_path / "dangling"):
        (tmp_path / "dangling").is_symlink() or (tmp_path / "dangling").symlink_to("nowhere")
        with pytest.raises(ValueError, match="already exists; choose another --out"):
            Writer(taken, {})


def test_file_systems_without_links(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    assert Reader(written(tmp_path, {}, [(b"payload", 1)])).chunk(0) == b"payload"
    with pytest.raises(ValueError, match="already exists"), Writer(tmp_path / "other", {}):
        (tmp_path / "other").write_text("came meanwhile")
    assert (tmp_path / "other").read_text() == "came meanwhile"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"cannot write .*set\.latente: No space left on device"):
        written(tmp_path, {}, [(b"payload", 1)])
    assert list(tmp_path.iterdir()) == []


def test_a_lost_write_is_not_passed_over(tmp_path):
    """A body that goes on after an error leaves no file with a hole in it."""
    with pytest.raises(ValueError, match="a write before this one failed"), Writer(tmp_path / "set", {}) as writer:
        writer.add(b"payload", 1)
        writer._file.seek(0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("header", "parts", "says"),
    [
        ({"x": {1, 2}}, {}, "must be JSON"),
        ({"x": float("nan")}, {}, "must be JSON"),
        ({"x": "long" * (1 << 18)}, {}, "1,048,576 at most"),
        ({}, {"a b": b""}, "a part cannot be called"),
        ({}, {"index": b""}, "a part cannot be called"),
    ],
)
def test_a_header_that_cannot_be_read_back_is_refused(tmp_path, header, parts, says):
    with pytest.raises(ValueError, match=says):
        Writer(tmp_path / "set.latente", header, parts)
    assert list(tmp_path.iterdir()) == []


def test_a_header_too_deep_is_refused(tmp_path):
    deep, circle = {}, {}
    for _ in range(40):
        deep = {"in": deep}
    circle["in"] = [circle]
    for header in (deep, circle):
        with pytest.raises(ValueError, match="more than 32 deep"):
            Writer(tmp_path / "set.latente", header)


def test_other_mistakes_of_writing(tmp_path):
    with (
        pytest.raises(ValueError, match=r"cannot write .*: No such file or directory"),
        Writer(tmp_path / "a" / "b", {}),
    ):
        pass
    with (
        pytest.raises(ValueError, match="3 items were added, its header says 4"),
        Writer(tmp_path / "a", {"items": 4}) as writer,
    ):
        writer.add(b"", 3)
    with pytest.raises(ValueError, match="chunk 0 has"), Writer(tmp_path / "a", {}) as writer:
        writer.add(b"", -1)
    with pytest.raises(ValueError, match="cannot write"):
        Writer(tmp_path / ("x" * 300), {})
    assert list(tmp_path.iterdir()) == []


# ---- what is no file of ours ---------------------------------------------------------------------------------------


def test_what_is_no_latente_file_is_said(tmp_path):
    for content in (b"", b"\xab", b"\x89PNG\r\n\x1a\n" + bytes(40), b"words " * 40):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match=r"file: not a latente file") as error:
            Reader(tmp_path / "file")
        assert not isinstance(error.value, Damaged)
    with pytest.raises(ValueError, match="no file at"):
        Reader(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="is not a file"):
            Reader(path)


def test_another_format_is_said():
    with pytest.raises(ValueError, match=r"the file is of format 3, .*upgrade") as error:
        Reader(forged(b"[{},[]]", version=3))
    assert not isinstance(error.value, Damaged)
    with pytest.raises(ValueError, match=r"of format 1, from an older latente; this one reads 2"):
        Reader(forged(b"[{},[]]", version=1))
    with pytest.raises(Damaged):
        Reader(forged(b"[{},[]]", version=0))


def test_a_file_changed_as_text_is_said(sample):
    with pytest.raises(Damaged, match="as if it were text") as error:
        Reader(sample.content.replace(b"\r\n", b"\n"))
    assert error.value.part == "header"


def test_damage_is_told_in_one_line(tmp_path, sample):
    path = tmp_path / "set.latente"
    for place, says in [
        (sample.ends[3] - 1, "chunk 0 is damaged (checksum); the other chunks can be read"),
        (sample.head, "model is damaged (checksum); get the file again from where it came"),
    ]:
        path.write_bytes(flipped(sample.content, place, 0))
        with Reader(path) as reader:
            (damage,) = reader.damages()
        assert str(damage) == f"{path}: {says}"
        again = pickle.loads(pickle.dumps(damage))  # as a pool of processes does
        assert (str(again), again.part) == (str(damage), damage.part)
    cut = Reader(sample.content[: sample.ends[5]])
    assert cut.name == "the file"
    assert "index is damaged (" in str(cut.incomplete()[0]) and " 3 chunks with 8 " in str(cut.incomplete()[0])
    with pytest.raises(ValueError, match="the file has no part 'other'"):
        cut.part("other")


# ---- damage --------------------------------------------------------------------------------------------------------


def test_every_single_flipped_bit_is_found_and_costs_one_thing(sample):
    """All bits of the file, one after the other: some 9,000."""
    owners = [sample.owner(place) for place in range(len(sample.content))]
    assert set(owners) == {"header", "model", "names", "index", *(f"chunk {i}" for i in range(len(SIZES)))}
    for place, owner in enumerate(owners):
        for bit in range(8):
            content = flipped(sample.content, place, bit)
            if owner == "header":
                with pytest.raises(ValueError):
                    Reader(content)
                continue
            reader = Reader(content)
            assert named(reader) == [owner], (place, bit)
            assert (len(reader), reader.items) == (len(SIZES), sample.firsts[-1])
            if bit == place % 8:
                sample.check(reader, owner)


def test_every_truncation_is_found_and_costs_what_was_cut(sample):
    declared = "items" in sample.header
    for size in range(len(sample.content)):
        if size < sample.head:
            with pytest.raises(ValueError):
                Reader(sample.content[:size])
            continue
        reader = Reader(sample.content[:size])
        lost = [name for name, end in zip(OWNERS, sample.ends) if end > size]
        whole = sum(end <= size for end in sample.ends[3:])
        assert len(reader) == whole and reader.items == sample.firsts[whole]
        sample.check(reader, *lost, numbers=range(whole))
        # the last chunk holds no items: where they are declared, nothing is known to be missing without it
        missing = reader.items < sample.header["items"] if declared else size <= sample.ends[-1]
        assert named(reader) == [n for n in lost if n in NAMES] + ["index"] + [f"chunk {whole}"] * missing
        assert [damage.part for damage in reader.incomplete()] == ["index"] + [f"chunk {whole}"] * missing
        if missing:
            for read, number in [(reader.chunk, whole), (reader.items_of, 99), (reader.chunk_of, reader.items)]:
                with pytest.raises(Damaged, match="any after it are damaged or missing"):
                    read(number)


def test_anything_appended_costs_only_the_index(sample):
    reader = Reader(sample.content + b"\n")
    assert named(reader) == ["index"]
    sample.check(reader, "index")


def test_a_chunk_is_passed_over_without_the_index(sample):
    """Two damages: the end is cut off, and a payload in front of it is damaged."""
    cut = sample.content[: sample.ends[-1] - 1]  # in the last chunk
    reader = Reader(flipped(cut, sample.ends[3] - 3, 5))
    missing = ["chunk 5"] * ("items" not in sample.header)
    assert len(reader) == 5 and named(reader) == ["chunk 0", "index", *missing]
    sample.check(reader, "chunk 0", numbers=range(5))
    reader = Reader(flipped(flipped(cut, sample.ends[3] - 3, 5), sample.ends[5] - 3, 5))
    sample.check(reader, "chunk 0", "chunk 2", numbers=range(5))


def test_items_are_never_counted_from_a_damaged_chunk(sample):
    """Without the index, a chunk that says it has other items than it had would move all after it."""
    assert sample.content[sample.ends[2] : sample.ends[2] + 2] == bytes([101, 3])
    reader = Reader(flipped(sample.content[:-1], sample.ends[2] + 1, 0))
    assert len(reader) == 0 and named(reader) == ["index", "chunk 0"]


def test_garbage_never_passes_for_data(sample):
    """Bytes overwritten, cut out, put in, moved: no error but ours, nothing wrong is handed out, and all of it is noticed."""
    draw = random.Random(1)
    for _ in range(3_000):
        content, (a, b) = bytearray(sample.content), sorted(draw.choices(range(len(sample.content)), k=2))
        b = min(b, a + draw.choice([4, 40, 400]))
        match draw.randrange(5):
            case 0:
                content[a:b] = draw.randbytes(b - a)
            case 1:
                content[a:b] = bytes([draw.choice([0, 255])]) * (b - a)
            case 2:
                del content[a:b]
            case 3:
                content[a:a] = draw.randbytes(draw.randrange(1, 30))
            case 4:
                content[a:b], moved = b"", content[a:b]
                place = draw.randrange(len(content))
                content[place:place] = moved
        if content == sample.content:
            continue
        try:
            reader = Reader(bytes(content))
        except ValueError:
            continue
        assert reader.damages()
        for i in range(len(reader)):
            try:
                assert reader.chunk(i) == sample.chunks[i][0]
                assert reader.items_of(i) == range(sample.firsts[i], sample.firsts[i + 1])
            except Damaged as error:
                assert error.part == f"chunk {i}"
        for name in NAMES:
            try:
                assert reader.part(name) == sample.parts[name]
            except Damaged as error:
                assert error.part == name


def test_random_bytes_behind_a_sound_header_raise_nothing_else(sample):
    draw = random.Random(2)
    for _ in range(1_000):
        reader = Reader(sample.content[: sample.head] + draw.randbytes(draw.randrange(900)))
        assert "index" in named(reader) and len(reader) == 0


def test_chunks_in_each_others_place_are_found(sample, tmp_path):
    """Two of the same size, so that the index still fits; with the index and without."""
    (a, b), (c, d) = sample.ends[2:4], sample.ends[4:6]
    content = sample.content
    swapped = content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]
    assert len(swapped) == len(content) and swapped != content
    assert named(Reader(swapped)) == ["chunk 0", "chunk 2"]
    sample.check(Reader(swapped), "chunk 0", "chunk 2")
    sample.check(Reader(swapped[:-1]), "chunk 0", "chunk 2")
    empty = written(tmp_path, {}, [(b"one", 0), (b"two", 0)])  # only the number tells them apart
    a, b = (empty.index(payload) - 10 for payload in (b"one", b"two"))
    assert named(Reader(empty[:a] + empty[b : b + 13] + empty[a:b] + empty[b + 13 :])) == ["chunk 0", "chunk 1"]


def test_a_chunk_repeated_or_left_out_is_found(sample):
    (a, b), (c, d), content = sample.ends[2:4], sample.ends[4:6], sample.content
    twice = content[:a] + content[c:d] + content[b:]
    assert named(Reader(twice)) == ["chunk 0"]
    left_out = content[:a] + content[b:]  # all after it have another number, and other items before them
    assert named(Reader(left_out))[0] == "index" and len(Reader(left_out)) == 0


def test_a_part_in_anothers_place_is_found(tmp_path):
    content = written(tmp_path, {}, [], {"first": b"aaaa", "second": b"bbbb"})
    assert named(Reader(content.replace(b"aaaabbbb", b"bbbbaaaa"))) == ["first", "second"]


def test_chunks_of_another_file_are_found(tmp_path):
    """The same header, the same sizes; but another model, which would decode the chunks to something else."""
    files = [
        written(tmp_path, {"items": 2}, [(b"one", 1), (b"two", 1)], {"model": model}) for model in (b"old", b"new")
    ]
    at = files[0].index(b"old") + 3
    assert named(Reader(files[0][:at] + files[1][at:])) == ["index", "chunk 0"]


def test_a_disk_that_fails_costs_what_it_held(tmp_path, sample):
    class Failing(io.BytesIO):
        def read(self, size=-1, /):
            if self.tell() <= sample.ends[6] - 50 < self.tell() + size:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    reader = Reader(sample.content)
    reader._file = Failing(sample.content)
    (damage,) = reader.damages()
    assert damage.part == "chunk 3" and "Input/output error" in str(damage)


# ---- files made to harm --------------------------------------------------------------------------------------------


def test_a_deflate_bomb_is_refused_in_bounded_memory():
    header = forged(b" " * (1 << 26))  # 64 MiB in 64 kB
    frames = b"".join(b"\1\1" + bytes(8) for _ in range(7_000))  # enough for an index this long
    index = forged_index(bytes(1 << 26), frames)
    tracemalloc.start()
    with pytest.raises(Damaged, match="not what a writer writes"):
        Reader(header)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.reset_peak()
    assert Reader(index).incomplete()[0].part == "index"
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b"[{}," + b"[" * 500_000,
        b'[{"a":' + b"[" * 40 + b"]" * 40 + b"},[]]",
        b"[[],[]]",
        b"[{}]",
        b"{}",
        b"7",
        b"null",
        b'"ab"',
        b"",
        b"\xff\xfe",
        b"[{},{}]",
        b'[{},[["model",1]]]',  # without its check
        b'[{"a":NaN},[]]',
        b'[{"a":' + b"1" * 5_000 + b"},[]]",
    ],
)
def test_a_head_that_is_not_ours_is_refused(text):
    with pytest.raises(Damaged) as error:
        Reader(forged(text))
    assert error.value.part == "header" and len(str(error.value)) < 200


@pytest.mark.parametrize(
    "parts",
    [
        b'[["a",-1]]',
        b'[["a",true]]',
        b'[["a",1.5]]',
        b'[["a",1e999]]',
        b"[[1,1]]",
        b'[["",1]]',
        b'[["../a",1]]',
        b'[["a"]]',
        b'["ab"]',
        b"[null]",
        b'[[["a"],1]]',
        b'[["header",0]]',
        b'[["a",1' + b"0" * 4_000 + b"]]",
    ],
)
def test_parts_that_cannot_be_are_refused(parts):
    with pytest.raises(Damaged, match="not what a writer writes"):
        Reader(forged(b"[{}," + parts + b"]", checks=bytes(8)))


def test_sizes_beyond_the_file_allocate_nothing():
    content = forged(b'[{"items":9},[["model",4611686018427387903]]]', bytes(99), checks=bytes(8))
    huge = b"\xff\xff\xff\xff\x0f"  # 2**32 - 1
    for source in (content, forged_index(huge * 2, huge * 2 + bytes(30)), forged(b"[{},[]]", huge * 2 + bytes(30))):
        tracemalloc.start()
        reader = Reader(source)
        assert reader.damages() and len(reader) == 0
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
    junk = bytes(24 << 20)
    end = struct.pack("<I8s4s", len(junk), bytes(8), b"\xabEND")
    tracemalloc.start()
    with pytest.raises(Damaged, match="too long"):
        Reader(b"\xabLAT\r\n\x1a\n" + struct.pack("<HI", layout.VERSION, len(junk)) + bytes(8) + junk)
    content = forged(b"[{},[]]", junk + end)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    assert named(Reader(content)) == ["index"]
    assert tracemalloc.get_traced_memory()[1] - before < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "index",
    [
        b"\1",
        b"\0\1\1",
        b"\x80",
        b"\x80" * 9 + b"\1",
        b"\0\1\0\1",
        b"\xff\xff\xff\xff\x7f" * 2,
        b"\0\1\x80",
        b"\0\x81" + b"\x80" * 5 + b"\0",
    ],
)
def test_an_index_that_does_not_fit_is_not_believed(index):
    frame = b"\1\1" + check(b"chunk", struct.pack("<QQ", 0, 0), b"\1\1", key=forged(b"[{},[]]")[14:22])
    assert Reader(forged_index(b"\0\1", frame)).damages() == []
    reader = Reader(forged_index(index, frame))
    assert named(reader) == ["index"] and reader.chunk(0) == b"" and reader.items == 1


def test_counts_that_cannot_be_are_not_believed():
    key = forged(b"[{},[]]")[14:22]
    many = b"\x80\x80\x80\x80\x40"  # 2**34 items
    frame = b"\1" + many + check(b"chunk", struct.pack("<QQ", 0, 0), b"\1" + many, key=key)
    assert Reader(forged_index(b"\0" + many, frame)).items == 0
    assert named(Reader(forged_index(b"\1"))) == ["index"]
    reader = Reader(forged_index(b"", text=b'[{"items":3},[]]'))
    assert named(reader) == ["index"] and "0, 3 items" in str(reader.damages()[0])


def test_more_chunks_than_there_may_be(monkeypatch, tmp_path):
    content = written(tmp_path, {}, [(b"", 1)] * 3)
    monkeypatch.setattr(layout, "MOST_CHUNKS", 2)
    assert named(Reader(content)) == ["index", "chunk 2"]
    with pytest.raises(ValueError, match="more than 2 chunks; make them larger"):
        written(tmp_path, {}, [(b"", 1)] * 3)


def test_a_part_named_twice_is_refused():
    assert Reader(forged(b'[{},[["a",0],["b",0]]]', checks=2 * check(b"part"))).part("b") == b""
    with pytest.raises(Damaged, match="not what a writer writes"):
        Reader(forged(b'[{},[["a",0],["a",0]]]', checks=2 * check(b"part")))


def test_a_file_of_nothing_but_frames_ends(sample):
    """Frames that lead nowhere, as many as fit: read once, from front to back."""
    for junk in (b"\1\0" + bytes(8), b"\x02\x01", b"\x80", b"\x01", b"\xff"):
        reader = Reader(sample.content[: sample.ends[2]] + junk * (100_000 // len(junk)))
        assert len(reader) == 0 and [damage.part for damage in reader.incomplete()] == ["index", "chunk 0"]


FIRST = (
    "ab4c41540d0a1a0a0200510000008c7b328d1f76ec398bae564ace4f494d56b2524acfcf4949cd53d251ca2c49cd2d56b232"
    "d551ca4bcc4d05ca1c5ea954ab131dad940b5499a3a4631eab130d962a56d231888d8d0500b8c767db60a80dcc76ae6cefd4"
    "d523427765696768747306022b63258d8baccb3b666972737401028c6614ac15a7d2380c014a1567656ba5fafa7468697264"
    "206368756e6b006365e0666262040009000000d2fc045e3459b8e3ab454e44"
)
