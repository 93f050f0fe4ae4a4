"""Rows are measured by known definitions, copies among them are found, and real rows pass."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from latente.evaluation.findings import Bars, Chart, Matrix, Panels
from latente.evaluation.table_copies import compared
from latente.evaluation.table_costs import costs
from latente.evaluation.table_nats import ALONE, TREE, alone, likelihood, likely, simpler
from latente.evaluation.table_quality import associations, quality, shapes, trends
from latente.evaluation.tables import Held, Rows, evaluated, glance

KINDS = (False, False, True, True, False)
LEVELS = ((), (), ("a", "b", "c"), tuple("abcdefgh"), ())
NAMES = ("x", "y", "kind", "group", "whole")


def rows(n, seed, shift=0.0):
    """Rows in which everything goes with a hidden number; a tenth of x is missing."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=n)
    x = hidden + 0.5 * random.normal(size=n) + shift
    x[random.random(n) < 0.1] = np.nan
    kind = np.digitize(hidden + random.normal(size=n), [-1, 1])
    group = random.integers(0, 8, n)
    whole = random.poisson(np.exp(hidden / 2))
    return Rows(np.stack([x, hidden**2, kind, group, whole], 1).astype(float), NAMES, KINDS, LEVELS)


def held(seed=0, n=1_500):
    return Held(rows(4 * n, seed), rows(n, seed + 1), rows(n, seed + 2), target=2)


def frame(part):
    made = pd.DataFrame(part.values, columns=part.names)
    for c, discrete in enumerate(part.categorical):
        if discrete:
            made[part.names[c]] = [part.levels[c][int(v)] for v in part.values[:, c]]
    return made


def test_quality_is_that_of_sdmetrics():
    from sdmetrics.reports import single_table as reports

    real, made = rows(800, 0), rows(700, 1, shift=0.4)
    kinds = {"columns": {n: {"sdtype": "categorical" if d else "numerical"} for n, d in zip(NAMES, KINDS)}}
    report = reports.QualityReport()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report.generate(frame(real), frame(made), kinds, verbose=False)
    assert quality(real.values, made.values, KINDS) == pytest.approx(report.get_score(), abs=1e-9)
    found = report.get_details("Column Shapes").set_index("Column")["Score"]
    assert shapes(real.values, made.values, KINDS) == pytest.approx(found[list(NAMES)].to_numpy(), abs=1e-9)
    for _, pair in report.get_details("Column Pair Trends").iterrows():
        i, j = NAMES.index(pair["Column 1"]), NAMES.index(pair["Column 2"])
        assert trends(real.values, made.values, KINDS)[i, j] == pytest.approx(pair["Score"], abs=1e-9, nan_ok=True)


def test_what_goes_together_is_seen():
    found = associations(rows(4_000, 0).values, KINDS)
    assert found[0, 2] > 0.3 and found[3].sum() - 1 < 0.1
    assert np.array_equal(found, found.T) and (np.diag(found) == 1).all()


def test_real_rows_pass():
    known = held()
    found = evaluated(rows(6_000, 9), known)
    assert {f.question: f.answer for f in found.findings} == {
        "faithful": "good", "varied": "good", "copied": "good", "useful": "good",
    }  # fmt: skip
    assert found["worst_column"].value == pytest.approx(found["worst_column"].reference, abs=0.03)
    assert found["tstr_auc"].value == pytest.approx(found["tstr_auc"].reference, abs=0.03)


def test_columns_that_no_longer_go_together_are_caught():
    made = rows(6_000, 9)
    random = np.random.default_rng(0)
    loose = replace(made, values=np.stack([random.permutation(column) for column in made.values.T], 1))
    found = evaluated(loose, held())
    answers = {f.question: f.answer for f in found.findings}
    assert answers["faithful"] != "good" and answers["useful"] == "bad" and answers["copied"] == "good"
    assert found["judge_auc"].value > 0.7


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_planted_copies_are_flagged(share):
    known, made = held(), rows(6_000, 9)
    values = made.values.copy()
    planted = np.random.default_rng(0).random(len(values)) < share
    values[planted] = known.train.values[: planted.sum()]
    found = evaluated(replace(made, values=values), known)
    assert {f.question: f.answer for f in found.findings}["copied"] == "bad"
    pairs = next(gallery for gallery in found.galleries if gallery.paired)
    assert pairs.captions[0] == "equal"


