"""Rows of the Adult census table: latente's three families beside MOSTLY AI's engine, TVAE and CTGAN, one thread each, one go.

    python benchmarks/tables_adult.py FOLDER [--peers PYTHON] [--only table-gpt,mostly,...]

Needs measure/adult_judge.py ($LATENTE_MEASURE) and adult.csv ($LATENTE_DATA), catboost and sdmetrics. PYTHON is the interpreter of an
environment with mostlyai-engine 2.7.3 and ctgan 0.12.1 (without torchvision and torchaudio, whose builds do not fit every torch).
Every maker learns from the same 26,048 rows and makes as many. fit: the call that reads the frame and trains; sample: the call that
gives the frame. Quality, usefulness and judge are what adult_judge.py prints.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = Path(os.environ.get("LATENTE_MEASURE", "measure")) / "adult_judge.py"
OURS = {
    "table-gpt": {"steps": 1300},
    "table-vae": {"steps": 1200},
    "table-gan": {"steps": 1000},
}
MAKER = """
import json, sys, tempfile, time
import pandas as pd
import torch
torch.set_num_threads(1)
name, folder = sys.argv[1], sys.argv[2]
train = pd.read_csv(folder + "/train.csv", keep_default_na=False)
if name.startswith("table-"):
    import latente
    settings = json.loads(sys.argv[3])
    began = time.perf_counter()
    made_by = latente.train(name, train, out=tempfile.mkdtemp() + "/run", threads=1, test=0.0, quiet=True, **settings)
elif name == "mostly":
    from mostlyai.engine import TabularARGN
    made_by = TabularARGN(random_state=0)
    began = time.perf_counter()
    made_by.fit(train)
else:
    from ctgan import CTGAN, TVAE
    words = [c for c in train if train[c].dtype == object]
    made_by = {"tvae": TVAE, "ctgan": CTGAN}[name]()
    began = time.perf_counter()
    made_by.fit(train, words)
fitted = time.perf_counter() - began
began = time.perf_counter()
made = made_by.sample(len(train))
sampled = time.perf_counter() - began
made.to_csv(folder + "/" + name + ".csv", index=False)
print(json.dumps({"fit_s": round(fitted, 1), "sample_s": round(sampled, 2)}))
"""


def environment() -> dict[str, str]:
    """One thread for every library."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run(python: str, name: str, folder: Path) -> dict[str, float]:
    """Trains and samples with one maker in a process of its own, then has its rows measured."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(MAKER)
        script.flush()
        words = [python, "-W", "ignore", script.name, name, str(folder), json.dumps(OURS.get(name, {}))]
        done = subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=folder)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    timed = json.loads(done.stdout.strip().splitlines()[-1])
    return {**timed, **measured(folder, folder / f"{name}.csv")}


def measured(folder: Path, made: Path) -> dict[str, float]:
    words = [sys.executable, str(MEASURE), "score", str(folder), str(made)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True, cwd=folder).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peers", help="python of an environment with the peers")
    parser.add_argument("--only", default="", help="makers, joined by commas")
    given = parser.parse_args()
    given.folder = given.folder.resolve()
    given.folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, str(MEASURE), "split", str(given.folder)], check=True)
    peers = ["mostly", "tvae", "ctgan"] if given.peers else []
    wanted = [name for name in given.only.split(",") if name] or [*OURS, *peers]
    print(
        f"{'':<10} {'fit s':>7} {'sample s':>9} {'quality':>8} {'TSTR AUC':>9} {'macro-F1':>9} {'judge':>7} {'copied':>7}"
    )
    ceiling = measured(given.folder, given.folder / "train.csv")
    for name, found in (("real", ceiling), *((name, None) for name in wanted)):
        if found is None:
            found = run(sys.executable if name in OURS else given.peers, name, given.folder)
        print(
            f"{name:<10} {found.get('fit_s', 0):>7} {found.get('sample_s', 0):>9} {found['quality_vs_test']:>8} "
            f"{found['tstr_auc']:>9} {found['tstr_macro_f1']:>9} {found['judge_auc']:>7} {found['copied']:>7}",
            flush=True,
        )


if __name__ == "__main__":
    main()
