"""Files that are read on any machine: networks of whole numbers and what is coded with them are the same everywhere, and files that were
coded long ago are still read."""

import itertools
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from golden import FOLDER, pictures, rows
from latente.codec import coding, exact, packing, walks
from latente.codec.coding import Decoder, Encoder
from latente.compression import Archive, chunks, decompress
from latente.compression.quality import Point
from latente.models import pixelcnn, table_gpt
from latente.spec import ImageSpec

# ---- no sum that depends on its order -------------------------------------------------------------------------------


def linear(weights, bits, biases=None):
    """An exact layer whose whole weights are those given."""
    layer = nn.Linear(len(weights[0]), len(weights), bias=biases is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        if layer.bias is not None:
            layer.bias.copy_(torch.tensor(biases))
    made = exact.Linear(layer, bits)
    made.weight.copy_(torch.tensor(weights, dtype=torch.float64))
    made.bounded()
    return made


def rounded(value):
    """To the nearest whole number, halves to the even one."""
    return round(Fraction(value))


def by_hand(layer, x):
    """What an exact layer makes of one input, by Python's whole numbers, which have no end."""
    cut = [max(-layer.most, min(layer.most, Fraction(float(number)))) for number in x]
    found = []
    for weights, scale, bias in zip(layer.weight.tolist(), layer.scale.tolist(), layer.bias.tolist()):
        total = sum(int(weight) * number for weight, number in zip(weights, cut))
        assert sum(abs(int(weight) * number) for weight, number in zip(weights, cut)) <= 2**50
        kept = max(-int(exact.BOUND), min(int(exact.BOUND), rounded(total * Fraction(scale))))
        found.append(kept + int(bias))
    return found


@pytest.mark.parametrize("inputs", [3, 512, 5_000])
@pytest.mark.parametrize("bits", [4, 12])
@pytest.mark.parametrize("shift", [-8, 0, 24])
def test_a_layer_at_its_bounds_is_python_s_whole_numbers(inputs, bits, shift):
    draw, most = np.random.default_rng(0), 2 ** (bits - 1)
    ends = np.tile([most, -most, most - 1], (inputs, 1)).T  # as large as weights can be
    weights = np.concatenate([ends, draw.integers(-most, most + 1, (5, inputs))]).astype(float).tolist()
    layer = linear(weights, bits, [1024.0, -1024.0, *draw.normal(size=6)])
    layer.scale.fill_(2.0**-shift)
    assert layer.bias.abs().max() == exact.BOUND and layer.most == 2**50 // (most * inputs)
    x = draw.integers(-layer.most, layer.most + 1, (10, inputs)).astype(float)
    x[:4] = [[layer.most], [-layer.most], [layer.most - 1], [0]]
    x[4] = np.where(np.arange(inputs) % 2, layer.most, -layer.most)
    x[5:7] = [[exact.LARGEST], [-exact.LARGEST]]
    x[7, 0] = exact.LARGEST
    x[8:] = (x[8:] - 0.125).clip(-layer.most, layer.most)  # eighths, of leaky relus
    found = layer(torch.from_numpy(x))
    assert found.tolist() == [by_hand(layer, each) for each in x]
    order = draw.permutation(inputs)  # added up in another order, and one by one
    other = linear(np.array(weights)[:, order].tolist(), bits, [1024.0, -1024.0, *layer.bias[2:].div(4096).tolist()])
    other.scale.copy_(layer.scale)
    for one, expected in zip(torch.from_numpy(x[:, order]), found):
        assert (other(one[None])[0] == expected).all()


def test_a_layer_with_steps_for_its_columns_is_python_s_whole_numbers():
    """The finest and the coarsest of them, numbers as large as they can be, inputs as large as its weights allow."""
    draw, inputs = np.random.default_rng(0), 300
    columns = torch.arange(inputs) % (exact.SPREAD + 1)
    numbers = draw.integers(-(2**11), 2**11 + 1, (6, inputs))
    numbers[:2] = [[2**11], [-(2**11)]]
    layer = torch.nn.Linear(inputs, 6)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(numbers * 2.0 ** columns.numpy() / 2**9))
    made = exact.Linear(layer, exact.MOST_BITS, (torch.full((6,), 9.0), columns.float()))
    assert (made.weight == torch.from_numpy(numbers) * 2**columns).all() and (made.scale == 2.0**-9).all()
    assert made.most == 2**50 // int(made.weight.abs().sum(1).max()) < exact.LARGEST
    x = draw.integers(-2 * made.most, 2 * made.most, (8, inputs)) - 0.125
    x[:2] = [[made.most], [-exact.LARGEST]]
    found = made(torch.from_numpy(x))
    assert found.tolist() == [by_hand(made, each) for each in x]
    order = draw.permutation(inputs)
    made.weight.copy_(made.weight[:, order])
    assert (torch.cat([made(one[None]) for one in torch.from_numpy(x[:, order])]) == found).all()


