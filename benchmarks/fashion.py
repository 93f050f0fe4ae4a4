"""Fashion-MNIST: quality of samples after a fixed time, beside real images.

    python benchmarks/fashion.py gan --budget 240s --threads 1 [flags of latente train]

Trains through the command line with `--budget`, draws 5,000 samples, and scores them with fashion_judge.py (from
$LATENTE_MEASURE) next to the same score of real training images, the ceiling. For a VAE it adds the importance-weighted bound
on the likelihood of the test images, in bits/dim, beside what xz makes of the same bytes; JPEG XL -e 9 makes 3.20 of them
(one 2800x2800 sheet).
"""

import argparse
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import latente
from latente.rng import keyed

JUDGE = Path(os.environ["LATENTE_MEASURE"]) / "fashion_judge.py"


def scored(*words: str) -> dict[str, float]:
    return json.loads(
        subprocess.run([sys.executable, JUDGE, *words], capture_output=True, text=True, check=True).stdout
    )


def bits_per_dim(run: latente.Run, draws: int) -> float:
    """The importance-weighted bound with `draws` samples, over all test images."""
    data = run.reopened()
    test = data.splits["test"]
    nats = 0.0
    with torch.no_grad():
        for at in range(0, len(test), 500):
            nats -= float(run.model.log_prob(data.batch(test[at : at + 500]), keyed(0, "bound", at), draws).sum())
    return nats / len(test) / data.spec.dimensions / torch.log(torch.tensor(2.0)).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--budget", default="240s")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--draws", type=int, default=64, help="samples of the importance-weighted bound")
    parser.add_argument("--out", type=Path, help="keep the run there")
    given, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        out, samples = given.out or Path(folder) / "run", Path(folder) / "samples.npy"
        limits = ["--budget", given.budget, "--threads", given.threads]
        began = time.monotonic()
        command = [sys.executable, "-m", "latente"]
        subprocess.run([*command, "train", given.model, "fashion-mnist", "--out", out, *limits, *flags], check=True)
        took = time.monotonic() - began
        subprocess.run([*command, "sample", out, "--n", "5000", "--out", samples], check=True)
        run = latente.load(out)
        plan = run.record["plan"]
        done = f"{plan['steps']:,} steps of {plan['batch_size']}, {plan['precision']}"
        print(f"\n{given.model} ({run.record['size']}), {took:.0f} s of {given.threads} threads, {done}")
        print(f"{'samples':<22}{scored(str(samples))}")
        print(f"{'real training images':<22}{scored()}")
        if hasattr(run.model, "log_prob"):
            data = run.reopened()
            test = data.images[data.splits["test"]]
            packed = len(lzma.compress(test.tobytes(), preset=9 | lzma.PRESET_EXTREME)) * 8 / test.size
            print(
                f"bits/dim of the test images: {bits_per_dim(run, given.draws):.3f} (bound of {given.draws}); xz {packed:.3f}"
            )


if __name__ == "__main__":
    main()
