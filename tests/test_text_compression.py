"""Text in fewer bytes: every byte comes back, no file grows by more than is promised, and damage is found and named."""

import math
import os
import random
import shutil
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

import latente
from forgery import forged, memory, part_of, peak
from latente.cli import main
from latente.codec import layout, tokens
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.codec.writer import Writer
from latente.compression import chunks, compress, decompress, headers, texts
from latente.compression.spelling import Speller, restored, unpacked
from latente.data.tokenizer import Tokenizer
from latente.evaluation.text import token_nats
from latente.models import gpt
from spots import damaged, spots

HEADER = 400  # bytes that a file of text takes at most, beside a thousandth of what it holds, weights, names and sizes
WORDS = (
    "the quick brown fox jumps over a lazy dog and sleeps while seven grey owls watch from their old tree as evening turns "
    "to night below them mice dig for roots near rivers where nobody ever comes"
)


def words(count, seed=0):
    return " ".join(random.Random(seed).choices(WORDS.split(), k=count))


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A language model of a text of few characters."""
    folder = tmp_path_factory.mktemp("writer")
    text = folder / "text.txt"
    text.write_text(words(8_000))
    run = latente.train(
        "gpt", str(text), steps=200, layers=1, heads=2, width=32, context=32, tokenizer="char", out=folder / "run",
        quiet=True,
    )  # fmt: skip
    return run, text


def ignorant(folder, tokenizer):
    """A model that knows next to nothing; of a folder of texts, so that it knows of ends."""
    (folder / "texts").mkdir()
    for number in range(4):
        (folder / "texts" / f"{number}.txt").write_text(words(200, number) + "\n")
    return latente.train(
        "gpt", str(folder / "texts"), steps=1, layers=1, heads=1, width=8, context=8, tokenizer=tokenizer,
        out=folder / "run", quiet=True,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["char", "byte", "bpe:300"])
def smallest(request, tmp_path_factory):
    """An ignorant model by each tokenizer."""
    return ignorant(tmp_path_factory.mktemp("smallest"), request.param)


def test_a_text_comes_back_and_is_as_small_as_the_model_promises(writer, tmp_path, capsys):
    run, text = writer
    held = text.read_bytes()[-20_000:]
    (tmp_path / "held.txt").write_bytes(held)
    out = tmp_path / "held.latente"
    assert main(["compress", str(run.path), str(tmp_path / "held.txt"), "--out", str(out), "--external-model"]) == 0
    assert "decoded and compared: the same" in capsys.readouterr().out
    assert main(["decompress", str(out), "--out", str(tmp_path / "again.txt"), "--run", str(run.path)]) == 0
    assert (tmp_path / "again.txt").read_bytes() == held
    with torch.inference_mode():
        ids = run.tokenizer.encode(held)
        promised = token_nats(run.model.logits, ids, run.spec.context).sum() / math.log(2) / 8
    assert out.stat().st_size < promised * 1.01 + HEADER  # with more context than windows have, it is less


def expected(model, lay, ids):
    """Bytes that tokens need by the model's own likelihood, each stream read in windows, without a cache."""
    rows, length = lay.shape(len(ids))
    lines = F.pad(torch.from_numpy(ids), (0, rows * length - len(ids)), value=-100).reshape(rows, length)
    lines = F.pad(lines, (1, 0), value=model.spec.start)
    total, at = 0.0, 0  # tokens of each line that are done
    with torch.inference_mode():
        while at < length:
            known = max(0, at - lay.kept) + (at > 0)  # the start is forgotten first
            window = lines[:, known : known + model.spec.context]
            logits = model.logits(window.clamp(min=0))[:, at - known :]
            targets = lines[:, at + 1 : at + 1 + logits.shape[1]]
            total += float(F.cross_entropy(logits[:, : targets.shape[1]].transpose(1, 2), targets, reduction="sum"))
            at += targets.shape[1]
    return total / math.log(2) / 8


def test_a_file_is_within_a_hundredth_of_what_its_model_expects(writer, tmp_path):
    run, _ = writer
    content = "".join(run.sample(2_000, tokens=60, seed=1, temperature=1.5)["text"]).encode()  # nothing for LZMA
    path = compress(run, content, tmp_path / "x.latente", external_model=True, verify=False).path
    lay, ids = tokens.Layout.of(run.model), run.tokenizer.encode(content)
    assert len(content) < headers.PIECE and lay.shape(len(ids))[0] == 64
    assert path.stat().st_size == pytest.approx(expected(run.model, lay, ids), rel=0.01)
    decompress(path, tmp_path / "x", run=run)
    assert (tmp_path / "x").read_bytes() == content


