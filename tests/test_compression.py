"""Data sets in fewer bytes: what goes in comes out, to the bit; the size is what the model promises; damage is found and named."""

import copy
import json
import math
import random
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import latente
from forgery import forged, memory, part_of, peak
from latente import registry
from latente.cli import main
from latente.codec import coding, exact, packing
from latente.codec.coding import Decoder, Encoder, frequencies
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.codec.writer import Writer
from latente.compression import Archive, chunks, coders, compress, decompress, files, headers, images, quality
from latente.compression.coders import Lossless
from latente.compression.images import ImageJob
from latente.compression.quality import Point, Wish
from latente.data.images import picture, write_images
from latente.data.sources import open_source
from latente.evaluation.findings import silent
from latente.models import compressor as compressor_file
from latente.models import pixelcnn
from latente.rng import keyed
from latente.spec import ImageSpec
from spots import damaged, spots


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """A pixel model of digits."""
    folder = tmp_path_factory.mktemp("painter")
    return latente.train("pixelcnn", "digits", steps=60, size="tiny", out=folder / "run", quiet=True)


def network(spec, bits=8):
    torch.manual_seed(0)
    model = pixelcnn.Model(pixelcnn.Config(width=16, blocks=2, window=2), spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, exact.exact(model, bits)


def bits(net, images, labels):
    return Lossless(net, ()).code(images, labels, [len(images)])[1]


# ---- the coder and the exact network -------------------------------------------------------------------------------


def test_the_coder_needs_what_the_chances_say():
    random = np.random.default_rng(0)
    logits = torch.from_numpy(np.round(random.normal(0, 6000, (5000, 16))))
    chances = frequencies(logits)
    shares = (chances + 1) / coding.TOTAL
    values = (shares.cumsum(1) > random.random((5000, 1))).argmax(1)
    coder = Encoder()
    for start in range(0, 5000, 700):
        coder.add(values[start : start + 700], chances[start : start + 700])
    coded, decoder = coder.finish(), None
    decoder = Decoder(coded)
    found = [decoder.take(chances[start : start + 100]) for start in range(0, 5000, 100)]
    assert (np.concatenate(found) == values).all()
    bits = -np.log2(shares[np.arange(5000), values]).sum()
    assert bits <= 8 * len(coded) <= bits * 1.0005 + 64
    assert (np.abs(shares - torch.softmax(logits / 4096, 1).numpy()) < 0.003).all()  # a table of steps of 1/256 nat


@pytest.mark.parametrize("spread", [500, 5_000, 50_000])
def test_every_value_can_be_coded_however_rare(spread):
    random = np.random.default_rng(0)
    for k in (16, 32, 64):
        chances = frequencies(torch.from_numpy(np.round(random.normal(0, spread, (3000, k)))))
        values = np.where(np.arange(3000) % 2, k - 1, random.integers(0, k, 3000))
        coder = Encoder()
        coder.add(values, chances)
        assert (Decoder(coder.finish()).take(chances) == values).all()


def test_frequencies_are_whole_and_leave_nothing_to_round():
    logits = torch.from_numpy(np.random.default_rng(0).integers(-(2**22), 2**22, (1000, 16)).astype(float))
    for given_ in (logits, torch.zeros(1, 16, dtype=torch.float64)):
        found = frequencies(given_)
        assert (found == np.floor(found)).all() and (found >= 0).all() and (found.sum(1) == coding.TOTAL - 16).all()


@pytest.mark.parametrize("spec", [ImageSpec(1, 9, 8), ImageSpec(3, 8, 11, ("a", "b"))], ids=["grey", "RGB, classes"])
def test_the_exact_network_is_the_model_and_the_same_in_any_company(spec):
    model, net = network(spec, bits=12)
    batch = spec.example(40, keyed(0))
    labels = batch["label"].numpy() if spec.classes else None
    with torch.no_grad():
        nats = model.nats(batch).sum(1).numpy()
    together = bits(net, batch["x"].numpy(), labels)
    assert np.allclose(together * math.log(2), nats, rtol=2e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = [bits(net, batch["x"][i : i + 1].numpy(), None if labels is None else labels[i : i + 1]) for i in range(40)]
    torch.set_num_threads(threads)
    assert (np.concatenate(alone) == together).all()  # not nearly: to the last bit
    for layer in (module for module in net.modules() if isinstance(module, exact.Linear)):
        most = layer.weight.abs().sum(1).max() * 4 * exact.BOUND
        assert (layer.weight == layer.weight.round()).all() and most < 2**53


def test_weights_packed_and_unpacked_are_the_same():
    spec = ImageSpec(1, 8, 8, ("a",))
    _, net = network(spec)
    other = exact.exact(pixelcnn.Model(pixelcnn.Config(width=16, blocks=2, window=2), spec), 8)
    packed = packing.pack(net)
    packing.unpack(packed, other)
    assert all((a == b).all() for a, b in zip(net.state_dict().values(), other.state_dict().values()))
    for wrong in (packed[:-4], packed + b"....", b"", packed[: len(packed) // 2]):
        with pytest.raises(ValueError):
            packing.unpack(wrong, other)


def test_weights_are_named_by_their_numbers_not_by_how_they_are_packed(monkeypatch):
    _, net = network(ImageSpec(1, 8, 8))
    named, packed = packing.digest(net), packing.pack(net)
    own = zlib.compress
    monkeypatch.setattr(
        packing.zlib, "compress", lambda content, level: own(content, 0)
    )  # as another version of zlib might
    assert packing.pack(net) != packed and packing.digest(net) == named
    net.first.weight[0, 0] += 1
    assert packing.digest(net) != named


def test_weights_that_are_all_alike_can_be_packed():
    model, _ = network(ImageSpec(1, 8, 8))
    with torch.no_grad():
        [parameter.zero_() for parameter in model.parameters()]
    net, other = exact.exact(model, 8), network(ImageSpec(1, 8, 8))[1]
    packing.unpack(packing.pack(net), other)
    assert all((a == b).all() for a, b in zip(net.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize(
    ("low", "size", "why"),
    [(-129, 2, "weights"), (127, 3, "weights"), (0, 0, "weights"), (-128, 2**32 - 1, "weights"), (-(2**31), 1, "weights")],
)  # fmt: skip
@pytest.mark.parametrize("by_kind", [False, True])
def test_forged_weights_are_refused_before_they_are_inflated(low, size, why, by_kind):
    _, net = network(ImageSpec(1, 8, 8))
    bomb = zlib.compress(bytes(1 << 26), 9)
    start = struct.pack("<i", 2**31 - 1) if by_kind else b""
    with memory(1), pytest.raises(ValueError, match=why):
        packing.unpack(start + struct.pack("<iIII", low, size, len(bomb), 0) + bomb, net)


def test_the_walk_gives_the_model_its_own_samples():
    spec = ImageSpec(3, 8, 9)
    model, _ = network(spec)
    made = model.sample(20, generator=keyed(1))
    assert made["x"].shape == (20, 3, 8, 9) and len(torch.unique(made["x"])) > 50
    numbers = made["x"].permute(0, 2, 3, 1).flatten(1)
    halves = iter([half for i in range(numbers.shape[1]) for half in (numbers[:, i] // 16, numbers[:, i] % 16)])
    found = []

    def known(logits):
        half = next(halves).long()
        found.append(torch.nn.functional.cross_entropy(logits, half, reduction="none"))
        return half

    assert (model.walk(20, None).through(known) == made["x"]).all()
    with torch.no_grad():
        assert torch.allclose(torch.stack(found).sum(0), model.nats(made).sum(1), rtol=1e-4)


# ---- images --------------------------------------------------------------------------------------------------------


class Untrained:
    """What compressing images asks of a run, of any spec."""

    def __init__(self, name, spec):
        self.spec, self.family, self.record = spec, registry.load(name), {"config": CONFIGS[name], "model_sha256": None}
        torch.manual_seed(0)
        self.model = self.family.Model(self.family.Config(**CONFIGS[name]), spec).eval()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))


CONFIGS = {
    "pixelcnn": {"width": 12, "blocks": 1, "window": 2, "embedding": 4},
    "compressor": asdict(
        compressor_file.Config(9, 12, 8, encoder_width=12, blocks=1, levels=3, leak=0.125, views=3, shared_by=9)
    ),
}


def packed(run, source, path, wish=Wish(), chunk=4, verify=True, names=None, refine=0):  # noqa: B008
    """A file of chunks of so many images, and what its coder promised to give back."""
    promised = [np.empty((0, *run.spec.shape), np.uint8)]
    own = coders.Coder.code

    def code(coder, numbers, labels, counts, levels=None):
        promised.append(coder.shown(numbers, levels))
        return own(coder, numbers, labels, counts, levels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "PIXELS", chunk * run.spec.height * run.spec.width)
        patch.setattr(images, "TRIED", (8,))
        patch.setattr(images, "FEWER", ())
        job = ImageJob(run, source, False, wish, silent, refine)
        if names is not None:
            job.names, job.parts = names, job.parts | {"paths": chunks.squeezed_names(names)}
        patch.setattr(coders.Coder, "code", code)
        files._written(path, job, None, verify, silent)
    return np.concatenate(promised)


def pictures(kind, n, spec, seed):
    draw = np.random.default_rng(seed)
    return {
        "noise": draw.integers(0, 256, (n, *spec.shape), np.uint8),
        "constant": np.full((n, *spec.shape), draw.integers(256), np.uint8),
        "black": np.zeros((n, *spec.shape), np.uint8),
        "blobs": spec.example(n, keyed(seed))["x"].numpy(),
    }[kind]


SIDES = st.one_of(st.sampled_from([(1, 1), (3, 5), (1, 20), (20, 1), (4, 4)]), st.tuples(*2 * [st.integers(1, 12)]))


@pytest.mark.parametrize("family", CONFIGS)
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([0, 1, 3, 4, 5, 18]), st.sampled_from([1, 3]), SIDES, st.integers(0, 3), st.integers(0, 3),
    st.sampled_from(["noise", "constant", "black", "blobs"]), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(3, 3, (20, 20), 2, 0, "noise", True, 0)
@example(4, 1, (20, 19), 0, 1, "blobs", True, 0)
def test_every_set_of_images_comes_back(family, n, channels, sides, known, others, kind, named, seed):
    """Of classes that the model knows, or of `others` that it does not; with names or without."""
    spec, draw = ImageSpec(channels, *sides, tuple("abc"[:known])), np.random.default_rng(seed)
    x, labels = pictures(kind, n, spec, seed), draw.integers(0, known or max(1, others), n)
    source = (x, labels if known else labels + 7) if known or others else x
    names = [f"{number % 3}/{number}.{draw.choice(['jpg', 'png'])}" for number in range(n)] if named else None
    wish = Wish(psnr=5) if family == "compressor" and seed % 2 else Wish()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "set.latente"
        refine = 2 if family == "compressor" and seed % 3 == 0 else 0
        promised = packed(Untrained(family, spec), source, path, wish, names=names, refine=refine)
        assert family == "compressor" or np.array_equal(promised, x)
        with Archive(path) as archive:
            assert np.array_equal(np.reshape([*archive], x.shape), promised) and archive.names == names
            each, reader = spec.dimensions + bool(known or others), archive.reader
            assert all(len(reader.chunk(i)) <= each * len(reader.items_of(i)) + chunks.HEAD for i in range(len(reader)))
            if known or (others and n):
                assert archive.classes == (spec.classes or tuple(map(str, np.unique(labels + 7))))
                called = np.array(archive.classes)[archive.labels].tolist()
                assert called == [spec.classes[i] if known else str(i + 7) for i in labels]
            else:
                assert archive.classes == () and archive.labels is None


@pytest.mark.parametrize("family", CONFIGS)
def test_images_are_decoded_alike_alone_in_company_and_by_any_threads(family, tmp_path):
    spec = ImageSpec(3, 5, 6, ("a", "b"))
    x = np.concatenate([pictures(kind, 8, spec, 0) for kind in ("noise", "blobs")])
    promised = packed(Untrained(family, spec), (x, np.arange(16) % 2), tmp_path / "set.latente", chunk=3, verify=False)
    threads = torch.get_num_threads()
    for count, together in ((1, 1), (2, 4), (1, 6)):
        try:
            torch.set_num_threads(count)
            with Archive(tmp_path / "set.latente") as archive:
                found = [archive.content.decode(numbers) for numbers in chunks.batches(6, together)]
        finally:
            torch.set_num_threads(threads)
        assert np.array_equal(np.concatenate(list(chain(*found))), promised), (count, together)


def test_a_set_of_images_is_as_small_as_the_model_promises(painter, tmp_path):
    data = open_source("digits")
    found = compress(painter, "digits", tmp_path / "d.latente")
    assert found.items == 1797 and found.raw == 1797 * 64 and found.size == (tmp_path / "d.latente").stat().st_size
    assert found.size - found.model - found.coded < 1200  # header, labels, index
    with torch.no_grad():
        nats = -painter.model.log_prob(data.batch(data.items)).sum()
    shares = np.bincount(data.labels) / len(data.labels)
    promised = (float(nats) / math.log(2) - np.log2(shares[data.labels]).sum()) / 8
    assert found.modelled == found.coded and abs(found.expected / promised - 1) < 0.01
    assert abs(found.modelled / promised - 1) < 0.01
    x, labels = (np.concatenate([each] * 4) for each in (data.images, data.labels))
    more = compress(painter, (x, labels), tmp_path / "4.latente", verify=False)
    assert more.size - more.model < 1.01 * 4 * promised  # header and index too
    path = decompress(found.path, tmp_path / "d.npz")
    with np.load(path) as file:
        assert (file["x"] == data.images[:, 0]).all() and (file["y"] == data.labels).all()


def test_one_image_is_read_from_its_own_chunk(painter, tmp_path, monkeypatch):
    monkeypatch.setattr("latente.compression.headers.PIXELS", 64 * 100)  # 100 images a chunk
    data = open_source("digits")
    compress(painter, "digits", tmp_path / "d.latente", verify=False)
    with Archive(tmp_path / "d.latente") as archive:
        read = []
        own = archive.reader.chunk
        monkeypatch.setattr(archive.reader, "chunk", lambda number: read.append(number) or own(number))
        assert len(archive) == 1797 and (archive[1234] == data.images[1234]).all() and read == [12]
        assert (archive.chunk(17) == data.images[1700:1797]).all()
        with pytest.raises(IndexError):
            archive[1797]


def test_files_keep_their_names_and_classes(tmp_path, painter):
    from PIL import Image

    draw = np.random.default_rng(0)
    for kind in ("a", "b"):
        for number in range(8):
            target = tmp_path / "in" / kind / f"{kind} {number} é.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)).save(target)
    run = latente.train("pixelcnn", str(tmp_path / "in"), steps=2, size="tiny", out=tmp_path / "run", quiet=True)
    compress(run, str(tmp_path / "in"), tmp_path / "set.latente")
    decompress(tmp_path / "set.latente", tmp_path / "out")
    before, after = (
        {f.relative_to(tmp_path / top).as_posix(): np.asarray(Image.open(f)) for f in (tmp_path / top).rglob("*.png")}
        for top in ("in", "out")
    )
    assert sorted(after) == sorted(before) and all((after[name] == before[name]).all() for name in before)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """A pixel model of digits that knows no classes."""
    folder = tmp_path_factory.mktemp("unlabelled")
    x = open_source("digits").images[:300, 0]
    return latente.train("pixelcnn", x, steps=1, size="tiny", out=folder / "run", quiet=True)


def again(run, source, folder):
    """What comes back of a source in each kind of output, as it is read again, and the notes."""
    path, found = compress(run, source, folder / "set.latente").path, {}
    for name in ("out.npz", "out.parquet", "out"):
        with Archive(path) as archive:
            found[name] = open_source(archive.write(folder / name), run.reading), archive.notes
    return found


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.arange(30) % 3 * 4 - 1, ("-1", "3", "7")), (np.array(["dog", "cat", "a/b"] * 10), ("a/b", "cat", "dog")),
        (np.arange(30) % 2 * 0.5, ("0.0", "0.5")), (np.arange(30) % 2 == 0, ("False", "True")), (np.arange(30) % 2, ("0", "1")),
        (np.full(30, 5), ("5",)), (np.full(30, "only"), ("only",)),
    ],
    ids=lambda value: str(value[0]),
)  # fmt: skip
def test_labels_are_kept_by_a_run_that_knows_no_classes(unlabelled, tmp_path, labels, classes):
    x = open_source("digits").images[:30]
    np.savez(tmp_path / "set.npz", x=x[:, 0], y=labels)
    called = np.array([str(label) for label in labels])
    for number, source in enumerate((str(tmp_path / "set.npz"), (x, labels))):
        path = compress(unlabelled, source, tmp_path / f"{number}.latente").path
        with Archive(path) as archive:
            assert archive.classes == classes and (np.array(archive.classes)[archive.labels] == called).all()
            archive.write(tmp_path / f"{number}")
            assert len(archive.notes) == ("a/b" in classes)
            archive.write(tmp_path / f"{number}.npz")
            assert archive.notes == []
        with np.load(tmp_path / f"{number}.npz") as file:
            assert (file["x"] == x[:, 0]).all()
            if "classes" in file:
                assert (file["classes"][file["y"]] == called).all()
            else:
                assert (file["y"] == labels).all()
        made = {file.relative_to(tmp_path / f"{number}") for file in (tmp_path / f"{number}").rglob("*.png")}
        assert made == {Path(called[i].replace("/", "-")) / f"{i:06d}.png" for i in range(30)}
        back = open_source(tmp_path / f"{number}.npz")
        assert back.spec.classes == (classes if len(classes) > 1 else ()) and back.sole_class in (None, *classes)


def test_images_without_names_are_called_by_their_numbers_whatever_is_lost(unlabelled, tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "PIXELS", 64 * 10)
    path, lost = compress(unlabelled, open_source("digits").images[:25], tmp_path / "set.latente").path, []
    damaged(path, "chunk 1", path)
    decompress(path, tmp_path / "out", lost=lost)
    left = [f"{number:06d}.png" for number in (*range(10), *range(20, 25))]
    assert len(lost) == 1 and sorted(file.name for file in (tmp_path / "out").iterdir()) == left


def test_names_that_no_folder_can_take_get_others(unlabelled, tmp_path):
    """Too long with .png behind them, or another's once they lie in the folder of their class."""
    long, x = "x" * 251 + ".jpg", open_source("digits").images[:10, 0]
    names = [long, "x.png", "a/x.png", *(f"{number}.png" for number in range(7))]
    np.savez(tmp_path / "set.npz", x=x, y=["a", "a", "a", *"bbbbbbb"], names=names)
    found = compress(unlabelled, str(tmp_path / "set.npz"), tmp_path / "set.latente")
    with Archive(found.path) as archive:
        assert archive.names == names
        archive.write(tmp_path / "out")
        assert archive.notes[1].startswith("9 images lie in folders of their classes")
        assert archive.notes[2].startswith("1 of these")
    out = sorted(file.name for file in (tmp_path / "out" / "a").iterdir())
    assert out == ["x.png", "x.png.png", "x" * 251 + ".png"]


def test_a_file_holds_any_number_of_images_of_any_of_the_runs_classes(painter, unlabelled, tmp_path, capsys):
    x = open_source("digits").images[:3]
    write_images(tmp_path / "in", x, np.array([0, 1, 0]), ("2", "7"))
    write_images(tmp_path / "none", x)
    write_images(tmp_path / "other", x, np.array([0, 1, 0]), ("2", "x"))
    with Archive(compress(painter, str(tmp_path / "in"), tmp_path / "set.latente").path) as archive:
        assert archive.labels.tolist() == [2, 2, 7]
        assert archive.names == ["2/000000.png", "2/000002.png", "7/000001.png"]
    one = compress(unlabelled, str(tmp_path / "none" / "000001.png"), tmp_path / "one.latente")
    with Archive(one.path) as archive:
        assert (archive[0] == x[1]).all() and len(archive) == 1 and archive.names == ["000001.png"]
    for source, said in (("none", "none has none: give folders"), ("other", "other has x")):
        words = ["compress", str(painter.path), str(tmp_path / source), "--out", str(tmp_path / "no.latente")]
        assert main(words) == 2 and said in capsys.readouterr().err


def test_a_class_that_no_folder_can_be_called_is_named(tmp_path):
    np.savez(tmp_path / "set.npz", x=open_source("digits").images[:30, 0], y=["", "b", "c"] * 10)
    run = latente.train("pixelcnn", str(tmp_path / "set.npz"), steps=1, size="tiny", out=tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match=r"a class of this run is called ''.*--no-labels"):
        compress(run, str(tmp_path / "set.npz"), tmp_path / "set.latente")


def test_what_of_a_source_is_left_out_is_said(unlabelled, tmp_path):
    x = open_source("digits").images[:12]
    folder, frames = tmp_path / "in", [picture(image) for image in x[:3]]
    write_images(folder, x)
    frames[0].save(folder / "moves.gif", save_all=True, append_images=frames[1:])
    (folder / "about.txt").write_text("digits")
    (folder / "again").symlink_to(folder)
    found = compress(unlabelled, str(folder), tmp_path / "set.latente")
    assert found.items == 13 and [note for note in found.notes if note.startswith("left out")] == [
        "left out: 1 other file (about.txt)", "left out: 1 link to a folder (again)",
        "left out: all but the first frame or page of 1 picture",
    ]  # fmt: skip
    np.savez(tmp_path / "twice.npz", x=x[:, 0], names=["a", *"abcdefghijk"])
    twice = compress(unlabelled, str(tmp_path / "twice.npz"), tmp_path / "twice.latente")
    assert "12 images have names" in twice.notes[0]


def test_numbers_that_are_labels_of_a_parquet_stay_numbers(unlabelled, tmp_path):
    labels = np.arange(12) % 11
    write_images(tmp_path / "a.parquet", open_source("digits").images[:12], labels, [*map(str, range(11))])
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.append_column("said", pa.array(["x"] * 12)), tmp_path / "set.parquet")
    found = compress(unlabelled, str(tmp_path / "set.parquet"), tmp_path / "set.latente")
    again = pq.read_table(decompress(found.path, tmp_path / "b.parquet"))
    assert again["label"].to_pylist() == labels.tolist() and found.notes == ("left out: 1 column (said)",)


def test_where_a_file_cannot_be_is_said_before_the_work(painter, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ImageJob", None)
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name, said in (("a.txt", "exists"), ("a.txt/x.latente", "a.txt is no folder"), ("dangling", "exists")):
        with pytest.raises(ValueError, match=said):
            compress(painter, "digits", tmp_path / name)


def test_names_that_a_terminal_would_obey_are_shown_as_escapes(unlabelled, tmp_path, capsys):
    write_images(tmp_path / "in", open_source("digits").images[:1], names=["a\x1b[31m"])
    (tmp_path / "in" / "a\x1b[31m.png").rename(tmp_path / "in" / "a\x1b[31m\udce9.jpg")
    words = [str(unlabelled.path), str(tmp_path / "in"), "--out", str(tmp_path / "set.latente")]
    assert main(["compress", *words]) == 0 and "(a\\x1b[31m\\udce9.jpg.png)" in capsys.readouterr().out


def test_labels_that_cannot_be_kept_are_said_to_be_left_out(unlabelled, tmp_path, monkeypatch):
    x, long = open_source("digits").images[:30], ["n" * 10_000 + str(number) for number in range(30)]
    for number, labels in enumerate((np.array(["a", ".."] * 15), np.array(["a", ""] * 15), np.array(long))):
        found = compress(unlabelled, (x, labels), tmp_path / f"{number}.latente")
        assert any("labels are left out" in note for note in found.notes)
        with Archive(found.path) as archive:
            assert archive.labels is None and (archive[3] == x[3]).all()


def test_many_classes_are_kept(unlabelled, tmp_path):
    x, labels = np.zeros((300, 1, 8, 8), np.uint8), np.random.default_rng(0).permutation(300) * 1_000_003
    with Archive(compress(unlabelled, (x, labels), tmp_path / "set.latente").path) as archive:
        assert [int(archive.classes[label]) for label in archive.labels] == labels.tolist()


def test_names_come_back_as_they_were(unlabelled, tmp_path, capsys):
    """In a folder with .png behind those of other pictures, which is said; elsewhere exactly."""
    from PIL import Image

    draw = np.random.default_rng(0)
    names = [
        "1.jpg",
        "1.png",
        "1.jpg.png",
        "B.PNG",
        "deep/2.bmp",
        "deep/2.png",
        "é ü.gif",
        *(f"x{i}.png" for i in range(5)),
    ]
    for name in names:
        target = tmp_path / "in" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)).save(target)
    data = open_source(tmp_path / "in", unlabelled.reading)
    path, words = tmp_path / "set.latente", ["compress", str(unlabelled.path), str(tmp_path / "in")]
    assert main([*words, "--out", str(path)]) == 0
    assert "3 of 12 names do not end in .png: written to a folder they get that behind them (1.jpg.png)" in (
        said := capsys.readouterr().out
    )
    assert "the same, but for what is noted above" in said
    with Archive(path) as archive:
        assert sorted(archive.names) == sorted(names) and archive.names == data.keys
    wanted = {name: name if name.lower().endswith(".png") else f"{name}.png" for name in names} | {
        "1.jpg": "1.jpg.png.png"
    }
    assert main(["decompress", str(path), "--out", str(tmp_path / "out")]) == 0
    assert (
        "note: 3 images are written as PNG, with .png behind the name: 1.jpg is 1.jpg.png.png"
        in capsys.readouterr().out
    )
    made = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.*")}
    assert made == set(wanted.values())
    for name, image in zip(data.keys, data.images):
        assert (np.asarray(Image.open(tmp_path / "out" / wanted[name])) == image[0]).all()
    for out in ("out.npz", "out.parquet"):
        assert main(["decompress", str(path), "--out", str(tmp_path / out)]) == 0
        assert "note" not in capsys.readouterr().out
        back = open_source(tmp_path / out, unlabelled.reading)
        assert back.keys == data.keys and (back.images == data.images).all()
        with Archive(compress(unlabelled, str(tmp_path / out), tmp_path / f"{out}.latente").path) as archive:
            assert archive.names == data.keys
    assert main(["decompress", str(path), "--out", str(tmp_path / "out.npy")]) == 0
    assert "note: a .npy has no room for names and classes; .npz and .parquet have" in capsys.readouterr().out


def test_paths_and_labels_of_a_parquet_come_back(unlabelled, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from latente.data.images import write_images

    x = open_source("digits").images[:12]
    for number, (paths, kept) in enumerate((
        ([f"p/{i}.png" for i in range(12)], True), ([f"{i}.png" for i in range(11)] + ["../x.png"], False),
        ([None] * 12, False), (["a.png"] * 12, False), (["/a.png", *"bcdefghijkl"], False), (["", *"bcdefghijkl"], False),
    )):  # fmt: skip
        table = pq.read_table(write_images(tmp_path / f"{number}.parquet", x))
        cells = [{"bytes": cell["bytes"], "path": path} for cell, path in zip(table["image"].to_pylist(), paths)]
        source, folder = tmp_path / f"{number} in.parquet", tmp_path / str(number)
        folder.mkdir()
        pq.write_table(pa.table({"image": cells, "label": ["cat", "dog"] * 6}), source)
        found, data = again(unlabelled, str(source), folder), open_source(source, unlabelled.reading)
        for name, (back, notes) in found.items():
            assert back.spec.classes == ("cat", "dog") and len(back.images) == 12
            order = range(12) if name != "out" else [back.keys.index(key) for key in sorted(back.keys, key=number_of)]
            assert (back.images[order] == data.images).all() and (back.labels[order] == data.labels).all()
            if kept and name != "out":
                assert back.keys == paths
            assert notes == (
                ["12 images lie in folders of their classes, which their names are without"] * (kept and name == "out")
            )
        said = compress(unlabelled, str(source), tmp_path / f"{number}.latente").notes
        assert any("numbered instead" in note for note in said) == (not kept and paths[0] is not None)


def number_of(name):
    return int(Path(name).stem)


def test_a_file_from_before_suffixes_and_other_labels_were_kept_is_read(painter, tmp_path):
    x, y = open_source("digits").images[:20], open_source("digits").labels[:20]
    path = compress(painter, (x, y), tmp_path / "d.latente", verify=False).path
    names = {"names": chunks.squeezed_names([f"{label}/{number}" for number, label in enumerate(y)])}
    older = forged(path, tmp_path / "older.latente", lambda h: h.pop("labels"), names)
    with Archive(older) as archive:
        assert archive.names == [f"{label}/{number}.png" for number, label in enumerate(y)]
        out = archive.write(tmp_path / "out")
        assert archive.notes == [] and sorted(
            file.relative_to(out).as_posix() for file in out.rglob("*.png")
        ) == sorted(archive.names)


def test_a_damaged_chunk_is_named_and_the_others_are_read(painter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("latente.compression.headers.PIXELS", 64 * 300)  # 6 chunks
    data = open_source("digits")
    found = compress(painter, "digits", tmp_path / "d.latente", verify=False)
    content = bytearray(found.path.read_bytes())
    with Reader(found.path) as reader:
        place = content.index(reader.chunk(2))
    content[place + 100] ^= 4
    (tmp_path / "bad.latente").write_bytes(content)
    with pytest.raises(Damaged, match="chunk 2 is damaged"):
        decompress(tmp_path / "bad.latente", tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()
    assert main(["decompress", str(tmp_path / "bad.latente"), "--out", str(tmp_path / "out.npy")]) == 1
    assert "chunk 2" in capsys.readouterr().err and not (tmp_path / "out.npy").exists()
    words = ["decompress", str(tmp_path / "bad.latente"), "--out", str(tmp_path / "out.npy"), "--skip-damaged"]
    assert main(words) == 1 and "chunk 2" in capsys.readouterr().err
    assert (np.load(tmp_path / "out.npy") == np.delete(data.images[:, 0], np.s_[600:900], 0)).all()


def told(path, out, lost):
    """What `decompress` writes as .npz, or its error; in a line, and soon."""
    began = process_time()
    try:
        decompress(path, out, lost=lost)
    except ValueError as error:
        assert not out.exists() and "\n" not in str(error) and len(str(error)) < 500
        return error
    finally:
        assert process_time() - began < 20
    with np.load(out) as file:
        found = {name: file[name] for name in file.files}
    out.unlink()
    return found


@pytest.fixture(params=CONFIGS)
def mutable(request, tmp_path, monkeypatch):
    """A file of 10 images in 5 chunks, with names and classes, and what is in it. A network is built once for the same bytes."""
    spec, own, built = ImageSpec(1, 4, 5, ("a", "b")), images.network, {}
    held = {"names": np.array([f"{number} é.jpg" for number in range(10)]), "y": np.arange(10) % 2}
    x, path = pictures("blobs", 10, spec, 0), tmp_path / "d.latente"
    made = packed(Untrained(request.param, spec), (x, held["y"]), path, chunk=2, names=held["names"].tolist())

    def network(header, packed):
        key = repr(header), packed
        if key not in built:
            built[key] = own(header, packed)
        return built[key]

    monkeypatch.setattr(images, "network", network)
    return path, held | {"x": made[:, 0]}


def test_no_flip_or_cut_gives_a_crash_or_a_wrong_image(mutable, tmp_path):
    """10,000 of them, as many in each thing of the file. All are noticed; what is written nonetheless is what there was."""
    path, held = mutable
    whole, where, draw = path.read_bytes(), spots(path), random.Random(0)
    strata = [["header"], ["model"], ["paths"], [f"chunk {number}" for number in range(5)], ["index"]]
    written = 0
    with peak(300):
        for number in range(10_000):
            content, at = bytearray(whole), draw.choice(where[draw.choice(strata[number % 5])])
            if cut := number % 7 == 0:
                del content[at:]
            else:
                content[at] ^= 1 << draw.randrange(8)
            (tmp_path / "bad.latente").write_bytes(content)
            lost = [] if number % 2 else None
            found = told(tmp_path / "bad.latente", tmp_path / "out.npz", lost)
            if isinstance(found, ValueError):
                continue
            assert lost
            parts, written = {damage.part for damage in lost}, written + 1
            gone = {int(part[6:]) for part in parts if part.startswith("chunk")}
            gone = set(range(min(gone), 5)) if cut and gone else gone
            kept = [item for item in range(10) if item // 2 not in gone]
            for name in ("x", "y") if "paths" in parts or not kept else held:
                assert np.array_equal(found[name], held[name][kept])
    assert written > 1_000


def test_nothing_forged_beneath_the_checks_gives_a_crash(mutable, tmp_path):
    """Header, parts, chunks and how many images they hold, with checks that fit: an image is one that there was, or there is none."""
    path, held = mutable
    draw, images_ = random.Random(0), {image.tobytes() for image in held["x"]}
    odd = [0, -1, 1, 10**9, 2**53, "x", "", None, True, 1.5, [], {}, [[]], "a" * 300]

    def leaves(value, at=()):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*at, key)
            if isinstance(inner, dict | list):
                yield from leaves(inner, (*at, key))

    def mutated(content):
        content = bytearray(content)
        if content and draw.random() < 0.8:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        else:
            content = content[: draw.randrange(len(content) + 1)] + draw.randbytes(draw.choice([0, 4, 9]))
        return bytes(content)

    with Reader(path) as reader:
        header, parts = reader.header, {name: reader.part(name) for name in reader.parts}
        payloads = [reader.chunk(number) for number in range(len(reader))]
    with peak(1_300):
        for number in range(800):
            forgery, pieces = json.loads(json.dumps(header)), dict(parts)
            frames = [(payload, 2) for payload in payloads]
            match number % 4:
                case 0:
                    *above, last = draw.choice([*leaves(forgery)])
                    place = forgery
                    for key in above:
                        place = place[key]
                    place[last] = draw.choice(odd)
                case 1:
                    name = draw.choice([*parts])
                    pieces[name] = mutated(pieces[name])
                case 2:
                    at = draw.randrange(5)
                    frames[at] = mutated(frames[at][0]), 2
                case 3:
                    at, other = draw.sample(range(5), 2)
                    more = draw.choice([0, 1, 2])
                    frames[at], frames[other] = (frames[other][0], 2 - more), (frames[at][0], 2 + more)
            (tmp_path / "bad.latente").unlink(missing_ok=True)
            try:
                with Writer(tmp_path / "bad.latente", forgery, pieces) as writer:
                    for payload, items in frames:
                        writer.add(payload, items)
            except ValueError:
                continue
            found = told(tmp_path / "bad.latente", tmp_path / "out.npz", [] if number % 8 < 4 else None)
            if not isinstance(found, ValueError):
                assert {image.tobytes() for image in found["x"]} <= images_


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["config"].update(width=10**7), lambda h: h["config"].update(blocks=10**9), lambda h: h.update(bits=99),
        lambda h: h["spec"].update(height=10**9), lambda h: h.update(model="vae"), lambda h: h.update(model="../evil"),
        lambda h: h.update(codec="future"), lambda h: h.update(size=10**12), lambda h: h.pop("spec"),
        lambda h: h.update(spec=3), lambda h: h["config"].update(width="64"), lambda h: h.update(bits=None),
        lambda h: h["spec"].update(classes=["a"]), lambda h: h["config"].update(window=10**6), lambda h: h.update(codec="latents"),
        lambda h: h.update(quality=0), lambda h: h.update(model="compressor", codec="latents", quality=0), lambda h: h.update(model=[]),
        lambda h: h.update(more=1), lambda h: h.pop("quality"), lambda h: h.update(codec=["pixels"]), lambda h: h.update(classes=[20]),
        lambda h: h.update(classes=[True] * 10), lambda h: h["classes"].append(0), lambda h: h["config"].pop("blocks"),
        lambda h: h["config"].update(blocks=True), lambda h: h["config"].update(blocks=3.0), lambda h: h["spec"].update(channels=2),
        lambda h: h["spec"].update(height=0), lambda h: h.update(size=0), lambda h: h["classes"].__setitem__(0, -1),
        lambda h: h.update(weights=0), lambda h: h["spec"].update(kind="image"), lambda h: h.update(size=5.0),
        lambda h: h.update(better=1), lambda h: h.update(better=-1), lambda h: h.update(nested=True), lambda h: h.update(nested=0),
        lambda h: h.update(config=[]), lambda h: h["spec"].update(classes=["a"] * 10), lambda h: h["config"].update(width=10**4000),
    ],
)  # fmt: skip
def test_a_forged_header_is_refused(painter, tmp_path, change):
    x, y = open_source("digits").images[:20], open_source("digits").labels[:20]
    path = compress(painter, (x, y), tmp_path / "d.latente", verify=False).path
    with pytest.raises(ValueError) as error:
        decompress(forged(path, tmp_path / "forged.latente", change), tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists() and "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_forged_file_runs_nothing_and_leaves_its_folder_never(painter, tmp_path):
    x, y = open_source("digits").images[:20], open_source("digits").labels[:20]
    path = compress(painter, (x, y), tmp_path / "d.latente", verify=False).path
    program = tmp_path / "evil.py"
    program.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for number, name in enumerate((str(program), "evil.py", 3, None)):
        with pytest.raises(ValueError):
            decompress(
                forged(path, tmp_path / f"{number}.latente", lambda h, name=name: h.update(model=name)),
                tmp_path / "out",
            )
    for number, name in enumerate(("..", ".", "", "a\\b", "...", "a\0", 7)):
        bad = forged(
            path, tmp_path / f"c{number}.latente", lambda h, name=name: h["spec"].update(classes=[name, *"123456789"])
        )
        with pytest.raises(ValueError):
            decompress(bad, tmp_path / "deep" / "out")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "deep").exists()


def test_a_file_of_next_to_nothing_is_written_out_in_bounded_memory(painter, tmp_path, monkeypatch):
    """600 chunks of black images: some 100 bytes each that become 400 kB."""
    x = np.zeros((6_000, 1, 8, 8), np.uint8)
    path = compress(painter, (x, np.zeros(6_000, int)), tmp_path / "d.latente", verify=False).path
    with Reader(path) as reader:
        header, model = dict(reader.header), reader.part("model")
    header |= {"items": 600 * 6_000, "classes": [600 * 6_000, *[0] * 9]}
    raw = chunks.kept(bytes(6_000 * 65), None)
    assert len(raw) < 500
    with Writer(tmp_path / "bomb.latente", header, {"model": model}) as writer:
        for _ in range(600):
            writer.add(raw, 6_000)
    assert (tmp_path / "bomb.latente").stat().st_size < 200_000
    for out in ("out.npy", "out.npz"):
        with memory(90):  # of 230 MB; 64 MiB are LZMA's own
            decompress(tmp_path / "bomb.latente", tmp_path / out)
    assert np.load(tmp_path / "out.npy", mmap_mode="r").shape == (3_600_000, 8, 8)


@pytest.mark.parametrize("name", ["encoder_width", "width", "blocks", "decoder_width", "levels", "latent_channels"])
def test_sizes_of_a_model_are_bounded(compressor, tmp_path, name):
    path = compress(compressor, "digits", tmp_path / "d.latente", verify=False).path
    for value in (10**9, 0, -1):
        bad = forged(path, tmp_path / f"{value}.latente", lambda h, value=value: h["config"].update({name: value}))
        with pytest.raises(ValueError, match=name.replace("_", "-")):
            Archive(bad)


def test_a_model_is_not_built_before_its_weights_are_counted(compressor, painter, tmp_path):
    """The largest that a header may ask for, in a file of some kilobytes: neither encoder nor decoder takes memory."""
    path = compress(compressor, "digits", tmp_path / "d.latente", verify=False).path
    pixels = compress(painter, "digits", tmp_path / "p.latente", verify=False).path
    wide = forged(path, tmp_path / "encoder.latente", lambda h: h["config"].update(encoder_width=4096))
    with Archive(wide) as archive:  # a file holds no encoder: any will do
        assert archive[0].shape == (1, 8, 8)
    for number, (of, change) in enumerate((
        (path, {"decoder_width": 1024, "blocks": 64}), (path, {"width": 1024}), (pixels, {"width": 1024, "blocks": 64}),
        (pixels, {"window": 16}),
    )):  # fmt: skip
        bad = forged(of, tmp_path / f"{number}.latente", lambda h, change=change: h["config"].update(change))
        with pytest.raises(ValueError, match=r"are no .* weights|not the weights"):
            Archive(bad)


def test_a_walk_is_bounded_in_memory(painter, tmp_path, monkeypatch):
    path = compress(painter, "digits", tmp_path / "d.latente", verify=False).path
    monkeypatch.setattr("latente.compression.images.REMEMBERED", 1 << 20)
    with pytest.raises(ValueError, match="more memory"):
        Archive(path)
    found = compress(painter, "digits", tmp_path / "small.latente", verify=False)
    with Archive(found.path) as archive:  # made of smaller chunks
        assert len(archive.reader) > 3 and len(archive.chunk(3)) * painter.model.remembered <= 1 << 20


def test_a_chunk_of_another_size_is_damaged(painter, tmp_path):
    x, y = open_source("digits").images[:20], open_source("digits").labels[:20]
    path = compress(painter, (x, y), tmp_path / "d.latente", verify=False).path
    with Reader(path) as reader:
        header, parts = dict(reader.header), {"model": reader.part("model")}
    for number, payload in enumerate((
        b"", b"\0", b"\x07" + bytes(9), b"\0" + bytes(4 + 65 * 20), b"\1" + bytes(40), b"\2" + bytes(4), b"\2" + bytes(5),
        b"\2" + b"\xff" * 40,
        chunks.kept(b"\x63" * 65 * 20, None), chunks.kept(bytes(65 * 19), None), chunks.kept(bytes(1 << 20), None),
    )):  # fmt: skip
        with Writer(tmp_path / f"{number}.latente", header, parts) as writer:
            writer.add(payload, 20)
        lost = []
        decompress(tmp_path / f"{number}.latente", tmp_path / f"{number}.npy", lost=lost)
        assert [damage.part for damage in lost] == ["chunk 0"] and "\n" not in str(lost[0])
        assert np.load(tmp_path / f"{number}.npy").shape == (0, 8, 8)


def test_damaged_names_cost_the_names_alone(tmp_path, capsys):
    draw = np.random.default_rng(0)
    from PIL import Image

    (tmp_path / "in").mkdir()
    for number in range(12):
        Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "in" / f"picture {number}.png")
    run = latente.train("pixelcnn", str(tmp_path / "in"), steps=1, size="tiny", out=tmp_path / "run", quiet=True)
    path = compress(run, str(tmp_path / "in"), tmp_path / "d.latente", verify=False).path
    content = bytearray(path.read_bytes())
    content[content.index(part_of(path, "paths")) + 5] ^= 1
    path.write_bytes(content)
    assert main(["decompress", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "paths is damaged" in (said := capsys.readouterr().err) and "--skip-damaged" in said
    assert main(["decompress", str(path), "--out", str(tmp_path / "out"), "--skip-damaged"]) == 1
    assert "numbered instead" in (said := capsys.readouterr().err) and "writes the rest" not in said
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"{number:06d}.png" for number in range(12)]


def test_what_is_not_as_it_was_given_is_said(tmp_path, capsys):
    from PIL import Image

    draw = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(40):
        size = (12, 9) if number < 3 else (8, 8)
        shape = (*size, 4) if number in (5, 6) else size
        Image.fromarray(draw.integers(0, 256, shape, np.uint8)).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "7.png").write_bytes(b"none")
    run = latente.train(
        "pixelcnn", draw.integers(0, 256, (20, 8, 8), np.uint8), steps=1, size="tiny", out=tmp_path / "run", quiet=True
    )
    out = str(tmp_path / "d.latente")
    assert main(["compress", str(run.path), str(tmp_path / "in"), "--out", out]) == 0
    said = capsys.readouterr().out
    assert "3 of 40 images were resized to 8x8: the file holds them at that size" in said
    assert "2 of 40 images were brought to grey of 8 bits" in said and "7.png: not an image" in said
    assert "the same, but for what is noted" in said


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_leaves_no_draft(tmp_path, painter, name):
    """While it codes; `Say` is told so when the draft is there."""
    body = f"""
import os, signal, sys
from latente import cli
from latente.compression.images import ImageJob
own = ImageJob.chunks
def chunks(job, say):
    for chunk in own(job, say):
        os.kill(os.getpid(), signal.{name})
        yield chunk
ImageJob.chunks = chunks
signal.signal(signal.{name}, signal.default_int_handler if "{name}" == "SIGINT" else signal.SIG_DFL)
sys.exit(cli.main(["compress", {str(painter.path)!r}, "digits", "--out", {str(tmp_path / "d.latente")!r}]))
"""
    found = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True)
    assert found.returncode == 130 and "stopped" in found.stderr and list(tmp_path.iterdir()) == []


def test_the_table_is_the_same_in_any_decimal_context():
    import decimal

    want = coding.table().clone()
    coding.table.cache_clear()
    with decimal.localcontext(decimal.Context(prec=6, rounding=decimal.ROUND_DOWN)):
        assert torch.equal(coding.table(), want)
    assert want[0] == 1 << 17 and want[256] == round((1 << 17) / math.e)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "", "a" * 5_000])
