"""Memory of training from a file much larger than it should need: a generated .npy of distinct rows.

    python benchmarks/memory.py FOLDER [--gigabytes 20] [--model vae]

Writes FOLDER/rows.npy (uint8, 64x64 RGB, every image different), trains on it, and prints the largest anonymous memory the
training process had (RssAnon; pages of the mapped file are the system's to take back) and how long the first and the second
start took.
"""

import argparse
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np


def generate(file: Path, gigabytes: float) -> None:
    rows = int(gigabytes * 1e9) // (64 * 64 * 3)
    images = np.lib.format.open_memmap(file, "w+", np.uint8, (rows, 64, 64, 3))
    random = np.random.default_rng(0)
    for at in range(0, rows, 10_000):
        part = images[at : at + 10_000]
        part[:] = random.integers(0, 256, (len(part), 1, 1, 3), np.uint8)  # a colour of its own ...
        part[:, ::4, ::4] = random.integers(0, 256, (len(part), 16, 16, 3), np.uint8)  # ... and dots
    images.flush()


def trained(file: Path, out: Path, model: str) -> tuple[float, float, float]:
    """(largest anonymous GB, seconds until the first step's plan, seconds in all) of one training."""
    words = [
        sys.executable,
        "-m",
        "latente",
        "train",
        model,
        str(file),
        "--steps",
        "200",
        "--size",
        "tiny",
        "--out",
        str(out),
    ]
    began = time.monotonic()
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    largest, planned = [0.0], [0.0]

    def watch() -> None:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            found = re.search(r"RssAnon:\s+(\d+)", status)
            largest[0] = max(largest[0], int(found[1]) / 1e6 if found else 0.0)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.stderr is not None
    for line in process.stderr:
        if "steps of" in line:
            planned[0] = time.monotonic() - began
    watcher.join()
    if process.wait():
        raise SystemExit(f"the training ended with {process.returncode}")
    return largest[0], planned[0], time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--model", default="vae")
    given = parser.parse_args()
    file = given.folder / "rows.npy"
    if not file.exists():
        generate(file, given.gigabytes)
    for number in ("first", "second"):
        memory, planned, took = trained(file, given.folder / f"run-{number}", given.model)
        print(
            f"{number} start: {memory:.2f} GB anonymous at most; training begins after {planned:.1f} s; {took:.0f} s in all"
        )


if __name__ == "__main__":
    main()
