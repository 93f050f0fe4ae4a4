"""Tables of other shapes: latente's three families beside MOSTLY AI's engine, TVAE and CTGAN, one thread each, one go.

    python benchmarks/tables_more.py FOLDER MOVIES [--peers PYTHON] [--only movies,randhie,cancer] [--makers table-gpt,mostly,...]

movies   3,201 films; categories of up to 550 levels, skewed numbers, dates, most columns with gaps; titles are left out. MOVIES is
         data/movies.json of the npm package vega-datasets
randhie  statsmodels: 20,190 visits to doctors; counts, skewed numbers, flags
cancer   scikit-learn: 569 tumours; 30 numbers with many decimals, and what they are

Needs statsmodels, catboost and sdmetrics. A fifth of the rows is held out (seed 0). quality: SDMetrics' score of samples
against it; use: CatBoost (400 trees) trained on samples, scored on held-out rows (AUC of a class, R2 of a number); judge: CatBoost told
held-out rows from samples on one half, AUC on the other. ctgan's models take no gaps and no dates: they are given means and days.
"""

import argparse
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tables_adult import OURS, environment

ROUNDS = {  # steps of ours, for no more time than the peers of their kind take
    "movies": {"table-gpt": 300, "table-vae": 300, "table-gan": 190},
    "randhie": dict.fromkeys(OURS, 1300),
    "cancer": {"table-gpt": 110, "table-vae": 80, "table-gan": 52},
}
TARGETS = {"movies": "IMDB Rating", "randhie": "hlthp", "cancer": "malignant"}
PEERS = ("mostly", "tvae", "ctgan")
MAKER = """
import json, sys, tempfile, time
import pandas as pd
import torch
torch.set_num_threads(1)
name, folder, steps, target = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
train = pd.read_parquet(folder + "/train.parquet")
if name.startswith("table-"):
    import latente
    began = time.perf_counter()
    made_by = latente.train(name, train, out=tempfile.mkdtemp() + "/run", threads=1, test=0.0, steps=steps, target=target, quiet=True)
elif name == "mostly":
    from mostlyai.engine import TabularARGN
    made_by = TabularARGN(random_state=0)
    began = time.perf_counter()
    made_by.fit(train)
else:
    from ctgan import CTGAN, TVAE
    for column in train:
        if str(train[column].dtype).startswith("datetime"):
            train[column] = (train[column] - pd.Timestamp("1970-01-01")).dt.days.astype(float)
        if train[column].dtype == object:
            train[column] = train[column].fillna("missing")
        else:
            train[column] = train[column].fillna(train[column].mean())
    words = [c for c in train if train[c].dtype == object or train[c].dtype == bool]
    made_by = {"tvae": TVAE, "ctgan": CTGAN}[name]()
    began = time.perf_counter()
    made_by.fit(train, words)
fitted = time.perf_counter() - began
began = time.perf_counter()
made = made_by.sample(len(train))
sampled = time.perf_counter() - began
made.to_parquet(folder + "/" + name + ".parquet", index=False)
print(json.dumps({"fit": round(fitted, 1), "sample": round(sampled, 2)}))
"""


def movies(file: Path) -> pd.DataFrame:
    films = pd.DataFrame(json.loads(file.read_text(encoding="utf-8"))).drop(columns="Title")
    films["Release Date"] = pd.to_datetime(films["Release Date"], errors="coerce", format="%b %d %Y")
    for name in films.select_dtypes(object):
        films[name] = films[name].map(lambda cell: None if pd.isna(cell) else str(cell))
    return films


def randhie(_: Path) -> pd.DataFrame:
    from statsmodels.datasets import randhie as visits

    return visits.load_pandas().data


def cancer(_: Path) -> pd.DataFrame:
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer(as_frame=True)
    return found.data.assign(malignant=np.where(found.target == 0, "yes", "no"))


TABLES = {"movies": movies, "randhie": randhie, "cancer": cancer}


