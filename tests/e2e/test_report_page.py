"""The report in a browser: it fits a phone and a desk, in light and in dark, prints, and asks for nothing but itself."""

import shutil

import numpy as np
import pytest

import latente
from latente.evaluation.findings import Chart, Evaluation, Gallery, Map
from latente.evaluation.scores import Score
from latente.reports import compare, write
from latente.reports.making import facts

sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium (chromium, chromium-browser, google-chrome) is installed"
)

QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
LONG = "a_word_that_goes_on_" * 20
MAPS = [
    Map([f"piece{n}" for n in range(32)], ["a", "b"], np.ones((2, 32)) / 32),
    Map([*"ab", "end"], [*"AB", "end"], np.eye(3)),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of images with words that do not want to wrap, and one that compares it with itself."""
    folder = tmp_path_factory.mktemp("pages")
    run = latente.train("vae", "digits", steps=6, size="tiny", threads=1, quiet=True, out=folder / "run")
    made = run.sample(64)["x"]
    questions = ("faithful", "varied", "copied", "useful", "predicts")
    verdict = "the judge tells the samples from real images (p = 0.0001): train longer, or a larger size"
    scores = [Score(f"score_{q}", 0.5 + i / 20, (0.4, 0.8), "lower", "share of samples", {"real against real": 0.5, "xz alone": 0.9},
                    verdict, q, ("good", "unsure", "bad")[i % 3]) for i, q in enumerate(questions)]  # fmt: skip
    scores.append(Score(LONG, 1.0, None, "lower", LONG, {LONG: 2.0}, LONG))
    galleries = [
        Gallery("Samples", "", [("samples", made), ("real", made)]),
        Gallery("Pairs", "", [("sample", made), ("nearest", made)], True, ["a caption"] * 64),
        Gallery("Texts", "", [("samples", [LONG * 5, "def f():\n    return 1"])]),
        Gallery(
            "Targets", "", [("source", [LONG[:200], "ab"]), ("made", ["x y", "AB"])], True, [LONG[:90]] * 2, maps=MAPS
        ),
    ]
    charts = [
        Chart("Spectrum", "", "x", "y", {"samples": (np.arange(9), np.arange(9.0)), LONG: (np.arange(9), np.ones(9))}),
        Chart("Bits", "", "bits", "%", {"test": (np.arange(9), np.ones(8))}, steps=True, marks={LONG: 3.0, "xz": 20.0}),
    ]
    evaluation = Evaluation(scores, galleries, charts, [LONG], {"hash": "f" * 300})
    report = write(run, evaluation, [("classes", LONG), ("warning", "too few")])
    held = {**evaluation.to_json(), "run": facts(run)}
    return {"report": report, "compare": compare([(run, held)] * 6, folder / "compare.html")}


@pytest.fixture(scope="module")
def browser():
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 740), (1280, 800)])
@pytest.mark.parametrize("which", ["report", "compare"])
def test_a_page_fits_and_asks_for_nothing(browser, pages, which, width, height, scheme):
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(pages[which].as_uri())
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert [url for url in asked if not url.startswith("data:")] == [pages[which].as_uri()] and not said
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")
    if which == "report":
        box = page.locator("#verdict").bounding_box()
        assert box and box["y"] >= 0 and box["y"] + box["height"] <= height
        assert page.locator("img").evaluate_all("all => all.every(image => image.complete && image.naturalWidth > 0)")
        assert page.locator("svg.drawing").count() > 8
        assert page.locator("svg.drawing").evaluate_all(
            "all => all.every(one => one.getBoundingClientRect().width > 150)"
        )
        assert page.locator(".key .upright").evaluate_all(
            "all => all.length === 2 && all.every(one => one.getBoundingClientRect().height > 10)"
        )
        if width == 1280:
            first = page.locator(".card").first.bounding_box()
            assert first and first["y"] + first["height"] <= height
    context.close()


def test_rows_of_pairs_stay_named_when_a_phone_scrolls_them(browser, pages):
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto(pages["report"].as_uri())
    scroll = page.locator(".scroll", has=page.locator(".pairs"))
    assert scroll.evaluate("it => { it.scrollLeft = 300; return it.scrollLeft }") == 300
    for label in page.locator(".pairs th").all():
        there, picture = label.bounding_box(), label.locator("xpath=../td[1]").bounding_box()
        assert there and picture and there["x"] >= 0 and picture["x"] < 0  # the first picture is gone, its label is not
    page.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_tokens_stand_beside_what_they_looked_at(browser, pages, width):
    page = browser.new_page(viewport={"width": width, "height": 740})
    page.goto(pages["report"].as_uri())
    for map in page.locator(".map").all():
        square = map.locator("img").bounding_box()
        across, down = (map.locator(f".{side} span") for side in ("across", "down"))
        cell = square["width"] / across.count()
        assert cell >= 12 and square["height"] / down.count() == pytest.approx(cell, abs=0.1)
        for number, label in enumerate(across.all()):
            box = label.bounding_box()
            assert abs(box["x"] + box["width"] / 2 - (square["x"] + (number + 0.5) * cell)) < 1.5
            assert box["y"] + box["height"] <= square["y"] + 0.5
        for number, label in enumerate(down.all()):
            box = label.bounding_box()
            assert abs(box["y"] + box["height"] / 2 - (square["y"] + (number + 0.5) * cell)) < 1.5
    page.close()


def test_it_prints(browser, pages):
    page = browser.new_page()
    page.goto(pages["report"].as_uri())
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    page.close()
