"""When to stop: the rules by themselves, on made-up histories; then trainings that follow them."""

import json

import numpy as np
import pytest
import torch

import latente
from latente import checkpoint, looks, registry
from latente.training import stopping
from latente.training.stopping import Look


def look(step, auc, distance=1.0, bound=1.0, enough=True, half=0.03):
    return Look(step, auc, auc - half, auc + half, bound, enough, distance)


def test_the_chance_of_error_of_any_number_of_looks_stays_below_alpha():
    assert sum(stopping.alpha(n) for n in range(1, 10_000)) < stopping.ALPHA
    assert stopping.alpha(1) > stopping.alpha(2) > stopping.alpha(16) > 0


def test_looks_are_planned_a_quarter_apart_and_end_with_the_training():
    steps = stopping.planned(1000)
    assert steps[-1] == 1000 and len(steps) == stopping.LOOKS
    assert all(1.15 < b / a < 1.35 for a, b in zip(steps, steps[1:]))
    assert stopping.planned(3) == (1, 2, 3) and stopping.planned(100, 0) == ()


def test_no_longer_told_apart_needs_a_sure_bound_and_enough_data():
    assert stopping.told_apart_no_more([look(1, 0.52, bound=0.59)])
    assert not stopping.told_apart_no_more([look(1, 0.52, bound=0.61)])
    assert not stopping.told_apart_no_more([look(1, 0.52, bound=0.59, enough=False)])


def test_the_best_look_is_nearest_to_one_half_or_by_distance_where_the_judge_sees_none():
    looks = [look(1, 0.9, 5), look(2, 0.7, 9), look(3, 0.71, 4), look(4, 0.72, 3.99)]
    assert stopping.best(looks) is looks[2]  # not the last: one in a hundred is no improvement


def test_distances_are_compared_from_where_real_data_are():
    def far(step, distance):
        return Look(step, 0.8, 0.77, 0.83, 1.0, True, distance, floor=3.9)

    assert stopping.best([far(1, 4.2), far(2, 4.19)]).step == 2  # a thirtieth of 0.3
    assert stopping.best([far(1, 4.2), far(2, 4.197), far(3, 4.195)]).step == 1  # a sixtieth
    assert stopping.best([far(1, 3.85), far(2, 3.84)]).step == 2  # below the floor any less is better


def test_patience_counts_looks_that_brought_nothing_better():
    falling = [look(i, 0.9 - 0.1 * i) for i in range(4)]
    assert not stopping.no_better(falling)
    assert not stopping.no_better([*falling, look(5, 0.6), look(6, 0.6)])
    longer = [*falling, look(5, 0.6), look(6, 0.6), look(7, 0.6)]
    assert stopping.no_better(longer)
    assert not stopping.no_better(longer, since=5) and stopping.no_better(longer, since=4)  # of a run made longer


def test_a_collapse_is_two_looks_far_off_and_one_is_not():
    fine = [look(1, 0.9, 10), look(2, 0.7, 4)]
    assert not stopping.collapsed([*fine, look(3, 1.0, 30)])
    assert stopping.collapsed([*fine, look(3, 1.0, 30), look(4, 1.0, 40)])
    assert not stopping.collapsed(
        [*fine, look(3, 0.5, 30), look(4, 0.5, 40)]
    )  # not told apart: the distance alone is noise


@pytest.fixture
def judged_run(tmp_path, monkeypatch):
    """Trains a tiny GAN of which a made-up judge says what it is told to, by the number of the look."""

    def run(says, steps=60, **flags):
        monkeypatch.setattr(looks.ImageLooks, "__call__", lambda self, model, step, number: says(step, number))
        out = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        return latente.train(
            "gan", "digits", out=out, steps=steps, stop="judge", size="tiny", threads=1, quiet=True, **flags
        )

    return run


def events(run):
    return [record for record in checkpoint.read_metrics(run.path) if "event" in record]


def test_training_ends_where_samples_can_no_longer_be_told_apart(judged_run):
    run = judged_run(lambda step, n: look(step, 1 - 0.1 * n, bound=0.95 if n < 5 else 0.55))
    fifth = stopping.planned(60)[4]
    assert run.record["plan"]["steps"] == fifth == events(run)[0]["step"]
    assert "no longer be told apart" in run.record["stopped"] and "0.550" in run.record["stopped"]
    assert checkpoint.index(run.path)["best"] == f"{fifth:08d}"


def test_a_training_that_gets_no_better_winds_up_with_a_falling_rate_and_keeps_the_best(judged_run):
    run = judged_run(lambda step, n: look(step, max(0.6, 0.9 - 0.1 * n), distance=step), steps=100)
    (ending,) = events(run)
    assert "brought nothing better" in ending["why"] and ending["step"] < ending["to"] < 100
    assert run.record["plan"]["steps"] == ending["to"] and run.record["plan"]["decay_start"] <= ending["step"]
    best = int(checkpoint.index(run.path)["best"])
    assert best == stopping.planned(100)[2] and f"step {best} is kept" in run.record["stopped"]
    assert "too few held-out items" not in run.record["stopped"]


def test_too_little_data_to_say_that_samples_cannot_be_told_apart_is_said(judged_run):
    run = judged_run(lambda step, n: look(step, 0.5, bound=0.55, distance=1 / n, enough=False))
    assert (
        run.record["stopped"].startswith("all steps done") and "too few held-out items to say" in run.record["stopped"]
    )