# ---- any bytes -----------------------------------------------------------------------------------------------------

PIECES = [b"the quick brown fox", b"\r\n", b"\xff", "ö漢".encode(), b"\0"]
CONTENTS = st.one_of(
    st.binary(max_size=100),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.builds(lambda byte, n: byte * n, st.binary(min_size=1, max_size=3), st.integers(0, 200)),
    st.builds(lambda n, seed: random.Random(seed).randbytes(n), st.integers(0, 300), st.integers(0, 99)),
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=9)), max_size=30).map(b"".join),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(CONTENTS, max_size=4), st.booleans(), st.sampled_from([50, 1 << 18]))
@example([], False, 50)
@example([b""], False, 50)
@example([b""], True, 50)
@example([b"", b"", b"a", b""], False, 50)
@example([b"q"], True, 50)
@example(["\ufffd\ud800é".encode("utf-8", "surrogatepass") * 20, b"\xc3" * 90], False, 50)
def test_any_bytes_come_back_and_do_not_grow(smallest, tmp_path_factory, contents, alone, size):
    folder = tmp_path_factory.mktemp("any")
    if alone:
        source = b"".join(contents)
        contents = [source]
    else:
        (source := folder / "in").mkdir()
        for number, content in enumerate(contents):
            (source / str(number)).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "PIECE", size)
        found = compress(smallest, source, folder / "x.latente", external_model=True)
        decompress(found.path, folder / "out", run=smallest)
        with Reader(found.path) as reader:
            pieces = len(reader)
    back = [folder / "out"] if alone else [folder / "out" / str(number) for number in range(len(contents))]
    assert [file.read_bytes() for file in back] == contents
    each = chunks.HEAD + layout.CHECK + 10  # of a chunk: how, check, frame, index
    assert found.path.stat().st_size <= HEADER + sum(map(len, contents)) + each * pieces + 8 * len(contents)


@pytest.mark.parametrize("size", [0, 1, 10, 1_000, 300_000])
def test_noise_does_not_grow_by_more_than_a_thousandth_and_a_header(writer, tmp_path, size):
    noise = random.Random(size).randbytes(size)
    path = compress(writer[0], noise, tmp_path / "x.latente", external_model=True).path
    assert path.stat().st_size <= 1.001 * size + HEADER
    decompress(path, tmp_path / "x", run=writer[0])
    assert (tmp_path / "x").read_bytes() == noise


@pytest.mark.parametrize("kind", ["300 of noise", "of any size", "some of them empty", "all empty", "none"])
def test_many_small_files_do_not_grow_either(writer, tmp_path, kind):
    draw = random.Random(0)
    (tmp_path / "in").mkdir()
    for number in range(0 if kind == "none" else 300):
        empty = kind == "all empty" or (kind == "some of them empty" and draw.random() < 0.3)
        size = 0 if empty else draw.randint(1, 60) if kind == "of any size" else 30
        (tmp_path / "in" / f"{number:03}").write_bytes(draw.randbytes(size))
    files = sorted((tmp_path / "in").iterdir())
    path = compress(writer[0], tmp_path / "in", tmp_path / "x.latente", external_model=True).path
    raw, apart = sum(file.stat().st_size for file in files), [len(part_of(path, name)) for name in ("names", "sizes")]
    assert path.stat().st_size - sum(apart) <= 1.001 * raw + HEADER and apart[1] <= 10 + 1.2 * len(files)
    decompress(path, tmp_path / "out", run=writer[0])
    assert [(file.name, file.read_bytes()) for file in sorted((tmp_path / "out").iterdir())] == [
        (file.name, file.read_bytes()) for file in files
    ]


def test_what_no_token_spells_costs_itself_alone(writer, tmp_path):
    run, _ = writer
    known = words(1_000, seed=2).encode()
    sizes = {}
    for odd in (b"", "ö".encode(), b"\xff", "漢字".encode()):
        content = known[:3_000] + odd + known[3_000:]
        sizes[odd] = compress(run, content, tmp_path / f"{len(sizes)}.latente", external_model=True).path.stat().st_size
        decompress(tmp_path / f"{len(sizes) - 1}.latente", tmp_path / f"{len(sizes)}", run=run)
        assert (tmp_path / f"{len(sizes)}").read_bytes() == content
    assert max(sizes.values()) < sizes[b""] + 24 < 0.6 * len(known)


