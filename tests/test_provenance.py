"""Samples and their sidecars: what is written can be made again, and whatever is not as it was is found and named."""

import copy
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

import latente
from latente import checkpoint, provenance
from latente.cli import main
from latente.data.sources import open_source
from latente.provenance import sidecar, verify
from latente.provenance.texts import passages

TRAIN = ["--steps", "4", "--size", "tiny", "--threads", "1", "--quiet"]
TEXT = ["--context", "24", "--width", "32", "--layers", "2", "--batch-size", "8"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the runs vae, gan (digits, conditional), gpt (pydoc), and samples of each kind."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTE_CACHE", str(folder / "cache"))
        assert main(["train", "vae", "digits", *TRAIN, "--out", str(folder / "vae")]) == 0
        assert main(["train", "gan", "digits", *TRAIN, "--out", str(folder / "gan")]) == 0
        assert main(["train", "gpt", "pydoc", *TRAIN, *TEXT, "--out", str(folder / "gpt")]) == 0
    for words in (
        "vae --n 12 --out made", "gan --n 12 --label 3 --truncation 0.5 --out threes", "gan --n 12 --seed 1 --out made.npy",
        "vae --n 12 --temperature 0.5 --out made.npz", "gan --n 12 --out made.parquet",
        "gpt --n 5 --tokens 40 --out made.txt", "gpt --n 5 --prompt The --tokens 30 --top-k 9 --out made.jsonl",
        "gpt --n 5 --stop a e --temperature 0.7 --repetition-penalty 1.1 --out texts.parquet",
    ):  # fmt: skip
        run, *flags, out = words.split()
        assert main(["sample", str(folder / run), *flags, str(folder / out)]) == 0
    return folder


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A copy of the samples to spoil, as the current folder; the runs beside them."""
    for item in place.iterdir():
        if item.is_dir() and item.name not in ("made", "threes"):
            (tmp_path / item.name).symlink_to(item)
        elif item.is_dir():
            shutil.copytree(item, tmp_path / item.name)
        else:
            shutil.copy(item, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


MADE = {
    "made": "vae", "threes": "gan", "made.npy": "gan", "made.npz": "vae", "made.parquet": "gan",
    "made.txt": "gpt", "made.jsonl": "gpt", "texts.parquet": "gpt",
}  # fmt: skip


def test_what_was_written_is_made_again_byte_for_byte(here, capsys):
    for path, run in MADE.items():
        assert main(["verify", run, path]) == 0
        assert capsys.readouterr().out.startswith(f"same bytes: {path} is what {run} makes"), path
    assert {p.name for p in here.glob("**/threes/*")} == {"3"}  # the label was obeyed, or its round trip says little


def test_a_sidecar_from_before_there_were_others_is_one_of_samples(here):
    held = json.loads(sidecar("made.npy").read_text())
    sidecar("made.npy").write_text(json.dumps({name: value for name, value in held.items() if name != "what"}))
    assert main(["verify", "gan", "made.npy"]) == 0


def test_a_sidecar_says_how_and_by_what_and_names_no_place(place):
    texts = {path: sidecar(place / path).read_text() for path in MADE}
    for path, text in texts.items():
        held = json.loads(text)
        assert str(place) not in text and str(Path.home()) not in text and '"/' not in text
        assert held["n"] == (5 if MADE[path] == "gpt" else 12)
        recorded = json.loads((place / MADE[path] / "run.json").read_text())
        for name in ("config", "spec", "model", "seed", "size"):
            assert held["run"][name] == recorded[name]
        assert held["run"]["data"]["fingerprint"] == recorded["data"]["fingerprint"]
        assert held["made_with"]["torch"] == torch.__version__
    assert json.loads(texts["threes"])["options"] == {"label": "3", "truncation": 0.5}
    assert json.loads(texts["made.npy"])["seed"] == 1
    assert json.loads(texts["made.jsonl"])["options"] == {"prompt": "The", "tokens": 30, "top_k": 9}
    assert json.loads(texts["texts.parquet"])["options"]["stop"] == ["a", "e"]


def test_scores_of_the_run_come_along_and_a_damaged_report_does_no_harm(place, tmp_path):
    shutil.copytree(place / "vae", tmp_path / "vae")
    (tmp_path / "vae" / "report").mkdir()
    run, score = latente.load(tmp_path / "vae"), {"name": "judge_auc", "value": 0.7, "ci": [0.6, 0.8]}
    for text, expected in (
        (json.dumps({"scores": [{**score, "more": str(tmp_path)}, "x", {"name": 3}]}), None),
        (json.dumps({"scores": [score]}), [score]),
        ('{"scores": [{"name": "fd", "value": NaN}]}', [{"name": "fd", "value": None}]),
        ("[[[", []),
        ('{"scores": 3}', []),
    ):
        (tmp_path / "vae" / "report" / "metrics.json").write_text(text)
        provenance.write(run, run.sample(2), {}, tmp_path / "made.npy")
        got = json.loads(sidecar(tmp_path / "made.npy").read_text())["scores"]
        (tmp_path / "made.npy").unlink()
        sidecar(tmp_path / "made.npy").unlink()
        assert got == expected or (expected is None and str(tmp_path) not in json.dumps(got))


def test_one_pixel_is_found_and_named(here, capsys):
    (name,) = here.glob("made/*/000007.png")
    pixels = np.array(Image.open(name))
    pixels[2, 3] ^= 4
    Image.fromarray(pixels).save(name)
    x = np.load("made.npy")
    x[9, 0, 0] ^= 1
    np.save("made.npy", x)
    found = verify(latente.load("vae"), "made")
    assert (found.outcome, found.differing, found.first, found.largest) == ("differs", 1, 7, 4)
    assert found.files["changed"] == (str(name.relative_to(here / "made")),)
    assert any("changed after they were made" in line for line in found.said)
    assert main(["verify", "gan", "made.npy"]) == 1
    assert "1 of 12 images" in (said := capsys.readouterr().out) and "number 9," in said and "up to 1 of 255" in said


def test_missing_added_moved_and_damaged_files_are_named(here):
    paths = {p.name: p for p in here.glob("made/*/*.png")}
    paths["000002.png"].unlink()
    shutil.copy(paths["000001.png"], "made/extra.png")
    paths["000003.png"].write_bytes(paths["000003.png"].read_bytes()[:40])
    other = "9" if paths["000004.png"].parent.name != "9" else "8"
    (here / "made" / other).mkdir(exist_ok=True)
    paths["000004.png"].rename(here / "made" / other / "000004.png")
    (here / "made" / ".DS_Store").write_bytes(b"of the system")
    relative = {name: str(path.relative_to(here / "made")) for name, path in paths.items()}
    found = verify(latente.load("vae"), "made")
    assert found.outcome == "differs" and found.differing == 3 and found.first == 2
    assert found.files["missing"] == (relative["000002.png"], relative["000004.png"])
    assert set(found.files["added"]) == {"extra.png", f"{other}/000004.png"}
    assert found.files["changed"] == (relative["000003.png"],)


def test_a_file_too_many_is_no_match_though_every_image_is_there(here):
    (here / "made" / "note.txt").write_text("mine")
    found = verify(latente.load("vae"), "made")
    assert (found.outcome, found.differing, found.files["added"]) == ("differs", 0, ("note.txt",))


def test_other_bytes_of_the_same_values_are_the_same_values(here, capsys):
    for name in here.glob("made/*/*.png"):  # another compression, and colour where grey was
        Image.open(name).convert("RGB").save(name, compress_level=0)
    np.savez("copy.npz", x=np.load("made.npy"))
    shutil.copy("made.npy.latente.json", "copy.npz.latente.json")
    with np.load("made.npz") as held:
        np.save("copy.npy", np.asfortranarray(held["x"]))
    shutil.copy("made.npz.latente.json", "copy.npy.latente.json")
    pq.write_table(pq.read_table("made.parquet"), "made.parquet", compression="zstd")
    text = (here / "made.txt").read_bytes()
    (here / "made.txt").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    lines = (here / "made.jsonl").read_text().splitlines()
    (here / "made.jsonl").write_text("".join(json.dumps(json.loads(line), indent=None) + "\r\n" for line in lines))
    for path, run in (*MADE.items(), ("copy.npz", "gan"), ("copy.npy", "vae")):
        assert main(["verify", run, path]) == 0
        wanted = "same bytes" if path in ("threes", "made.npy", "made.npz", "texts.parquet") else "same values"
        assert capsys.readouterr().out.startswith(wanted), path


def test_labels_are_compared_too(here):
    with np.load("made.npz") as held:
        labels = held["y"].copy()
        labels[5] = (labels[5] + 1) % 10
        np.savez("made.npz", x=held["x"], y=labels)
    table = pq.read_table("made.parquet")
    kinds = table["label"].to_pylist()
    kinds[6] = (kinds[6] + 1) % 10
    pq.write_table(table.set_column(1, "label", pa.array(kinds)), "made.parquet")
    for run, path, first in (("vae", "made.npz", 5), ("gan", "made.parquet", 6)):
        found = verify(latente.load(run), path)
        assert (found.outcome, found.differing, found.first) == ("differs", 1, first)


def test_a_changed_text_is_found_with_its_place(here, capsys):
    texts = latente.load("gpt").sample(5, tokens=40)["text"]
    assert "\n\n".join(texts) + "\n" == (here / "made.txt").read_bytes().decode()
    spoilt = texts[2][:6] + "\u2603" + texts[2][7:]
    (here / "made.txt").write_text("\n\n".join([*texts[:2], spoilt, *texts[3:]]) + "\n")
    lines = (here / "made.jsonl").read_text().splitlines()
    lines[1] = json.dumps({"text": json.loads(lines[1])["text"] + "!"})
    (here / "made.jsonl").write_text("\n".join(lines) + "\n")
    for path, number, character in (("made.txt", 2, 7), ("made.jsonl", 1, 34)):
        assert main(["verify", "gpt", path]) == 1
        said = capsys.readouterr().out
        assert f"1 of 5 texts in {path}" in said and f"number {number}," in said, said
        assert f"from its character {character} on" in said, said
    (here / "made.txt").write_text("\n\n".join([*texts, "one more"]) + "\n")
    assert verify(latente.load("gpt"), "made.txt").differing == 1
    (here / "made.jsonl").write_text(lines[0] + "\n")
    assert "holds 1 texts, not 5" in verify(latente.load("gpt"), "made.jsonl").said[0]


def test_texts_with_empty_lines_and_of_no_length_are_told_apart():
    texts = ["a\n", "", "\n\nb", "a", "", "c\n\n\nd\r\n"]
    body = "\n\n".join(texts) + "\n"
    assert list(passages(body, texts)) == texts
    changed = "\n\n".join([*texts[:3], "X", *texts[4:]]) + "\n"
    assert [a == b for a, b in zip(texts, passages(changed, texts))] == [True] * 3 + [False] + [True] * 2


def test_another_run_is_told_from_the_one_that_sampled(here, capsys):
    assert main(["verify", "gan", "made"]) == 1
    assert "gan is not the run that made made" in capsys.readouterr().out
    shutil.copytree((here / "vae").resolve(), "other")
    weights = load_file("other/weights.safetensors")
    name = next(name for name, value in weights.items() if value.dtype == np.float32 and value.size > 1)
    weights[name].flat[0] = np.nextafter(weights[name].flat[0], np.float32(9))  # one bit
    save_file(weights, "other/weights.safetensors")
    record = json.loads((here / "other" / "run.json").read_text())
    record["data"]["fingerprint"] = "0" * 32
    record["config"]["beta"] = 3.0
    (here / "other" / "run.json").write_text(json.dumps(record))
    assert main(["verify", "other", "made"]) == 1
    said = capsys.readouterr().out
    assert "weights_sha256 was" in said and "fingerprint was" in said and "config.beta was 1.0, is 3.0" in said
    shutil.copytree((here / "vae").resolve(), "elsewhere")  # the same run in another place, saved by other software
    save_file(load_file("elsewhere/weights.safetensors"), "elsewhere/weights.safetensors", {"by": "someone"})
    assert main(["verify", "elsewhere", "made"]) == 0


def test_samples_that_this_machine_makes_otherwise_are_blamed_on_what_differs(here):
    held = json.loads(sidecar("made.npy").read_text())
    x = np.load("made.npy")
    x[3, 1, 1] ^= 2
    np.save("made.npy", x)
    held["made_with"] |= {"torch": "1.0.0", "threads": 2}
    held |= {"content_sha256": provenance.content_sha256(here / "made.npy"), "values_sha256": "0" * 64}
    sidecar("made.npy").write_text(json.dumps(held))
    found = verify(latente.load("gan"), "made.npy")
    assert (found.outcome, found.differing, found.largest) == ("differs", 1, 2)
    assert f"torch was 1.0.0, is {torch.__version__}" in found.said[-1]
    assert "were changed after" not in found.said[-1]


def test_they_are_made_again_with_the_threads_of_then_and_in_whole_chunks(place, gan, tmp_path, monkeypatch):
    made, seen, sample = gan.sample(3, seed=4), [], gan.sample
    torch.set_num_threads(1)
    provenance.write(gan, made, {"seed": 4}, tmp_path / "made.npy")
    torch.set_num_threads(2)

    def watched(*words, **options):
        seen.append(torch.get_num_threads())
        return sample(*words, **options)

    monkeypatch.setattr(gan, "sample", watched)
    assert verify(gan, tmp_path / "made.npy").outcome == "same bytes"
    assert seen == [1] and torch.get_num_threads() == 2
    assert np.array_equal(sample(502, seed=4)["x"][:3], made["x"])


def test_neither_samples_nor_sidecar_where_either_is_in_the_way_or_writing_fails(here, capsys, monkeypatch):
    before = sorted(here.rglob("*"))
    shutil.copy("made.latente.json", "new.npy.latente.json")
    assert main(["sample", "vae", "--out", "new.npy"]) == 2
    assert "new.npy.latente.json exists already" in (said := capsys.readouterr().err) and said.count("\n") == 1
    (here / "new.npy.latente.json").unlink()
    rename, write_json = Path.rename, checkpoint.write_json
    for failing in ("the samples' place", "the sidecar's place", "the sidecar"):

        def moved(path, to, failing=failing):
            if path.name == {"the samples' place": "new", "the sidecar's place": "new.latente.json"}.get(failing):
                raise OSError(28, "No space left on device")
            return rename(path, to)

        def written(path, held, failing=failing):
            if failing == "the sidecar":
                raise OSError(28, "No space left on device")
            write_json(path, held)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", moved)
            patch.setattr(checkpoint, "write_json", written)
            assert main(["sample", "vae", "--n", "3", "--out", "new"]) == 2
        assert capsys.readouterr().err == "latente: cannot write new: No space left on device\n", failing
        assert sorted(here.rglob("*")) == before, failing
    assert main(["sample", "vae", "--temperature", "nan", "--out", "new"]) == 2
    assert "--temperature nan" in capsys.readouterr().err and sorted(here.rglob("*")) == before


DAMAGE = {
    "no JSON": lambda h: "{",
    "no object": lambda h: [h],
    "nested": lambda h: "[" * 100_000,
    "too long": lambda h: {**h, "options": {"label": "x" * (5 << 20)}},
    "another format": lambda h: {**h, "format": 2},
    "format of another type": lambda h: {**h, "format": "1"},
    "n of another type": lambda h: {**h, "n": "12"},
    "n is true": lambda h: {**h, "n": True},
    "no n": lambda h: {**h, "n": 0},
    "huge n": lambda h: {**h, "n": 10**30},
    "n of too many digits": lambda h: json.dumps(h).replace('"n": 12', '"n": ' + "9" * 5000),
    "unknown entry": lambda h: {**h, "run_this": "rm"},
    "missing entry": lambda h: {k: v for k, v in h.items() if k != "run"},
    "unknown option": lambda h: {**h, "options": {"generator": "x"}},
    "option of another kind": lambda h: {**h, "options": {"top_k": 3}},
    "option of another family": lambda h: {**h, "options": {"truncation": 0.5}},
    "option of another type": lambda h: {**h, "options": {"temperature": "hot"}},
    "option that is no number": lambda h: json.dumps(h).replace('"options": {}', '"options": {"temperature": NaN}'),
    "label of no class": lambda h: {**h, "options": {"label": "\x1b[31mred"}},
    "threads of another type": lambda h: {**h, "made_with": {**h["made_with"], "threads": [1]}},
}


def test_a_damaged_sidecar_is_one_clear_line(here, capsys):
    run, held = latente.load("vae"), json.loads(sidecar("made").read_text())
    for what, spoil in DAMAGE.items():
        spoilt = spoil(copy.deepcopy(held))
        sidecar("made").write_text(spoilt if isinstance(spoilt, str) else json.dumps(spoilt))
        with pytest.raises(ValueError, match=r"^made\.latente\.json") as told:
            verify(run, "made")
        assert "\n" not in str(told.value) and str(told.value).isprintable() and len(str(told.value)) < 250, what
    assert main(["verify", "vae", "made"]) == 2
    assert capsys.readouterr().err.startswith("latente: made.latente.json")
    sidecar("made").unlink()
    for words, says in (
        (["vae", "made"], "made has no made.latente.json beside it"),
        (["vae", "nowhere"], "at nowhere"),
        (["nowhere", "made.npy"], "no run at nowhere"),
    ):
        assert main(["verify", *words]) == 2
        assert says in (said := capsys.readouterr().err) and said.count("\n") == 1


def test_what_a_stranger_asks_for_is_bounded_by_what_lies_there(here, monkeypatch):
    """Nothing is sampled for n that the files do not hold, nor for more tokens than memory has room for."""
    loaded = {run: latente.load(run) for run in ("vae", "gan", "gpt")}
    for run in loaded.values():
        monkeypatch.setattr(run, "sample", lambda *_, **__: pytest.fail("sampled"))
    for path, run in MADE.items():
        held = json.loads(sidecar(path).read_text())
        sidecar(path).write_text(json.dumps({**held, "n": 10_000_000}))
        assert "not 10,000,000" in verify(loaded[run], path).said[0]
        if run == "gpt":
            sidecar(path).write_text(json.dumps({**held, "options": {"tokens": 2_000_000_000}}))
        else:
            sidecar(path).write_text(json.dumps({**held, "n": 2_000_000_000}))
        with pytest.raises(ValueError, match="more than can be made again"):
            verify(loaded[run], path)


def test_files_that_claim_to_be_larger_than_they_are_or_hold_objects(here):
    run = latente.load("gan")
    content = (here / "made.npy").read_bytes()
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}] * 12, object), allow_pickle=True)
    for spoilt, says in (
        (content[:200], "cut short"),
        (content[:20], "cannot be read"),
        (b"", "cannot be read"),
        (objects.getvalue(), "holds object numbers"),
        (content.replace(b"|u1", b"|i1"), "holds int8 numbers"),
    ):
        (here / "made.npy").write_bytes(spoilt)
        found = verify(run, "made.npy")
        assert found.outcome == "differs" and says in found.said[0], found.said
    with zipfile.ZipFile("made.npz", "w") as archive:
        archive.writestr("z.npy", content)
    assert "cannot be read" in verify(latente.load("vae"), "made.npz").said[0]
    (here / "made.parquet").write_bytes(b"PAR1")
    assert "cannot be read" in verify(run, "made.parquet").said[0]


def _paths(value, at=()):
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*at, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def gan(place):
    return latente.load(place / "gan")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_sidecar_gives_a_verdict_or_one_line(place, gan, tmp_path_factory, data):
    """Any value at any place of a sidecar: never another exception, and never "same" for what counts."""
    folder = tmp_path_factory.mktemp("any")
    shutil.copy(place / "made.npy", folder)
    held = json.loads(sidecar(place / "made.npy").read_text())
    where = data.draw(st.sampled_from(sorted(_paths(held), key=str)))
    value = data.draw(JSON)
    spoilt = [held]
    target, key = spoilt, 0
    for step in where:
        target, key = target[key], step
    before, target[key] = target[key], value
    sidecar(folder / "made.npy").write_text(json.dumps(spoilt[0]))
    try:
        found = verify(gan, folder / "made.npy")
    except ValueError as error:
        assert "\n" not in str(error)
        return
    counts = where and where[0] not in ("made_with", "scores") and value != before
    wanted = (
        "same values" if where[:1] == ("content_sha256",) else "differs"
    )  # other bytes than those the sidecar names
    assert not counts or found.outcome == wanted, (where, value, found)


def test_classes_called_by_numbers_are_those_numbers_in_a_npz(tmp_path, capsys):
    data = open_source("digits")
    labels = np.where(data.labels % 2, 7, 3)
    run = latente.train("gan", (data.images, labels), steps=2, size="tiny", out=tmp_path / "run", quiet=True)
    assert main(["sample", str(run.path), "--n", "12", "--out", str(tmp_path / "made.npz")]) == 0
    with np.load(tmp_path / "made.npz") as held:
        assert set(held["y"].tolist()) == {3, 7} and sorted(held.files) == ["x", "y"]
    assert main(["verify", str(run.path), str(tmp_path / "made.npz")]) == 0
    assert "same bytes" in capsys.readouterr().out


# ---- what is made of a source --------------------------------------------------------------------------------------

APPLIED = {
    "latents.npy": "encode", "latents.parquet": "encode", "rebuilt": "reconstruct", "rebuilt.npy": "reconstruct",
    "clean": "denoise", "clean.npz": "denoise", "clean.parquet": "denoise",
}  # fmt: skip


@pytest.fixture(scope="module")
def applied(tmp_path_factory):
    """A folder of colour pictures in classes, an autoencoder and a VAE trained on it, and what they make of it."""
    folder, random = tmp_path_factory.mktemp("applied"), np.random.default_rng(0)
    for number in range(24):
        name = folder / "mes images" / ("cats", "dogs")[number % 2] / f"{number:02d}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 10, 3), np.uint8)).save(name)
    Image.new("RGB", (10, 12), "red").save(name.with_suffix(".bmp"))  # two pictures of one name
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTE_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        for model, *flags in (["autoencoder", "--noise", "gaussian:0.1"], ["vae"]):
            assert main(["train", model, "mes images", *TRAIN, "--batch-size", "8", *flags, "--out", model]) == 0
        for out, what in APPLIED.items():
            assert main([what, "autoencoder", "mes images", "--out", out]) == 0
    return folder


@pytest.fixture
def room(applied, tmp_path, monkeypatch):
    """A copy of what was made, and of the source, as the current folder; the runs beside them."""
    shutil.copytree(applied, tmp_path / "room", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.setenv("LATENTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "room")
    return tmp_path / "room"


def again(path, run="autoencoder", source="mes images"):
    return main(["verify", run, path, *(["--source", source] if source else [])])


def test_what_was_made_of_a_source_is_made_again_byte_for_byte(room, applied, capsys):
    for out, what in APPLIED.items():
        assert again(out) == 0
        kind = "vectors" if what == "encode" else "images"
        assert capsys.readouterr().out == f"same bytes: {out} is what autoencoder makes, all 25 {kind}\n"
        text = sidecar(out).read_text()
        held = json.loads(text)
        assert str(applied) not in text and str(Path.home()) not in text and '"/' not in text
        assert (held["what"], held["n"], held["source"]["name"]) == (what, 25, "mes images")
        recorded = json.loads((room / "autoencoder" / "run.json").read_text())
        assert held["source"]["fingerprint"] == recorded["data"]["fingerprint"]
        assert held["options"] == {"image_size": "12x10", "color": "rgb", "max_bad": 0.05, "labels": True}
        assert held["made_with"]["torch"] == torch.__version__
    assert len(list((room / "rebuilt").rglob("*.png"))) == 25
    (room / "mes images").rename(room / "elsewhere")
    assert again("rebuilt", source="elsewhere") == 0  # wherever it is now


def test_a_source_in_memory_has_no_name_and_is_given_again(room):
    run, x = latente.load("autoencoder"), np.random.default_rng(1).integers(0, 256, (20, 12, 10, 3), np.uint8)
    assert provenance.apply(run, "encode", x, "new.npy") == 20
    assert json.loads(sidecar("new.npy").read_text())["source"]["name"] is None
    assert verify(run, "new.npy", x).outcome == "same bytes"
    with pytest.raises(ValueError, match="made of data in memory: give that again"):
        verify(run, "new.npy")
    with pytest.raises(ValueError, match=r"the source is not what new\.npy was made of"):
        verify(run, "new.npy", x[::-1] + 1)
    assert verify(run, "new.npy", x[::-1].copy()).outcome == "differs"
    assert "another order" in verify(run, "new.npy", x[::-1].copy()).said[-1]


def test_a_source_that_is_gone_changed_or_not_named_is_one_line(room, capsys):
    shutil.copytree("mes images", "other")
    changed = np.array(Image.open("other/cats/00.png"))
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save("other/cats/00.png")
    for source, says in (
        (None, "clean was made of mes images: give that again with --source"),
        ("nowhere", "nowhere"),
        ("other", "other is not what clean was made of (mes images), or has changed since"),
        ("digits", "digits is not what clean was made of"),
        ("pydoc", "pydoc is text, not images"),
    ):
        assert again("clean", source=source) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1, said
    assert main(["sample", "autoencoder", "--n", "3", "--out", "made.npy"]) == 0
    assert again("made.npy") == 2
    assert "made.npy was sampled, from no source: leave --source out" in capsys.readouterr().err


def test_what_was_changed_after_it_was_made_of_a_source_is_found_and_named(room):
    run = latente.load("autoencoder")
    latents = np.load("latents.npy")
    latents[7, 2] += 0.5
    np.save("latents.npy", latents)
    found = verify(run, "latents.npy", "mes images")
    assert (found.outcome, found.differing, found.first) == ("differs", 1, 7)
    assert found.largest == pytest.approx(0.5) and "a number differs by up to 0.5" in found.said[0]
    assert "vectors were changed after they were made" in found.said[-1]
    table = pq.read_table("latents.parquet")
    names = table["name"].to_pylist()
    names[3] = "renamed"
    rows = table["latent"].to_pylist()
    rows[4], rows[5][0] = rows[4][:-1], 1e300
    pq.write_table(pa.table({"name": names, "latent": rows}), "latents.parquet")
    found = verify(run, "latents.parquet", "mes images")
    assert (found.outcome, found.differing, found.first, found.largest) == ("differs", 3, 3, float("inf"))
    (room / "rebuilt" / "cats" / "02.png").unlink()
    (room / "rebuilt" / "dogs" / "01.png").rename(room / "rebuilt" / "dogs" / "1.png")
    found = verify(run, "rebuilt", "mes images")
    assert set(found.files["missing"]) == {"cats/02.png", "dogs/01.png"} and found.files["added"] == ("dogs/1.png",)
    frames = np.load("rebuilt.npy")
    frames[11, 0, 0, 0] ^= 2
    np.save("rebuilt.npy", frames)
    assert (verify(run, "rebuilt.npy", "mes images").first, verify(run, "rebuilt.npy", "mes images").largest) == (11, 2)


def test_other_bytes_of_what_was_made_of_a_source_are_the_same_values(room):
    run = latente.load("autoencoder")
    np.save("latents.npy", np.asfortranarray(np.load("latents.npy")))
    for name in ("latents.parquet", "clean.parquet"):
        pq.write_table(pq.read_table(name), name, compression="zstd")
    with np.load("clean.npz") as held:
        np.savez("clean.npz", x=held["x"])
    for name in ("latents.npy", "latents.parquet", "clean.parquet", "clean.npz"):
        assert verify(run, name, "mes images").outcome == "same values"


def test_files_of_the_source_that_have_other_names_are_blamed(room):
    (room / "mes images" / "cats" / "02.png").rename(room / "mes images" / "cats" / "02b.png")
    found = verify(latente.load("autoencoder"), "rebuilt", "mes images")
    assert found.files["missing"] == ("cats/02b.png",) and found.files["added"] == ("cats/02.png",)
    assert "files of the source have other names now" in found.said[-1]
    assert verify(latente.load("autoencoder"), "rebuilt.npy", "mes images").outcome == "same bytes"


def test_another_run_than_that_of_the_sidecar_makes_nothing_of_the_source(room, capsys):
    assert again("latents.npy", run="vae") == 1
    assert "vae is not the run that made latents.npy" in capsys.readouterr().out
    assert again("latents.npy", run="vae", source=None) == 1


STRANGE = {
    "nothing that is done": lambda h: {**h, "what": "explore"},
    "no word": lambda h: {**h, "what": ["encode"]},
    "nothing": lambda h: {k: v for k, v in h.items() if k != "what"},
    "sampled of a source": lambda h: {**h, "what": "sample"},
    "a seed": lambda h: {**h, "seed": 0},
    "no source": lambda h: {k: v for k, v in h.items() if k != "source"},
    "a source that is a path": lambda h: {**h, "source": "/etc/passwd"},
    "a source with a place": lambda h: {**h, "source": {**h["source"], "path": "/etc"}},
    "a source of numbers": lambda h: {**h, "source": {"name": 3, "fingerprint": "x"}},
    "another size": lambda h: {**h, "options": {**h["options"], "image_size": "128x128"}},
    "options of sampling": lambda h: {**h, "options": {"label": "cats"}},
    "more than there are": lambda h: {**h, "n": 10_000_000},
}


def test_a_strange_sidecar_of_what_was_made_of_a_source_is_one_clear_line(room, capsys):
    for out in ("latents.npy", "rebuilt"):
        held = json.loads(sidecar(out).read_text())
        for what, spoil in STRANGE.items():
            sidecar(out).write_text(json.dumps(spoil(copy.deepcopy(held))))
            assert again(out) == 2, what
            said = capsys.readouterr().err
            assert said.startswith(f"latente: {out}.latente.json is damaged") and said.count("\n") == 1, said
        for what in ("encode", "reconstruct", "denoise"):  # a change of what is asked makes other things
            sidecar(out).write_text(json.dumps({**held, "what": what}))
            assert again(out) == (0 if what == held["what"] else 1)
        assert "differs" in capsys.readouterr().out
        sidecar(out).write_text(json.dumps({**held, "source": {"name": "\x1b[31m", "fingerprint": "\n"}}))
        assert again(out) == 2
        said = capsys.readouterr().err
        assert "\x1b" not in said and said.count("\n") == 1


def test_a_run_that_cannot_do_what_a_sidecar_says(place, room, tmp_path, capsys):
    held = json.loads(sidecar("rebuilt").read_text())
    for run, out in (("gan", "made.npy"), ("gpt", "made.txt")):
        shutil.copy(place / out, out)
        mine = json.loads(sidecar(place / out).read_text())
        sidecar(out).write_text(json.dumps({**held, "run": mine["run"]}))
        assert again(out, str(place / run)) == 2
        assert f"{run} cannot reconstruct" in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert main(["reconstruct", "vae", "mes images", "--out", "by-vae"]) == 0
    mine = json.loads(sidecar("by-vae").read_text())
    sidecar("by-vae").write_text(json.dumps({**mine, "what": "denoise"}))
    assert again("by-vae", "vae") == 2


def test_no_output_of_a_source_without_its_sidecar(room, capsys, monkeypatch):
    before, rename, seen = sorted(room.rglob("*")), Path.rename, []

    def killed(path, to):
        if str(to).startswith("new"):
            seen.append(to.name)
            if not to.name.endswith(".latente.json"):
                assert sidecar(to).exists()
                raise OSError(28, "No space left on device")
        return rename(path, to)

    shutil.copy("clean.latente.json", "taken.npy.latente.json")
    for what in ("encode", "reconstruct", "denoise"):
        assert main([what, "autoencoder", "mes images", "--out", "taken.npy"]) == 2
        assert "taken.npy.latente.json exists already" in capsys.readouterr().err
    (room / "taken.npy.latente.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        for what in ("encode", "reconstruct", "denoise"):
            assert main([what, "autoencoder", "mes images", "--out", "new.npy"]) == 2
            assert capsys.readouterr().err == "latente: cannot write new.npy: No space left on device\n"
    assert seen == ["new.npy.latente.json", "new.npy"] * 3
    assert sorted(room.rglob("*")) == before


def test_mangled_files_beside_a_sidecar_of_a_source_are_told(room):
    run = latente.load("autoencoder")
    content = (room / "latents.npy").read_bytes()
    for spoilt in (content[:200], content[:20], b"", content.replace(b"<f4", b"<i4"), content.replace(b"<f4", b"|O8")):
        (room / "latents.npy").write_bytes(spoilt)
        assert verify(run, "latents.npy", "mes images").outcome == "differs"
    pq.write_table(pa.table({"name": ["x"] * 25, "latent": [["a"]] * 25}), "latents.parquet")
    assert "cannot be read" in verify(run, "latents.parquet", "mes images").said[0]
    pq.write_table(pa.table({"label": ["x"] * 25}), "latents.parquet")
    assert "cannot be read" in verify(run, "latents.parquet", "mes images").said[0]
    shutil.move("latents.parquet.latente.json", "rebuilt.latente.json")
    assert "vectors are not written to such files" in verify(run, "rebuilt", "mes images").said[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_sidecar_of_a_source_gives_a_verdict_or_one_line(applied, tmp_path_factory, data):
    folder, run = tmp_path_factory.mktemp("any"), latente.load(applied / "autoencoder")
    shutil.copy(applied / "latents.npy", folder)
    spoilt = [json.loads(sidecar(applied / "latents.npy").read_text())]
    target, key = spoilt, 0
    for step in data.draw(st.sampled_from(sorted(_paths(spoilt[0]), key=str))):
        target, key = target[key], step
    target[key] = data.draw(JSON)
    sidecar(folder / "latents.npy").write_text(json.dumps(spoilt[0]))
    try:
        verify(run, folder / "latents.npy", applied / "mes images")
    except ValueError as error:
        assert "\n" not in str(error)


# ---- what is made of texts -----------------------------------------------------------------------------------------

TRANSLATED = {
    "made.txt": [], "made.tsv": ["--n", "3"], "made.jsonl": ["--temperature", "1.5", "--n", "2", "--seed", "4"],
    "plain.jsonl": ["--beams", "2", "--no-repeat", "0", "--tokens", "9"],
}  # fmt: skip
LINES = ["1984", "", "3", "3", "7\u2028", "8"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder with the runs seq2seq and attention-rnn (roman), a file of lines, and what the first makes of it."""
    folder = tmp_path_factory.mktemp("pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTE_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        Path("lines.txt").write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
        for model in ("seq2seq", "attention-rnn"):
            assert main(["train", model, "roman", *TRAIN, "--batch-size", "16", "--out", model]) == 0
        for out, words in TRANSLATED.items():
            assert main(["translate", "seq2seq", "--file", "lines.txt", "--out", out, *words]) == 0
    return folder


@pytest.fixture
def desk(pairs, tmp_path, monkeypatch):
    """A copy of it, as the current folder."""
    shutil.copytree(pairs, tmp_path / "desk", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.setenv("LATENTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


def test_what_was_translated_is_made_again_byte_for_byte(desk, pairs, capsys):
    for out in TRANSLATED:
        source = ["--source", "lines.txt"] if out in ("made.txt", "made.tsv") else []
        assert main(["verify", "seq2seq", out, *source]) == 0
        text = sidecar(out).read_text()
        held = json.loads(text)
        said = capsys.readouterr().out
        assert said == f"same bytes: {out} is what seq2seq makes, all {held['n']} targets\n"
        assert str(pairs) not in text and (held["what"], held["source"]["name"]) == ("translate", "lines.txt")
        assert held["source"]["fingerprint"] == provenance.content_sha256(desk / "lines.txt")
    assert held["options"] == {"n": 1, "beams": 2, "no_repeat": 0, "tokens": 9} and held["n"] == len(LINES)
    (desk / "lines.txt").write_bytes((desk / "lines.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert main(["verify", "seq2seq", "made.txt", "--source", "lines.txt"]) == 0  # the same lines
    assert verify(latente.load("seq2seq"), "made.txt", LINES).outcome == "same bytes"


def test_sources_are_found_in_a_file_that_holds_them(desk, monkeypatch, capsys):
    (desk / "lines.txt").unlink()
    assert main(["verify", "seq2seq", "made.jsonl"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("3\n3\n\n\n12\n"))
    assert main(["translate", "seq2seq", "--out", "new.tsv", "--n", "2"]) == 0
    assert json.loads(sidecar("new.tsv").read_text())["source"]["name"] is None
    assert main(["verify", "seq2seq", "new.tsv"]) == 0
    assert capsys.readouterr().out.count("same bytes") == 2
    before = sorted(desk.rglob("*"))
    monkeypatch.setattr("sys.stdin", io.StringIO("3\n"))
    assert main(["translate", "seq2seq"]) == 0  # to the terminal, without a sidecar
    assert sorted(desk.rglob("*")) == before


def test_sources_that_are_not_there_or_others_are_one_line(desk, capsys):
    Path("other.txt").write_text("1984\n\n3\n3\n7\n8\n")
    Path("plain.jsonl").write_text(Path("plain.jsonl").read_text().replace('"1984"', '"1985"'))
    for words, says in (
        (["made.txt"], "made.txt was made of lines.txt and holds no sources: give them again with --source FILE"),
        (
            ["made.tsv"],
            "the sources in made.tsv are not those it was made of (lines.txt)",
        ),  # it has a space for a line separator
        (["plain.jsonl"], "the sources in plain.jsonl are not those it was made of"),
        (
            ["made.txt", "--source", "other.txt"],
            "other.txt is not what made.txt was made of (lines.txt), or has changed since",
        ),
        (["made.txt", "--source", "nowhere.txt"], "nowhere.txt"),
    ):
        assert main(["verify", "seq2seq", *words]) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1, said


def test_a_changed_target_or_figure_is_found(desk):
    run = latente.load("seq2seq")
    lines = Path("made.txt").read_text(encoding="utf-8").split("\n")
    Path("made.txt").write_text("\n".join([*lines[:2], f"{lines[2]}I", *lines[3:]]), encoding="utf-8")
    found = verify(run, "made.txt", "lines.txt")
    assert (found.outcome, found.differing, found.first, found.largest) == ("differs", 1, 2, None)
    assert "targets were changed after they were made" in found.said[-1]
    rows = [json.loads(line) for line in Path("plain.jsonl").read_bytes().splitlines()]
    was = rows[0]["log_prob"]
    rows[0]["log_prob"] = was + 0.25
    Path("plain.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = verify(run, "plain.jsonl")
    assert (found.differing, found.first, found.largest) == (1, 0, pytest.approx(0.25))
    assert "a log-probability or score differs by up to 0.25" in found.said[0]
    rows[0]["log_prob"] = was
    Path("plain.jsonl").write_text(
        "".join(f"{json.dumps(row)}\r\n" for row in rows)
    )  # with \\u escapes, other line ends
    assert verify(run, "plain.jsonl").outcome == "same values"
    Path("made.txt").write_text("\n".join(lines[1:]), encoding="utf-8")
    assert verify(run, "made.txt", "lines.txt").said[0].endswith("it holds 5 targets, not 6")
    for spoilt in ("", "x", "[1]\n" * 6, "{" * 100_000):
        Path("plain.jsonl").write_text(spoilt)
        assert verify(run, "plain.jsonl", "lines.txt").outcome == "differs"


def test_another_run_than_that_of_the_sidecar_translates_nothing(desk, capsys):
    assert main(["verify", "attention-rnn", "made.txt"]) == 1
    assert "attention-rnn is not the run that made made.txt" in capsys.readouterr().out


def test_a_strange_sidecar_of_targets_is_one_clear_line(desk, capsys):
    held = json.loads(sidecar("plain.jsonl").read_text())
    options = held["options"]
    for change in (
        {"what": "encode"}, {"what": "explore"}, {"seed": "0"}, {"options": {**options, "beams": 0}}, {"options": {"label": "x"}},
        {"options": {**options, "n": 1 << 30}}, {"options": {**options, "beams": 1 << 20}},
        {"options": {**options, "temperature": 1.0}}, {"source": "/etc/passwd"},
    ):  # fmt: skip
        sidecar("plain.jsonl").write_text(json.dumps({**held, **change}))
        assert main(["verify", "seq2seq", "plain.jsonl"]) == 2, change
        said = capsys.readouterr().err
        assert "plain.jsonl.latente.json" in said and said.count("\n") == 1, said
    sampled = {key: value for key, value in held.items() if key != "source"}
    sidecar("plain.jsonl").write_text(json.dumps({**sampled, "what": "sample"}))
    assert main(["verify", "seq2seq", "plain.jsonl"]) == 2
    assert "makes no samples" in capsys.readouterr().err


def test_neither_targets_nor_sidecar_where_either_is_in_the_way(desk, capsys):
    before = sorted(desk.rglob("*"))
    Path("new.txt.latente.json").touch()
    assert main(["translate", "seq2seq", "3", "--out", "new.txt"]) == 2
    assert "new.txt.latente.json exists already" in capsys.readouterr().err
    Path("new.txt.latente.json").unlink()
    with pytest.raises(ValueError, match="exists already"):
        provenance.write_targets(
            latente.load("seq2seq"), ["3"], latente.load("seq2seq").hypotheses(["3"]), {}, "made.txt"
        )
    assert sorted(desk.rglob("*")) == before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), out=st.sampled_from(["plain.jsonl", "made.jsonl", "made.tsv"]))
def test_whatever_stands_in_a_sidecar_of_targets_gives_a_verdict_or_one_line(pairs, tmp_path_factory, data, out):
    folder, run = tmp_path_factory.mktemp("any"), latente.load(pairs / "seq2seq")
    shutil.copy(pairs / out, folder)
    spoilt = [json.loads(sidecar(pairs / out).read_text())]
    target, key = spoilt, 0
    for step in data.draw(st.sampled_from(sorted(_paths(spoilt[0]), key=str))):
        target, key = target[key], step
    target[key] = data.draw(JSON)
    sidecar(folder / out).write_text(json.dumps(spoilt[0]))
    try:
        verify(run, folder / out, data.draw(st.sampled_from([None, pairs / "lines.txt", LINES])))
    except ValueError as error:
        assert "\n" not in str(error)
