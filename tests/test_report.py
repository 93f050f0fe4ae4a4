"""The report: what it says is what was measured, nothing of the data runs in it, and it stays small and whole whatever it is given."""

import base64
import io
import json
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import latente
from latente.commands.training import Train
from latente.config import Recipe
from latente.data.sources import OPTIONS
from latente.evaluation.findings import Bars, Chart, Evaluation, Gallery, Map, Matrix, Panels
from latente.evaluation.scores import Score
from latente.flags import flags, parsed
from latente.reports import answers, charts, compare, comparison, curves, glossary, making, pictures, report, write
from latente.reports.comparing import marks as marked
from latente.reports.making import command

EVIL = "<script>alert(1)</script>"
FOUND = Score(
    "judge_auc",
    0.9,
    (0.85, 0.95),
    "lower",
    "0.5 = cannot tell",
    {"real against real": 0.5},
    "told apart",
    "faithful",
    "bad",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return latente.train(
        "vae", "digits", steps=6, size="tiny", threads=1, quiet=True, out=tmp_path_factory.mktemp("runs") / "a run"
    )


class Page(HTMLParser):
    """The tags, attributes and text of a page; raises AssertionError where an element is closed that is not open."""

    EMPTY = ("meta", "link", "img", "br", "wbr", "path", "use")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not (self.open and self.open[-1] == "style"):
            self.text += data


def page(run, evaluation, audit=()):
    return Page(write(run, evaluation, audit).read_text(encoding="utf-8"))


HIDDEN = "a\x00b\x1b[31mc\u202ed\ud800e\n\tf"
PICTURES = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), np.uint8)


@pytest.fixture(scope="module")
def text(run):
    """One page that several tests look at."""
    galleries = [
        Gallery("Samples", "", [("samples", PICTURES), ("hidden", [HIDDEN])]),
        Gallery("Most like a copy", "", [("sample", PICTURES), ("nearest", PICTURES[::-1])], True, ["near"] * 10),
    ]
    return write(run, Evaluation([FOUND], galleries), [("name", HIDDEN)]).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(text):
    return Page(text)


def test_nothing_of_the_data_becomes_markup(run):
    score = Score(f"x{EVIL}", 1.0, None, "lower", EVIL, {EVIL: 0.5, "$\\frac{": 2.0}, EVIL, "faithful", "bad")
    line = (np.arange(3), np.arange(3.0))
    found = page(
        run,
        Evaluation(
            [score],
            [
                Gallery(EVIL, EVIL, [(EVIL, [f"<b>bold</b>{EVIL}"])]),
                Gallery(EVIL, EVIL, [(EVIL, [EVIL]), ("b", [EVIL])], True, [EVIL]),
                Gallery(EVIL, EVIL, [(EVIL, [EVIL])], True, [EVIL], maps=[Map([EVIL], [EVIL], np.ones((1, 1)))]),
                Gallery(EVIL, EVIL, [(f'"{EVIL}', np.zeros((2, 1, 8, 8), np.uint8))], True, [f'"{EVIL}']),
            ],
            [
                Chart(EVIL, EVIL, EVIL, EVIL, {EVIL: line, "$\\frac{": line, "_x": line}, marks={EVIL: 1.0}),
                Bars(EVIL, EVIL, EVIL, [EVIL], {EVIL: np.ones(1)}),
                Matrix(EVIL, EVIL, [EVIL], {EVIL: np.ones((1, 1))}),
                Panels(
                    EVIL,
                    EVIL,
                    [Chart(EVIL, EVIL, EVIL, EVIL, {EVIL: line}), Bars(EVIL, EVIL, EVIL, [EVIL], {EVIL: np.ones(1)})],
                ),
            ],
            [EVIL],
            {EVIL: EVIL},
        ),
        [("classes", EVIL), (EVIL, "1")],
    )
    assert "script" not in found.tags
    assert found.tags.count("b") == 3  # "Next:", the value of one tile, the label of one row that is not paired
    assert found.text.count(EVIL) > 20 and "<b>bold</b>" in found.text
    assert any(name == "alt" and EVIL in value for _, name, value in found.attributes)


