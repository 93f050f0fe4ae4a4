"""When a GAN stops by itself: a training allowed far too long, with the rule and without, and one that collapses.

    python benchmarks/stopping.py FOLDER [--source digits] [--items N] [--steps 6000] [--size tiny] [--collapse] [flags of latente train]

Without the rule, the Frechet distance of samples to the test split (features learned on the training split) is measured at every
look of the full-length run; with it, at the checkpoint the run is used with. Prints both, and where each was. With --items only so
many images of the training split are trained on and validated with; the test split stays as it is.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch

import latente
from latente import checkpoint, looks, optim
from latente.data.dataset import ImageOptions
from latente.data.sources import open_source
from latente.evaluation import distances, images
from latente.rng import keyed
from latente.run import CHUNK, held
from latente.training import stopping


def watched(found: list[tuple[int, float]]) -> None:
    """From now on every look also measures the distance to the test split."""
    judge = looks.Looks.__call__

    def call(self: looks.Looks, model: torch.nn.Module, step: int, number: int) -> stopping.Look:
        if step:
            found.append((step, distance(model, self.data)))
            print(f"  step {step:,}: {found[-1][1]:.3f}", flush=True)
        return judge(self, model, step, number)

    looks.Looks.__call__ = call


def distance(model: torch.nn.Module, data: object, seed: int = 1) -> float:
    """Frechet distance of as many samples as test images, up to 10,000."""
    known = held(data)
    real = known.test[:10_000]
    with torch.no_grad():
        parts = [
            model.eval().sample(CHUNK, generator=keyed(seed, "fd", i))["x"].numpy()
            for i in range(-(-len(real) // CHUNK))
        ]
    seen = images.features(known)
    return distances.frechet(seen(real), seen(np.concatenate(parts)[: len(real)]))


def collapsing(start: int, stop: int) -> None:
    """From now on the rate is forty times what it should be between two steps, the first time they come."""
    multiplier, last = optim.multiplier, [0]

    def spiked(step: int, *given: int) -> float:
        again = step < last[0]
        last[0] = max(last[0], step)
        return multiplier(step, *given) * (40 if start <= step < stop and not again else 1)

    optim.multiplier = spiked


def few(source: str, items: int, path: Path) -> Path:
    """The first images of the training split and all of the test split, as a file."""
    data = open_source(source, ImageOptions())
    train, test = data.splits["train"][:items], data.splits["test"]
    x, y = data.images[:, 0], data.labels
    np.savez(path, x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", default="digits")
    parser.add_argument("--items", type=int)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--size", default="tiny")
    parser.add_argument(
        "--collapse", action="store_true", help="make it collapse once: forty times the rate for a while"
    )
    given, more = parser.parse_known_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    source = few(given.source, given.items, given.folder / "few.npz") if given.items else given.source
    flags = {"source": source, "steps": given.steps, "size": given.size, "stop": "judge", "quiet": True}
    if len(more) % 2 or not all(flag.startswith("--") for flag in more[::2]):
        parser.error(f"flags of latente train and their values: {' '.join(more)}")
    flags |= {flag[2:].replace("-", "_"): json.loads(value) for flag, value in zip(more[::2], more[1::2])}
    if given.collapse:
        collapsing(given.steps // 3, given.steps // 3 + given.steps // 6)
    found: list[tuple[int, float]] = []
    watched(found)
    rules = stopping.told_apart_no_more, stopping.no_better, stopping.collapsed
    for kind in ("stopped",) if given.collapse else ("full", "stopped"):
        for name, rule in zip(("told_apart_no_more", "no_better", "collapsed"), rules):
            setattr(stopping, name, rule if kind == "stopped" else lambda *seen: False)
        found.clear()
        shutil.rmtree(given.folder / kind, ignore_errors=True)
        run = latente.train("gan", out=given.folder / kind, **flags)
        print(
            f"{kind}: {run.record['plan']['steps']:,} steps in {run.record['seconds']:.0f} s; {run.record['stopped']}"
        )
        kept = int(checkpoint.index(run.path)["best"])
        best = min(found, key=lambda pair: pair[1])
        print(
            f"{kind}: kept step {kept:,} at {distance(run.model, run.reopened()):.3f}; best seen {best[1]:.3f} at step {best[0]:,}"
        )
        for record in checkpoint.read_metrics(run.path):
            if "event" in record:
                print(f"  {json.dumps(record)}")


if __name__ == "__main__":
    main()
