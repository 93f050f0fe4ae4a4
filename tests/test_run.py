"""What a training promises around its loop: budgets, divergence, memory, warm starts, longer runs, a user's own model."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import families
import latente
from latente import checkpoint, registry
from latente.checkpoint import RunError
from latente.config import Recipe
from latente.phases import Phase
from latente.training import budget, devices, engine
from latente.training.stopping import Diverged

QUICK = {"size": "tiny", "batch_size": 16, "threads": 1, "quiet": True}


def weights(run):
    return checkpoint.read_tensors(run, "last", "model")


@pytest.mark.parametrize("name", registry.names())
def test_a_budget_is_kept_and_fully_annealed(name, tmp_path):
    began = time.monotonic()
    run = latente.train(
        **families.arguments(name), out=tmp_path / "run", budget="12s", size="tiny", threads=1, quiet=True, stop="never"
    )  # a few hundred rows are learned sooner than that
    run.sample(16)
    took = time.monotonic() - began
    assert 12 * 0.85 - 1 <= took <= 12 * 1.15 + 1
    plan = run.record["plan"]
    assert run.record["status"] == "finished" and checkpoint.read_state(run.path)["step"] == plan["steps"]
    assert plan["decay_start"] < plan["steps"]


def test_times_are_read_or_refused():
    assert [budget.seconds(t) for t in ("90", "90s", "5m", "1h30m", "1.5h")] == [90, 90, 300, 5400, 5400]
    for wrong in ("", "soon", "-5s", "0", "5 parsecs", "1h-5m"):
        with pytest.raises(ValueError, match="--budget"):
            budget.seconds(wrong)


def test_little_time_is_not_spent_on_measuring_what_cannot_fit():
    spent, asked = [0.0], []

    def timed(model, recipe, precision, steps):
        asked.append(model.size)
        spent[0] += steps * {"tiny": 0.05, "small": 1.0, "base": 3.0}[model.size]
        return {"tiny": 0.05, "small": 1.0, "base": 3.0}[model.size]

    class Sized(torch.nn.Module):
        phases = (Phase("main"),)

        def __init__(self, size):
            super().__init__()
            self.size = size

    def build(size):
        return Sized(size), Recipe()

    chosen = budget.choose(build, ("tiny", "small", "base"), ("float32",), timed, lambda: 10 - spent[0])
    assert chosen.size == "tiny" and asked.count("base") == asked.count("small") == 1
    assert spent[0] < 5


@pytest.mark.parametrize(
    ("rates", "kept"),
    [({8: 1.0, 4: 0.7, 2: 0.6, 1: 0.8}, 2), ({8: 1.0, 4: 0.95}, 8), ({8: 1, 4: 0.5, 2: 0.3, 1: 0.1}, 1)],
)
def test_fewer_threads_are_taken_where_they_are_faster(rates, kept):
    class Small(torch.nn.Module):
        phases = (Phase("main"),)

    before = torch.get_num_threads()
    try:
        chosen = budget.Choice("tiny", "float32", Recipe(), rates[8])
        chosen = budget.fewer_threads(chosen, Small(), lambda *_: rates[torch.get_num_threads()], 8)
        assert torch.get_num_threads() == kept and chosen.seconds_per_step == rates[kept]
        assert chosen.threads == (kept if kept < 8 else 0)
    finally:
        torch.set_num_threads(before)


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device cuda: torch finds none"):
        devices.fabric("cuda", 1)


def exploding(at, monkeypatch, times=1):
    """Makes the weights infinite at step `at`, `times` times."""
    step, left = engine.Trainer.train_step, [times]

    def train_step(self, batch):
        step(self, batch)
        if self.step == at and left[0]:
            left[0] -= 1
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("inf"))

    monkeypatch.setattr(engine.Trainer, "train_step", train_step)


@pytest.mark.parametrize("at", [3, 7])
def test_divergence_rolls_back_once_at_half_the_rate(tmp_path, monkeypatch, at):
    exploding(at, monkeypatch)
    run = latente.train("vae", "digits", out=tmp_path / "run", steps=12, checkpoint_every=5, **QUICK)
    (event,) = [r for r in checkpoint.read_metrics(run.path) if "event" in r]
    assert event["event"] == "rolled back" and event["to"] == (0 if at < 5 else 5) and event["lr_scale"] == 0.5
    assert all(torch.isfinite(t).all() for t in weights(run.path).values())
    assert checkpoint.read_state(run.path)["lr_scale"] == 0.5


def test_divergence_a_second_time_ends_with_a_reason_and_an_intact_run(tmp_path, monkeypatch):
    exploding(7, monkeypatch, times=2)
    with pytest.raises(Diverged, match="lower --learning-rate"):
        latente.train("vae", "digits", out=tmp_path / "run", steps=12, checkpoint_every=5, **QUICK)
    record = checkpoint.read_run(tmp_path / "run")
    assert record["status"] == "diverged" and "stopped being finite" in record["stopped"]
    assert latente.load(tmp_path / "run").sample(3)["x"].shape == (3, 1, 8, 8)


def test_too_little_memory_halves_the_batch_and_is_recorded(tmp_path, monkeypatch):
    backward, biggest = engine.Trainer.backward, 40

    def limited(self, batch, phase):
        if self.plan.batch_size // self.plan.accumulate > biggest:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        backward(self, batch, phase)

    monkeypatch.setattr(engine.Trainer, "backward", limited)
    run = latente.train(
        "vae", "digits", out=tmp_path / "run", budget="6s", size="tiny", batch_size=128, threads=1, quiet=True
    )
    assert run.record["plan"]["accumulate"] == 4 and run.record["plan"]["batch_size"] == 128
    assert run.record["recipe"]["accumulate"] == 4


def test_a_run_can_be_made_longer(tmp_path):
    latente.train("vae", "digits", out=tmp_path / "run", steps=6, **QUICK)
    with pytest.raises(ValueError, match="is finished"):
        latente.resume(tmp_path / "run", quiet=True)
    longer = latente.resume(tmp_path / "run", steps="+5", quiet=True)
    assert checkpoint.read_state(tmp_path / "run")["step"] == 11 and longer.record["plan"]["steps"] == 11
    latente.resume(tmp_path / "run", budget="+2s", quiet=True)
    assert checkpoint.read_state(tmp_path / "run")["step"] > 11
    with pytest.raises(ValueError, match="--steps"):
        latente.resume(tmp_path / "run", steps="many", quiet=True)


def test_a_longer_run_that_was_killed_goes_on_to_its_longer_end(tmp_path, monkeypatch):
    for name in ("whole", "killed"):
        latente.train("vae", "digits", out=tmp_path / name, steps=6, **QUICK)
    latente.resume(tmp_path / "whole", steps="+6", quiet=True)
    step = engine.Trainer.train_step

    def dying(self, batch):
        if self.step == 8:
            raise SystemExit
        step(self, batch)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(engine.Trainer, "train_step", dying)
        latente.resume(tmp_path / "killed", steps="+6", quiet=True)
    latente.resume(tmp_path / "killed", quiet=True)
    ends = [weights(tmp_path / name) for name in ("whole", "killed")]
    assert checkpoint.read_state(tmp_path / "killed")["step"] == 12
    assert all(torch.equal(t, ends[1][n]) for n, t in ends[0].items())


def test_a_start_from_another_run(tmp_path):
    first = latente.train("vae", "digits", out=tmp_path / "first", steps=5, **QUICK)
    second = latente.train(
        "vae", "digits", out=tmp_path / "second", steps=1, init=first.path, learning_rate=1e-12, ema=0.0, **QUICK
    )
    start = checkpoint.read_weights(first.path)
    assert start is not None
    assert all(torch.allclose(t, start[n], atol=1e-6) for n, t in weights(second.path).items())
    with pytest.raises(ValueError, match=r"--init.*other sizes"):
        latente.train("vae", "digits", out=tmp_path / "third", steps=1, init=first.path, width=24, **QUICK)


def test_a_run_is_never_overwritten_and_strange_folders_are_refused(tmp_path):
    latente.train("vae", "digits", out=tmp_path / "run", steps=1, **QUICK)
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(RunError, match="never overwritten"):
        latente.train("vae", "digits", out=tmp_path / "run", steps=1, **QUICK)
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    for path, says in ((tmp_path / "none", "no run at"), (tmp_path, "not a run directory")):
        with pytest.raises(RunError, match=says):
            latente.load(path)
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        latente.load(tmp_path / "run")


def test_damaged_weights_are_named(tmp_path):
    latente.train("vae", "digits", out=tmp_path / "run", steps=1, **QUICK)
    (tmp_path / "run" / "weights.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(RunError, match=r"weights\.safetensors cannot be read"):
        latente.load(tmp_path / "run")


def test_a_changed_source_is_not_resumed(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (300, 8, 8), np.uint8)
    np.save(tmp_path / "x.npy", x)
    latente.train("vae", tmp_path / "x.npy", out=tmp_path / "run", steps=2, **QUICK)
    np.save(tmp_path / "x.npy", x[::-1].copy())
    latente.resume(tmp_path / "run", steps="+1", quiet=True)  # the same images in another order are the same set
    x[0] += 1
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match="has changed"):
        latente.resume(tmp_path / "run", steps="+1", quiet=True)


def test_arrays_in_memory_train_and_resume(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (300, 8, 8), np.uint8)
    latente.train("vae", (x, np.arange(300) % 3), out=tmp_path / "run", steps=2, **QUICK)
    with pytest.raises(ValueError, match="arrays in memory"):
        latente.resume(tmp_path / "run", steps="+1", quiet=True)
    run = latente.resume(tmp_path / "run", source=(x, np.arange(300) % 3), steps="+1", quiet=True)
    assert set(run.sample(9, label="2")["label"]) == {2}
    with pytest.raises(ValueError, match="--label"):
        run.sample(9, label="7")


def test_samples_do_not_depend_on_how_many_are_asked_for(tmp_path):
    run = latente.train("gan", "digits", out=tmp_path / "run", steps=2, **QUICK)
    many = run.sample(700, seed=1)["x"]
    assert (run.sample(30, seed=1)["x"] == many[:30]).all() and len(many) == 700


OWN = '''"""My own model: every pixel's mean.

    x (B,C,H,W) -> nothing; a mean image (C,H,W) is learned.