def test_what_cannot_be_seen_is_spelled_out(text):
    assert text.count("a\\x00b\\x1b[31mc\\u202ed\\ud800e\n\tf") == 2
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800]", text)


def test_nothing_is_loaded_and_every_image_is_described(whole):
    for tag, name, value in whole.attributes:
        if name in ("src", "href", "xlink:href", "data", "action"):
            assert value.startswith(("data:", "#")), (tag, name, value)
    assert "script" not in whole.tags
    described = [value for tag, name, value in whole.attributes if tag == "img" and name == "alt"]
    assert whole.tags.count("img") == len(described) == 1 + 2 * 10 and all(described)
    assert ("html", "lang", "en") in whole.attributes
    levels = [int(tag[1]) for tag in whole.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    ids = [value for _, name, value in whole.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    headers = whole.tags.count("th")
    assert headers and headers == sum(tag == "th" and name == "scope" for tag, name, _ in whole.attributes)


def pixels(source):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_a_sheet_shows_the_very_pixels(whole):
    sheet = pixels(next(value for tag, name, value in whole.attributes if tag == "img" and name == "src"))
    assert sheet.shape == (17, 8 * 9 - 1, 4)  # eight in a row, a pixel apart
    for number in range(10):
        row, column = divmod(number, 8)
        tile = sheet[row * 9 : row * 9 + 8, column * 9 : column * 9 + 8]
        assert np.array_equal(tile[..., :3].transpose(2, 0, 1), PICTURES[number]) and (tile[..., 3] == 255).all()
    assert not sheet[8, :, 3].any()


def test_a_map_shows_the_very_weights_beside_their_tokens():
    weights = np.array([[0.8, 0.2, 0.0], [0.4, 0.4, 0.2]])
    there = Map(["a", " ", "end"], ["A", "end"], weights)
    rows = [("source", ["a ", "b"]), ("made", ["A", "B" * 300])]
    short, long = (Gallery("", "", [(label, texts[:n]) for label, texts in rows], True, maps=[there]) for n in (1, 2))
    (made,) = pictures.shown([short])
    found = made["rows"][0]["map"]
    assert (found["across"], found["down"], found["turned"]) == (["a", "␣", "end"], ["A", "end"], False)
    assert np.array_equal(pixels(found["src"])[..., 3], np.rint(weights / 0.8 * 255))
    assert (
        made["short"] and not pictures.shown([long])[0]["short"] and pictures.shown([long])[0]["rows"][1]["map"] is None
    )


def test_pairs_stand_in_rows_that_say_what_they_are(text):
    """A row is named before its pictures, and what is one above the other belongs together."""
    table = text[text.index('<table class="pairs">') :]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table[: table.index("</table>")], re.S)
    assert [label for label, _ in rows] == ["sample", "nearest"]
    for order, (label, cells) in zip((PICTURES, PICTURES[::-1]), rows):
        sources = re.findall(r'src="(.*?)" alt="(.*?)"', cells)
        assert len(sources) == 10 and all(alt == f"{label}, {i + 1}" for i, (_, alt) in enumerate(sources))
        for (source, _), image in zip(sources, order):
            assert np.array_equal(pixels(source)[..., :3].transpose(2, 0, 1), image)
    assert table.count(">near</td>") == 10


def test_small_whatever_the_galleries_hold(run):
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (10_000, 1, 28, 28), np.uint8)
    large = random.integers(0, 256, (70, 3, 128, 128), np.uint8)
    texts = ["<&\"'" * 5_000] * 10_000
    galleries = [
        Gallery("a", "", [("samples", grey), ("real", grey)] * 20),
        Gallery("b", "", [("l", large), ("m", large)]),
        Gallery("c", "", [("samples", grey), ("real", grey)], True, ["x"] * 10_000),
        Gallery("d", "", [("l", large), ("m", large)], True),
        Gallery("e", "", [("t", texts), ("u", texts)]),
    ]
    scores = [Score(f"s{i}", i, (i - 1, i + 1), "lower", "u", {"r": 3.0, "s": 9.0}) for i in range(3)]
    path = write(run, Evaluation(scores, galleries), ())
    assert path.stat().st_size < 3_000_000
    assert path.read_text(encoding="utf-8").count("<img") == 40 + 2 + 2 * 12 + 2 * 12


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("scores", [[], [FOUND], [
    Score("a", NAN, (NAN, NAN), "lower", "u", {"r": 1.0}, "v", "useful", "unsure"),
    Score("b", INF, (0.0, INF), "higher", "u", {"s": INF, "t": 2.0}),
    Score("c", 0.0, (0.0, 0.0), "lower", "u", {"zero": 0.0}),
    Score("d", 1e-9, None, "lower", "u", {"r": 1e9}),
]])  # fmt: skip
def test_whole_without_numbers(run, scores):
    nothing = np.full(3, NAN)
    empty = [
        Gallery("a", "", []),
        Gallery("b", "", [("r", np.zeros((0, 1, 8, 8), np.uint8))]),
        Gallery("c", "", [("r", [])], True),
    ]
    figures = [
        Chart("t", "", "x", "y", {"l": (np.arange(3), nothing)}, True),
        Chart("t", "", "x", "y", {}),
        Chart("t", "", "x", "y", {"l": (np.arange(4), nothing)}, steps=True),
        Bars("t", "", "u", ["x"], {"a": np.array([NAN])}),
        Bars("t", "", "u", [], {}),
        Matrix("t", "", [], {"a": np.zeros((0, 0))}),
        Panels("t", "", []),
    ]
    found = page(run, Evaluation(scores, empty, figures))
    assert found.text.count("nothing to show here") == 3
    for score in scores:
        assert score.name in found.text
    strict = json.loads((run.path / "report/metrics.json").read_text(), parse_constant=pytest.fail)
    assert len(strict["scores"]) == len(scores)