def test_names_do_not_leave_the_folder(painter, tmp_path, name):
    x, y = open_source("digits").images[:3], open_source("digits").labels[:3]
    path = compress(painter, (x, y), tmp_path / "d.latente", verify=False).path
    names = chunks.squeezed("\0".join(["one", name, "two"]).encode())
    for part in ("paths", "names"):  # as of today, and of old
        bad = forged(path, tmp_path / f"{part}.latente", lambda h: None, {part: names})
        with pytest.raises(ValueError, match="leaves the folder"):
            decompress(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path.parent / "evil.png").exists()


def test_without_its_weights_a_file_needs_its_run(painter, tmp_path):
    x, y = open_source("digits").images[:50], open_source("digits").labels[:50]
    found = compress(painter, (x, y), tmp_path / "d.latente", external_model=True)
    assert found.model == 0
    with pytest.raises(ValueError, match="give the run"):
        decompress(found.path, tmp_path / "out.npy")
    other = latente.train("pixelcnn", "digits", steps=2, size="tiny", out=tmp_path / "other", quiet=True)
    with pytest.raises(ValueError, match="not the weights"):
        decompress(found.path, tmp_path / "out.npy", run=other)
    decompress(found.path, tmp_path / "out.npy", run=painter)
    assert (np.load(tmp_path / "out.npy") == x[:, 0]).all()