def test_what_a_layer_takes_is_cut_only_where_its_weights_are_too_many():
    assert linear([[127.0] * 64], 8).most > exact.LARGEST > linear([[2047.0] * 1024], 12).most


def test_a_norm_at_its_bounds_is_python_s_whole_numbers():
    size, draw = exact.WIDEST, np.random.default_rng(0)
    x = draw.integers(-(2**30), 2**30, (6, size)).astype(float)
    x[:3] = [[2.0**40], [0], [1]]
    x[3, 1:] = 0
    expected: list[list[float]] = []
    for each in x:
        cut = [max(-(2**21), min(2**21, int(number))) for number in each]
        squares = sum(number * number for number in cut)
        assert squares <= 2**53
        root = math.sqrt(max(1.0, squares / size))
        expected.append([float(round(number * 4096 / root)) for number in cut])
    assert exact.RMSNorm(size)(torch.from_numpy(x)).tolist() == expected
    with pytest.raises(ValueError, match="norm of 2,049"):
        exact.RMSNorm(size + 1)


def test_a_model_that_is_wider_or_has_no_finite_weights_is_refused():
    for wrong in ({"width": 2049}, {"width": 0}, {"blocks": 65}, {"widen": 65}, {"widen": 1.5}):
        with pytest.raises(ValueError, match=f"--{next(iter(wrong))}"):
            table_gpt.Config(**wrong)
    model = pixelcnn.Model(pixelcnn.Config(width=8, blocks=1, window=1), ImageSpec(1, 8, 8))
    with torch.no_grad():
        model.first.bias[0] = math.nan
    with pytest.raises(ValueError, match="no finite numbers"):
        exact.exact(model, 8)


# ---- two numbers as one ----------------------------------------------------------------------------------------------


def held(x):
    """Whole numbers (N,I) as pairs, and the squares of their lengths."""
    x = torch.as_tensor(x, dtype=torch.float64)
    return exact.Linear.paired(x, exact.Linear.squares(x)), exact.Linear.squares(x)


def test_what_is_held_as_one_comes_apart_again():
    most = float(int(exact.REACH))
    ends = [0, 1, -1, 2, most, -most, most - 1, 1 - most, 2.0**25, -(2.0**25), 12_345_678]
    x = torch.tensor(list(itertools.product(ends, ends)), dtype=torch.float64).T.reshape(-1, 1)
    assert (exact.Linear.apart(held(x)[0]) == x).all()


@pytest.mark.parametrize("inputs", [1, 3, 480])
@pytest.mark.parametrize("shift", [-8, 0, 24])
def test_products_of_pairs_are_python_s_whole_numbers(inputs, shift):
    """Of inputs just within reach, in the direction of a row of weights, where sums are largest, and beyond it."""
    draw = np.random.default_rng(0)
    weights = draw.integers(-127, 128, (6, inputs))
    weights[:2] = [[127], [-127]]
    layer = linear(weights.astype(float).tolist(), 8, [1024.0, -1024.0, *draw.normal(size=4)])
    layer.scale.fill_(2.0**-shift)
    furthest = np.trunc(math.sqrt(layer.reach / inputs) * np.ones(inputs))
    small = draw.integers(-9, 10, inputs).astype(float)
    far = 3 * furthest  # held alone, there is no twelfth
    x = np.array(
        [furthest, furthest, -furthest, small, furthest - 1, far, furthest, -furthest, small, -furthest, small]
    )
    pairs, squares = held(x)
    assert (squares > layer.reach).tolist() == [each == 5 for each in range(11)]
    largest = (x[:5] @ weights.T).max()
    assert 2**25.9 - 127 * inputs < largest < 2**26
    found = layer.of_pairs(pairs, squares)
    assert found.tolist() == [by_hand(layer, each) for each in x]
    many = np.array([far, furthest, far, far, furthest, furthest])
    with pytest.raises(OverflowError, match="too large for two"):
        layer.of_pairs(*held(many))
    for each in (x, many, x * 2**20):  # where too few can be held so, and where none can
        assert layer.in_pairs(torch.from_numpy(each)).tolist() == [by_hand(layer, one) for one in each]


