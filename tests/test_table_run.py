"""A run of rows: sampled under conditions and rules, filled, predicted, written and made again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import latente
from latente import cli, registry
from latente.data.errors import DataError
from latente.reports import write
from latente.rng import keyed
from latente.spec import TableSpec


def people(n=1_200, seed=0):
    """Rows with a number, a decimal, a date, two categories that go together, a flag and an identifier; some cells are missing."""
    random = np.random.default_rng(seed)
    age = random.integers(18, 90, n)
    city = np.where(age > 50, random.choice(["Ulm", "Bonn"], n), random.choice(["Kiel", "Jena"], n))
    begun = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 700, n), "D")
    frame = pd.DataFrame({
        "id": np.arange(1000, 1000 + n), "age": age, "wage": np.round(random.gamma(9, 300, n), 2), "city": city,
        "country": np.where(np.isin(city, ["Ulm", "Bonn"]), "south, or west", "north"), "begun": begun,
        "ended": begun + pd.to_timedelta(random.integers(0, 300, n), "D"), "member": random.random(n) < 0.3,
    })  # fmt: skip
    frame.loc[random.random(n) < 0.2, "wage"] = np.nan
    return frame.drop_duplicates(["wage", "begun", "ended"], ignore_index=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("people")
    people(5_000).to_csv(path / "people.csv", index=False)
    return latente.train(
        "table-gpt", path / "people.csv", out=path / "run", steps=700, size="tiny", quiet=True,
        rules=("begun <= ended", "known(city, country)", "unique(wage, begun, ended)"), target="country",
    )  # fmt: skip


def test_samples_have_the_columns_and_types_of_the_source(run):
    made = run.sample(200, seed=1)
    assert list(made) == list(people()) and len(made) == 200
    kinds = {name: made[name].dtype.kind for name in made}
    assert kinds == {
        "id": "i",
        "age": "i",
        "wage": "f",
        "city": "O",
        "country": "O",
        "begun": "M",
        "ended": "M",
        "member": "b",
    }
    assert made["age"].between(18, 90).all() and 0.05 < made["wage"].isna().mean() < 0.4
    assert np.allclose(made["wage"].dropna() * 100, (made["wage"].dropna() * 100).round())
    assert made["id"].is_unique and made["id"].min() > people(5_000)["id"].max()
    assert made.equals(latente.load(run.path).sample(200, seed=1))
    assert not made.equals(run.sample(200, seed=2))
    assert made.head(50).equals(run.sample(50, seed=1))


def test_rules_hold_in_every_sample(run):
    made = run.sample(1_000, seed=3)
    assert (made["begun"] <= made["ended"]).all()
    assert not made.duplicated(["wage", "begun", "ended"]).any()
    known = set(people(5_000)[["city", "country"]].itertuples(index=False, name=None))
    assert set(made[["city", "country"]].itertuples(index=False, name=None)) <= known


def test_rules_that_the_source_breaks_are_refused(tmp_path):
    frame = people()
    frame.loc[7, "ended"] = pd.Timestamp("2000-01-01")
    with pytest.raises(DataError, match="breaks the rule begun <= ended"):
        latente.train(
            "table-gpt",
            frame,
            out=tmp_path / "run",
            steps=2,
            quiet=True,
            rules=("begun <= ended",),
            test=0.0,
            validation=0.01,
        )
    with pytest.raises(DataError, match="no column 'start'"):
        latente.train("table-gpt", people(), out=tmp_path / "run", steps=2, quiet=True, rules=("start <= ended",))


def test_what_is_given_holds_and_the_rest_is_as_in_such_rows(run):
    made = run.sample(300, seed=1, given='age>60, country="south, or west"')
    assert (made["age"] > 60).all() and (made["country"] == "south, or west").all()
    real = people()
    old, young = (
        run.sample(1_500, seed=2, given=given)["city"].isin(["Ulm", "Bonn"]).mean() for given in ("age>50", "age<=50")
    )
    assert old > 0.75 and young < 0.25, (old, young, real.groupby(real.age > 50).city.value_counts())
    assert run.sample(20, given={"wage": None})["wage"].isna().all()
    assert run.sample(20, given={"member": True})["member"].all()


def test_two_sets_of_allowed_tokens_are_corrected_for_the_order():
    """p(a) p(b | a) of what both conditions leave, whichever values of a make the second one likely."""
    spec = TableSpec(("a", "b", "c"), ((6,), (7,), (3,)), (True, True, False), ((), (), ()))
    torch.manual_seed(0)
    family = registry.load("table-gpt")
    model = family.Model(family.Config.preset("tiny", spec), spec).eval()
    torch.nn.init.normal_(model.heads.weight, std=0.3)
    allowed = {0: torch.tensor([0, 1, 1, 1, 0, 1]).bool(), 1: torch.tensor([1, 0, 0, 1, 1, 0, 0]).bool()}
    with torch.no_grad():
        first = model.chances(torch.zeros(1, 3).long(), torch.zeros(1, 3).bool(), 0)[0].exp()
        tokens, known = torch.zeros(6, 3).long(), torch.zeros(6, 3).bool()
        tokens[:, 0], known[:, 0] = torch.arange(6), True
        joint = first[:, None] * model.chances(tokens, known, 1).exp() * allowed[0][:, None] * allowed[1]
        drawn = model.sample(60_000, generator=keyed(1), allowed=allowed)
    kept = drawn["tokens"][torch.rand(60_000, generator=keyed(2)) < drawn["log_weight"].exp()]
    found = torch.bincount(kept[:, 0] * 7 + kept[:, 1], minlength=42).view(6, 7) / len(kept)
    assert (found - joint / joint.sum()).abs().max() < 0.01
    plain = torch.bincount(drawn["tokens"][:, 0] * 7 + drawn["tokens"][:, 1], minlength=42).view(6, 7) / 60_000
    assert (plain - joint / joint.sum()).abs().max() > 0.02  # without the correction it would be wrong


@pytest.mark.parametrize(("given", "says"), [
    ("age>200", "age>200: no value that may be sampled"), ("city=Rome", "no such level that is sampled"), ("city>Rome", "only = and !="),
    ("height=3", "no column 'height'"), ("age", "cannot read 'age'"), ("age=old", "is no number"), ("id=3", "not learned"),
    ("begun>yesterday", "is no time"),
])  # fmt: skip
def test_conditions_that_cannot_be_are_refused(run, given, says):
    with pytest.raises(ValueError, match=says):
        run.sample(5, given=given)


def test_gaps_are_filled_and_the_rest_stays(run):
    frame = people(60, seed=9)
    holed = frame.astype(object)
    holed.loc[:30, ["city", "age"]] = None
    filled = run.fill(holed.drop(columns="member"))
    assert not filled[["city", "age", "begun", "member"]].isna().any().any()
    there = frame["wage"].notna()
    assert np.allclose(filled["wage"][there].astype(float), frame["wage"][there])
    assert (filled["city"][31:] == frame["city"][31:]).all()
    south = frame["country"].str.startswith("south")[:31]
    assert filled["city"][:31].isin(["Ulm", "Bonn"])[south].mean() > 0.6
    assert filled.equals(run.fill(holed.drop(columns="member"))) and not filled.equals(
        run.fill(holed.drop(columns="member"), seed=1)
    )


def test_columns_are_predicted_with_probabilities(run):
    frame = people(200, seed=4)
    chances = run.predict(frame, "country")
    assert set(chances) == {"north", "south, or west"} and np.allclose(chances.sum(axis=1), 1)
    assert (chances["north"].gt(0.5) == frame["country"].eq("north")).mean() > 0.9
    wages = run.predict(frame, "wage")
    assert (wages["low"] < wages["expected"]).all() and (wages["expected"] < wages["high"]).all()
    with pytest.raises(ValueError, match="no column 'height'"):
        run.predict(frame, "height")


def test_likelihood_of_rows_and_its_spread_over_orders(run):
    frame = people(100, seed=5)
    found = run.log_prob(frame, orders=3)
    odd = frame.copy()
    odd["country"] = odd["country"].map({"north": "south, or west", "south, or west": "north"})
    assert (run.log_prob(odd)["nats"] > found["nats"]).mean() > 0.9 and (found["spread"] > 0).all()


def test_an_evaluation_answers_every_question(run, tmp_path):
    found = run.evaluate()
    assert {finding.question for finding in found.findings} >= {"faithful", "varied", "copied", "useful"}
    assert found["tstr_auc"].value > 0.8 and found["nats_per_row"].ci is not None
    path = write(run, found, ())
    page, metrics = path.read_text(encoding="utf-8"), json.loads((path.parent / "metrics.json").read_text())
    told = metrics["details"]["costs"]
    assert told["test"]["mean"] == pytest.approx(found["nats_per_row"].value / np.log(2))
    assert sum(told["columns"].values()) == pytest.approx(told["test"]["mean"], rel=1e-5)
    assert {"Bits by row", "Bits by column"} <= {chart["title"] for chart in metrics["charts"]}
    head, *lines = Path(run.record["data"]["source"]).read_text().splitlines(keepends=True)
    for end in ("costliest", "cheapest"):  # what is told of a row of the source is what the run says of it
        (tmp_path / end).with_suffix(".csv").write_text(head + "".join(lines[one["row"] - 1] for one in told[end]))
        nats = run.log_prob((tmp_path / end).with_suffix(".csv"))["nats"]
        assert nats.to_numpy() / np.log(2) == pytest.approx([one["bits"] for one in told[end]], rel=1e-4)
        assert all(f">{one['row']:,}</td><td>{one['bits']:.1f}</td>" in page for one in told[end])
    assert "Costliest and cheapest rows" in page and "costliest cell" in page


def test_from_the_command_line_and_back(run, tmp_path, capsys):
    def said(*words):
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out + err

    assert said("sample", run.path, "--n", 30, "--out", tmp_path / "rows.csv", "--given", "age>60")[0] == 0
    assert pd.read_csv(tmp_path / "rows.csv")["age"].gt(60).all()
    code, text = said("verify", run.path, tmp_path / "rows.csv")
    assert code == 0 and text.startswith("same bytes")
    written = (tmp_path / "rows.csv").read_text().replace("Ulm", "Rome", 1).replace("Bonn", "Rome", 1)
    (tmp_path / "rows.csv").write_text(written)
    code, text = said("verify", run.path, tmp_path / "rows.csv")
    assert code == 1 and "differs: " in text
    for suffix in (".parquet", ".xlsx"):
        assert said("sample", run.path, "--n", 10, "--out", tmp_path / f"rows{suffix}")[0] == 0
        assert said("verify", run.path, tmp_path / f"rows{suffix}")[0] == 0
    assert said("sample", run.path, "--n", 3)[1].count("\n") == 4
    people(5).drop(columns=["wage"]).to_csv(tmp_path / "gaps.csv", index=False)
    assert said("fill", run.path, tmp_path / "gaps.csv", "--out", tmp_path / "full.csv")[0] == 0
    assert len(pd.read_csv(tmp_path / "full.csv")) == 5
    verify = "verify", run.path, tmp_path / "full.csv"
    assert said(*verify, "--source", tmp_path / "gaps.csv")[1].startswith("same bytes")
    code, text = said(*verify)
    assert code == 2 and "was made of gaps.csv: give that again" in text
    code, text = said(*verify, "--source", tmp_path / "rows.csv")
    assert code == 2 and "rows.csv is not what" in text
    filled = (tmp_path / "full.csv").read_text()
    (tmp_path / "full.csv").write_text(filled.replace("north", "south"))
    code, text = said(*verify, "--source", tmp_path / "gaps.csv")
    assert code == 1 and "were changed after they were made" in text
    assert "north" in said("predict", run.path, tmp_path / "gaps.csv", "--target", "country")[1]
    code, text = said("sample", run.path, "--n", 3, "--given", "age=old")
    assert code == 2 and text.count("\n") == 1
    code, text = said("data", run.record["data"]["source"])
    assert code == 0 and "identifier: made anew" in text


@pytest.mark.parametrize("family", ["table-vae", "table-gan"])
def test_the_other_families_keep_to_what_is_given(family, tmp_path):
    run = latente.train(family, people(), out=tmp_path / "run", steps=60, size="tiny", quiet=True)
    made = run.sample(200, seed=1, given="age>40, country=north")
    assert (made["age"] > 40).all() and (made["country"] == "north").all()
    with pytest.raises(ValueError, match="cannot fill"):
        run.fill(people(5))
    told = run.evaluate(source=people()).details
    assert (family == "table-vae") == ("costs" in told) and "columns" not in told.get("costs", {})


def test_many_columns_are_summed_as_few_are(monkeypatch):
    """The running sum that takes the place of a matrix of all pairs of fields gives the same."""
    from latente.models import table_gpt

    spec = TableSpec(tuple("abcd"), ((5,), (4, 30), (7,), (3,)), (True, False, True, True), ((), (), (), ()), target=3)
    model = table_gpt.Model(table_gpt.Config(width=16), spec)
    embedded, at = torch.randn(6, 5, 16), torch.rand(6, 4)[:, model.owners]
    few = model.before(embedded, at)
    monkeypatch.setattr(table_gpt, "MANY", 1)
    assert torch.allclose(few, model.before(embedded, at), atol=1e-5)