def test_what_cannot_be_compressed_is_said(painter, tmp_path):
    x, y = open_source("digits").images[:5], open_source("digits").labels[:5]
    for source, words in (
        (x, "needs labels"), ((x[:, :, :7], y), "takes images"), ((x.astype(float), y), "takes images"),
        ((x, y + 9), "labels are"), ((x, y[:3]), "labels are"), (str(tmp_path / "no"), "no file"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            compress(painter, source, tmp_path / "d.latente")
    vae = latente.train("vae", "digits", steps=1, size="tiny", out=tmp_path / "vae", quiet=True)
    with pytest.raises(ValueError, match="no codec"):
        compress(vae, "digits", tmp_path / "d.latente")
    (tmp_path / "d.latente").write_text("mine")
    with pytest.raises(ValueError, match="already exists"):
        compress(painter, (x, y), tmp_path / "d.latente")
    assert (tmp_path / "d.latente").read_text() == "mine" and len(list(tmp_path.glob(".tmp*"))) == 0


# ---- images with some loss -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compressor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compressor")
    return latente.train(
        "compressor", "digits", steps=120, size="tiny", precision="float32", out=folder / "run", quiet=True
    )


@pytest.mark.parametrize("spec", [ImageSpec(1, 9, 14), ImageSpec(3, 16, 8, ("a", "b"))], ids=["grey", "RGB, classes"])
def test_the_walk_expects_what_the_network_does(spec):
    torch.manual_seed(0)
    model = compressor_file.Model(compressor_file.Config.preset("tiny", spec), spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        batch, level = spec.example(6, keyed(0)), torch.tensor([0, 1, 2, 3, 4, 7])
        symbols = model.scaled(batch["x"], level).round().long()
        half = torch.tensor(model.coder.symbols)[:, None, None] // 2
        parts = [*chain(*model.coder.logits(symbols, level, batch.get("label")))]
        expected = [
            part[:, row, column]
            for row in range(parts[0].shape[1])
            for column in range(parts[0].shape[2])
            for part in parts
        ]
        values, found = iter((symbols + half).permute(2, 3, 1, 0).flatten(0, 2)), []
        again = model.coder.walk(6, level, batch.get("label")).through(
            lambda logits: found.append(logits) or next(values)
        )
        assert (again == symbols).all() and all(
            torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True)
        )
        net = exact.exact(model.coder, 12)
        near = [
            m.coder.shown(symbols[:1].double(), 3) if m is model else m.shown(symbols[:1].double(), 3)
            for m in (model.double(), net)
        ]
        assert (near[0].int() - near[1].int()).abs().max() <= 2


def test_bits_between_two_symbols_are_between_theirs_and_have_a_slope():
    spec = ImageSpec(1, 8, 8)
    torch.manual_seed(0)
    model = compressor_file.Model(compressor_file.Config.preset("tiny", spec), spec)
    torch.nn.init.normal_(model.coder.heads[0].out.bias)
    level = torch.zeros(1, dtype=torch.int64)
    symbols = torch.zeros(1, 8, 2, 2)
    costs = [-torch.log_softmax(part, 3) / math.log(2) for part in chain(*model.coder.logits(symbols, level))]
    zero, one = (torch.stack([cost[..., cost.shape[-1] // 2 + more] for cost in costs], 1) for more in (0, 1))
    y = torch.full((1, 8, 2, 2), 0.3, requires_grad=True)
    bits = model._bits(y, symbols, model.coder.logits(symbols, level))
    assert torch.allclose(bits, zero.sum(), atol=1e-4)  # what the whole symbols cost
    (slope,) = torch.autograd.grad(bits.sum(), y)
    assert torch.allclose(slope, one - zero, atol=1e-4)


def same_as_in_a_file(coder, bits):
    """What training rounds to is what the exact network has."""
    prepared = compressor_file.rounded(coder, bits)
    kept = exact.floating(exact.exact(coder, bits), coder).layers()
    assert prepared.keys() == {f"{name}.weight" for name in kept}
    assert all(torch.equal(prepared[f"{name}.weight"], layer.weight) for name, layer in kept.items())
    return prepared


def graded(looks, shared_by=60_000, seed=0):
    """A model that knows, after so many looks at some images, how much its weights matter, and those images."""
    spec = ImageSpec(1, 12, 12, ("a", "b"))
    config = compressor_file.Config(
        6, 12, 8, encoder_width=12, blocks=1, levels=2, leak=0.125, views=3, shared_by=shared_by
    )
    torch.manual_seed(seed)
    model = compressor_file.Model(config, spec).train()
    with torch.no_grad():
        for parameter in model.coder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    batch = {**spec.example(64, keyed(seed)), "level": torch.arange(64) % 2}
    for look in range(looks):
        model(batch | {"seed": torch.arange(64) + 64 * look}, "main", 1.0)
    return model.eval(), batch


def test_training_and_files_round_weights_within_the_same_bounds():
    for name in ("FINE", "MOST_BITS", "SPREAD"):
        assert getattr(compressor_file, name) == getattr(exact, name)


def test_graded_weights_end_training_as_a_file_has_them_and_are_packed(monkeypatch):
    monkeypatch.setattr(compressor_file, "LOOK", 1)
    sizes = []
    for looks, shared_by in ((0, 60_000), (3, 60_000), (3, 600)):
        model, _ = graded(looks, shared_by)
        for bits in (4, 6, 9):
            same_as_in_a_file(model.coder, bits)
        net = exact.exact(model.coder, 6)
        sizes.append(len(packed := packing.pack(net)))
        other = exact.exact(graded(0)[0].coder, 9)
        packing.unpack(packed, other)
        layers = {
            name: layer for name, layer in net.named_modules() if isinstance(layer, exact.Linear | exact.Embedding)
        }
        for name, layer in layers.items():
            found = other.get_submodule(name).state_dict()
            assert all(torch.equal(value, found[own]) for own, value in layer.state_dict().items())
        assert packing.digest(other) == packing.digest(net)
        if looks:
            assert any(layer.columns.max() > 0 for layer in layers.values() if isinstance(layer, exact.Linear))
            with pytest.raises(ValueError, match="not the weights"):
                packing.unpack(
                    packed, exact.exact(compressor_file.Model(replace(model.config, shared_by=0), model.spec).coder, 6)
                )
            with pytest.raises(ValueError, match="not the weights"):
                packing.unpack(packed[4:], other)
    assert sizes[2] < 0.7 * sizes[1] < 0.7 * sizes[0]


def test_a_training_goes_on_from_a_run_that_knew_nothing_of_what_weights_matter(tmp_path):
    brief = {"size": "tiny", "steps": 3, "quiet": True}
    first = latente.train("compressor", "digits", shared_by=0, out=tmp_path / "a", **brief)
    run = latente.train("compressor", "digits", init=first.path, out=tmp_path / "b", **brief)
    assert first.model.config.shared_by == 0 and run.model.config.shared_by == len(open_source("digits").images)
    assert not hasattr(first.model.coder, "batches") and run.model.coder.batches > 0
    with pytest.raises(ValueError, match="other sizes"):  # the way back: such a model has no room for it
        latente.train("compressor", "digits", init=run.path, shared_by=0, out=tmp_path / "c", **brief)


def test_a_model_is_used_with_the_weights_of_its_file(monkeypatch):
    monkeypatch.setattr(compressor_file, "LOOK", 1)
    model, batch = graded(3, 600)
    filed, raw = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in same_as_in_a_file(model.coder, 6).items():
            filed.coder.get_parameter(name).copy_(weight)
        filed.config = raw.config = replace(model.config, shared_by=0)  # which use the weights that they have
        (bits, errors), (as_filed, same), (other, _) = (each.rate(batch, 1) for each in (model, filed, raw))
        assert torch.equal(bits, as_filed) and torch.equal(errors, same) and not torch.allclose(bits, other)
        assert torch.equal(model.reconstruct(batch)["x"], filed.reconstruct(batch)["x"])
        drawn = [each.sample(9, generator=keyed(0))["x"] for each in (model, filed, raw)]
        assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_what_weights_matter_is_what_moving_them_costs(monkeypatch):
    """Bits and errors of an image, as the Fisher information says and as they are, where weights of some rows or columns move."""
    monkeypatch.setattr(compressor_file, "LOOK", 1)
    model, batch = graded(60)
    coder, level, label = model.coder, batch["level"], batch["label"]
    symbols, weights = model.symbols(batch, level).float(), compressor_file.rounded(model.coder, 6)
    generator, moved_by = torch.Generator().manual_seed(1), 0.01

    @torch.no_grad()
    def made(weights):
        logits, pixels = torch.func.functional_call(coder, weights, (symbols, symbols, level, label))
        return [torch.log_softmax(part, -1) for part in logits], 127.5 * (1 + pixels).clamp(min=0)

    before, shown = made(weights)
    prices = model.prices[level][:, None, None, None]
    for kind in ("first", "blocks.0.0", "heads.3.hidden", "heads.3.out", "synthesis.first.linear", "synthesis.patch"):
        layer, weight = coder.layers()[kind], weights[f"{kind}.weight"].detach()
        for fisher, shape in ((layer.row_fisher, (-1, 1)), (layer.column_fisher, (1, -1))):
            for some in (fisher >= fisher.median(), fisher < fisher.median()):
                expected = float(fisher[some].sum()) * weight.numel() / len(fisher) * moved_by**2 / 2
                costs = []
                for _ in range(12):
                    noise = moved_by * torch.randn(weight.shape, generator=generator) * some.float().view(shape)
                    after, other = made(weights | {f"{kind}.weight": weight + noise})
                    bits = sum(float((a.exp() * (a - b)).sum()) for a, b in zip(before, after)) / math.log(2)
                    costs.append((bits + float((prices * (shown - other).square()).sum())) / len(symbols))
                assert 0.6 * expected - 1e-4 < np.mean(costs) < 1.6 * expected + 1e-4, kind


@pytest.mark.parametrize("best", range(7))
def test_the_least_size_is_found_downhill(best):
    asked = []

    def size(bits):
        asked.append(bits)
        return abs(bits - best)

    assert chunks.bits_worth(range(7), size) == best
    assert len(asked) == len(set(asked)) <= abs(best - 3) + 3


def test_lossless_files_have_the_bits_of_a_weight_that_make_them_smallest(painter, tmp_path, monkeypatch):
    def made(tried):
        monkeypatch.setattr(images, "TRIED", tried)
        job = ImageJob(painter, open_source("digits"), False, Wish(), silent, 0)
        return job, compress(painter, "digits", tmp_path / f"{len(tried)}-{tried[0]}.latente", verify=False).size

    (job, size), tried = made(images.TRIED), images.TRIED
    sizes = {bits: made((bits,))[1] for bits in tried}
    assert size == min(sizes.values()) and min(sizes, key=lambda bits: sizes[bits]) == job.header["bits"]
    apart = [sizes[bits] - job._worth(bits) for bits in tried]  # classes and headers
    assert min(apart) > 0 and max(apart) - min(apart) < 0.005 * size


def test_weights_are_rounded_as_finely_as_that_is_worth(monkeypatch):
    monkeypatch.setattr(compressor_file, "LOOK", 1)
    coder = graded(3, 1_000)[0].coder
    few = {name: coder.shifts(name, 6) for name in coder.layers()}
    finer = {name: coder.shifts(name, 7) for name in coder.layers()}
    coder.config = replace(coder.config, shared_by=16_000)
    for name, layer in coder.layers().items():
        (rows, columns), (more, same) = few[name], coder.shifts(name, 6)
        limit = compressor_file.finest(layer.weight, 12, columns)
        assert torch.equal(columns, same) and torch.equal(more, torch.minimum(rows + 2, limit))  # 16 = 2^(2 * 2)
        assert torch.equal(finer[name][0], torch.minimum(rows + 1, limit)) and (rows < limit).any()
    rows, worth = few["heads.0.hidden"][0], coder.layers()["heads.0.hidden"].row_fisher
    assert rows[worth.argmax()] > rows[worth.argmin()]


def test_graded_weights_of_a_stranger_are_refused_or_bounded(monkeypatch):
    monkeypatch.setattr(compressor_file, "LOOK", 1)
    net = exact.exact(graded(3)[0].coder, 6)
    packed, start = packing.pack(net), struct.pack("<i", 2**31 - 2)
    for wrong in (packed[:-4], packed + b"....", packed[:9], packed[: len(packed) // 2], start, start * 9):
        with pytest.raises(ValueError):
            packing.unpack(wrong, net)
    draw = np.random.default_rng(0)
    for _ in range(300):  # never anything but a refusal, or a network within its bounds
        forged = bytearray(packed)
        for at in draw.integers(4, len(packed), 3):
            forged[at] = draw.integers(256)
        with memory(1), suppress(ValueError):
            packing.unpack(bytes(forged), net)
            for layer in (module for module in net.modules() if isinstance(module, exact.Linear)):
                assert layer.weight.abs().sum(1).max() * layer.most <= exact.WHOLE


def test_training_ends_with_the_weights_of_a_file():
    spec = ImageSpec(1, 9, 14)
    torch.manual_seed(0)
    coder = compressor_file.Model(compressor_file.Config.preset("tiny", spec), spec).coder
    for bits in (4, 5, 8):
        same_as_in_a_file(coder, bits)
    (slope,) = torch.autograd.grad(same_as_in_a_file(coder, 6)["first.weight"].sum(), coder.first.weight)
    assert (slope == 1).all()


def test_few_images_take_coarser_weights(compressor, tmp_path):
    data, bits = open_source("digits"), []
    for n in (20, 1_797):
        found = compress(compressor, (data.images[:n], data.labels[:n]), tmp_path / f"{n}.latente", verify=False)
        bits.append((Reader(found.path).header["bits"], found.model))
    assert bits[0][0] < bits[1][0] and bits[0][1] < 0.75 * bits[1][1]


def promised(model, header, x, labels):
    """Bytes and mean squared error of images by the model's own likelihood, with weights of the bits and at the qualities of a file."""
    model, batch = copy.deepcopy(model), {"x": torch.from_numpy(x), "label": torch.from_numpy(labels)}
    point = Point(header["quality"], header["better"])
    with torch.no_grad():
        for name, weight in compressor_file.rounded(model.coder, header["bits"]).items():
            model.coder.get_parameter(name).copy_(weight)
        model.config = replace(model.config, shared_by=0)  # the weights are those that it has
        rates = [[part.numpy() for part in model.rate(batch, point.quality + more)] for more in range(point.levels)]
    better, last = point.each(range(len(x)), len(x)) > 0, point.levels - 1
    bits, errors = (np.where(better, one, other) for one, other in zip(rates[last], rates[0]))
    of_labels = -np.log2((np.bincount(labels) / len(labels))[labels])
    return (bits.sum() + of_labels.sum()) / 8, errors.mean()


def test_a_lossy_file_is_within_a_hundredth_of_what_its_model_expects(compressor, tmp_path):
    data = open_source("digits")
    x, labels = (np.concatenate([each] * 4) for each in (data.images, data.labels))
    found = compress(compressor, (x, labels), tmp_path / "d.latente", verify=False)
    bound, error = promised(compressor.model, Reader(found.path).header, x, labels)
    assert 0.99 * bound < found.size - found.model < 1.01 * bound  # header, labels and index too
    assert abs(found.psnr - quality.psnr(error)) < 0.01


def test_lossy_files_are_as_good_or_as_small_as_wished(compressor, tmp_path, capsys):
    data = open_source("digits")
    sizes = []
    best = compress(compressor, data, tmp_path / "best.latente", verify=False)
    assert best.psnr is not None
    most, least = 0.98 * best.size / best.items, best.psnr - 0.1
    for number, wish in enumerate(({}, {"bytes_per_item": most}, {"psnr": least})):
        found = compress(compressor, data, tmp_path / f"{number}.latente", **wish)
        decompress(found.path, tmp_path / f"{number}.npy")
        made = np.load(tmp_path / f"{number}.npy").astype(float)
        reached = 10 * math.log10(255**2 / np.square(made - data.images[:, 0]).mean())
        bound, error = promised(compressor.model, Reader(found.path).header, data.images, data.labels)
        assert found.psnr == pytest.approx(reached, abs=1e-6) and abs(found.psnr - quality.psnr(error)) < 0.01
        assert found.modelled == found.coded and abs(found.coded / bound - 1) < 0.005 > abs(found.expected / bound - 1)
        sizes.append(found.size)
        # Images of two qualities meet a wish between them nearly exactly.
        if "bytes_per_item" in wish:
            assert 0.99 * most < found.size / found.items <= most
        if "psnr" in wish:
            assert least <= found.psnr < least + 0.01
    assert sizes[0] >= sizes[2]
    run, out = str(compressor.path), str(tmp_path / "x.latente")
    assert main(["compress", run, "digits", "--out", str(tmp_path / "y.latente"), "--psnr", "20"]) == 0
    said = capsys.readouterr().out
    assert "dB over all of them" in said and "with loss" in said and "the same" not in said
    for words, said in (
        (["--psnr", "60"], "this model reaches"), (["--bytes-per-item", "0.5"], "this model needs"),
        (["--psnr", "20", "--bytes-per-item", "9"], "not both"),
    ):  # fmt: skip
        assert main(["compress", run, "digits", "--out", out, *words]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "x.latente").exists()


def test_a_file_from_before_there_were_better_images_is_read(compressor, tmp_path):
    found = compress(compressor, "digits", tmp_path / "d.latente", verify=False)
    header = Reader(found.path).header
    past = headers.read({name: value for name, value in header.items() if name not in ("better", "nested")})
    assert header["better"] == past.better == 0 and header["nested"] and not past.nested


@pytest.mark.parametrize("nested", [True, False])
def test_better_images_are_spread_evenly(nested):
    fewer = np.zeros(1000, np.int64)
    for better, items in ((0, 7), (1, 7), (3, 7), (6, 7), (250, 1000), (251, 1000), (999, 1000)):
        point = Point(2, better, nested)
        each = point.each(range(items), items)
        assert set(each.tolist()) <= {0, 1} and each.any() == (better > 0) and point.levels == 1 + (better > 0)
        assert nested or each.sum() == better
        for at in range(0, items, 3):
            assert (point.each(range(at, min(items, at + 3)), items) == each[at : at + 3]).all()
            assert abs(each[: at + 1].sum() - (at + 1) * better / items) < (4 if nested else 1)
        if items == len(fewer):
            assert not nested or (each >= fewer).all()  # those that were better stay so
            fewer = each


def test_which_images_are_better_is_part_of_the_format():
    assert Point(0, 3).each(range(8), 8).tolist() == [1, 0, 1, 0, 0, 1, 0, 1]
    assert Point(0, 3, nested=False).each(range(8), 8).tolist() == [0, 0, 1, 0, 0, 1, 0, 1]
    far = range(2**31 - 8, 2**31)
    assert Point(0, 2**30).each(far, 2**31).tolist() == [0, 1, 0, 1, 1, 0, 1, 0]


def test_a_model_of_one_quality_is_the_model_at_that_quality(compressor):
    model, data = compressor.model, open_source("digits")
    batch = data.batch(data.items[:100])
    with torch.inference_mode():
        for level in range(model.config.levels):
            alone, among = model.at(level).rate(batch, 0), model.rate(batch, level)
            assert all(torch.allclose(a, b, rtol=1e-4) for a, b in zip(alone, among))
            if level:
                pair = model.at(level - 1, 2).rate(batch, 1)
                assert all(torch.allclose(a, b, rtol=1e-4) for a, b in zip(alone, pair))
    for wrong in ((-1,), (model.config.levels,), (model.config.levels - 1, 2)):
        with pytest.raises(ValueError, match="quality"):
            model.at(*wrong)


@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_a_quality_is_as_good_over_all_images_not_over_those_it_was_looked_for_on(shift):
    """Some images are half a decibel better, or worse, than all; qualities are three tenths of one apart."""

    def errors(level, of_all):
        reached = 25 + 0.3 * level + shift * (not of_all)
        return np.full(90 if of_all else 20, 64 * 255**2 / 10 ** (reached / 10))

    assert quality.good(errors, 20, 28.0, 64) == Point(10)
    found = quality.good(errors, 20, 28.01, 64)
    assert found.quality == 10
    assert found.each(range(90), 90).sum() == 4  # of the 90: 28.0 dB and 28.3 are 28.01 together
    assert quality.good(errors, 20, 20.0, 64) == Point(0)
    with pytest.raises(ValueError, match=r"reaches 30\.70 dB"):
        quality.good(errors, 20, 30.71, 64)
    assert quality.small(lambda level: 10 + level, 20, 15.5, 90) == Point(5, 45)
    assert quality.small(lambda level: 10, 20, 9, 90) is None and quality.small(lambda level: 10, 20, 11, 90) == Point(
        19
    )


def test_a_file_larger_than_wished_is_made_again(compressor, tmp_path, monkeypatch):
    """Where the images that the quality was looked for on take less than the others."""
    data = open_source("digits")
    order = np.argsort(data.images.reshape(len(data.images), -1).std(1))
    whole = data.images[order], data.labels[order]
    best = compress(compressor, whole, tmp_path / "best.latente", verify=False)
    monkeypatch.setattr(np, "linspace", lambda a, b, n: np.arange(n))  # the plainest images
    told, wish = [], 0.995 * best.size / best.items
    found = compress(
        compressor,
        whole,
        tmp_path / "small.latente",
        bytes_per_item=wish,
        verify=False,
        say=lambda line: told.append(line),
    )
    assert found.size / found.items <= wish and any("not as wished" in line for line in told)


@pytest.mark.parametrize("wish", [{}, {"psnr": 20}, {"bytes_per_item": 30}])
def test_a_set_of_no_images_is_a_file(compressor, tmp_path, wish):
    found = compress(compressor, (np.empty((0, 1, 8, 8), np.uint8), np.empty(0, int)), tmp_path / "d.latente", **wish)
    assert found.items == 0 and found.psnr is None
    decompress(found.path, tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (0, 8, 8)


def test_refined_symbols_take_fewer_bits_for_smaller_errors(compressor, tmp_path):
    data = open_source("digits")
    some = data.images[data.items[:300]], data.labels[data.items[:300]]
    plain, refined = (
        compress(compressor, some, tmp_path / f"{steps}.latente", external_model=True, refine=steps)
        for steps in (0, 60)
    )
    assert refined.coded < 1.05 * plain.coded and refined.psnr > plain.psnr + 0.5
    model, batch = compressor.model, {"x": torch.from_numpy(some[0]), "label": torch.from_numpy(some[1])}
    level = torch.arange(300) % model.config.levels
    costs = [model._cost(model.refined(batch, level, steps).float(), level, batch, {}) for steps in (0, 60)]
    assert (costs[1] <= costs[0]).all() and costs[1].mean() < 0.97 * costs[0].mean()
    decompress(refined.path, tmp_path / "r.npz", run=compressor)
    squared = np.square(np.load(tmp_path / "r.npz")["x"].astype(float) - some[0].squeeze(1)).mean()
    assert refined.psnr == pytest.approx(10 * math.log10(255**2 / squared), abs=1e-6)
    wished = (plain.psnr + refined.psnr) / 2 - 0.5
    found = compress(compressor, some, tmp_path / "wished.latente", psnr=wished, refine=20)
    assert wished <= found.psnr < wished + 0.02
    again = compress(compressor, some, tmp_path / "again.latente", psnr=wished, refine=20)
    assert found.path.read_bytes() == again.path.read_bytes()
    for steps in (-1, 10**6):
        with pytest.raises(ValueError, match="--refine"):
            compress(compressor, some, tmp_path / "x.latente", refine=steps)


def test_refined_images_that_fall_short_of_a_wish_are_made_better_and_much_better_ones_worse_some_times(compressor):
    job = ImageJob(compressor, open_source("digits"), False, Wish(psnr=20), silent, 2)
    n, last = len(job.x), compressor.model.config.levels - 1
    allowed, tries = job.x.size * 255**2 / 10**2, job._tries
    for whole in (Point(0), Point(1), Point(1, n // 2)):  # a quality of all images is no reason to stay
        job._point, job.squared_error, job._short, job._enough, job._tries = whole, 1.01 * allowed, -1, 1 << 62, tries
        assert whole < job._nearer(whole) <= Point(last)
        job.squared_error, job._short = 0.99 * allowed, -1
        assert job._nearer(whole) < whole or whole == job._nearer(whole) == Point(0)
        seen = [job._nearer(whole) for _ in range(tries)]
        assert seen[-1] == whole  # it stays at last
    job._short, job._enough, job._tries = 1 * n + 10, 1 * n + 40, tries  # between what falls short and what does
    for of, error in ((Point(1, 20), 2.0), (Point(1, 30), 0.5), (Point(1, 21), 2.0)):
        job.squared_error = error * allowed
        found = job._nearer(of)
        assert (job._short, job._enough) == {20: (n + 20, n + 40), 30: (n + 20, n + 30), 21: (n + 21, n + 30)}[
            of.better
        ]
        assert job._short < found.quality * n + found.better < job._enough
    job._tries, job.squared_error = 0, 2.0 * allowed
    assert job._nearer(Point(1, 25)) == Point(1, 30)  # no more: what was good enough
    job._short, job._enough, job._tries, job.squared_error = -1, 1 << 62, tries, 1.01 * allowed
    assert job._nearer(Point(last)) == Point(last)  # the best there is


def test_prior_and_decoder_learn_from_refined_symbols_and_the_encoder_from_its_own(compressor):
    data = open_source("digits")
    batch = {"x": torch.from_numpy(data.images[:40]), "label": torch.from_numpy(data.labels[:40]).long()}
    batch["level"] = torch.arange(40) % 2
    plain = compressor.model.at(0, 2).train()
    with torch.no_grad():
        for parameter in plain.coder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    slow = copy.deepcopy(plain)
    slow.config = replace(plain.config, refine=30)

    def grown(total):
        for parameter in (*plain.parameters(), *slow.parameters()):
            parameter.grad = None
        total.backward()
        return {n: p.grad.clone() for m in (plain, slow) for n, p in m.named_parameters() if p.grad is not None}

    losses = slow(batch, "main", 0.0)
    found = grown(losses.total)
    weights = compressor_file.rounded(plain.coder, plain.config.weight_bits)
    symbols = plain.refined(batch, batch["level"], 30, weights={name: w.detach() for name, w in weights.items()})
    of_refined = plain._losses(symbols.float(), batch, weights)
    own = plain(batch, "main", 1.0)
    assert of_refined.total < own.total and torch.allclose(losses.total, (of_refined.total + own.total) / 2)
    assert losses.terms["bits_per_dim"] == of_refined.terms["bits_per_dim"]
    for part, total in (("coder.", of_refined.total), ("encoder.", own.total)):
        expected = {n: g / 2 for n, g in grown(total).items() if n.startswith(part)}
        assert expected and {n for n in found if n.startswith(part)} == set(expected)
        assert all(torch.allclose(found[n], g, atol=1e-6) for n, g in expected.items())
    with torch.no_grad():  # as validation sees it
        assert torch.allclose(slow(batch, "main", 1.0).total, losses.total)


def test_a_codec_without_loss_takes_no_wishes(painter, tmp_path):
    with pytest.raises(ValueError, match="loses nothing"):
        compress(painter, "digits", tmp_path / "d.latente", psnr=30)


def test_nothing_that_comes_meanwhile_is_replaced(painter, tmp_path):
    images = compress(painter, "digits", tmp_path / "y.latente", verify=False).path
    for out in (tmp_path / "out.npy", tmp_path / "folder"):

        def say(line, out=out):
            if line.startswith("decoding") and not out.exists():
                if out.name == "folder":
                    out.mkdir()
                    (out / "mine").write_text("mine")
                else:
                    out.write_text("mine")

        with pytest.raises(ValueError, match="already exists"):
            decompress(images, out, say=say)
        assert (out / "mine" if out.is_dir() else out).read_text() == "mine"
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".tmp")]
