"""What a codec's evaluation says: sizes beside the standard codecs', which images cost most."""

import math

import numpy as np
import pytest
import torch

import latente
from latente.data.sources import open_source
from latente.evaluation import rates


def smooth(n, seed=0):
    draw = np.random.default_rng(seed)
    wave = np.sin(
        np.arange(16)[None, :, None] * draw.uniform(0.1, 0.6, (n, 1, 1))
        + np.arange(16) * draw.uniform(0.1, 0.6, (n, 1, 1))
    )
    return (127 + 100 * wave).round().astype(np.uint8)[:, None]


def test_cheapest_and_costliest_images_and_their_bits():
    images = smooth(60)
    bits = {"training": np.full(60, 80.0), "test": np.random.default_rng(0).permutation(60) * 8.0}
    chart, gallery = rates.costs(bits, images)
    (_, cheap), (_, dear) = gallery.rows
    assert (cheap[0] == images[bits["test"] == 0]).all() and (dear[0] == images[bits["test"] == 59 * 8]).all()
    shares, sizes = chart.lines["test images"]
    assert sizes[0] == 0 and sizes[-1] == 59 and (np.diff(sizes) >= 0).all() and shares[-1] == 100


@pytest.mark.parametrize("channels", [1, 3])
def test_a_codec_stands_beside_the_standard_ones_at_its_own_quality(channels):
    images = np.repeat(smooth(100), channels, 1)
    errors = np.array([[200.0] * 100, [60.0] * 100, [20.0] * 100])
    at = 10 * math.log10(255**2 / 60)
    for size, answer in ((2.0, "good"), (900.0, "bad")):
        (score,), chart = rates.beside_codecs(
            np.array([[size * 4] * 100, [size * 8] * 100, [size * 9] * 100]), errors, images
        )
        assert score.name == "bytes_per_image" and score.value == size and score.answer == answer
        assert f"{at:.1f} dB" in score.unit and {"JPEG", "WebP"} <= set(chart.lines) - {"this model"}
        sizes, quality = chart.lines["JPEG"]
        assert score.references["JPEG"] == pytest.approx(np.interp(at, quality, sizes))
    low, high = chart.lines["JPEG"][1][[0, -1]]
    assert low < at < high and (np.diff(chart.lines["WebP"][1]) >= 0).all()


def test_the_report_of_a_compressor_says_what_it_costs(tmp_path):
    run = latente.train("compressor", "digits", steps=40, size="tiny", out=tmp_path / "run", quiet=True)
    found = run.evaluate()
    score = found["bytes_per_image"]
    data = open_source("digits")
    batch = data.batch(data.splits["test"])
    with torch.no_grad():
        bits, errors = run.model.rate(batch, 4)
    assert score.value == pytest.approx(float(bits.mean()) / 8, rel=1e-5) and score.question == "predicts"
    made = run.model.coder.shown(run.model.symbols(batch, 4).float(), 4)
    assert float(errors.mean()) == pytest.approx(float((made.float() - batch["x"].float()).square().mean()))
    assert "Size and quality" in [chart.title for chart in found.charts]


def test_the_report_of_a_pixel_model_shows_what_surprises_it(tmp_path):
    run = latente.train("pixelcnn", "digits", steps=20, size="tiny", out=tmp_path / "run", quiet=True)
    page = latente.report(run).read_text(encoding="utf-8")
    for words in ("costliest", "cheapest to describe", "Bytes by image", "Does it predict?"):
        assert words in page
