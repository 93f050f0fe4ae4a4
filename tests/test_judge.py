"""The judge: its statistics against other computations, its calibration, and faults it must find."""

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

import latente
from latente.cli import main
from latente.data.sources import open_source
from latente.evaluation import images, judge
from latente.evaluation.images import CLASSIFIERS
from latente.evaluation.judge import judged

FRESH = np.random.default_rng


def test_auc_is_the_known_one_ties_included():
    scores, fake = FRESH(0).integers(0, 9, 300), FRESH(1).random(300) < 0.4
    assert judge.auc(scores, fake) == pytest.approx(roc_auc_score(fake, scores), abs=1e-12)


def test_p_values_are_those_of_the_rank_test():
    for shift in (0.0, 0.2, 0.4):
        scores = np.concatenate([FRESH(2).normal(size=80), FRESH(3).normal(shift, size=80)])
        fake = np.arange(160) >= 80
        exact = stats.mannwhitneyu(scores[fake], scores[~fake], alternative="greater").pvalue
        assert judge.p_value(scores, fake, FRESH(4)) == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize(("true", "n"), [(0.5, 30), (0.8, 30), (0.95, 100)])
def test_intervals_hold_the_true_value_as_often_as_they_say(true, n):
    shift = np.sqrt(2) * stats.norm.ppf(true)
    held, fake = 0, np.arange(2 * n) >= n
    for seed in range(400):
        random = FRESH(seed)
        low, high = judge.interval(
            judge.auc(np.concatenate([random.normal(size=n), random.normal(shift, size=n)]), fake), n, n
        )
        assert 0 <= low <= high <= 1
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.99
    assert judge.interval(1.0, n, n)[1] == 1.0 and 0.8 < judge.interval(1.0, n, n)[0] < 1


def test_what_is_said_to_be_caught_is_caught_four_times_in_five():
    n = 60
    least = judge.detectable(n, n)
    shift, fake = np.sqrt(2) * stats.norm.ppf(least), np.arange(2 * n) >= n
    caught = 0
    for seed in range(200):
        random = FRESH(seed)
        scores = np.concatenate([random.normal(size=n), random.normal(shift, size=n)])
        caught += judge.p_value(scores, fake, random) <= judge.ALPHA
    assert 0.7 <= caught / 200 <= 0.9
    assert judge.detectable(5000, 5000) < 0.52 < judge.detectable(50, 50) and judge.detectable(2, 2) == 1.0


def linear(items, fake, seed):
    """The simplest classifier that learns anything: the difference of the means."""
    way = items[fake].mean(0) - items[~fake].mean(0)
    return lambda part: part @ way


def test_real_against_real_is_rejected_no_more_often_than_alpha():
    rejected = 0
    for seed in range(200):
        items = FRESH(seed).normal(size=(400, 8))
        rejected += judged(items[:200], items[200:], {"linear": linear}, seed).verdict == "told apart"
    assert rejected <= 18  # 10 expected; more than 18 has a chance of one in two hundred


def test_too_little_is_never_a_pass():
    items = FRESH(0).normal(size=(100, 8))
    assert judged(items[:50], items[50:], {"linear": linear}, 1).verdict == "too little data"
    with pytest.raises(ValueError, match="at least 20"):
        judged(items[:10], items, {"linear": linear})


def test_one_seed_one_judgement_and_items_learnt_from_are_not_scored():
    items = FRESH(0).normal(size=(400, 8))
    seen = []

    def spying(part, fake, seed):
        seen.append(part)
        return lambda part: seen.append(part) or part[:, 0]

    first, again = (judged(items[:200], items[200:], {"spy": spying}, 3) for _ in range(2))
    assert first == again and first.items == 100
    assert not {tuple(row) for row in seen[0]} & {tuple(row) for row in seen[1]}


def test_of_several_classifiers_the_one_that_learns_judges():
    items = FRESH(0).normal(size=(400, 8))
    blind = {"blind": lambda part, fake, seed: lambda part: np.zeros(len(part))}
    found = judged(items[:200], items[200:] + 1, {**blind, "linear": linear})
    assert found.classifier == "linear" and found.verdict == "told apart"


