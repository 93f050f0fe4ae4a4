"""What a codec's evaluation says: sizes beside the standard codecs', which items cost most."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

import latente
from latente.data.sources import open_source
from latente.evaluation import codecs, costs, rates
from latente.evaluation.rates import Rates
from latente.reports import write

LEVELS = np.array([200.0, 60.0, 20.0])  # squared errors of three qualities


def smooth(n, seed=0, side=16):
    draw = np.random.default_rng(seed)
    wave = np.sin(
        np.arange(side)[None, :, None] * draw.uniform(0.1, 0.6, (n, 1, 1))
        + np.arange(side) * draw.uniform(0.1, 0.6, (n, 1, 1))
    )
    return (127 + 100 * wave).round().astype(np.uint8)[:, None]


def rated(images, size=2.0):
    """A codec of three qualities with `size` bytes at the middle one, more for later images, that gives negatives back."""
    n = len(images)
    bits = 8 * size * np.array([[0.5], [1.0], [1.1]]) * np.linspace(0.5, 1.5, n)
    return Rates(bits, np.repeat(LEVELS[:, None], n, 1), bits[1, :20], lambda at: 255 - images[at])


def test_a_histogram_holds_every_item_and_outliers_do_not_stretch_it():
    many = np.append(np.random.default_rng(0).normal(10, 1, 9_999), 1e6)
    chart = costs.histogram("t", "", "bytes", "images", {"test": many, "training": many[:50]}, {"xz": 12.0})
    assert chart.steps and list(chart.lines) == ["test images", "training images"] and chart.marks == {"xz": 12.0}
    for edges, shares in chart.lines.values():
        assert sum(shares) == pytest.approx(100) and len(edges) == len(shares) + 1 and edges[-1] < 20
    edges, shares = costs.histogram("t", "", "bits", "rows", {"test": np.full(3, 7.0)}, {}).lines["test rows"]
    assert shares[0] == 100 and (np.diff(edges) > 0).all()


def test_cheapest_and_costliest_images_their_bytes_and_names():
    images = smooth(60)
    bits = {"training": np.full(60, 80.0), "test": np.random.default_rng(0).permutation(60) * 8.0}
    names = [f"a/folder/a-very-long-name-of-a-picture-{i:03d}" for i in range(60)]
    chart, (dear, cheap), told = rates.costs(bits, images, names, {"WebP": 30.0})
    for gallery, size in ((dear, 59), (cheap, 0)):
        ((_, shown),) = gallery.rows
        (at,) = np.flatnonzero(bits["test"] == 8 * size)
        assert gallery.paired and len(shown) == len(gallery.captions) == 12 and (shown[0] == images[at]).all()
        assert gallery.captions[0] == f"{size}.0 bytes\n…{names[at][-23:]}"
        assert told[gallery.title.split()[0].lower()][0] == {"image": names[at], "bytes": size}
    assert told["test"] == {
        "items": 60,
        "mean": 29.5,
        "least": 0,
        "5 %": 2.95,
        "median": 29.5,
        "95 %": 56.05,
        "most": 59,
    }
    assert told["training"]["mean"] == 10 and chart.marks == {"WebP": 30.0}


def test_what_comes_out_stands_below_the_original():
    images = smooth(60)
    known = rated(images)
    _, (dear, cheap), told = rates.costs({"test": known.bits[1]}, images, [str(i) for i in range(60)], {}, known)
    decibels = 10 * math.log10(255**2 / 60)
    for gallery, at in ((dear, 59), (cheap, 0)):
        (_, original), (label, made) = gallery.rows
        assert label == "what comes out" and (made == 255 - original).all() and (original[0] == images[at]).all()
        assert gallery.captions[0] == f"{known.bits[1, at] / 8:.1f} bytes\n{decibels:.1f} dB\n{at}"
        assert f"quality 2 of 3, {decibels:.1f} dB over 60 test images" in gallery.note
    assert told["costliest"][0]["psnr"] == pytest.approx(decibels)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_codec_stands_beside_the_standard_ones_at_its_own_quality(channels):
    images = np.repeat(smooth(100), channels, 1)
    at = 10 * math.log10(255**2 / 60)
    for size, answer in ((2.0, "good"), (900.0, "bad")):
        score, chart = rates.beside_codecs(rated(images, size), images)
        assert score.name == "bytes_per_image" and score.value == pytest.approx(size) and score.answer == answer
        assert f"{at:.1f} dB, weights not counted" in score.unit and "weights are not counted" in chart.note
        assert {"JPEG", "WebP"} <= set(chart.lines) - {"this model"}
        sizes, quality = chart.lines["JPEG"]
        assert score.references["JPEG"] == pytest.approx(np.interp(at, quality, sizes))
    low, high = chart.lines["JPEG"][1][[0, -1]]
    assert low < at < high and (np.diff(chart.lines["WebP"][1]) >= 0).all()


@pytest.mark.skipif(not all(map(shutil.which, codecs.PROGRAMS)), reason="cjxl and djxl are not installed")
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_xl_is_a_codec_like_the_others(channels):
    images = np.repeat(smooth(100), channels, 1)
    sizes, quality = codecs.curve("JPEG XL", images)
    at = np.linspace(quality[0], quality[-1], 5)
    others = [np.interp(at, *reversed(codecs.curve(codec, images))) for codec in ("JPEG", "WebP")]
    assert (np.diff(quality) > 0).all() and (np.diff(sizes) > 0).all() and quality[-1] > 35
    assert (np.interp(at, quality, sizes) < np.max(others, 0)).all()


@pytest.mark.parametrize("fails", ["not there", "exits with 1", "writes nothing", "is no program"])
def test_jpeg_xl_is_left_out_where_it_does_not_work(fails, tmp_path, monkeypatch):
    for program in codecs.PROGRAMS * (fails != "not there"):
        (tmp_path / program).write_text(
            {"exits with 1": "#!/bin/sh\nexit 1", "writes nothing": "#!/bin/sh"}.get(fails, "\0")
        )
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert codecs.curve("JPEG XL", smooth(4)) is None
    score, chart = rates.beside_codecs(rated(smooth(20)), smooth(20))
    assert "JPEG XL" not in {**chart.lines, **score.references} and "JPEG" in chart.lines


def reported(run, source=None):
    """What was measured of a run, its page and its metrics."""
    found = run.evaluate(source=source)
    path = write(run, found, ())
    return (
        found,
        path.read_text(encoding="utf-8"),
        json.loads((path.parent / "metrics.json").read_text(encoding="utf-8")),
    )


def test_the_report_of_a_compressor_says_what_it_costs(tmp_path):
    run = latente.train("compressor", "digits", steps=40, size="tiny", out=tmp_path / "run", quiet=True)
    found, page, metrics = reported(run)
    score = next(score for score in metrics["scores"] if score["name"] == "bytes_per_image")
    data = open_source("digits")
    batch = data.batch(data.splits["test"])
    with torch.no_grad():
        bits, errors = run.model.rate(batch, 4)
        made = run.model._filed().shown(run.model.symbols(batch, 4).float(), 4)
    assert score["value"] == pytest.approx(float(bits.mean()) / 8, rel=1e-5) and score["question"] == "predicts"
    assert float(errors.mean()) == pytest.approx(float((made.float() - batch["x"].float()).square().mean()))
    told, at = metrics["details"]["costs"], int(bits.argmax())
    dearest = {"image": data.names(data.splits["test"])[at], "bytes": pytest.approx(float(bits[at]) / 8),
               "psnr": pytest.approx(10 * math.log10(255**2 / float(errors[at])))}  # fmt: skip
    assert told["costliest"][0] == dearest and told["unit"] == "bytes an image"
    assert told["test"]["mean"] == pytest.approx(score["value"]) and told["training"]["items"] == 1_000
    drawn = {chart["title"]: chart for chart in metrics["charts"]}
    assert (
        drawn["Bytes by image"]["marks"] == score["references"] and "this model" in drawn["Size and quality"]["lines"]
    )
    for words in ("Costliest images", "Cheapest images", "what comes out", dearest["image"], "weights are not counted"):
        assert words in page
    gallery = next(gallery for gallery in found.galleries if gallery.title == "Costliest images")
    assert (gallery.rows[1][1][0] == made[at].numpy()).all()  # at the middle quality, not at the best


def test_the_report_of_a_compressor_of_colour_images(tmp_path):
    images = np.stack([smooth(400, seed, 12)[:, 0] for seed in range(3)], 3)
    run = latente.train("compressor", images, steps=20, size="tiny", out=tmp_path / "run", quiet=True)
    _, page, metrics = reported(run, images)
    score = next(score for score in metrics["scores"] if score["name"] == "bytes_per_image")
    drawn = next(chart for chart in metrics["charts"] if chart["title"] == "Size and quality")["lines"]
    there = set(drawn) - {"this model"}
    assert {"JPEG", "WebP"} <= there and set(score["references"]) <= there
    assert ("JPEG XL" in there) == all(map(shutil.which, codecs.PROGRAMS))
    assert "Costliest images" in page and "what comes out" in page and "weights not counted" in page


def test_the_report_of_a_pixel_model_shows_what_surprises_it(tmp_path):
    run = latente.train("pixelcnn", "digits", steps=20, size="tiny", out=tmp_path / "run", quiet=True)
    _, page, metrics = reported(run)
    for words in ("Costliest images", "Cheapest images", "Bytes by image", "Does it predict?"):
        assert words in page
    bits = next(score for score in metrics["scores"] if score["name"] == "bits_per_dim")
    told = metrics["details"]["costs"]
    assert told["test"]["mean"] == pytest.approx(bits["value"] * 64 / 8)
    assert told["costliest"][0]["bytes"] == told["test"]["most"] and "psnr" not in told["costliest"][0]
    marks = next(chart for chart in metrics["charts"] if chart["title"] == "Bytes by image")["marks"]
    assert marks == pytest.approx({kind: value * 64 / 8 for kind, value in bits["references"].items()})