@given(st.lists(st.sampled_from([b"owls and", b"a", b"\xff", "ö漢".encode(), b"\0", b"the end"]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_tokens_and_what_is_kept_aside_are_all_there_was(writer, parts):
    speller, content = Speller(writer[0].tokenizer, False), b"".join(parts)
    ids, aside = speller(content, np.array([len(content)]))
    apart = unpacked(aside, len(content))
    assert restored(speller.meanings.join(ids), apart) == content
    assert not any(b"owls and" in odd for _, odd in apart)


def test_one_letter_over_and_over_is_left_to_lzma(writer, tmp_path):
    path = compress(writer[0], b"q" * 5_000, tmp_path / "x.latente", external_model=True).path
    assert path.stat().st_size < HEADER + 30


def test_a_line_longer_than_chunks_comes_back(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "PIECE", 2_000)
    line = words(700).encode()
    found = compress(writer[0], line, tmp_path / "x.latente", external_model=True)
    decompress(found.path, tmp_path / "x", run=writer[0])
    with Reader(found.path) as reader:
        assert len(reader) == -(-len(line) // 2_000) and (tmp_path / "x").read_bytes() == line


def test_a_file_is_tokenized_once(writer, tmp_path, monkeypatch):
    run, text = writer
    own, seen = Tokenizer.encode_documents, []

    def counted(tokenizer, data, ends):
        seen.append(len(data))
        return own(tokenizer, data, ends)

    monkeypatch.setattr(Tokenizer, "encode_documents", counted)
    for content in (random.Random(0).randbytes(20_000), text.read_bytes()[:5_000]):
        seen.clear()
        compress(run, content, tmp_path / f"{len(content)}.latente", external_model=True)
        assert sum(seen) <= len(content) + 4 * 300  # and every character that there is, once


def test_between_files_stands_what_the_model_expects_there(smallest):
    run = smallest
    assert run.spec.start == run.tokenizer.end
    content, ends = b"the quick\nbrown fox\n" + b"\xff" * 9 + b"lazy", np.array([10, 10, 20, 29, 33])
    ids, _ = Speller(run.tokenizer, True)(content, ends)
    spelled = Speller(run.tokenizer, True).meanings.join(ids)
    assert (ids == run.tokenizer.end).sum() == (3 if spelled == content else 2)  # none at the end, none for nothing
    assert (Speller(run.tokenizer, False)(content, ends)[0] != run.tokenizer.end).all()


def test_a_folder_and_a_file_with_its_weights(writer, tmp_path):
    run, text = writer
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_bytes(text.read_bytes()[:3000])
    (tmp_path / "in" / "deep" / "b é.bin").write_bytes(bytes(range(256)))
    (tmp_path / "in" / "empty").write_bytes(b"")
    found = compress(run, str(tmp_path / "in"), tmp_path / "x.latente")
    assert found.model > 10_000
    decompress(found.path, tmp_path / "out")
    for name in ("a.txt", "deep/b é.bin", "empty"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()


# ---- machines ------------------------------------------------------------------------------------------------------


@pytest.fixture
def otherwise(monkeypatch):
    """Lets the model compute otherwise, as another machine might, where some condition on the tokens and the cache holds."""

    def made(where):
        own = gpt.Model.logits

        def logits(model, ids, cache=None):
            found = own(model, ids, cache)
            return found + 1e-3 * torch.arange(found.shape[2]) * where(ids, cache)

        monkeypatch.setattr(gpt.Model, "logits", logits)

    return made


@pytest.mark.parametrize("differs", ["everywhere", "few streams", "many streams", "past the context", "one length"])
def test_a_machine_that_computes_otherwise_anywhere_is_refused(writer, tmp_path, monkeypatch, otherwise, differs):
    run, text = writer
    monkeypatch.setattr(headers, "PIECE", 2_100)
    path = compress(run, text.read_bytes()[:2_500], tmp_path / "x.latente", external_model=True).path
    with Reader(path) as reader:
        lay, probes = tokens.Layout(**reader.header["layout"]), reader.header["probes"]
    assert [lay.shape(n)[0] for n in probes] == [2, 16]
    otherwise({
        "everywhere": lambda ids, cache: True, "few streams": lambda ids, cache: len(ids) == 2,
        "many streams": lambda ids, cache: len(ids) == 16, "past the context": lambda ids, cache: ids.shape[1] > 1,
        "one length": lambda ids, cache: cache.length == 29,
    }[differs])  # fmt: skip
    with pytest.raises(ValueError, match=r"arithmetic differs .*torch \S+, machine .*, threads 1; as here, by name"):
        decompress(path, tmp_path / "x", run=run)
    assert not (tmp_path / "x").exists()


def test_what_decodes_to_something_else_is_damaged(writer, tmp_path, monkeypatch):
    """A machine that passes the fingerprint and still differs somewhere."""
    run, text = writer
    found = compress(run, text.read_bytes()[:3000], tmp_path / "x.latente", external_model=True)
    assert found.modelled == found.coded
    own = tokens.decoded
    monkeypatch.setattr(tokens, "decoded", lambda *given: own(*given) * 0)
    with pytest.raises(Damaged, match=r"chunk 0 does not decode: .*this machine computes otherwise"):
        decompress(found.path, tmp_path / "x", run=run)


def test_what_no_model_coded_is_read_on_any_machine(writer, tmp_path, otherwise):
    content = random.Random(0).randbytes(3_000)
    path = compress(writer[0], content, tmp_path / "x.latente", external_model=True).path
    otherwise(lambda ids, cache: True)
    decompress(path, tmp_path / "x", run=writer[0])
    assert (tmp_path / "x").read_bytes() == content


def test_a_file_says_itself_how_its_tokens_lie(writer, tmp_path, monkeypatch):
    run, text = writer
    path = compress(run, text.read_bytes()[:3000], tmp_path / "x.latente", external_model=True).path
    for name, value in (("STREAMS", 2), ("STRETCH", 1), ("KEPT", 1 / 4)):
        monkeypatch.setattr(tokens, name, value)
    decompress(path, tmp_path / "x", run=run)
    assert (tmp_path / "x").read_bytes() == text.read_bytes()[:3000]


def test_streams_read_on_past_the_context(writer):
    run, text = writer
    ids, lay = run.tokenizer.encode(text.read_bytes()[:9_000]), tokens.Layout.of(run.model)
    coded, bits = tokens.encoded(run.model, lay, ids)
    assert (tokens.decoded(run.model, lay, coded, len(ids)) == ids).all() and bits <= 8 * len(
        coded
    ) <= bits * 1.002 + 64
    other = gpt.Model(run.model.config, run.spec).eval()
    mine, again, theirs = (tokens.fingerprint(model, lay, [len(ids)]) for model in (run.model, run.model, other))
    assert mine == again != theirs


def test_layouts_are_few_and_hold_every_token():
    lay = tokens.Layout(64, 128, 16)
    shapes = {n: lay.shape(n) for n in range(1, 20_000)}
    assert all((rows - 1) * length < n <= rows * length for n, (rows, length) in shapes.items() if n >= 128)
    assert {rows for rows, _ in shapes.values()} == {1, 2, 4, 8, 16, 32, 64}
    assert lay.probes([1, 300, 100, 260, 9_000, 8_192]) == [100, 300, 9_000] and lay.probes([]) == []


# ---- files that are not what they say ------------------------------------------------------------------------------


FILES = {"a": b"the quick brown fox jumps over the lazy", "b": " dogs ö".encode(), "c": bytes(range(200, 240))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of three files in three chunks, one of them by the model."""
    folder = tmp_path_factory.mktemp("whole")
    run = ignorant(folder, "char")
    (folder / "in").mkdir()
    for name, content in FILES.items():
        (folder / "in" / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "PIECE", 40)
        path = compress(run, folder / "in", folder / "x.latente").path
    with Reader(path) as reader:
        ways = [reader.chunk(number)[0] for number in range(len(reader))]
    assert ways == [chunks.MODEL, chunks.PLAIN, chunks.PLAIN]
    return path


@pytest.fixture(scope="module")
def packed_text(writer, tmp_path_factory):
    run, text = writer
    found = compress(run, text.read_bytes()[:600], tmp_path_factory.mktemp("packed") / "x.latente", verify=False)
    return found.path


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["config"].update(layers=10**9), lambda h: h["config"].update(width=10**6), lambda h: h["spec"].update(context=10**9),
        lambda h: h["spec"].update(context=1 << 16), lambda h: h["spec"].update(vocabulary=10**9), lambda h: h["spec"].update(start=10**6),
        lambda h: h["spec"].update(start=-1), lambda h: h["made_with"].update(threads=10**6), lambda h: h["made_with"].update(threads="1"),
        lambda h: h.update(probes=[10**12]), lambda h: h.update(probes=[-1]), lambda h: h.update(probes=3), lambda h: h.update(files=2),
        lambda h: h.update(probes=[1] * 99), lambda h: h.update(probes=[]), lambda h: h["layout"].update(streams=10**9),
        lambda h: h["layout"].update(streams=0), lambda h: h["layout"].update(kept=33), lambda h: h["layout"].update(kept=0),
        lambda h: h["layout"].update(stretch=0), lambda h: h["layout"].pop("stretch"), lambda h: h.pop("layout"),
        lambda h: h.update(files=10**9, folder=True), lambda h: h.update(folder=1), lambda h: h.update(tokens="0" * 16),
        lambda h: h.update(weights="0" * 16), lambda h: h.update(fingerprint=""), lambda h: h.update(model="gan"),
        lambda h: h.pop("probes"),
        lambda h: h["made_with"].pop("torch"), lambda h: h["config"].update(shape="gpt3"), lambda h: h["config"].update(kv_heads=0),
        lambda h: h["config"].update(dropout=1e300), lambda h: h.update(spec={"vocabulary": 1}), lambda h: h.update(more=0),
    ],
)  # fmt: skip
def test_a_forged_header_of_a_text_is_refused(packed_text, tmp_path, change):
    bad = forged(packed_text, tmp_path / "forged.latente", change)
    with memory(90), pytest.raises(ValueError) as error:
        decompress(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists() and "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["tokens", "names", "sizes", "model"])
@pytest.mark.parametrize(
    "part", [b"", bytes(40), chunks.squeezed(bytes(1 << 27)), chunks.squeezed(b"\xff" * 99)], ids=range(4)
)
def test_a_forged_part_of_a_text_is_refused(whole, tmp_path, name, part):
    bad = forged(whole, tmp_path / "forged.latente", lambda h: None, {name: part})
    with (
        memory(220),
        pytest.raises(ValueError) as error,
    ):  # names may take 64 MiB, twice while they grow, and LZMA as much
        decompress(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists() and len(list(tmp_path.iterdir())) == 1 and "\n" not in str(error.value)


def test_a_file_of_an_older_version_is_said_to_be_one(packed_text, tmp_path):
    bad = forged(packed_text, tmp_path / "old.latente", lambda h: h.update(codec="tokens", probe=h.pop("probes")[0]))
    with pytest.raises(ValueError, match="of an older latente, which can read it; this one cannot"):
        decompress(bad, tmp_path / "out")


def test_streams_are_bounded_in_memory(packed_text, tmp_path, monkeypatch):
    with Reader(packed_text) as reader:
        streams = reader.header["layout"]["streams"]
    monkeypatch.setattr(tokens, "most", lambda model: streams - 1)
    with pytest.raises(ValueError, match="more memory"):
        decompress(packed_text, tmp_path / "out")


def test_a_forged_chunk_of_a_text_is_damaged(packed_text, tmp_path):
    with Reader(packed_text) as reader:
        header, held = dict(reader.header), {name: reader.part(name) for name in reader.parts}
    head, far = b"\2" + bytes(4), layout.varint
    aside = [
        chunks.squeezed(part)
        for part in (
            b"", b"\1", b"\1\7\1", b"\1\7" + far(700) + bytes(700), far((1 << 32) - 1), b"\1\0\0", b"\1" + far(900) + b"\3abc",
        )
    ]  # fmt: skip
    for number, payload in enumerate((
        b"", b"\2", b"\2" + bytes(8), head + b"\xff" * 4 + bytes(8), head + b"\x80" * 9, head + far(600), head + far(600) + bytes(3),
        head + far(600) + far(0) + b"\xff" * 400, head + far(600) + far(9) + bytes(9), head + far(1201) + far(0) + bytes(400),
        *(head + far(500) + far(len(part)) + part + bytes(400) for part in aside), chunks.kept(bytes(599), None),
        chunks.kept(bytes(1 << 20), None),
    )):  # fmt: skip
        with Writer(tmp_path / f"{number}.latente", header, held) as writer:
            writer.add(payload, 600)
        lost = []
        decompress(tmp_path / f"{number}.latente", tmp_path / str(number), lost=lost)
        assert [damage.part for damage in lost] == ["chunk 0"] and (tmp_path / str(number)).read_bytes() == b""


def test_a_folder_of_one_file_is_a_folder_and_what_is_left_out_is_said(writer, tmp_path, capsys):
    run, text = writer
    (tmp_path / "in" / "empty").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_bytes(text.read_bytes()[:500])
    (tmp_path / "in" / "link").symlink_to("a.txt")
    out = str(tmp_path / "x.latente")
    assert main(["compress", str(run.path), str(tmp_path / "in"), "--out", out, "--external-model"]) == 0
    said = capsys.readouterr().out
    assert "1 empty folders are left out: empty" in said and "1 links and the like are left out: link" in said
    decompress(out, tmp_path / "out", run=run)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.txt"]
    assert (tmp_path / "out" / "a.txt").read_bytes() == (tmp_path / "in" / "a.txt").read_bytes()


def test_a_named_source_that_is_no_file_is_said(writer, tmp_path):
    run, _ = writer
    for source in ("pydoc", "digits"):
        with pytest.raises(ValueError, match=f"{source} is no file: a gpt compresses a file or a folder"):
            compress(run, source, tmp_path / "x.latente")


def test_damaged_names_of_files_cost_the_names_alone(writer, tmp_path):
    run, text = writer
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / name).write_bytes(text.read_bytes()[:300])
    path = compress(run, str(tmp_path / "in"), tmp_path / "x.latente", external_model=True).path
    content, lost = bytearray(path.read_bytes()), []
    content[content.index(part_of(path, "names"))] ^= 1
    path.write_bytes(content)
    decompress(path, tmp_path / "out", run=run, lost=lost)
    assert "all is written to one file, everything" in str(lost[0]) and len(lost) == 1
    assert (tmp_path / "out" / "everything").read_bytes() == 2 * text.read_bytes()[:300]


def test_a_file_says_where_it_can_be_read_and_is_refused_elsewhere(writer, tmp_path, capsys):
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this machine has no other instructions")
    run, text = writer
    (tmp_path / "in.txt").write_bytes(text.read_bytes()[:2_000])
    path = str(tmp_path / "x.latente")
    assert main(["compress", str(run.path), str(tmp_path / "in.txt"), "--out", path]) == 0
    assert f"where sums are the same as here: torch {torch.__version__}, machine " in capsys.readouterr().out
    words = [sys.executable, "-m", "latente", "decompress", path, "--out", str(tmp_path / "out.txt")]
    found = subprocess.run(words, env=os.environ | {"ATEN_CPU_CAPABILITY": "default"}, capture_output=True, text=True)
    assert found.returncode == 2 and "arithmetic differs" in found.stderr and not (tmp_path / "out.txt").exists()


def test_nothing_that_comes_meanwhile_is_replaced(writer, tmp_path):
    run, text = writer
    path = compress(run, text.read_bytes()[:600], tmp_path / "x.latente", external_model=True).path

    def say(line):
        if line.startswith("decoding"):
            (tmp_path / "out").write_text("mine")

    with pytest.raises(ValueError, match="already exists"):
        decompress(path, tmp_path / "out", run=run, say=say)
    assert (tmp_path / "out").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


# ---- damage --------------------------------------------------------------------------------------------------------


def left(out, lost, cut=False):
    """Whether a folder holds `FILES`, but for the chunks that are lost, all from the first on where the file is cut; what lacks some is
    called so."""
    parts, at, wanted = {damage.part for damage in lost or ()}, 0, {}
    gone = {int(part[6:]) for part in parts if part.startswith("chunk")}
    gone = set(range(min(gone), 3)) if cut and gone else gone
    for name, content in ({"everything": b"".join(FILES.values())} if parts & {"names", "sizes"} else FILES).items():
        chunk = [(place >= 40) + (place >= 47) for place in range(at, at + len(content))]
        kept, at = bytes(byte for byte, of in zip(content, chunk) if of not in gone), at + len(content)
        wanted[name + ".damaged" * (kept != content)] = kept
    return {file.name: file.read_bytes() for file in out.iterdir()} == wanted


@pytest.fixture
def quick(monkeypatch):
    """A model is built once for the same bytes, and what it made of the same bytes before is not computed again."""

    def once(own):
        known = {}

        def found(first, *given):
            if str(given) not in known:
                known[str(given)] = own(first, *given)
            return known[str(given)]

        return found

    for module, name in ((texts, "_restored"), (tokens, "decoded"), (tokens, "fingerprint")):
        monkeypatch.setattr(module, name, once(getattr(module, name)))
    monkeypatch.setattr(headers, "get_type_hints", cache(headers.get_type_hints))


def test_no_flip_or_cut_gives_a_crash_or_a_wrong_byte(whole, tmp_path, quick):
    content, where, draw, bad = whole.read_bytes(), spots(whole), random.Random(0), tmp_path / "bad.latente"
    parts = ["header", "names", "sizes", "model", "tokens", "index"]
    strata = [*([part] for part in parts), [f"chunk {number}" for number in range(3)]]
    slowest, refused = 0.0, 0
    with peak(200):
        for number in range(10_000):
            place = draw.choice(where[draw.choice(strata[number % len(strata)])])
            changed = bytes([content[place] ^ 1 << draw.randrange(8)])
            bad.write_bytes(content[:place] + (changed + content[place + 1 :]) * (number % 3 > 0))
            out, lost, began = tmp_path / str(number), [] if draw.random() < 0.5 else None, time.process_time()
            try:
                decompress(bad, out, lost=lost)
                assert lost and left(out, lost, number % 3 == 0)
                shutil.rmtree(out)
            except ValueError as error:
                refused += 1
                assert not out.exists() and "\n" not in str(error)
            slowest = max(slowest, time.process_time() - began)
    assert slowest < 2 and 5_000 < refused < 9_000 and list(tmp_path.iterdir()) == [bad]


def reshaped(name, draw):
    """Other names, or other places where one file ends and the next begins, as a part that can be read."""
    if name == "names":
        return chunks.squeezed("\0".join(draw.sample(["a", "b", "c", "x", "x/y", "é", "deep/er/z"], 3)).encode())
    total = sum(map(len, FILES.values()))
    ends = [0, *sorted(draw.choices(range(total + 1), k=2)), total]
    return chunks.squeezed(np.diff(ends).astype("<u8").tobytes())


def test_nothing_forged_beneath_the_checks_gives_a_crash_or_a_wrong_byte(whole, tmp_path, quick):
    """Changed chunks and parts whose checksums fit, as of someone who means harm."""
    draw, read = random.Random(1), 0
    with Reader(whole) as reader:
        header, parts = dict(reader.header), {name: reader.part(name) for name in reader.parts}
        payloads = [(reader.chunk(number), len(reader.items_of(number))) for number in range(len(reader))]
    for number in range(300):
        name = draw.choice(["chunk", "chunk", "names", "sizes", "tokens"])
        changed = bytearray(payloads[0][0] if name == "chunk" else parts[name])
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        del changed[draw.randint(1, 2 * len(changed)) :]
        if name in ("names", "sizes") and draw.random() < 0.5:
            changed = reshaped(name, draw)
        with Writer(
            tmp_path / f"{number}.latente", header, parts | ({} if name == "chunk" else {name: changed})
        ) as writer:
            writer.add(bytes(changed) if name == "chunk" else payloads[0][0], payloads[0][1])
            for payload, items in payloads[1:]:
                writer.add(payload, items)
        out, lost = tmp_path / str(number), []
        try:
            decompress(tmp_path / f"{number}.latente", out, lost=lost)
        except ValueError as error:
            assert not out.exists() and "\n" not in str(error) and name != "chunk"
            continue
        if name == "chunk":
            assert {damage.part for damage in lost} <= {"chunk 0"} and left(out, lost)
        else:  # other names, or other places where one ends and the next begins
            found = [file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()]
            assert not lost
            read += 1
            if name == "sizes":
                assert b"".join(found) == b"".join(FILES.values())
            else:
                assert sorted(found) == sorted(FILES.values())
    assert read > 30


def test_a_lost_chunk_costs_what_it_held(whole, tmp_path):
    bad = damaged(whole, "chunk 0", tmp_path / "bad.latente")
    decompress(bad, tmp_path / "out", lost=(lost := []))
    assert [damage.part for damage in lost] == ["chunk 0"]
    held = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert held == {"a.damaged": b"", "b.damaged": FILES["b"][1:], "c": FILES["c"]}
