"""JoeyNMT's reverse task (numbers up to 50, 25 of them at most in training and 30 in the test): the time to 95 BLEU, theirs and ours.

    python benchmarks/seq2seq_reverse.py FOLDER JOEYNMT PYTHON [--threads 1] [--steps 500]

JOEYNMT is a checkout of joeynmt 2.3.0 (its script makes the data, its configs/rnn_reverse.yaml trains), PYTHON the interpreter of an
environment in which it is installed. Both are timed as whole processes: theirs until it logs a validation of at least 95 BLEU, ours
until it ends. Scores are sacrebleu's on JoeyNMT's test files, written with one beam.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

GOAL = 95.0
OURS = """
import sys
from pathlib import Path
import latente
data, out, threads, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
files = {name: (data / name).read_text().splitlines() for name in ("train.src", "train.trg", "test.src")}
run = latente.train(
    "seq2seq", list(zip(files["train.src"], files["train.trg"])), tokenizer="word", test=0.0, validation=0.02, steps=steps,
    checkpoint_every=steps, batch_size=32, layers=1, width=64, heads=2, dropout=0.0, label_smoothing=0.0, both_ends=True,
    threads=threads, stop="never", out=out + "/run", quiet=True,
)
Path(out, "test.made").write_text("".join(f"{line}\\n" for line in run.translate(files["test.src"], beams=1)))
"""


def theirs(folder: Path, checkout: Path, python: str, environment: dict[str, str]) -> float:
    """Seconds until a validation reaches the goal."""
    settings = (checkout / "configs" / "rnn_reverse.yaml").read_text(encoding="utf-8")
    changes = {
        r"fp16: .*": "fp16: False",
        r"model_dir: .*": f"model_dir: {folder / 'joeynmt'}",
        r"epochs: .*": "epochs: 5",
        r"test/data/reverse": str(folder / "data"),
    }
    for was, becomes in changes.items():
        settings = re.sub(was, becomes, settings)
    (folder / "rnn.yaml").write_text(settings, encoding="utf-8")
    began = time.perf_counter()
    words = [python, "-W", "ignore", "-m", "joeynmt", "train", str(folder / "rnn.yaml"), "--skip-test"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(r"Evaluation result .*bleu:\s*([\d.]+)", line)
            if found:
                print(
                    f"  joeynmt: {float(found[1]):.1f} BLEU on its validation data after {time.perf_counter() - began:.0f} s",
                    flush=True,
                )
                if float(found[1]) >= GOAL:
                    process.kill()
                    return time.perf_counter() - began
    raise SystemExit(f"joeynmt ended below {GOAL} BLEU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("joeynmt", type=Path)
    parser.add_argument("python")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=500)
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True)
    script = given.joeynmt / "scripts" / "generate_reverse_task.py"
    subprocess.run([given.python, str(script), "--out_dir", str(folder / "data")], check=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads), "MKL_NUM_THREADS": str(given.threads)}
    began = time.perf_counter()
    words = [sys.executable, "-c", OURS, str(folder / "data"), str(folder), str(given.threads), str(given.steps)]
    subprocess.run(words, check=True, env=environment)
    ours = time.perf_counter() - began
    from sacrebleu import corpus_bleu

    made, right = ((folder / name).read_text(encoding="utf-8").splitlines() for name in ("test.made", "data/test.trg"))
    print(f"  latente: {corpus_bleu(made, [right]).score:.1f} BLEU on the test data after {ours:.0f} s", flush=True)
    print(f"{theirs(folder, given.joeynmt, given.python, environment) / ours:.1f} times as long for joeynmt")


if __name__ == "__main__":
    main()