def test_lengths_of_bars_are_their_figures():
    bars = Bars("t", "", "u", [f"l{i}" for i in range(60)], {"a": np.arange(60.0), "b": np.full(60, NAN)})
    (made,) = charts.shown([bars])
    assert made["names"] == ["a", "b"] and len(made["rows"]) + made["more"] == 60
    assert [row[1][0][2] for row in made["rows"]] == [
        pytest.approx(100 * i / 59, abs=0.01) for i in range(len(made["rows"]))
    ]
    assert all(row[1][1][2] == 0 for row in made["rows"])
    (made,) = charts.shown([Bars("t", "", "u", ["x"], {"a": np.array([0.5])}, top=1.0)])
    assert made["rows"] == [("x", [("a", 0.5, 50.0)])]


def test_marks_stand_upright_where_they_are_and_are_named():
    bins = np.arange(5.0), np.array([1.0, 2.0, 3.0, 0.0])
    plain, marked = (
        charts.shown([Chart("t", "", "x", "y", {"a": bins}, steps=True, marks=marks)])[0]
        for marks in ({}, {"xz alone": 2.5, EVIL: 9.0, "unknown": NAN})
    )
    upright = [
        re.findall(r'd="M ([\d.]+) [\d.]+ \nL \1 [\d.]+ \n"[^>]*var\(--line', one["drawing"]) for one in (plain, marked)
    ]
    assert not upright[0] and len(upright[1]) == 2 and float(upright[1][0]) < float(upright[1][1])
    assert marked["marks"] == ["xz alone: 2.5", f"{EVIL}: 9", "unknown: no number"] and plain["marks"] == []
    assert "xz alone: 2.5" in marked["drawing"] and EVIL not in marked["drawing"]


def test_a_matrix_is_drawn_square_by_square():
    table = np.array([[1.0, -0.5], [0.0, NAN]])
    (made,) = charts.shown([Matrix("t", "", ["x", "y"], {"m": table, "n": np.zeros((2, 2))})])
    first, second = (drawn for _, drawn in made["tables"])
    assert (
        len(re.findall(r"<path[^>]*fill: var\(--line0\)", first))
        == len(re.findall(r"<path[^>]*fill: var\(--line1\)", first))
        == 1
    )
    assert "opacity: 0.5" in first and "--line" not in second