def test_equal_rows_in_a_table_of_few_values_are_no_copies():
    random = np.random.default_rng(0)

    def few(n):
        values = np.stack([random.integers(0, 3, n), random.integers(0, 2, n), random.integers(0, 2, n)], 1).astype(
            float
        )
        return Rows(values, ("a", "b", "c"), (True, True, True), (("0", "1", "2"), ("0", "1"), ("0", "1")))

    found = evaluated(few(3_000), Held(few(4_000), few(1_000), few(1_000)))
    assert {f.question: f.answer for f in found.findings}["copied"] != "bad"
    assert found["exact_copies"].value > 0.9


def test_a_number_as_target_is_predicted():
    known = replace(held(), target=1)
    found = evaluated(rows(6_000, 9), known)
    assert found["tstr_r2"].value == pytest.approx(found["tstr_r2"].reference, abs=0.1)


def test_a_look_tells_rows_apart_and_says_how_far_they_are():
    real = rows(800, 0)
    alike, far = glance(rows(800, 1), real, 0), glance(rows(800, 1, shift=3.0), real, 0)
    assert alike[0].auc < 0.6 < 0.9 < far[0].auc and alike[1] < far[1]


def test_distances_count_a_level_as_one_and_a_number_by_rank():
    part = Rows(
        np.array([[0.0, 1.0], [10.0, 1.0], [10.0, 2.0], [np.nan, 1.0]]),
        ("x", "k"),
        (False, True),
        ((), ("a", "b", "c")),
    )
    (points,) = compared([part], part)
    squares = ((points[:, None] - points[None]) ** 2).sum(2)
    assert squares[1, 2] == pytest.approx(1.0) and squares[0, 1] == pytest.approx(0.25)
    assert squares[1, 3] > 1.0  # missing is a state of its own


def test_what_was_measured_is_drawn():
    found = evaluated(rows(2_000, 9), held())
    panels, matrix, use, near = found.charts
    assert isinstance(panels, Panels) and {part.title for part in panels.parts} == set(NAMES)
    for part in panels.parts:
        if isinstance(part, Chart):  # what is left of all rows are those without a value
            missing = 0.1 if part.title == "x" else 0.0
            assert [sum(y) for _, y in part.lines.values()] == pytest.approx([1 - missing] * 2, abs=0.03)
        else:
            assert [sum(y) for y in part.bars.values()] == pytest.approx([100, 100])
    assert isinstance(matrix, Matrix) and isinstance(use, Bars) and isinstance(near, Chart)
    real, new, between = matrix.tables.values()
    assert between == pytest.approx(new - real) and np.abs(between).max() < 0.15
    first, second = (y for _, y in near.lines.values())
    assert np.abs(first - second).max() < 0.1


def test_copies_lie_before_real_rows_in_the_drawing():
    known = held()
    copies = known.train.some(slice(2_000))
    first, second = (y for _, y in evaluated(copies, known).charts[-1].lines.values())
    assert first[0] == 1.0 and second[0] < 0.5


def tokens(n, seed):
    """A chain of three fields, of which the last two are noisy copies of the first, and one on its own."""
    random = np.random.default_rng(seed)
    a = random.integers(0, 4, n)
    b = np.where(random.random(n) < 0.9, a, random.integers(0, 4, n))
    c = np.where(random.random(n) < 0.9, b, random.integers(0, 4, n))
    return np.stack([a, b, c, random.integers(0, 5, n)], 1)


def test_counted_models_cost_what_a_chain_costs():
    found = simpler(tokens(20_000, 0), tokens(20_000, 1), (4, 4, 4, 5))
    same, other = 0.925, 0.025  # of a noisy copy
    step = -same * np.log(same) - 3 * other * np.log(other)
    assert found[ALONE].mean() == pytest.approx(3 * np.log(4) + np.log(5), abs=0.01)
    assert found[TREE].mean() == pytest.approx(np.log(4) + np.log(5) + 2 * step, abs=0.02)


def test_counted_models_are_distributions():
    every = np.stack(np.meshgrid(*map(np.arange, (4, 4, 4, 5)), indexing="ij"), -1).reshape(-1, 4)
    for cost in simpler(tokens(200, 0), every, (4, 4, 4, 5)).values():
        assert np.exp(-cost).sum() == pytest.approx(1)


