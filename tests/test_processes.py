"""Two gloo processes see what one process sees: the same gradients, the same losses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import latente
from latente import registry
from latente.checkpoint import read_metrics
from latente.cli import main

WORKER = Path(__file__).with_name("worker.py")


def started(processes, *words):
    """Runs `words` under torchrun, or plainly for one process."""
    runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(runner if processes > 1 else []), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folders in which one process and two wrote their gradients and runs."""
    folder = tmp_path_factory.mktemp("processes")
    for processes in (1, 2):
        started(processes, str(WORKER), str(folder / str(processes)))
    return folder / "1", folder / "2"


@pytest.mark.parametrize("name", sorted(registry.names(), key=lambda name: name != "gan"))
def test_gradients_are_equal(both, name):
    one, two = (load_file(folder / f"{name}.safetensors") for folder in both)
    assert one.keys() == two.keys() and one
    for parameter, gradient in one.items():
        scale = gradient.abs().max().clamp(min=1e-8)
        assert torch.allclose(two[parameter] / scale, gradient / scale, atol=1e-4), parameter


@pytest.mark.parametrize("name", registry.names())
def test_losses_of_twenty_steps_are_equal(both, name):
    one, two = (read_metrics(folder / f"{name}-run") for folder in both)
    assert [sorted(record) for record in one] == [sorted(record) for record in two]
    compared = 0
    for ours, theirs in zip(one, two):
        for term in (term for term in ours if term.endswith("total")):
            assert theirs[term] == pytest.approx(ours[term], rel=1e-4), (ours["step"], term)
            compared += 1
    assert compared >= 20


def test_the_command_runs_under_torchrun_and_one_process_judges_for_both(tmp_path):
    words = [
        "train",
        "gan",
        "digits",
        "--steps",
        "6",
        "--size",
        "tiny",
        "--stop",
        "judge",
        "--out",
        str(tmp_path / "run"),
    ]
    done = started(2, "-m", "latente", *words)
    assert done.stderr.count("6 steps of") == 1  # one process speaks
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished" and record["plan"]["processes"] == 2 and "is kept" in record["stopped"]
    looks = [made["step"] for made in read_metrics(tmp_path / "run") if "validation/judge_auc" in made]
    assert looks == sorted(set(looks)) and looks[-1] == 6


def test_a_sharded_run_leaves_the_files_of_one_process(tmp_path):
    flags = ["--steps", "6", "--size", "tiny", "--context", "32", "--learning-rate", "1e-4", "--checkpoint-every", "3"]
    started(1, "-m", "latente", "train", "gpt", "pydoc", "--out", str(tmp_path / "one"), "--threads", "1", *flags)
    started(2, "-m", "latente", "train", "gpt", "pydoc", "--out", str(tmp_path / "two"), "--shard", *flags)
    one, two = (
        sorted(p.relative_to(tmp_path / run) for p in (tmp_path / run).rglob("*.safetensors")) for run in ("one", "two")
    )
    assert one == two and len(one) == 3
    for file in one:
        ours, theirs = load_file(tmp_path / "one" / file), load_file(tmp_path / "two" / file)
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert theirs[name].shape == value.shape and theirs[name].dtype == value.dtype
            assert torch.allclose(theirs[name], value, atol=2e-3), (file, name)
    totals = [[r["main/total"] for r in read_metrics(tmp_path / run) if "main/total" in r] for run in ("one", "two")]
    assert len(totals[0]) == 6 and totals[1] == pytest.approx(totals[0], rel=1e-4)
    started(2, "-m", "latente", "resume", str(tmp_path / "two"), "--steps", "+3")
    assert latente.load(tmp_path / "two").complete("The ", 5)


def test_what_cannot_be_sharded_is_said(tmp_path, capsys):
    assert main(["train", "gpt", "pydoc", "--shard", "--steps", "1", "--out", str(tmp_path / "run")]) == 2
    assert "torchrun" in capsys.readouterr().err
