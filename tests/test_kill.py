"""A run killed at random instants, checkpoint writing included, ends with the weights of a run never interrupted."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import families
import latente
from latente import checkpoint, registry
from latente.checkpoint import RunError

# New processes are forked from one that has imported torch and trained nothing: a start takes no seconds.
STARTER = multiprocessing.get_context("forkserver")
STARTER.set_forkserver_preload(["latente.launch", "families", "sklearn.datasets"])


def work(run, name, ready):
    families.opened(name)
    ready.send(True)
    if run.exists():
        latente.resume(run, quiet=True)
    else:
        latente.train(
            **families.arguments(name), out=run, steps=24, size="tiny", batch_size=16, checkpoint_every=2, threads=1, quiet=True,
        )  # fmt: skip


def digest(run):
    last = run / "checkpoints" / checkpoint.index(run)["last"]
    files = [*sorted(last.glob("*.safetensors")), run / "weights.safetensors", run / "metrics.jsonl"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def killed_after(seconds, run, name):
    """Starts a worker, sends SIGKILL `seconds` after it is ready; True when it had ended by itself."""
    ready, theirs = STARTER.Pipe(duplex=False)
    worker = STARTER.Process(target=work, args=(run, name, theirs))
    worker.start()
    assert ready.recv()
    worker.join(seconds)
    ended = worker.exitcode is not None
    worker.kill()
    worker.join()
    assert not ended or worker.exitcode == 0
    return ended


@pytest.mark.parametrize("name", registry.names())
def test_killed_at_random_instants(name, tmp_path):
    began = time.monotonic()
    latente.train(
        **families.arguments(name), out=tmp_path / "whole", steps=24, size="tiny", batch_size=16, checkpoint_every=2, threads=1, quiet=True,
    )  # fmt: skip
    takes = time.monotonic() - began
    chance, run, kills = random.Random(name), tmp_path / "killed", 0
    while not killed_after((0.12 + 0.06 * kills) * takes * (0.5 + chance.random()), run, name):
        kills += 1
        assert kills < 25, "no progress between kills"
        if run.exists() and checkpoint.read_run(run)["status"] == "finished":
            break  # killed between its last act and its exit
        if run.exists() and checkpoint.index(run):
            made = latente.load(run).sample(2)  # opens at any time
            assert all(len(part) == 2 for part in (made.values() if isinstance(made, dict) else [made]))
    assert kills >= 2
    assert digest(run) == digest(tmp_path / "whole")
    assert not [*run.glob(".tmp-*"), *(run / "checkpoints").glob(".tmp-*")]


@pytest.mark.parametrize("name", registry.names())
def test_killed_at_every_file_operation_of_a_checkpoint(name, tmp_path, monkeypatch):
    """The process dies just before each write, rename, removal in turn; the run opens and ends as if nothing had happened."""
    arguments = {"steps": 6, "size": "tiny", "batch_size": 16, "checkpoint_every": 2, "threads": 1, "quiet": True}
    latente.train(**families.arguments(name), out=tmp_path / "whole", **arguments)

    class Death(BaseException):
        pass

    countdown = [0]

    def dying(function):
        def call(*given, **options):
            countdown[0] -= 1
            if countdown[0] == 0:
                raise Death
            return function(*given, **options)

        return call

    places = [
        (checkpoint.os, "fsync"),
        (checkpoint.Path, "rename"),
        (checkpoint.Path, "replace"),
        (checkpoint.shutil, "rmtree"),
    ]
    died = 0
    for instant in range(1, 50, 4):
        run = tmp_path / f"dead-{instant}"
        with monkeypatch.context() as patched:
            for owner, attribute in places:
                patched.setattr(owner, attribute, dying(getattr(owner, attribute)))
            countdown[0] = instant
            try:
                latente.train(**families.arguments(name), out=run, **arguments)
            except Death:
                died += 1
        if not run.exists():
            continue  # before the run directory appeared: nothing half-made under its name
        if checkpoint.read_run(run)["status"] != "finished":
            latente.resume(run, quiet=True)
        assert digest(run) == digest(tmp_path / "whole"), instant
    assert died >= 6


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    arguments = {"steps": 9, "size": "tiny", "batch_size": 16, "checkpoint_every": 3, "threads": 1, "quiet": True}
    latente.train("vae", "digits", out=tmp_path / "whole", **arguments)
    written = checkpoint._write_synced

    def full(file, content):
        if "00000006" in str(file) and file.name.startswith("optimizer"):
            raise OSError(28, os.strerror(28))
        written(file, content)

    monkeypatch.setattr(checkpoint, "_write_synced", full)
    with pytest.raises(RunError, match=r"the disk is full.*checkpoint 00000003 is intact") as caught:
        latente.train("vae", "digits", out=tmp_path / "run", **arguments)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(checkpoint, "_write_synced", written)
    latente.resume(tmp_path / "run", quiet=True)
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_save_and_say_how_to_go_on(tmp_path, how):
    run = tmp_path / "run"
    words = ["train", "vae", "digits", "--steps", "100000", "--size", "tiny", "--out", str(run)]
    worker = subprocess.Popen(
        [sys.executable, "-m", "latente", *words], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(how, signal.SIG_DFL),  # whatever the tests themselves were started with
    )  # fmt: skip
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").stat().st_size:
        assert worker.poll() is None
        time.sleep(0.05)
    worker.send_signal(how)
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 130
    assert f"latente resume {run}" in said
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "interrupted" and checkpoint.index(run)
    assert latente.load(run).sample(2)["x"].shape == (2, 1, 8, 8)
