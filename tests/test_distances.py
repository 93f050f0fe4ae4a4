"""Distances between sets of images: against other implementations and closed forms; and the copying tests on planted copies."""

import numpy as np
import pytest
import torch

import latente
from latente.data.sources import open_source
from latente.evaluation import copying, distances, features
from latente.evaluation.copying import Images
from latente.evaluation.networks import tensor

FRESH = np.random.default_rng


def as_images(x):
    """Features as torchmetrics takes them: floats that its feature module hands through."""
    return torch.from_numpy(x)


class Through(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1)


def test_frechet_distance_is_torchmetrics_and_the_closed_form():
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = FRESH(0).normal(size=(300, 12)), FRESH(1).normal(0.5, 2, size=(400, 12))
    metric = FrechetInceptionDistance(Through(), input_img_size=(1, 1, 12), normalize=True).set_dtype(torch.float64)
    metric.update(as_images(a)[:, None, None], real=True)
    metric.update(as_images(b)[:, None, None], real=False)
    assert distances.frechet(a, b) == pytest.approx(float(metric.compute()), rel=1e-6)
    assert distances.frechet(a, a) == pytest.approx(0, abs=1e-8)
    x, y = FRESH(2).normal(size=(200_000, 1)), FRESH(3).normal(3, 2, size=(200_000, 1))
    assert distances.frechet(x, y) == pytest.approx(
        9 + 1, rel=0.02
    )  # (difference of means)^2 + (difference of deviations)^2


def test_kernel_distance_is_torchmetrics_and_near_zero_for_alike():
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = FRESH(0).normal(size=(200, 8)), FRESH(1).normal(0.4, size=(200, 8))
    metric = KernelInceptionDistance(Through(), subsets=1, subset_size=200, normalize=True)
    metric.update(as_images(a)[:, None, None].float(), real=True)
    metric.update(as_images(b)[:, None, None].float(), real=False)
    value, (low, high) = distances.kernel(a, b)
    # Theirs leaves out no pair (x_i, y_i), which for independent items is the same up to one in n.
    assert value == pytest.approx(float(metric.compute()[0]), rel=0.05) and low < value < high
    held = 0
    for seed in range(200):
        low, high = distances.kernel(*FRESH(seed).normal(size=(2, 100, 8)))[1]
        held += low <= 0 <= high
    assert held >= 180


def test_precision_and_recall_are_the_plain_loops():
    a, b = FRESH(0).normal(size=(60, 3)), FRESH(1).normal(0.8, size=(50, 3))

    def reach(x):
        return [sorted(np.linalg.norm(x - row, axis=1))[3] for row in x]

    def share(points, among, radii):
        return np.mean([any(np.linalg.norm(p - c) <= r for c, r in zip(among, radii)) for p in points])

    precision, recall = distances.coverage(a, b)
    assert precision == pytest.approx(share(b, a, reach(a))) and recall == pytest.approx(share(a, b, reach(b)))
    assert distances.coverage(a, np.repeat(a[:1], 60, 0) + 1e-3 * b[:1])[1] < 0.2  # one mode reaches little


def test_intervals_of_distances_hold_the_value_and_narrow_with_more_items():
    def width(n):
        a, b = FRESH(0).normal(size=(2, n, 4))
        low, high = distances.around(distances.frechet, a, b, 0)
        assert 0 <= low <= distances.frechet(a, b) <= high
        return high - low

    assert width(2000) < width(100)
    assert distances.share_interval(0.0, 50)[0] == 0 and 0.05 < distances.share_interval(0.0, 50)[1] < 0.09
    assert distances.share_interval(0.0, 4000)[0] == 0 and distances.share_interval(1.0, 4000)[1] == 1