def blurred(x):
    wide = np.pad(x.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)), "edge")
    beside = wide[:, :, :-2, 1:-1] + wide[:, :, 2:, 1:-1] + wide[:, :, 1:-1, :-2] + wide[:, :, 1:-1, 2:]
    return (0.6 * x + 0.1 * beside).round().astype(np.uint8)


@pytest.fixture(scope="module")
def digits():
    data = open_source("digits")
    order = FRESH(5).permutation(len(data.images))
    return data.images[order[:800]], data.images[order[800:1600]], data.labels[order[800:1600]]


FAULTS = {
    "one class only": lambda x, label: x[label == 3],
    "slight blur": lambda x, _: blurred(x),
    "moved by a pixel": lambda x, _: np.roll(x, 1, 3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_pictures_are_found(digits, fault):
    real, other, labels = digits
    assert judged(real, FAULTS[fault](other, labels), CLASSIFIERS).verdict == "told apart"


def test_real_pictures_are_not_told_apart(digits):
    found = judged(*digits[:2], CLASSIFIERS)
    assert found.verdict == "not told apart" and found.ci[0] < 0.5 < found.detectable < 0.6


def test_real_pictures_pass_in_everything():
    data = open_source("digits")
    train, test, fresh, rest = np.split(FRESH(3).permutation(len(data.images)), [700, 1050, 1400])
    parts = (images.Images(data.images, np.sort(at)) for at in (train, test, fresh))
    found = images.evaluated(data.images[rest], data.labels[rest], images.Held(*parts, data.labels, data.spec.classes))
    assert {finding.question: finding.answer for finding in found.findings} == dict.fromkeys(
        ("faithful", "varied", "copied", "useful"), "good"
    )
    assert found["label_agreement"].value > 0.9 and found["tstr_accuracy"].value > 0.85
    (panels,) = (chart for chart in found.charts if chart.title == "By class")
    assert [part.title for part in panels.parts] == [
        "Recognised as its class",
        "Frechet distance",
        "Precision",
        "Recall",
    ]
    samples, others = panels.parts[1].bars.values()
    assert len(samples) == 10 and 0.3 < samples.mean() / others.mean() < 3


def test_a_run_of_pictures_is_judged_and_a_page_written(tmp_path, capsys):
    latente.train("vae", "digits", out=tmp_path / "run", steps=4, size="tiny", threads=1, quiet=True)
    assert main(["evaluate", str(tmp_path / "run"), "--fail-if", "judge_auc>0.8"]) == 1
    said = capsys.readouterr()
    assert "the judge tells the samples from real images" in said.out and "judge_auc>0.8 holds" in said.err
    assert (tmp_path / "run/report/report.html").stat().st_size > 10_000
    assert main(["evaluate", str(tmp_path / "run"), "--json", "--fail-if", "judge_auc<0.8", "precision<0"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "run/report/metrics.json").read_text())
    assert (
        record["verdict"]["sentence"].startswith("Not good enough") and record["audit"] and record["run"]["seed"] == 0
    )
    (panels,) = (chart for chart in record["charts"] if chart["title"] == "By class")
    assert len(panels["parts"][0]["bars"]["samples"]) == 10
    (score,) = (score for score in record["scores"] if score["name"] == "judge_auc")
    assert score["value"] > 0.9 and score["ci"][0] <= score["value"] <= score["ci"][1] and score["answer"] == "bad"
    assert main(["compare", str(tmp_path / "run"), str(tmp_path / "run"), "--out", str(tmp_path / "two.html")]) == 0
    assert "judge_auc" in capsys.readouterr().out and (tmp_path / "two.html").exists()


def test_real_items_of_another_kind_are_no_fault_of_the_samples():
    items = FRESH(0).normal(size=(900, 8))
    held, other, made = items[:300] + 1, items[300:600], items[600:]
    score = judged(held, made, {"linear": linear}).score(judged(held, other, {"linear": linear}), "rows")
    assert score.value > 0.8 and score.answer == "unsure" and "no better than it tells real rows" in score.verdict