def test_large_figures_stay_small(run):
    parts = [Bars(f"c{i}", "", "u", ["x" * 40] * 500, {"a": np.ones(500), "b": np.ones(500)}) for i in range(200)]
    parts += [Chart(f"d{i}", "", "x", "y", {"a": (np.arange(99), np.ones(98))}, steps=True) for i in range(200)]
    many = [
        Panels("p", "", parts),
        Matrix("m", "", ["x"] * 500, {"a": np.random.default_rng(0).uniform(-1, 1, (500, 500))}),
    ]
    path = write(run, Evaluation([], (), many), ())
    assert path.stat().st_size < 3_000_000
    assert "340 more that are not drawn" in path.read_text(encoding="utf-8")


def test_without_its_losses_a_run_still_has_a_page(run, tmp_path):
    made = latente.load(run.path)
    made.path = tmp_path
    assert "No losses were recorded" in page(made, Evaluation([])).text


def test_curves_stand_side_by_side():
    lines = [{"step": s, "generator/total": s, "penalty/r1": None, "validation/fd": 9.0} for s in (1, 2, 3)]
    lines += [{"step": 3, "event": "rolled back", "to": 1, "lr_scale": 0.5}, {"step": 2, "generator/total": 1.0}]
    lines += [{"step": s, "validation/judge_auc": 0.9, "validation/distance": 3.0} for s in (2, 4)]
    panels = {panel["title"]: panel for panel in curves.panels(lines)}
    assert {title: panel["roles"] for title, panel in panels.items()} == {
        "judge's guesses: 0.5 = cannot tell": ["validation"], "distance of samples from real": ["validation"],
        "generator total": ["training"], "penalty r1": ["training"], "fd": ["validation"],
    }  # fmt: skip
    assert list(panels)[:2] == ["judge's guesses: 0.5 = cannot tell", "distance of samples from real"]

    def dots(title):
        return len(re.findall(r"<use[^>]*var\(--line1\)", panels[title]["drawing"]))

    assert dots("judge's guesses: 0.5 = cannot tell") == 2 and dots("generator total") == 0  # each look is marked
    lines = [{"step": 1, "main/kl": 1.0}, {"step": 1, "validation/kl": 2.0}]
    assert [(p["title"], p["roles"]) for p in curves.panels(lines)] == [("kl", ["training", "validation"])]


def test_events_are_told():
    assert curves.happened([
        {"step": 1, "main/total": 2.0},
        {"step": 3, "event": "rolled back", "to": 1, "lr_scale": 0.5},
        {"step": 3, "event": "rolled back", "why": "samples collapsed", "to": 2, "lr_scale": 0.5},
        {"step": 3, "event": "end moved", "from": 9, "to": 7},
        {"step": 4, "event": "stopped", "auc": 0.5},
        {"step": 5, "event": "ending", "why": "no longer told apart", "from": 7, "to": 6},
        {"step": 6, "event": "ending", "why": "no longer told apart", "from": 7, "to": 6},
    ]) == [
        (3, "the losses were no longer numbers: back to step 1, at 0.5 times the learning rate"),
        (3, "samples collapsed: back to step 2, at 0.5 times the learning rate"),
        (3, "the end moved from step 9 to 7, to fit the time given"),
        (4, "stopped: auc 0.5"),
        (5, "no longer told apart: it winds up, to step 6"),
        (6, "no longer told apart: it ends here"),
    ]  # fmt: skip


def test_metrics_hold_the_evaluation_and_how_it_was_made(run):
    evaluation = Evaluation([FOUND], notes=["a note"], made={"samples": 10})
    audit = [("images", "1,797"), ("half a surrogate pair", "\ud800")]
    path = write(run, evaluation, audit)
    first, held = path.read_bytes(), json.loads((path.parent / "metrics.json").read_text())
    made = held.pop("run")
    assert (held.pop("audit"), held.pop("events")) == (dict(audit), [])
    assert held.pop("verdict") == answers.verdict(run, evaluation)
    assert held == json.loads(json.dumps(evaluation.to_json()))
    for name in ("config", "recipe", "plan", "seed", "size", "data", "status", "stopped"):
        assert made[name] == json.loads(json.dumps(run.record[name]))
    digest = subprocess.run(["sha256sum", run.path / "weights.safetensors"], capture_output=True, text=True, check=True)
    assert made["weights_sha256"] == digest.stdout.split()[0] and made["weights_sha256"] in first.decode()
    assert write(run, evaluation, audit).read_bytes() == first  # the same bytes again
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "metrics.json"}