"""
from dataclasses import dataclass
import torch
from torch import nn
from latente.config import Recipe
from latente.phases import Losses, Phase
from latente.spec import ImageSpec

@dataclass(frozen=True)
class Config:
    """Sizes."""
    bias: float = 0.0
    """start"""
    @classmethod
    def preset(cls, size, spec):
        return cls()

class Model(nn.Module):
    accepts = (ImageSpec,)
    phases = (Phase("main"),)
    recipe = Recipe(batch_size=16)
    monitor = "total"
    def __init__(self, config, spec):
        super().__init__()
        self.config, self.mean = config, nn.Parameter(torch.full(spec.shape, config.bias))
    def forward(self, batch, phase, progress):
        loss = (batch["x"] / 255 - self.mean).square().mean()
        return Losses(loss, {"mse": loss})
    def sample(self, n, *, condition=None, generator):
        x = self.mean + 0.1 * torch.randn(n, *self.mean.shape, generator=generator)
        return {"x": (x * 255).clamp(0, 255).to(torch.uint8)}
'''


def test_a_users_own_model_is_known_by_its_hash(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(OWN)
    run = latente.train(str(mine), "digits", out=tmp_path / "run", steps=4, bias=0.5, threads=1, quiet=True)
    assert run.record["config"] == {"bias": 0.5} and len(run.record["model_sha256"]) == 64
    with pytest.raises(ValueError, match="--model-file"):
        latente.load(run.path)
    assert (latente.load(run.path, model_file=str(mine)).sample(4)["x"] == run.sample(4)["x"]).all()
    latente.resume(run.path, steps="+2", model_file=str(mine), quiet=True)
    marker = tmp_path / "ran"
    mine.write_text(OWN + f"\nopen({str(marker)!r}, 'w')\n")
    with pytest.raises(ValueError, match="SHA-256"):
        latente.load(run.path, model_file=str(mine))
    assert not marker.exists()  # refused before a line of it ran
    words = [
        sys.executable,
        "-m",
        "latente",
        "train",
        str(mine),
        "digits",
        "--steps",
        "2",
        "--bias",
        "0.1",
        "--out",
        str(tmp_path / "cli"),
    ]
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert json.loads((tmp_path / "cli" / "run.json").read_text())["config"]["bias"] == 0.1


def test_tensorboard_gets_every_record(tmp_path):
    run = latente.train("vae", "digits", out=tmp_path / "run", steps=4, track="tensorboard", **QUICK)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert {"main/total", "validation/bits_per_dim"} <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Scalars("main/total")] == [1, 2, 3, 4]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
def test_a_compiled_training_computes_the_same(tmp_path):
    runs = [
        latente.train("autoencoder", "digits", out=tmp_path / str(how), steps=4, compile=how, **QUICK)
        for how in (False, True)
    ]
    eager, compiled = (weights(run.path) for run in runs)
    assert runs[1].record["plan"]["compile"]
    assert all(torch.allclose(t, compiled[n], atol=1e-4) for n, t in eager.items())


def test_importing_is_quick_and_loads_no_torch():
    code = (
        "import sys, time; began = time.perf_counter(); import latente; took = time.perf_counter() - began; "
        "assert 'torch' not in sys.modules; print(took)"
    )
    words = [sys.executable, "-c", code]
    took = min(float(subprocess.run(words, capture_output=True, text=True).stdout) for _ in range(3))
    assert took < 0.3
    helped = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "latente", "--help"], capture_output=True, check=True)
        helped.append(time.perf_counter() - began)
    assert min(helped) < 0.5


def test_bad_settings_get_one_clear_line(tmp_path):
    for given, says in (
        ({"steps": 0}, "--steps 0"),
        ({"budget": "1s", "steps": 3}, "one of"),
        ({"size": "huge"}, "--size huge"),
        ({"wings": 2}, "has no setting wings"),
        ({"batch_size": 0}, "--batch-size 0: at least 1"),
        ({"accumulate": 3, "batch_size": 16}, "does not divide"),
        ({"init": tmp_path / "no"}, "no run at"),
        ({"learning_rate": -1.0}, "--learning-rate"),
        ({"latent_dim": -3}, "cannot be built"),
        ({"noise": "loud"}, "--noise loud"),
    ):
        model = "autoencoder" if "noise" in given else "vae"
        with pytest.raises(ValueError, match=says) as caught:
            latente.train(
                model,
                "digits",
                out=tmp_path / "run",
                quiet=True,
                **{"steps": 1, **given} if "budget" not in given else given,
            )
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="no model called 'vea'"):
        latente.train("vea", "digits", steps=1)
