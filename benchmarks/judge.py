"""What the judge finds and what it lets pass: planted faults, and real data against real data over many seeds.

    python benchmarks/judge.py [--seeds 200]

Images: Fashion-MNIST where it is found, else digits; text: Tiny Shakespeare where it is found, else pydoc; a table: breast-cancer. Each
fault is put into half of the real items, which the judge compares with the other half. Prints AUC, 95 % interval and p-value of each.
"""

import argparse

import numpy as np
from sklearn.datasets import load_breast_cancer

from latente.data.errors import DataError
from latente.data.sources import open_source
from latente.evaluation import images, passages, tables
from latente.evaluation.judge import ALPHA, judged

MOST = 2_000


def blurred(x: np.ndarray) -> np.ndarray:
    """Three fifths of each pixel and a tenth of each of its four neighbours."""
    wide = np.pad(x.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)), "edge")
    beside = wide[:, :, :-2, 1:-1] + wide[:, :, 2:, 1:-1] + wide[:, :, 1:-1, :-2] + wide[:, :, 1:-1, 2:]
    return (0.6 * x + 0.1 * beside).round().astype(np.uint8)


def shuffled(texts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The words of each passage in another order."""
    return np.array([" ".join(random.permutation(text.split(" "))) for text in texts], object)


def repeated(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """In the place of a tenth of the items stand copies of ten others, over and over."""
    made, at = x.copy(), random.permutation(len(x))
    many = len(x) // 10
    made[at[:many]] = x[at[many + np.arange(many) % 10]]
    return made


def either(*names: str):
    """The first of the sources that is found."""
    for name in names:
        try:
            return open_source(name)
        except DataError:
            continue
    raise SystemExit(f"none of {', '.join(names)} is found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    pictures, text = either("fashion-mnist", "digits"), either("shakespeare", "pydoc")
    order = random.permutation(pictures.items)[: 2 * MOST]
    real, other = np.split(pictures.images[order], 2)
    label = pictures.labels[order][len(real) :]
    pool = random.permutation(passages.cut([text.text("train")], 256))[: 2 * MOST]
    said, written = np.split(pool[: len(pool) // 2 * 2], 2)
    rows = random.permutation(load_breast_cancer().data)
    known, made = np.split(rows[: len(rows) // 2 * 2], 2)
    swapped = made.copy()
    swapped[:, 0] = random.permutation(swapped[:, 0])
    cases = [
        (pictures.name, images.CLASSIFIERS, real, {
            "real": other, "one class": other[label == 3], "slight blur": blurred(other), "moved by a pixel": np.roll(other, 1, 3),
            "a tenth repeated": repeated(other, random),
        }),
        (text.name, passages.CLASSIFIERS, said, {
            "real": written, "shuffled words": shuffled(written, random), "a tenth repeated": repeated(written, random),
        }),
        ("breast-cancer", tables.CLASSIFIERS, known, {"real": made, "a swapped column": swapped}),
    ]  # fmt: skip
    for name, classifiers, against, faults in cases:
        for fault, items in faults.items():
            found = judged(against, items, classifiers)
            low, high = found.ci
            print(
                f"{name:<14} {fault:<18} AUC {found.auc:.3f} ({low:.3f} to {high:.3f})  p {found.p:.4f}  {found.verdict}",
                flush=True,
            )
    digits = open_source("digits").images
    rejected = 0
    for seed in range(given.seeds):
        half = np.random.default_rng(seed).permutation(len(digits))
        found = judged(digits[half[:400]], digits[half[400:800]], images.CLASSIFIERS, seed)
        rejected += found.p <= ALPHA
    print(f"digits, 400 real against 400 real: rejected {rejected} times in {given.seeds} at {ALPHA}")


if __name__ == "__main__":
    main()