def test_report_evaluates_and_writes(run, monkeypatch):
    made, asked = latente.load(run.path), []
    monkeypatch.setattr(
        made, "evaluate", lambda source, seed: asked.append((source, seed)) or Evaluation([FOUND], notes=["a note"])
    )
    found = Page(report(made, seed=3).read_text(encoding="utf-8"))
    assert (
        asked == [(None, 3)] and "a note" in found.text and "1,797" in found.text
    )  # images, of the data's own description
    assert latente.report is report


def test_what_was_not_measured_never_looks_good_or_bad(run):
    good = Score("recall", 0.9, None, "higher", "share", {}, "varied enough", "varied", "good")
    bare = Score("precision", 0.9, None, "higher", "share")  # informs about "faithful" and answers nothing
    cards = answers.cards(run, Evaluation([good, bare]))
    assert [(card["answer"], card["asks"], card["word"]) for card in cards] == [
        ("informs", "Faithful?", "for information"), ("good", "Varied?", "good"), ("none", "Copied?", "not measured"),
        ("none", "Useful?", "not measured"), ("none", "Does it predict?", "not measured"),
    ]  # fmt: skip
    assert cards[1]["rests"] == ["Real items reached"] and not any(card["rests"] for card in cards if card != cards[1])
    assert answers.verdict(run, Evaluation([bare]))["sentence"] == "Too little was measured for a verdict."


def test_every_score_is_explained_in_plain_words():
    room = Path(latente.__file__).parent / "evaluation"
    names = {
        n for file in room.glob("*.py") for n in re.findall(r'\b[sS]core\(\s*"(\w+)"', file.read_text(encoding="utf-8"))
    }
    assert len(names) > 20 and names == set(glossary.READING)
    for title, reading in glossary.READING.values():
        assert len(title) < 27 and reading.endswith(".")
        assert not re.search(r"(?i)\b(auc|fr.chet|jensen|entropy|likelihood|divergence|latent)\b", title + reading)


@pytest.mark.parametrize(("given", "says"), [
    ({"faithful": "good", "copied": "bad"}, "Not to be handed out: some samples repeat the training data."),
    ({"faithful": "bad", "varied": "bad", "copied": "unsure"},
     "Not good enough yet: the samples do not pass for real and leave much of the real data out."),
    ({"faithful": "good", "useful": "unsure"}, "Not sure yet: the samples stand in for real data only in part."),
    ({"faithful": "good", "varied": "good"}, "Good on all that was measured."),
])  # fmt: skip
def test_the_verdict_is_that_of_the_worst_answer(run, given, says):
    scores = [Score(f"s{i}", 1.0, None, "lower", "u", {}, "v", q, a) for i, (q, a) in enumerate(given.items())]
    assert answers.verdict(run, Evaluation(scores))["sentence"] == says