def test_rows_and_columns_and_what_they_cost():
    train, test, sizes, numbers = tokens(5_000, 0), tokens(1_000, 1), (4, 2, 2, 5), np.arange(1_000) * 3
    train, test = (np.column_stack([part[:, 0], part[:, 1] // 2, part[:, 1] % 2, part[:, 3]]) for part in (train, test))
    each = alone(train, test, sizes)
    fields = each * [1.0, 0.5, 0.5, 1.0]
    known = likely((fields[:100].sum(1), fields.sum(1)), fields, (train, test), sizes, (0, 1, 1, 2), numbers)
    rows = Rows(test[:, [0, 1, 3]].astype(float), ("a", "b", "c"), (False,) * 3, ((),) * 3)
    assert known.alone == pytest.approx([each[:, 0].mean(), each[:, 1:3].sum(1).mean(), each[:, 3].mean()])
    (drawn, bars), gallery, told = costs(rows, known)
    assert drawn.title == "Bits by row" and drawn.marks[ALONE] == pytest.approx(each.sum(1).mean() / np.log(2))
    assert set(drawn.marks) == {ALONE, TREE} and list(drawn.lines) == ["training rows", "test rows"]
    own, other = bars.bars.values()
    at = list(bars.labels).index("b")
    assert own[at] == pytest.approx(other[at] / 2) and (np.diff(own) <= 0).all()
    assert told["columns"] == pytest.approx(dict(zip(bars.labels, own))) and sum(own) == pytest.approx(
        told["test"]["mean"]
    )
    (first, dear), (second, cheap) = gallery.rows
    assert (first, second) == ("costliest", "cheapest") and len(dear) == len(cheap) == 8
    assert gallery.columns == ("row", "bits", "costliest cell", "a", "b", "c")
    order = np.argsort(known.test, kind="stable")
    for end, shown, at in (("costliest", dear, order[-1]), ("cheapest", cheap, order[0])):
        bits, worst = known.test[at] / np.log(2), int(known.cells[at].argmax())
        assert told[end][0] == {"row": 3 * at + 1, "bits": pytest.approx(bits), "column": "abc"[worst],
                                "cell": rows.cell(at, worst), "cell_bits": pytest.approx(known.cells[at, worst] / np.log(2))}  # fmt: skip
        assert shown[0][:2] == (f"{3 * at + 1:,}", f"{bits:.1f}") and shown[0][3:] == rows.cells(at)
        assert shown[0][2].startswith(f"{'abc'[worst]} = {rows.cell(at, worst)} (") and shown[0][2].endswith(" bits)")
    (drawn,), gallery, told = costs(rows, replace(known, cells=None))
    assert drawn.title == "Bits by row" and gallery.columns == ("row", "bits", "a", "b", "c")
    assert "columns" not in told and set(told["cheapest"][0]) == {"row", "bits"}


def test_a_likelihood_is_good_that_beats_counting():
    counted = simpler(tokens(5_000, 0), tokens(1_000, 1), (4, 4, 4, 5))
    given = {"better": counted[TREE] - 0.1, "between": counted[TREE] + 0.3, "worse": counted[ALONE] + 0.3}
    answers = {name: likelihood((nats, nats), counted)[0].answer for name, nats in given.items()}
    assert answers == {"better": "good", "between": "unsure", "worse": "bad"}


def measured(name):
    """A table of scikit-learn in four parts: train, test, validation, samples."""
    from sklearn import datasets

    data = getattr(datasets, f"load_{name}")()
    values = np.column_stack([data.data, data.target]).astype(float)
    kinds = [False] * data.data.shape[1] + [name != "diabetes"]
    levels = [()] * data.data.shape[1] + [("0", "1") if name != "diabetes" else ()]
    every = Rows(values, (*map(str, data.feature_names), "target"), tuple(kinds), tuple(levels))
    parts = np.split(np.random.default_rng(0).permutation(len(values)), [int(len(values) * s) for s in (0.4, 0.6, 0.8)])
    train, test, fresh, made = (every.some(at) for at in parts)
    return Held(train, test, fresh, len(kinds) - 1), made


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes"])
def test_rows_of_small_real_tables_pass_and_copies_of_them_do_not(name):
    known, made = measured(name)
    assert "bad" not in [score.answer for score in evaluated(made, known)]
    values = made.values.copy()
    values[: len(values) // 5] = known.train.values[: len(values) // 5]
    assert {f.question: f.answer for f in evaluated(replace(made, values=values), known).findings}["copied"] == "bad"