def test_the_spectrum_of_a_wave_stands_at_its_frequency_and_blur_lowers_the_far_end():
    wave = 127 + 100 * np.sin(2 * np.pi * 5 * np.arange(32) / 32)
    power = distances.powers(np.broadcast_to(wave.astype(np.uint8), (4, 1, 32, 32)))
    assert power.shape == (4, 16) and distances.spectrum(power).argmax() + 1 == 5
    noise = FRESH(0).integers(0, 256, (50, 1, 32, 32), np.uint8)
    smooth = ((noise.astype(int) + np.roll(noise, 1, 3) + np.roll(noise, 1, 2)) // 3).astype(np.uint8)
    rough, plain = distances.powers(noise), distances.powers(smooth)
    fall = distances.spectrum(rough) - distances.spectrum(plain)
    assert fall[-1] > 5 > abs(fall[0]) and distances.spectrum_distance(rough, plain) > 2
    assert distances.spectrum_distance(rough, rough) == 0
    assert distances.powers(noise).mean() == pytest.approx(noise.var(), rel=0.1)  # white: as much at every frequency


@pytest.fixture(scope="module")
def digits():
    return open_source("digits")


@pytest.mark.parametrize("labelled", [True, False])
def test_features_bring_a_class_together_and_are_kept(digits, labelled, tmp_path):
    train, test = digits.splits["train"], digits.splits["test"]
    labels = digits.labels[train] if labelled else None
    kept = tmp_path / "kept.safetensors"
    state = torch.get_rng_state()
    seen = features.learned(digits.images[train], labels, 10, kept)
    assert torch.equal(state, torch.get_rng_state())
    x, y = seen(digits.images[test]), digits.labels[test]
    squares = np.square(x[:, None] - x[None]).sum(2) + np.eye(len(x)) * 1e9
    assert (y[squares.argmin(1)] == y).mean() > (0.9 if labelled else 0.8)  # pixels alone: 0.96; chance: 0.1
    assert seen(digits.images[train]).std(0) == pytest.approx(np.ones(features.SIZE), abs=0.25)
    again = features.learned(digits.images[train], labels, 10, kept)
    assert again.digest == seen.digest and np.array_equal(again(digits.images[test]), x)
    kept.write_bytes(b"damaged")
    assert features.learned(digits.images[train], labels, 10, kept).digest == seen.digest


# ---- copying -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts():
    """Train, test, and images of neither: smooth random ones, each different, with labels of no matter."""
    random = FRESH(7)
    coarse = random.normal(size=(3600, 1, 4, 4))
    images = np.kron(coarse, np.ones((1, 1, 3, 3))) * 40 + 127 + random.normal(size=(3600, 1, 12, 12)) * 8
    images = images.clip(0, 255).astype(np.uint8)
    train, test, samples = np.split(np.arange(3600), [2000, 2600])
    return Images(images, train), Images(images, test), images[samples]


def flagged(scores):
    return {score.name for score in scores if score.answer == "bad"}


def test_fresh_images_are_not_taken_for_copies(parts):
    train, test, samples = parts
    scores, gallery = copying.copied(samples, train, test)
    assert not flagged(scores) and {score.name for score in scores} == {
        "nearer_to_training",
        "near_copies",
        "exact_copies",
    }
    assert [len(row) for _, row in gallery.rows] == [copying.SHOWN] * 3 and len(gallery.captions) == copying.SHOWN


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("noise", [0, 3])
def test_planted_copies_are_found(parts, share, noise):
    train, test, samples = parts
    made, n = samples.copy(), round(share * 1000)
    made[:n] = train[np.arange(n)]
    made[:n] = (made[:n] + FRESH(1).normal(size=made[:n].shape) * noise).clip(0, 255)
    scores, gallery = copying.copied(made, train, test)
    names = flagged(scores)
    assert names and ("exact_copies" in names) == (noise == 0)
    sample, nearest = gallery.rows[0][1], gallery.rows[1][1]
    assert np.abs(sample[: min(n, copying.SHOWN)].astype(int) - nearest[: min(n, copying.SHOWN)]).mean() <= noise


def test_false_alarms_are_as_rare_as_said(parts):
    train, test, samples = parts
    everything = np.concatenate([train[:], test[:], samples])
    alarms = 0
    for seed in range(40):
        order = FRESH(seed).permutation(len(everything))
        a, b, c = np.split(order[:1400], [800, 1000])
        scores, _ = copying.copied(everything[c], Images(everything, a), Images(everything, b), seed)
        alarms += bool(flagged(scores))
    assert alarms <= 3  # 0.4 expected at one in a hundred


def test_ties_are_split_evenly():
    image = FRESH(0).integers(0, 256, (1, 1, 8, 8), np.uint8)
    same = np.repeat(image, 90, 0)
    same[:60, 0, 0, 0] = np.arange(60)  # all training and test images are as far from the sample
    scores, _ = copying.copied(same[60:], Images(same, np.arange(30)), Images(same, np.arange(30)))
    assert scores[0].value == 0.5 and scores[0].answer == "good"


def test_pictures_are_compared_by_no_more_numbers_than_said():
    for shape in ((2, 3, 64, 64), (2, 1, 28, 28), (2, 3, 33, 100), (2, 1, 128, 128)):
        x = FRESH(0).integers(0, 256, shape, np.uint8)
        y = copying.compared(x)
        assert y.shape[0] == 2 and y.shape[1] <= copying.NUMBERS and y.mean() == pytest.approx(x.mean(), abs=6)
    x = FRESH(1).integers(0, 256, (2, 1, 8, 8), np.uint8)
    assert np.array_equal(copying.compared(x), x.reshape(2, 64))
    assert tensor(x).min() >= -1 and tensor(x).max() <= 1


def test_a_run_is_evaluated_from_every_side(tmp_path):
    run = latente.train("vae", "digits", out=tmp_path / "run", steps=30, size="tiny", threads=1, quiet=True)
    found = run.evaluate()
    assert {finding.question for finding in found.findings} == {"predicts", "faithful", "varied", "copied", "useful"}
    for score in found:
        assert score.references and score.better in ("higher", "lower") and score.unit
        assert score.ci is None or score.ci[0] <= score.value <= score.ci[1]
    assert found["frechet_distance"].value > 3 * found["frechet_distance"].references["real against real"]
    again = run.evaluate()
    assert [score.to_json() for score in again] == [score.to_json() for score in found]
    titles = [gallery.title for gallery in found.galleries]
    assert titles == ["Samples beside real images", "Most like a copy", "Costliest images", "Cheapest images"]
    assert len(found.charts) == 3 and found.made["features_supervised"]


def test_a_run_of_data_in_memory_is_evaluated_when_it_is_given_again(tmp_path):
    images = FRESH(0).integers(0, 256, (60, 1, 8, 8), np.uint8)
    run = latente.train("gan", images, out=tmp_path / "run", steps=4, size="tiny", threads=1, quiet=True)
    with pytest.raises(ValueError, match="give the same"):
        run.evaluate()
    with pytest.raises(ValueError, match="the data has changed"):
        run.evaluate(source=images[:50])
    found = run.evaluate(source=images)
    assert found.notes and "too few" in found.notes[0] and found["near_copies"].answer == "unsure"
    assert latente.report(run, source=images).read_text().count("not measured") >= 2