def test_colours_can_be_told_from_their_ground(text):
    """WCAG 2.2 AA: 4.5 : 1 for text, in both modes, on every ground it stands on."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.S)
    )
    assert light.keys() == dark.keys() and len(light) > 15

    def luminance(colour):
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    for mode in (light, dark):
        pairs = [
            (ink, ground) for ink in ("ink", "soft", "link", "good", "unsure", "bad") for ground in ("ground", "raised")
        ]
        pairs += [(ink, f"{answer}-ground") for answer in ("good", "unsure", "bad", "none") for ink in (answer, "ink")]
        for ink, ground in pairs:
            one, other = sorted((luminance(mode[ink]), luminance(mode[ground])))
            assert (other + 0.05) / (one + 0.05) >= 4.5, (ink, ground)


# ---- the command ---------------------------------------------------------------------------------------------------


def again(run):
    """Keyword arguments of `train` that the command of a run stands for."""
    words = shlex.split(command(run)[0])
    assert words[:2] == ["latente", "train"]
    settings = (run.family.Config, Recipe, OPTIONS[run.spec.kind])
    given = vars(parsed(flags(Train, *settings), words[3:], "latente train"))
    return words[2], {name: value for name, value in given.items() if value is not None}


def test_the_command_trains_the_same_weights(tmp_path):
    folder = tmp_path / "it's a $HOME é; ls"
    for kind in ("cats", "dogs"):
        (folder / kind).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(30):
        pixels = random.integers(0, 256, (12, 10), np.uint8)
        Image.fromarray(pixels).save(folder / ("cats", "dogs")[number % 2] / f"{number}.png")
    settings = {"size": "tiny", "threads": 1, "quiet": True, "labels": False, "color": "rgb", "latent_dim": 5}
    first = latente.train("vae", folder, steps=1, out=tmp_path / "zero", **settings)
    made = latente.train(
        "vae", folder, steps=3, seed=7, checkpoint_every=2, out=tmp_path / "one", init=first.path, stop="loss",
        batch_size=8, learning_rate=0.0125, ema=0.5, **settings,
    )  # fmt: skip
    name, given = again(made)
    line = shlex.split(command(made)[0])
    assert str(folder) in line and "--no-labels" in line and "--width" not in line and "--clip" not in line
    assert line[line.index("--init") + 1] == str(first.path) and line[line.index("--stop") + 1] == "loss"
    twin = latente.train(name, **{**given, "quiet": True, "out": tmp_path / "two"})
    for part in ("config", "recipe", "plan", "seed", "size", "init"):
        assert twin.record[part] == made.record[part]
    assert twin.record["data"]["options"] == made.record["data"]["options"]
    weights = [(path / "weights.safetensors").read_bytes() for path in (made.path, twin.path)]
    assert weights[0] == weights[1]
    shown = page(made, Evaluation([FOUND])).text
    assert command(made)[0] in shown


def test_data_in_memory_is_said_to_be_so(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    made = latente.train("gan", images, steps=2, size="tiny", threads=1, quiet=True, out=tmp_path / "run")
    found = page(made, Evaluation([FOUND]))
    assert "latente.train('gan', source, steps=2, size='tiny', seed=0, threads=1)" in found.text
    assert "was in memory" in found.text
    assert "the data has no labels" in found.text and "(gan) makes samples, not predictions" in found.text


def altered(run, plan=(), **record):
    """The run, had its record been another."""
    made = latente.load(run.path)
    made.record = {**run.record, **record, "plan": {**run.record["plan"], **dict(plan)}}
    return made


def test_a_budget_is_asked_for_again_and_is_no_promise(run):
    recipe = {**run.record["recipe"], "accumulate": 2}
    line, notes = command(altered(run, {"stop": "loss"}, budget="90s", recipe=recipe))
    assert "--budget 90s" in line and not re.search("--(steps|accumulate|stop)", line)
    assert any("not the same one" in note for note in notes)
    assert "--stop never" in command(altered(run, {"stop": "never"}, budget="90s"))[0]


def test_a_rule_that_ended_a_run_is_asked_for_again_not_where_it_ended(run, monkeypatch):
    ending = {"step": 40, "event": "ending", "why": "no better", "from": 900, "to": 50}
    monkeypatch.setattr(making, "records", lambda run: [{"step": 1, "main/total": 1.0}, ending])
    line, _ = command(altered(run, {"steps": 50, "stop": "loss", "checkpoint_every": 90}))
    assert "--steps 900" in line and "--stop loss" in line and "--checkpoint-every" not in line


def test_a_run_made_longer_is_trained_in_one_go(run):
    record = {"budget": "1m", "extension": {**run.record["plan"], "steps": 700}}
    line, notes = command(altered(run, {"steps": 700, "stop": "loss"}, **record))
    assert "--steps 700" in line and "--budget" not in line and "--stop loss" in line
    assert any("made longer" in note for note in notes)


# ---- several runs --------------------------------------------------------------------------------------------------


def cell(value, ci=None, better="lower"):
    return {"value": value, "ci": ci, "better": better, "unit": "u"}


@pytest.mark.parametrize(("cells", "marks"), [
    ([cell(1.0), cell(2.0)], ["best", ""]),
    ([cell(1.0, better="higher"), cell(2.0, better="higher")], ["", "best"]),
    ([cell(1.0, [0.5, 1.5]), cell(2.0, [1.4, 2.6]), cell(3.0, [2.5, 3.5])], ["best", "level", ""]),
    ([cell(1.0, [0.9, 1.1]), cell(1.05)], ["best", "level"]),
    ([cell(1.0), cell(1.0), cell(2.0)], ["level", "level", ""]),
    ([cell(None), cell(2.0), None], ["", "", ""]),
    ([cell(1.0), cell(2.0, better="higher")], ["", ""]),
])  # fmt: skip
def test_the_best_is_marked_by_its_direction_and_the_level_by_their_intervals(cells, marks):
    assert marked(cells) == marks


def test_one_page_and_one_table_of_several_runs(run, tmp_path):
    runs = []
    for name, (auc, recall) in {EVIL.replace("/", ""): (0.9, 0.5), "second": (0.6, 0.9)}.items():
        made = latente.load(run.path)
        scores = [
            Score("judge_auc", auc, (auc - 0.01, auc + 0.01), "lower", "u"),
            Score("recall", recall, None, "higher", "share"),
        ]
        write(made, Evaluation(scores), [])
        held = json.loads((made.path / "report/metrics.json").read_text())
        held["run"]["data"] = {**held["run"]["data"], "fingerprint": name}
        made.path = tmp_path / name
        runs.append((made, held))
    found = Page(compare(runs, tmp_path / "new folder/compare.html").read_text(encoding="utf-8"))
    assert "script" not in found.tags and runs[0][0].path.name in found.text
    assert found.text.count("★ best") == 2 and "different data" in found.text
    told = io.StringIO()
    Console(file=told, width=120).print(comparison(runs))
    rows = told.getvalue()
    assert rows.count("best") == 2 and "judge_auc" in rows
    lines = [line.split() for line in rows.splitlines()]
    at = lines.index(["judge_auc", "0.9", "0.6"])
    assert lines[at + 1][1:] == ["0.89", "to", "0.91", "0.59", "to", "0.61"]
    value, mark = (rows.splitlines()[at + down].rstrip() for down in (0, 2))
    assert mark.endswith("best") and len(mark) == len(value)  # in the last column


def test_importing_it_draws_nothing():
    asked = "import sys, latente.reports; print([m for m in ('matplotlib', 'jinja2') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_an_unfinished_run_says_so(run):
    made = altered(run, status="interrupted", stopped="interrupted at step 3")
    assert "not finished (interrupted: interrupted at step 3)" in page(made, Evaluation([FOUND])).text


def test_settings_of_the_page_are_those_of_the_run(run, whole):
    for name in asdict(run.model.config):
        assert name.replace("_", " ") in whole.text


def test_rows_of_a_table_stand_in_a_table_and_what_differs_in_a_pair_is_marked():
    names = [f"c{n}" for n in range(45)]
    real, made = ["x" * 90, "b", *"1" * 43], ["x" * 90, "a", *"1" * 43]
    beside, pairs = pictures.shown(
        [
            Gallery("beside", "", [("real", [real, made]), ("samples", [made])], columns=names),
            Gallery("pairs", "", [("sample", [made]), ("nearest", [real])], True, ["0.1 / 0.2"], names),
        ]
    )
    assert beside["kind"] == "table" and beside["more"] == 5 and len(beside["columns"]) == 40
    assert [[label for label, _ in group["lines"]] for group in beside["rows"]] == [["real", ""], ["samples"]]
    assert not any(differs for group in beside["rows"] for _, cells in group["lines"] for _, differs in cells)
    (pair,) = pairs["rows"]
    assert pair["caption"] == "0.1 / 0.2" and [label for label, _ in pair["lines"]] == ["sample", "nearest"]
    assert [at for at, (_, differs) in enumerate(pair["lines"][0][1]) if differs] == [1]
    assert len(pair["lines"][0][1][0][0]) == 60