def scores(folder: Path, made: pd.DataFrame, target: str) -> dict[str, float]:
    """quality, use, judge."""
    from catboost import CatBoostClassifier, CatBoostRegressor
    from sdmetrics.reports.single_table import QualityReport
    from sklearn.metrics import r2_score, roc_auc_score
    from sklearn.model_selection import train_test_split

    test = pd.read_parquet(folder / "test.parquet")
    dates = [name for name in test if str(test[name].dtype).startswith("datetime")]
    words = [name for name in test if test[name].dtype == object or test[name].dtype == bool]
    made = made[test.columns].copy()

    def plain(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy()
        for name in dates:
            at = frame[name]
            if str(at.dtype).startswith("datetime"):
                at = (at - pd.Timestamp("1970-01-01")).dt.days
            frame[name] = pd.to_numeric(at).astype(float)
        for name in words:
            frame[name] = frame[name].map(lambda cell: "missing" if pd.isna(cell) else str(cell))
        for name in set(frame) - set(dates) - set(words):
            frame[name] = frame[name].astype("Float64").astype(float)
        return frame

    test, made = plain(test), plain(made)
    report = QualityReport()
    kinds = {"columns": {name: {"sdtype": "categorical" if name in words else "numerical"} for name in test}}
    report.generate(test, made, kinds, verbose=False)
    settings: dict[str, Any] = {
        "iterations": 400,
        "verbose": 0,
        "random_seed": 0,
        "thread_count": 2,
        "allow_writing_files": False,
    }
    inputs = [name for name in test if name != target]
    flags = [name for name in words if name != target]
    a, b = made[made[target].notna()], test[test[target].notna()]
    if target in words:
        told = CatBoostClassifier(cat_features=flags, **settings).fit(a[inputs], a[target])
        yes = list(told.classes_).index("yes" if "yes" in told.classes_ else told.classes_[-1])
        use = roc_auc_score(b[target] == told.classes_[yes], told.predict_proba(b[inputs])[:, yes])
    elif test[target].nunique() == 2:
        told = CatBoostClassifier(cat_features=flags, **settings).fit(a[inputs], (a[target] > 0.5).astype(int))
        use = roc_auc_score(b[target] > 0.5, told.predict_proba(b[inputs])[:, 1])
    else:
        use = r2_score(
            b[target], CatBoostRegressor(cat_features=flags, **settings).fit(a[inputs], a[target]).predict(b[inputs])
        )
    n = min(len(test), len(made))
    both = pd.concat([test.sample(n, random_state=1), made.sample(n, random_state=1)], ignore_index=True)
    x, y, of_x, of_y = train_test_split(
        both, np.repeat([0, 1], n), test_size=0.5, random_state=0, stratify=np.repeat([0, 1], n)
    )
    judge = CatBoostClassifier(cat_features=words, **settings).fit(x, of_x)
    return {"quality": report.get_score(), "use": use, "judge": roc_auc_score(of_y, judge.predict_proba(y)[:, 1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("movies", type=Path)
    parser.add_argument("--peers", help="python of an environment with the peers")
    parser.add_argument("--only", default=",".join(TABLES))
    parser.add_argument("--makers", default="")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    makers = [name for name in given.makers.split(",") if name] or [*OURS, *(PEERS if given.peers else ())]
    for table in given.only.split(","):
        folder = (given.folder / table).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        rows = TABLES[table](given.movies).sample(frac=1, random_state=0).reset_index(drop=True)
        cut = len(rows) // 5
        rows[:cut].to_parquet(folder / "test.parquet", index=False)
        rows[cut:].to_parquet(folder / "train.parquet", index=False)
        print(f"{table}: {len(rows):,} rows, {rows.shape[1]} columns, {TARGETS[table]} foretold", flush=True)
        print(f"  {'':<10} {'fit s':>7} {'sample s':>9} {'quality':>8} {'use':>7} {'judge':>7}")
        for name in ("real", *makers):
            timed, path = {"fit": 0.0, "sample": 0.0}, folder / "train.parquet"
            if name != "real":
                path = folder / f"{name}.parquet"
                python = given.peers if name in PEERS else sys.executable
                steps = str(ROUNDS[table].get(name, 0))
                words = [python, "-W", "ignore", "-c", MAKER, name, str(folder), steps, TARGETS[table]]
                done = subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=folder)
                if done.returncode:
                    print(f"  {name:<10} failed: {done.stderr.strip().splitlines()[-1][:150]}", flush=True)
                    continue
                timed = json.loads(done.stdout.strip().splitlines()[-1])
            found = scores(folder, pd.read_parquet(path), TARGETS[table])
            print(
                f"  {name:<10} {timed['fit']:>7} {timed['sample']:>9} {found['quality']:>8.4f} {found['use']:>7.4f} {found['judge']:>7.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