def test_a_collapse_goes_back_to_the_best_checkpoint_at_half_the_rate_once(judged_run):
    seen, numbers = [], []

    def says(step, n):
        seen.append(step)
        numbers.append(n)
        bad = len(seen) in (5, 6) or len(seen) > 12
        return look(step, 1.0 if bad else 0.9 - 0.02 * len(seen), 50.0 if bad else 5 - 0.3 * len(seen))

    run = judged_run(says, steps=200)
    first, *rest = events(run)
    planned = stopping.planned(200)
    assert first["event"] == "rolled back" and first["step"] == planned[5] and first["to"] == planned[3]
    assert seen[6] == planned[4]  # the same looks again, from the best on
    assert "collapsed" in run.record["stopped"] and rest[-1]["event"] == "ending"
    assert int(checkpoint.index(run.path)["best"]) < run.record["plan"]["steps"]
    state = checkpoint.read_state(run.path)
    assert state["lr_scale"] == 0.5 and len(state["looks"]) == len(seen) - 2 and state["judged"] == len(seen)
    assert numbers == list(range(1, len(seen) + 1))  # what a look has spent of alpha stays spent


def test_held_out_loss_that_gets_no_better_ends_a_training(tmp_path):
    # Far too high a rate for a linear fall: after its first checkpoints the loss of so small a set only rises.
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8)  # noise: nothing to learn but by heart
    run = latente.train(
        "vae",
        images,
        out=tmp_path / "run",
        steps=2000,
        checkpoint_every=50,
        stop="loss",
        size="tiny",
        threads=1,
        quiet=True,
        beta=0.1,
    )
    assert "held-out loss was no better for 3 checkpoints" in run.record["stopped"]
    assert run.record["plan"]["steps"] < 2000
    last, best = (int(checkpoint.index(run.path)[name]) for name in ("last", "best"))
    assert last - best == 3 * 50


@pytest.mark.parametrize(
    ("model", "stop", "said"),
    [
        ("gan", "loss", "no held-out loss"),
        ("autoencoder", "judge", "once it is trained"),
        ("vae", "soon", "one of auto"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused_before_the_work(tmp_path, model, stop, said):
    with pytest.raises(ValueError, match=said):
        latente.train(model, "digits", out=tmp_path / "run", steps=4, stop=stop, quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_writer_can_be_judged_too(tmp_path):
    run = latente.train(
        "gpt", "pydoc", out=tmp_path / "run", stop="judge", steps=3, context=32, size="tiny", threads=1, quiet=True
    )
    found = [record for record in checkpoint.read_metrics(run.path) if "validation/judge_auc" in record]
    assert found and found[-1]["validation/judge_auc"] > 0.9 and 0.3 < found[-1]["validation/distance"] <= 1


def test_looking_changes_nothing_that_trains_and_a_resumed_run_sees_the_same(tmp_path, monkeypatch):
    flags = {"steps": 12, "size": "tiny", "threads": 1, "quiet": True}
    plain = latente.train("gan", "digits", out=tmp_path / "plain", stop="never", **flags)
    watched = latente.train("gan", "digits", out=tmp_path / "watched", stop="judge", **flags)
    found = [
        record["validation/judge_auc"]
        for record in checkpoint.read_metrics(watched.path)
        if "validation/judge_auc" in record
    ]
    assert len(found) == len(stopping.planned(12)) and all(0 <= auc <= 1 for auc in found)
    last = {
        name: checkpoint.read_tensors(run.path, "last", "model")
        for name, run in (("plain", plain), ("watched", watched))
    }
    assert all(torch.equal(value, last["watched"][name]) for name, value in last["plain"].items())
    record = json.loads((watched.path / "run.json").read_text())
    assert record["looks"] == "features" and record["plan"]["stop"] == "judge"

    glance = looks.Looks.__call__
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="a power cut"):
        patch.setattr(looks.Looks, "__call__", cut_at(5, glance))
        latente.train("gan", "digits", out=tmp_path / "cut", stop="judge", **flags)
    again = latente.resume(tmp_path / "cut", quiet=True)
    states = [checkpoint.read_state(run.path) for run in (watched, again)]
    assert len(states[0]["looks"]) == len(found) and states[0]["looks"] == states[1]["looks"]
    other = checkpoint.read_tensors(again.path, "last", "model")
    assert all(torch.equal(value, last["watched"][name]) for name, value in other.items())


def cut_at(number, glance):
    def call(self, model, step, count):
        if count == number:
            raise RuntimeError("a power cut")
        return glance(self, model, step, count)

    return call


@pytest.mark.parametrize(
    ("name", "rule"), [("gan", "judge"), ("table-gan", "judge"), ("vae", "loss"), ("gpt", "loss"), ("seq2seq", "loss")]
)
def test_what_ends_a_training_within_a_budget_and_nothing_else_by_itself(name, rule):
    family = registry.load(name)
    assert looks.rule("auto", family, True, False) == rule and looks.rule("auto", family, False, False) == "never"


def test_short_budgets_and_little_data_are_said_to_go_without_a_judge(tmp_path, capfd):
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8)
    run = latente.train("gan", images, out=tmp_path / "run", budget="3s", threads=1, size="tiny")
    assert "too few validation items" in capfd.readouterr().err and run.record["plan"]["stop"] == "never"
