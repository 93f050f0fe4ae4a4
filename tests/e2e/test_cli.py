"""The command line as a user meets it: whole paths in a temporary folder, exit codes, one clear line for every mistake."""

import errno
import io
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from latente import checkpoint, registry
from latente.cli import main
from latente.spec import ImageSpec, PairSpec, TableSpec, TextSpec

TRAIN = ["--steps", "4", "--size", "tiny", "--quiet"]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of 48 pictures in two classes, its name with a space and an accent, as the current folder's child."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for kind in ("cats", "dogs"):
        (tmp_path / "mes images é" / kind).mkdir(parents=True)
        for number in range(24):
            pixels = random.integers(0, 256, (20, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mes images é" / kind / f"{number}.png")
    return "mes images é"


def test_from_a_folder_to_samples_of_every_kind(pictures, tmp_path, capsys):
    assert main(["data", pictures, "--sheet", "sheet.png"]) == 0
    shown = capsys.readouterr().out
    assert "48" in shown and "cats" in shown and "16x20" in shown
    assert Image.open(tmp_path / "sheet.png").size[0] > 100
    assert main(["train", "gan", pictures, "--out", "run", *TRAIN]) == 0
    said = capsys.readouterr().out
    assert "latente sample run" in said
    assert main(["sample", "run", "--n", "10", "--out", "made"]) == 0
    assert sum(1 for _ in (tmp_path / "made").glob("*/*.png")) == 10
    assert {folder.name for folder in (tmp_path / "made").iterdir()} <= {"cats", "dogs"}
    assert main(["sample", "run", "--n", "10", "--label", "dogs", "--out", "dogs.parquet"]) == 0
    assert pq.read_table(tmp_path / "dogs.parquet")["label"].to_pylist() == ["dogs"] * 10
    for out in ("made.npy", "made.npz", "again.npy"):
        assert main(["sample", "run", "--n", "10", "--truncation", "0.7", "--out", out]) == 0
    made = np.load(tmp_path / "made.npy")
    assert made.shape == (10, 20, 16, 3) and made.dtype == np.uint8
    assert np.array_equal(made, np.load(tmp_path / "again.npy"))
    assert np.array_equal(made, np.load(tmp_path / "made.npz")["x"])
    assert main(["data", "made"]) == 0  # what comes out can go in again


def test_latents_reconstructions_and_clean_pictures(pictures, tmp_path, capsys):
    assert main(["train", "autoencoder", pictures, "--noise", "gaussian:0.1", "--out", "run", *TRAIN]) == 0
    assert main(["encode", "run", pictures, "--out", "latents.npy"]) == 0
    assert main(["encode", "run", pictures, "--out", "latents.parquet"]) == 0
    latents, table = np.load(tmp_path / "latents.npy"), pq.read_table(tmp_path / "latents.parquet")
    assert latents.shape == (48, 24) and latents.dtype == np.float32
    assert np.array_equal(np.array(table["latent"].to_pylist(), np.float32), latents)
    assert sorted(table["name"].to_pylist())[0].startswith("cats/")
    assert main(["denoise", "run", pictures, "--out", "clean"]) == 0
    assert main(["reconstruct", "run", pictures, "--out", "rebuilt.npy"]) == 0
    assert {p.relative_to(tmp_path / "clean").parts[0] for p in (tmp_path / "clean").rglob("*.png")} == {"cats", "dogs"}
    assert np.load(tmp_path / "rebuilt.npy").shape == (48, 20, 16, 3)
    assert main(["denoise", "run", f"{pictures}/cats", "--out", "cats.npy"]) == 0  # classes do not matter to it
    assert np.load(tmp_path / "cats.npy").shape == (24, 20, 16, 3)


def test_a_run_is_resumed_and_made_longer(pictures, tmp_path, capsys):
    assert main(["train", "vae", pictures, *TRAIN]) == 0
    run = tmp_path / "runs" / "vae-mes images é-1"
    assert run.is_dir(), list((tmp_path / "runs").iterdir())
    assert main(["resume", str(run), "--quiet"]) == 2
    assert "is finished" in capsys.readouterr().err
    assert main(["resume", str(run), "--steps", "+2", "--quiet"]) == 0
    assert checkpoint.read_state(run)["step"] == 6
    assert main(["explore", str(run), "--out", "latent.png"]) == 0
    assert Image.open(tmp_path / "latent.png").size[0] > 100
    assert main(["train", "vae", pictures, "--no-labels", *TRAIN]) == 0
    record = json.loads((tmp_path / "runs" / "vae-mes images é-2" / "run.json").read_text())
    assert record["spec"] == {"kind": "image", "channels": 3, "height": 20, "width": 16, "classes": []}


MISTAKES = {
    "no command of that name": (["trian"], "no command 'trian'"),
    "no model": (["train"], "which model?"),
    "no model of that name": (["train", "vea", "digits"], "no model called 'vea'"),
    "no such source": (["train", "vae", "nowhere/at/all"], "nowhere/at/all"),
    "a budget that is no time": (["train", "vae", "digits", "--budget", "soon"], "--budget"),
    "two limits": (["train", "vae", "digits", "--budget", "9s", "--steps", "3"], "one of"),
    "no run": (["sample", "nothing", "--out", "made"], "no run at nothing"),
    "no samples": (["sample", "run", "--n", "0", "--out", "made"], "--n 0"),
    "no class of that name": (["sample", "run", "--label", "horse", "--out", "made"], "cats, dogs"),
    "an output that exists": (["sample", "run", "--out", "run"], "exists already"),
    "an output of unknown kind": (["sample", "run", "--out", "made.docx"], "made.docx"),
    "a setting of another family": (["sample", "run", "--truncation", "0.5", "--out", "made"], "--truncation"),
    "an act of another family": (["denoise", "run", "digits", "--out", "made"], "cannot denoise"),
    "latents as pictures": (["encode", "run", "digits", "--out", "made.png"], ".npy or .parquet"),
    "other classes": (["reconstruct", "run", "digits", "--out", "made"], "classes"),
    "more threads than a machine has": (["train", "vae", "digits", "--threads", "99999"], "processor cores"),
    "no attention heads": (["train", "gpt", "pydoc", "--heads", "0"], "--heads 0: at least 1"),
    "tables without rows": (["train", "gpt", "pydoc", "--ngrams", "3", "--ngram-rows", "0"], "--ngram-rows 0"),
    "a seed that is no number": (["train", "vae", "digits", "--seed", "x"], "--seed"),
}


@pytest.mark.filterwarnings("ignore")
def test_mistakes_get_exit_code_2_one_line_and_leave_nothing(pictures, tmp_path, capsys):
    assert main(["train", "vae", pictures, "--out", "run", *TRAIN]) == 0
    before = sorted(tmp_path.rglob("*"))
    for what, (words, says) in MISTAKES.items():
        capsys.readouterr()
        assert main(words) == 2, what
        said = capsys.readouterr().err
        assert says in said and "Traceback" not in said, (what, said)
        assert sorted(tmp_path.rglob("*")) == before, what


def test_a_mistake_shows_no_traceback_to_the_shell(tmp_path):
    words = ["train", "vae", str(tmp_path / "nowhere")]
    ended = subprocess.run([sys.executable, "-m", "latente", *words], capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.startswith("latente: ") and ended.stderr.count("\n") == 1


def test_a_full_disk_behind_the_output_is_one_line(tmp_path, capsys, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["data", "digits", "--sheet", str(tmp_path / "sheet.png")]) == 2
    assert capsys.readouterr().err == f"latente: the output: {os.strerror(errno.ENOSPC)}\n"


def test_help_names_every_command_model_and_flag(capsys):
    assert main([]) == 0
    overview = capsys.readouterr().out
    for name in registry.names():
        assert name in overview and registry.summary(name) in overview
        assert main(["train", name, "--help"]) == 0
        shown = capsys.readouterr().out
        family = registry.load(name)
        for field in family.Config.__dataclass_fields__:
            assert f"--{field.replace('_', '-')}" in shown
        rows = TableSpec(("a",), ((5,),), (True,), ((0,),))
        sizes = {
            "image": (ImageSpec(1, 8, 8), ImageSpec(1, 64, 64)),
            "text": (TextSpec(9, 8),) * 2,
            "table": (rows,) * 2,
            "pair": (PairSpec(9, 9, 5, 5),) * 2,
        }
        small, large = sizes[family.kind]
        assert family.Config.preset("tiny", small) != family.Config.preset("base", large)
        assert "None" not in shown