def test_layers_whose_inputs_may_have_to_be_cut_have_no_reach():
    assert linear([[2047.0] * 1024], 12).reach == 0 < linear([[0.0] * 9], 8).reach == exact.REACH**2


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize(
    ("largest", "why"), [(1 << 12, None), (1 << 21, "too many numbers"), (1 << 27, "a number is too")]
)
def test_two_lines_of_pairs_are_looked_at_as_those_of_single_images(n, largest, why, monkeypatch):
    """From some place on with numbers too large for the layer to tell apart, or to be held."""
    draw = np.random.default_rng(0)
    layer = linear(draw.integers(-127, 128, (7, 5 * 16)).astype(float).tolist(), 8)
    by_pairs, said = pixelcnn.Lines(layer, n, 6, 16), []
    monkeypatch.setattr(pixelcnn, "pairs", lambda layer: False)
    plain, look = pixelcnn.Lines(layer, n, 6, 16), by_pairs._paired

    def noted(*of):
        try:
            return look(*of)
        except OverflowError as error:
            said.append(str(error))
            raise

    monkeypatch.setattr(by_pairs, "_paired", noted)
    for row, column in itertools.product(range(5), range(6)):
        most = largest if row > 1 else 4096
        x = torch.from_numpy(draw.integers(-most, most + 1, (n, 16))).double()
        assert (by_pairs.look(x, row, column) == plain.look(x, row, column)).all()
    assert by_pairs.pairs == (why is None) and not plain.pairs
    assert [each.startswith(why) for each in said] == [True] if why else not said


@pytest.mark.parametrize("scale", [0.1, 100])
def test_a_walk_by_pairs_expects_what_one_without_them_does(scale, monkeypatch):
    torch.manual_seed(0)
    model = pixelcnn.Model(pixelcnn.Config(width=16, blocks=3, window=2), ImageSpec(2, 5, 6))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
        model.rows.weight[2:] = scale
    net, draw = exact.exact(model, 8), np.random.default_rng(0)
    told = torch.from_numpy(draw.integers(0, 16, (2 * 2 * 30, 9)))

    def expected(pairs):
        monkeypatch.setattr(pixelcnn, "pairs", lambda layer: pairs)
        walk, seen, known = net.walk(9, None), [], iter(told)

        def choose(logits):
            seen.append(logits.clone())
            return next(known)

        walk.through(choose)
        return torch.stack(seen), [lines.pairs for lines in walk.lines]

    (by_pairs, still), (plain, _) = expected(True), expected(False)
    assert still == [scale < 1] * 3
    assert (by_pairs == plain).all() and plain.unique().numel() > 500


class Squares(nn.Module):
    """As table-gpt: a norm, a layer, its squares, a layer."""

    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(256, elementwise_affine=False)
        self.wide, self.narrow = nn.Linear(256, 1024), nn.Linear(1024, 4)

    def forward(self, x):
        return self.narrow(torch.round(torch.relu(self.wide(self.norm(x))).square() / self.one))


def test_weights_of_a_stranger_are_bounded_when_they_are_unpacked():
    """Every weight as large as it can be, every layer scaled up, every bias at its bound: still what Python makes of it."""
    net, forged = (exact.exact(Squares(), 12) for _ in range(2))
    for layer in (forged.wide, forged.narrow):
        layer.weight.fill_(2.0**11)
        layer.weight[:, ::3] = -(2.0**11)
        layer.scale.fill_(2.0**8)
        layer.bias.fill_(exact.BOUND)
    packing.unpack(packing.pack(forged), net)
    assert net.narrow.most == 2**50 // (2**11 * 1024) < exact.LARGEST
    x = torch.from_numpy(np.random.default_rng(0).integers(-(2**40), 2**40, (7, 256)).astype(float))
    found = net(x)
    assert (torch.cat([net(one[None]) for one in x]) == found).all()
    inner = [[round(Fraction(max(0, n) ** 2, 4096)) for n in by_hand(net.wide, each)] for each in net.norm(x)]
    assert max(map(max, inner)) == exact.LARGEST and found.tolist() == [by_hand(net.narrow, each) for each in inner]


def group(low, counts, values):
    """Packed whole numbers, as `packing.pack` lays them out."""
    counts, encoder = np.asarray(counts), Encoder()
    encoder.alike(np.asarray(values) - low, counts)
    kept, coded = zlib.compress(counts.astype("<u4").tobytes(), 9), encoder.finish()
    return struct.pack("<iIII", low, len(counts), len(kept), len(coded)) + kept + coded


