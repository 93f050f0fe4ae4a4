"""How good samples of images are: every figure beside that of real images, at the same sizes.

    samples, test, fresh, train --judge, features, distances, copying, use--> Evaluation

test and fresh are two sets of held-out images: what fresh ones score against test ones is the reference for samples.
N samples, C channels, H W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.evaluation import codecs, copying, distances
from latente.evaluation.copying import Images
from latente.evaluation.features import Features, learned
from latente.evaluation.findings import Bars, Chart, Evaluation, Figure, Gallery, Panels, Say, silent
from latente.evaluation.judge import FEWEST, Classifier, Judgement, Scorer, judged, membership
from latente.evaluation.networks import fitted, network, outputs, tensor
from latente.evaluation.rates import Rates, beside_codecs, costs
from latente.evaluation.scores import Answer, Score
from latente.rng import key

MOST = 10_000  # images of a kind that are measured
COPIES = 4_000  # of these, looked up among all training images
JUDGED = 40_000  # images the judge is shown in all, repeats included: what some seconds allow
USED = 20_000  # images a classifier is shown in all to find out what samples are worth
LEARNED = 256 << 20  # bytes of training images, at most, that features are learned on
SHOWN = 48


@dataclass(frozen=True)
class Held:
    """The real images an evaluation needs. `labels` are those of the whole array; `nats` -ln p of each of the first images of
    the train and test splits, where the model has a likelihood."""

    train: Images
    test: Images
    fresh: Images
    labels: np.ndarray | None = None
    classes: Sequence[str] = ()
    nats: tuple[np.ndarray, np.ndarray] | None = None
    rates: Rates | None = None
    """where the model is a codec that loses some"""
    names: Sequence[str] = ()
    """of the images of the test split, in its order"""
    kept: Path | None = None
    """where learned features are kept for the next evaluation on the same data"""

    @property
    def n(self) -> int:
        """How many samples and real images of each kind are compared."""
        return min(len(self.test), len(self.fresh), MOST)


def cnn(images: np.ndarray, fake: np.ndarray, seed: int, seen: int = JUDGED) -> Scorer:
    """A network fitted to say which of the images, uint8 (N,C,H,W), are fake, (N,) bool; it is shown `seen` of them in all."""
    y = torch.from_numpy(fake).float()

    def loss(model: nn.Module, at: np.ndarray) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(tensor(images[at]))[:, 0], y[at])

    model = fitted(lambda: network(images.shape[1], min(images.shape[2:]), 1), loss, len(images), seen, seed)
    return lambda part: outputs(model, part)[:, 0]


CLASSIFIERS: dict[str, Classifier] = {"convolutional network": cnn}


def wanted(held: Held) -> int:
    """How many samples `evaluated` makes use of."""
    useful = min(len(held.train), USED // 3) if held.labels is not None and len(held.classes) > 1 else 0
    return max(held.n, min(len(held.train), COPIES), useful)


def evaluated(
    samples: np.ndarray, labels: np.ndarray | None, held: Held, seed: int = 0, say: Say = silent
) -> Evaluation:
    """Everything that can be measured of `samples`, uint8 (N,C,H,W), with their `labels` (N,) where there are classes."""
    n, made = held.n, {"samples": len(samples), "compared": held.n, "seed": seed}
    random = np.random.default_rng(key(seed, "evaluation"))
    test, fresh = (Images(p.array, p.at[np.sort(random.permutation(len(p))[:n])]) for p in (held.test, held.fresh))
    scores: list[Score] = []
    charts: list[Figure] = []
    galleries: list[Gallery] = []
    notes: list[str] = []
    details: dict[str, Any] = {}
    if held.nats is not None:
        found, parts = _likelihood(*held.nats, held.test)
        scores += found
        bits = {part: nats / math.log(2) for part, nats in zip(("training", "test"), held.nats)}
        chart, shown, details["costs"] = costs(bits, held.test[: len(bits["test"])], held.names, parts)
        charts.append(chart)
        galleries += shown
    if held.rates is not None:
        bits = {"training": held.rates.train, "test": held.rates.bits[held.rates.middle]}
        pictures = held.test[: len(bits["test"])]
        score, curve = beside_codecs(held.rates, pictures)
        scores.append(score)
        chart, shown, details["costs"] = costs(bits, pictures, held.names, score.references, held.rates)
        charts += [curve, chart]
        galleries += shown
    if n >= FEWEST:
        real, other = test[:], fresh[:]
        say("a judge learns to tell samples from real images")
        judgement = judged(real, samples[:n], CLASSIFIERS, seed)
        scores.append(judgement.score(judged(real, other, CLASSIFIERS, seed), "images"))
        say("features of these images are learned, once for all runs on them")
        seen = features(held)
        say("distances, precision and recall, spectra")
        made |= {"features": seen.digest, "features_supervised": seen.supervised}
        vectors = seen(real), seen(other), seen(samples[:n])
        scores += _distances(*vectors, seed)
        score, chart = _spectra(real, other, samples[:n], seed)
        scores.append(score)
        charts.append(chart)
        if seen.supervised and labels is not None and held.labels is not None:
            kinds = held.labels[test.at], held.labels[fresh.at]
            images = real, other, samples[:n]
            score, panels = _by_class(seen, images, vectors, (*kinds, labels[:n]), held.classes)
            scores.append(score)
            charts.append(panels)
            say("a classifier is trained on samples and tried on real images")
            scores.append(_useful(samples, labels, held, test, seed))
    else:
        notes.append(
            f"{n} held-out images are too few to judge samples by: at least {FEWEST} are needed, a thousand are better"
        )
    say("looking for copies of training images")
    found, pairs = copying.copied(samples[:COPIES], held.train, held.test, seed)
    sheet = [("real, held out", test[:SHOWN]), ("samples", samples[:SHOWN])]
    beside = Gallery("Samples beside real images", "Neither row was chosen: they are the first ones.", sheet)
    return Evaluation([*scores, *found], [beside, pairs, *galleries], charts, notes, made, details)


def features(held: Held) -> Features:
    """Those learned on the training images, or on as many of them as `LEARNED` bytes hold."""
    most = max(2, LEARNED // max(1, held.train.array[0].nbytes))
    random = np.random.default_rng(key("features"))
    at = held.train.at[np.sort(random.permutation(len(held.train))[:most])]
    labels = None if held.labels is None else held.labels[at]
    return learned(held.train.array[at], labels, len(held.classes), held.kept)


# ---- while a model trains ------------------------------------------------------------------------------------------

# What a look may cost: images a kind for the judge, images shown to it, images a kind for the distance.
GLANCED, GLANCED_SEEN, COMPARED = 2_000, 20_000, 6_000


def thumbnails(x: np.ndarray) -> np.ndarray:
    """Pictures averaged down to at most 64 numbers, (N,64): features that need no learning."""
    return copying.compared(x, 64).astype(np.float64)


def glance(
    samples: np.ndarray, real: np.ndarray, seen: Callable[[np.ndarray], np.ndarray], seed: int
) -> tuple[Judgement, float]:
    """What the judge makes of some of as many samples as real images, quickly, and how far apart all are by features."""
    judge = {"convolutional network": partial(cnn, seen=GLANCED_SEEN)}
    judgement = judged(real[:GLANCED], samples[:GLANCED], judge, seed)
    return judgement, distances.frechet(seen(real), seen(samples))


# ---- fidelity and variety ------------------------------------------------------------------------------------------


def _distances(a: np.ndarray, b: np.ndarray, c: np.ndarray, seed: int) -> list[Score]:
    """The scores that compare features (n,64) of real images `a` with those of samples `c`; `b`, of other real ones, give the reference."""
    kind = "real against real"
    value, usual = distances.frechet(a, c), distances.frechet(a, b)
    ci = distances.around(distances.frechet, a, c, seed)
    scores = [Score("frechet_distance", value, ci, "lower", "squared feature units", {kind: usual})]
    value, ci = distances.kernel(a, c)
    scores.append(
        Score("kernel_distance", value, ci, "lower", "squared kernel units", {kind: distances.kernel(a, b)[0]})
    )
    (precision, recall), (full, whole) = distances.coverage(a, c), distances.coverage(a, b)
    ci = distances.share_interval(precision, len(c))
    scores.append(
        Score("precision", precision, ci, "higher", "share of samples that lie among real images", {kind: full})
    )
    ci = distances.share_interval(recall, len(a))
    score = Score("recall", recall, ci, "higher", "share of real images that samples reach", {kind: whole})
    scores.append(_varied(score, whole))
    return scores


def _varied(score: Score, usual: float) -> Score:
    share = score.value / max(usual, 1e-9)
    answer: Answer = "good" if share >= 0.85 else "unsure" if share >= 0.5 else "bad"
    advice = {
        "good": "",
        "unsure": ": some kinds of image are missing; train longer, or a larger size",
        "bad": ": most of what real images do is missing; train longer, a larger size, or another model",
    }[answer]
    words = f"samples reach {score.value:.0%} of real images, where as many real ones reach {usual:.0%}{advice}"
    return replace(score, verdict=words, question="varied", answer=answer)


def _spectra(real: np.ndarray, other: np.ndarray, samples: np.ndarray, seed: int) -> tuple[Score, Chart]:
    power = {name: distances.powers(part) for name, part in (("samples", samples), ("real", real), ("other", other))}
    value, usual = (distances.spectrum_distance(power["real"], power[name]) for name in ("samples", "other"))
    ci = distances.around(distances.spectrum_distance, power["real"], power["samples"], seed)
    score = Score("spectrum_distance", value, ci, "lower", "dB, mean over frequencies", {"real against real": usual})
    titles = {"samples": "samples", "real": "real, held out", "other": "other real images"}
    lines = {titles[name]: distances.spectrum(part) for name, part in power.items()}
    note = "Blurred samples lack power on the right; noise and checkerboards have too much of it."
    periods = {name: (np.arange(1, len(line) + 1), line) for name, line in lines.items()}
    return score, Chart("Power spectrum", note, "periods in a picture", "power, dB", periods)


def _by_class(
    seen: Features, images: Sequence[np.ndarray], vectors: Sequence[np.ndarray], kinds: Sequence[np.ndarray],
    classes: Sequence[str],
) -> tuple[Score, Panels]:  # fmt: skip
    """How often a classifier of real images takes an image for what its label says: (real, other, samples), their features and their
    labels; and what distinguishes them class by class."""
    right = [seen.classes(part) == labels for part, labels in zip(images, kinds)]
    _, usual, value = (float(part.mean()) for part in right)
    numbers = np.arange(len(classes))
    shares = [
        np.array([part[labels == c].mean() if (labels == c).any() else np.nan for c in numbers])
        for part, labels in zip(right, kinds)
    ]
    gaps = np.nan_to_num(shares[1] - shares[2], nan=-1)
    worst = int(gaps.argmax())
    words = f"samples look like their class as often as real images do ({value:.1%}; real: {usual:.1%})"
    answer: Answer = "good"
    if value < usual - 0.05:
        answer = "bad" if value < usual - 0.25 else "unsure"
        weak = f"{classes[worst]} ({shares[2][worst]:.0%})"
        words = f"samples look like their class in {value:.0%} of cases, real images in {usual:.0%}; worst: {weak}"
    score = Score(
        "label_agreement", value, distances.share_interval(value, len(images[2])), "higher",
        "share recognised as its class", {"real images": usual}, words, "faithful", answer,
    )  # fmt: skip
    figures = np.full((4, 2, len(classes)), np.nan)  # of samples and of other real images
    figures[0] = shares[2], shares[1]
    for c in numbers:
        real, other, made = (part[labels == c] for part, labels in zip(vectors, kinds))
        size = min(len(real), len(other), len(made))
        if size < FEWEST:
            continue
        for at, part in enumerate((made, other)):
            figures[1, at, c] = distances.frechet(real[:size], part[:size])
            figures[2:, at, c] = distances.coverage(real[:size], part[:size])
    measured = (
        ("Recognised as its class", "", "share"), ("Frechet distance", "lower is better", "squared feature units"),
        ("Precision", "samples that lie among real images", "share"), ("Recall", "real images that samples reach", "share"),
    )  # fmt: skip
    parts = []
    for (title, said, unit), of in zip(measured, figures):
        known, top = [bool(np.isfinite(pair).all()) for pair in of.T], 1.0 if unit == "share" else None
        bars: dict[str, np.ndarray] = dict(zip(("samples", "real images"), of[:, known]))
        if any(known):
            names = [name for name, there in zip(classes, known) if there]
            parts.append(Bars(title, said, unit, names, bars, top))
    note = "Samples of a class, and other real images of it, beside as many held-out ones."
    return score, Panels("By class", note, parts)


# ---- use and likelihood --------------------------------------------------------------------------------------------


def _useful(samples: np.ndarray, labels: np.ndarray, held: Held, test: Images, seed: int) -> Score:
    """What a classifier trained on samples alone makes of real images, beside one trained on as many real images."""
    assert held.labels is not None
    n = min(len(samples), len(held.train))
    random = np.random.default_rng(key(seed, "use"))
    real = Images(held.train.array, held.train.at[np.sort(random.permutation(len(held.train))[:n])])
    kinds, pictures = held.labels[test.at], test[:]

    def right(images: np.ndarray, y: np.ndarray) -> float:
        target = torch.from_numpy(np.ascontiguousarray(y)).long()

        def loss(model: nn.Module, at: np.ndarray) -> Tensor:
            return F.cross_entropy(model(tensor(images[at])), target[at])

        def build() -> nn.Module:
            return network(images.shape[1], min(images.shape[2:]), len(held.classes))

        model = fitted(build, loss, len(images), USED, key(seed, "use"))
        return float((outputs(model, pictures).argmax(1) == kinds).mean())

    value, usual = right(samples[:n], labels[:n]), right(real[:], held.labels[real.at])
    gap = usual - value
    answer: Answer = "good" if gap <= 0.03 else "unsure" if gap <= 0.15 else "bad"
    words = f"trained on {n:,} samples, a classifier is right on {value:.1%} of real test images; on as many real images, {usual:.1%}"
    if answer != "good":
        words += ": add real images to it, or train longer"
    return Score(
        "tstr_accuracy", value, distances.share_interval(value, len(pictures)), "higher",
        "share of test images", {"trained on real images": usual}, words, "useful", answer,
    )  # fmt: skip


def _likelihood(train: np.ndarray, test: np.ndarray, images: Images) -> tuple[list[Score], dict[str, float]]:
    """Bits per number of a test image, beside what codecs need for the same images; and whether the model knows its training set.
    The second is what codecs need in bytes an image."""
    pictures = images[: len(test)]
    bits = test / (pictures[0].size * math.log(2))
    half = distances.Z * float(bits.std(ddof=1)) / len(bits) ** 0.5 if len(bits) > 1 else 0.0
    value = float(bits.mean())
    sizes = codecs.lossless(pictures)
    others = {name: 8 * size / pictures.size for name, size in sizes.items()}
    best = min(others.values())
    words = (
        f"describes held-out images in {value:.2f} bits a number; the best of {' and '.join(others)} needs {best:.2f}"
    )
    answer: Answer = "good" if value + half < best else "bad"
    if answer == "bad":
        words += ": LOSES; train longer, or a larger size"
    score = Score("bits_per_dim", value, (value - half, value + half), "lower", "bits per pixel and channel, at most", others,
                  words, "predicts", answer)  # fmt: skip
    return [score, membership(train, test, "images")], {name: size / len(pictures) for name, size in sizes.items()}
