"""Copied text: what is found to stand in the training text, and that it is said only where held-out text does not repeat as much."""

import itertools
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from latente.data import named
from latente.data.errors import DataError
from latente.evaluation import verbatim
from latente.evaluation.passages import cut
from latente.evaluation.verbatim import copied, longest, p_value, repeated

FRESH = np.random.default_rng


@pytest.fixture(scope="module")
def pool():
    """Passages of a real text in random order: any two sets of them are alike."""
    try:
        text, length = named.shakespeare().read_text(), 256
    except DataError:
        text, length = "\n".join(named.pydoc()), 128
    passages = cut([text], length)
    return passages[FRESH(0).permutation(len(passages))]


@pytest.fixture(scope="module")
def split(pool):
    """1,000 samples that copy nothing, 1,000 held-out passages, and the training text."""
    return pool[:1000], pool[1000:2000], "".join(pool[2000:])


def loops(passage, train, length):
    """The same by plain search: the longest span that stands in `train`, and how many of `length` do."""
    spans = {n: [passage[i : i + n] in train for i in range(len(passage) - n + 1)] for n in range(1, len(passage) + 1)}
    return max((n for n, found in spans.items() if any(found)), default=0), sum(spans.get(length, []))


@pytest.mark.parametrize("letters", ["ab", "abcdefgh", "aé中\U0001f600"])
def test_spans_are_those_that_a_plain_search_finds(letters, monkeypatch):
    monkeypatch.setattr(verbatim, "CHUNK", 64)  # spans lie across chunks
    random = FRESH(len(letters))

    def text(n):
        return "".join(random.choice(list(letters), n))

    train = text(700)
    passages = [text(n) for n in (30, 1, 0, 40, 7)] + [
        train[50:90],
        train[:13],
        "x",
        text(5) + train[120:150],
        train[-20:],
    ]
    lengths, at, place = longest(passages, train)
    counts = repeated(passages, train, 6)
    for i, passage in enumerate(passages):
        span, count = loops(passage, train, 6)
        assert (lengths[i], counts[i, 0], counts[i, 1]) == (span, count, max(0, len(passage) - 5))
        assert passage[at[i] : at[i] + span] == train[place[i] : place[i] + span]
    assert lengths[5] == 40 and lengths[7] == 0


def test_a_training_text_shorter_than_a_span_or_empty():
    assert longest(["abcabc"], "bc")[0].tolist() == [2] and longest(["abc"], "")[0].tolist() == [0]
    assert longest([], "abc")[0].shape == (0,) and repeated(["abcabc"], "bc", 50).tolist() == [[0, 0]]


def test_memory_does_not_grow_with_the_training_text(monkeypatch):
    monkeypatch.setattr(verbatim, "CHUNK", 1 << 16)
    peaks = []
    for size in (300_000, 3_000_000):
        train = "".join(FRESH(1).choice(list("abcdefghij"), size))
        tracemalloc.start()
        repeated([train[1000:1200], train[-200:]], train, 50)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("percent", [1, 5, 20])
def test_planted_copies_are_flagged(split, percent):
    made, held, train = split[0].copy(), *split[1:]
    length, planted = len(made[0]), 10 * percent
    random = FRESH(percent)
    at = random.permutation(1000)[:planted]
    for i, start in zip(at, random.integers(len(train) - length, size=planted)):
        made[i] = train[start : start + length]
    (flag, most, _, spans), gallery = copied(made, held, train)
    assert (flag.name, flag.question, flag.answer) == ("copied_passages", "copied", "bad")
    assert "do not share" in flag.verdict and flag.value == pytest.approx(percent / 100 + flag.reference, abs=0.01)
    assert most.value == length and spans.against("held-out text") == "behind"
    assert spans.value == pytest.approx(percent / 100 + spans.reference, abs=0.01)
    shown = min(planted, verbatim.SHOWN)
    (_, ours), (_, theirs) = gallery.rows
    assert gallery.paired and ours[:shown] == theirs[:shown] and set(ours[:shown]) <= set(made[at])
    assert gallery.captions[0] == f"{length} characters in a row"


def test_fresh_text_is_not_flagged(split):
    (flag, most, mean, spans), _ = copied(*split)
    assert flag.answer == "good" and "been copied, it would have shown" in flag.verdict
    assert flag.value == pytest.approx(flag.reference, abs=0.02)
    assert (
        mean.value == pytest.approx(mean.reference, rel=0.1)
        and spans.value < 0.05
        and most.ci[0] <= most.value == most.ci[1]
    )


def test_false_alarms_are_as_rare_as_they_are_said_to_be(split):
    spans = np.maximum(longest([*split[0], *split[1]], split[2])[0] - verbatim.SPAN + 1, 0)
    found = []
    for seed in range(300):
        random = FRESH(seed)
        some = random.permutation(spans)[:300]
        found.append(p_value(some[:200], some[200:], random, 999))
    assert sum(p <= verbatim.ALPHA for p in found) <= 9  # 3 expected; more than 9 has a chance of one in a thousand
    assert np.mean(np.array(found) <= 0.2) <= 0.26


def test_p_values_are_those_of_all_permutations_ties_counted_against_copying():
    random = FRESH(0)
    for _ in range(5):
        both = random.integers(0, 5, 9)
        sums = [both[list(some)].sum() for some in itertools.combinations(range(9), 4)]
        exact = np.mean(np.array(sums) >= both[:4].sum())
        assert p_value(both[:4], both[4:], random) == pytest.approx(exact, abs=0.02)
    assert p_value(np.full(20, 7), np.full(30, 7), random) == 1


def test_too_little_held_out_text_is_no_pass(split):
    flag = copied(split[0][:50], split[1][:10], split[2])[0][0]
    assert flag.answer == "unsure" and "hold out more" in flag.verdict


def test_odd_samples_have_scores_too():
    train = "das ist das Haus vom Nikolaus. " * 20
    for made in ([""], ["", "Haus"], ["中文没有空格" * 12], ["\ud800"], [train[:60]], [""] * 30):
        scores, gallery = copied(made, ["das ist ein Haus", "vom"], train)
        assert all(np.isfinite(score.value) for score in scores) and scores[0].answer == "unsure"
        assert len(gallery.rows[0][1]) == len(gallery.captions)
    assert copied(["a"], [], train)[0][0].answer == "unsure"


def test_membership_is_the_known_auc_of_lower_losses():
    random = FRESH(0)
    train, held = random.normal(1.2, 0.2, 300), random.normal(1.5, 0.2, 200)
    score = verbatim.membership(train, held)
    known = roc_auc_score(np.arange(500) < 300, -np.concatenate([train, held]))
    assert score.value == pytest.approx(known) and score.question == "copied" and score.answer == "bad"
    alike = verbatim.membership(held[:100], held[100:])
    assert alike.answer == "good" and alike.ci[0] < 0.5 < alike.ci[1] and alike.reference == 0.5