@pytest.mark.parametrize(
    ("weights", "shifts", "tables"),
    [((-9, 8), (0, 1), (0, 1)), ((-8, 9), (0, 1), (0, 1)), ((-8, 8), (-9, 0), (0, 1)), ((-8, 8), (24, 25), (0, 1)),
     ((-8, 8), (0, 1), (-(2**18) - 1, 0)), ((-8, 8), (0, 1), (0, 2**18 + 1))],
)  # fmt: skip
def test_weights_shifts_and_tables_beyond_their_bounds_are_refused(weights, shifts, tables):
    net = exact.exact(nn.Sequential(nn.Linear(4, 2)), 4)

    def packed(*ends):
        pieces = []
        for (low, high), n in zip(ends, (8, 2, 2)):
            values = np.array([low, high] * (n // 2))
            pieces.append(group(low, np.bincount(values - low), values))
        return b"".join(pieces)

    packing.unpack(packed((-8, 8), (-8, 24), (-(2**18), 2**18)), net)
    assert net[0].weight.abs().max() == 8 and net[0].bias.abs().max() == exact.BOUND
    with pytest.raises(ValueError, match="no weights"):
        packing.unpack(packed(weights, shifts, tables), net)


# ---- the coder -------------------------------------------------------------------------------------------------------


def test_a_coder_that_makes_other_bytes_is_refused(monkeypatch):
    coding._check_coder.cache_clear()
    monkeypatch.setattr(coding, "_FAMILY", coding._stream.model.Categorical(perfect=True))
    try:
        for coder in (Encoder, lambda: Decoder(b"")):
            with pytest.raises(ValueError, match=r"constriction .* codes otherwise"):
                coder()
    finally:
        monkeypatch.undo()
        coding._check_coder.cache_clear()


def test_frequencies_are_what_constriction_makes_of_chances():
    """So files from before frequencies were made here are read as well."""
    draw = np.random.default_rng(0)
    chances = np.round(coding.UNIT * np.exp(-draw.exponential(4, (2_000, 64))))
    chances[:, 7] = coding.UNIT
    values = draw.integers(0, 64, 2_000)
    before, after = Encoder(), Encoder()
    before.add(values, chances)
    after.add(values, coding._shared(chances))
    assert before.finish() == after.finish()
    some = chances[:200].astype(int).tolist()
    exactly = [[(2**24 - 64) * below // sum(row) for below in itertools.accumulate(row)] for row in some]
    assert np.abs(coding._shared(chances[:200]).cumsum(1) - exactly).max() <= 1  # it rounds a quotient and a product


# ---- walks side by side ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pixels", "latents", "latents_views", "latents_graded", "rows"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_walks_side_by_side_make_the_same_bytes(name, threads):
    torch.set_num_threads(threads)
    with Archive(FOLDER / f"{name}.latente") as archive:
        numbers = range(len(archive.reader))
        together = archive.content.decode(numbers)
        alone = [archive.chunk(number) for number in numbers]
        coded = [archive.reader.chunk(number)[chunks.HEAD :] for number in numbers]
        if name == "rows":
            assert all(a.equals(b) for a, b in zip(together, alone))
            made, _ = archive.content.rows.code(together)
            made = [code[: 4 + int.from_bytes(code[:4], "little")] for code in made]  # without what LZMA keeps
            assert all(theirs.startswith(mine) for mine, theirs in zip(made, coded))
        else:
            assert all((a == b).all() for a, b in zip(together, alone))
    assert torch.get_num_threads() == threads


def test_walks_run_side_by_side():
    torch.set_num_threads(2)
    if torch.get_num_threads() < 2:
        pytest.skip("torch has one thread here, so all is one share")
    both, one = threading.Barrier(2, timeout=30), np.zeros(1, np.int64)

    class Meeting:
        """A walk that waits for another, before its only value and after it."""

        def through(self, choose):
            both.wait()
            found = choose(torch.zeros(1, 16, dtype=torch.float64))
            both.wait()
            return found

    coders = Encoder(), Encoder()
    walks.encoded(lambda items: Meeting(), lambda items: [one], coders, [1, 1])
    found = walks.decoded(lambda items: Meeting(), [Decoder(coder.finish()) for coder in coders], [1, 1])
    assert found.tolist() == [0, 0]


class Endless:
    """A walk that asks until it is stopped."""

    def __init__(self, n):
        self.n, self.asked = n, 0

    def through(self, choose):
        for self.asked in range(100_000):
            choose(torch.zeros(self.n, 16, dtype=torch.float64))
            time.sleep(1e-4)
        return torch.zeros(self.n)


@pytest.mark.parametrize("failing", [0, 1])
def test_what_goes_wrong_in_one_walk_stops_all(failing):
    torch.set_num_threads(2)
    made, zeros = [], np.zeros(1, np.int64)

    def values(items):
        if items.start != failing:
            return itertools.repeat(zeros)
        return itertools.chain([zeros] * 5, (1 // 0 for _ in "x"))

    def walk(items):
        made.append(Endless(1))
        return made[-1]

    with pytest.raises(ZeroDivisionError):
        walks.encoded(walk, values, [Encoder(), Encoder()], [1, 1])
    assert len(made) == 2 and max(one.asked for one in made) < 50_000 and torch.get_num_threads() == 2


def test_ctrl_c_stops_all_walks():
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # which a process in the background is started without
    torch.set_num_threads(2)
    made, zeros = [], np.zeros(1, np.int64)

    def values(items):
        yield from [zeros] * 5
        if items.start:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        yield from itertools.repeat(zeros)

    def walk(items):
        made.append(Endless(1))
        return made[-1]

    try:
        with pytest.raises(KeyboardInterrupt):
            walks.encoded(walk, values, [Encoder(), Encoder()], [1, 1])
    finally:
        signal.signal(signal.SIGINT, before)
    assert max(one.asked for one in made) < 50_000 and torch.get_num_threads() == 2


# ---- files of the past -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pixels", "latents", "latents_views", "latents_graded", "rows"])
def test_a_file_of_the_past_is_coded_by_its_model(name):
    with Archive(FOLDER / f"{name}.latente") as archive:
        count = len(archive.reader)
        assert count > 1 and all(archive.reader.chunk(number)[0] == chunks.MODEL for number in range(count))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_lossless_file_of_the_past_gives_its_images_and_they_its_bytes(threads):
    torch.set_num_threads(threads)
    x, labels = pictures(60)
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    with Archive(FOLDER / "pixels.latente") as archive:
        numbers = range(len(archive.reader))
        assert (np.concatenate([archive.chunk(number) for number in numbers]) == x).all()
        assert (archive.labels == labels).all()
        counts = [len(archive.reader.items_of(number)) for number in numbers]
        coded, _ = archive.content.coding.code(x, labels, counts)
        assert coded == [archive.reader.chunk(number)[chunks.HEAD :] for number in numbers]


@pytest.mark.parametrize(
    ("name", "better", "digest"),
    [
        ("latents", 85, "0be43f572e427e1a"),
        ("latents_views", 107, "dc8d8070cf7b2423"),
        ("latents_graded", 94, "4ce47a42bc760825"),
    ],
)
def test_a_lossy_file_of_the_past_gives_the_same_pixels(name, better, digest):
    with Archive(FOLDER / f"{name}.latente") as archive:
        x = np.concatenate([archive.chunk(number) for number in range(len(archive.reader))])
    assert archive.content.held.better == better and chunks.digest(x.tobytes()) == digest
    errors = x.transpose(0, 2, 3, 1).astype(float) - pictures(150)[0]
    assert 10 * np.log10(255**2 / np.square(errors).mean()) > 19


@pytest.mark.parametrize("name", ["latents", "latents_views", "latents_graded"])
def test_symbols_of_the_past_are_coded_to_the_same_bytes(name, monkeypatch):
    with Archive(FOLDER / f"{name}.latente") as archive:
        reader, held, coding = archive.reader, archive.content.held, archive.content.coding
        levels = Point(held.quality, held.better, held.nested).each(range(held.items), held.items)
        counts = [len(reader.items_of(number)) for number in range(len(reader))]
        coded = [reader.chunk(number)[chunks.HEAD :] for number in range(len(reader))]
        monkeypatch.setattr(coding, "shown", lambda symbols, levels: symbols)
        symbols, labels = coding.images(coded, counts, levels)
        assert (labels == pictures(150)[1]).all() and coding.code(symbols, labels, counts, levels)[0] == coded


def test_files_of_the_past_are_read_with_other_instructions():
    """The tests around this one, and rows coded again, where torch adds up in another order: without AVX."""
    start = "import sys, pytest, torch; assert torch.backends.cpu.get_cpu_capability() == 'DEFAULT'; sys.exit(pytest.main())"
    which = "(of_the_past or (same_bytes and 1-rows)) and not instructions"
    words = [sys.executable, "-c", start, "-q", "-n0", __file__, "-k", which]
    plain = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    found = subprocess.run(words, env=os.environ | plain, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, (found.stdout + found.stderr)[-2_000:]


def test_rows_of_the_past_come_back_byte_for_byte(tmp_path):
    decompress(FOLDER / "rows.latente", tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text(encoding="utf-8") == rows(400)
