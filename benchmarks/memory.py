"""Memory of training from a file much larger than it should need, generated for the occasion.

    python benchmarks/memory.py FOLDER [--gigabytes 20] [--model vae | gpt | table-gpt | ...] [flags of latente train]

Writes FOLDER/rows.npy (uint8, 64x64 RGB, every image different), for a gpt FOLDER/rows.txt (lines of made-up words, every line
different), or for a family of tables FOLDER/rows.csv (30 columns: numbers, times, categories, one of them with 300,000 levels;
a gigabyte is some 4.5 million rows), trains 200 steps on it, and prints the largest anonymous memory the training process had, before
the first step and over all (RssAnon; pages of the mapped file are the system's to take back), and how long the first and the
second start took.
"""

import argparse
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd


def write_text(file: Path, gigabytes: float) -> None:
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(random.choice(letters, size)) for size in random.integers(2, 10, 50_000)]
    with file.open("w", encoding="utf-8") as out:
        while out.tell() < gigabytes * 1e9:
            for line in np.array(words)[(random.random((100_000, 12)) ** 3 * len(words)).astype(int)]:
                out.write(" ".join(line) + "\n")


def write_images(file: Path, gigabytes: float) -> None:
    rows = int(gigabytes * 1e9) // (64 * 64 * 3)
    images = np.lib.format.open_memmap(file, "w+", np.uint8, (rows, 64, 64, 3))
    random = np.random.default_rng(0)
    for at in range(0, rows, 10_000):
        part = images[at : at + 10_000]
        part[:] = random.integers(0, 256, (len(part), 1, 1, 3), np.uint8)  # a colour of its own ...
        part[:, ::4, ::4] = random.integers(0, 256, (len(part), 16, 16, 3), np.uint8)  # ... and dots
    images.flush()


def write_table(file: Path, gigabytes: float) -> None:
    random, at = np.random.default_rng(0), 0
    while not file.exists() or file.stat().st_size < gigabytes * 1e9:
        n = 50_000
        kind = random.integers(0, 12, n)
        columns: dict[str, object] = {"id": np.arange(at, at + n), "kind": pd.Series(kind).map("kind {}".format)}
        columns["place"] = pd.Series((300_000 * random.random(n) ** 2).astype(int)).map("P{:06d}".format)
        columns["when"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 10**8, n), "s")
        columns["paid"] = random.random(n) < 0.1 + kind / 20
        for number in range(12):
            columns[f"amount {number}"] = np.round(np.exp(random.normal(kind / 4, 1, n)) * (number + 1), 2)
        for number in range(8):
            columns[f"count {number}"] = random.poisson(1 + kind * number, n)
        for number in range(5):
            columns[f"level {number}"] = pd.Series(random.integers(0, 10 * number + 3, n)).map("level {}".format)
        pd.DataFrame(columns).to_csv(file, mode="a", index=False, header=not at)
        at += n


def trained(file: Path, out: Path, model: str, flags: list[str]) -> tuple[float, float, float, float]:
    """(largest anonymous GB before the first step, and over all, seconds until the first step's plan, seconds in all) of one training."""
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
        *flags,
    ]
    began = time.monotonic()
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    largest, before, planned = [0.0], [0.0], [0.0]

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
            planned[0], before[0] = time.monotonic() - began, largest[0]
    watcher.join()
    if process.wait():
        raise SystemExit(f"the training ended with {process.returncode}")
    return before[0], largest[0], planned[0], time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--model", default="vae")
    given, flags = parser.parse_known_args()
    name, write = ("rows.csv", write_table) if given.model.startswith("table-") else ("rows.npy", write_images)
    if given.model == "gpt":
        name, write = "rows.txt", write_text
    file = given.folder / name
    if not file.exists():
        write(file, given.gigabytes)
    for number in ("first", "second"):
        before, memory, planned, took = trained(file, given.folder / f"run-{number}", given.model, flags)
        print(
            f"{number} start: {before:.2f} GB anonymous at most before the first step, {memory:.2f} over all; "
            f"training begins after {planned:.1f} s; {took:.0f} s in all"
        )


if __name__ == "__main__":
    main()
