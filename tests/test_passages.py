"""Passages that a model wrote: figures against other computations of them, faults they must show, and what the judge reads them with."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from latente.data import named
from latente.evaluation import passages
from latente.evaluation.judge import judged
from latente.evaluation.ngram import NGram
from latente.evaluation.passages import CLASSIFIERS, cut, distinct, divergence, grams, share, surprise, words, written

FRESH = np.random.default_rng
NAMES = ["ngram_divergence", "length_divergence", "distinct_2", "word_validity", "sample_perplexity"]


@pytest.fixture(scope="module")
def pool():
    """Passages of one text in random order: any two sets of them are alike."""
    found = cut(["\n".join(named.pydoc())], 160)
    return found[FRESH(0).permutation(len(found))]


# figures


def test_passages_are_cut_one_after_another():
    assert cut(["abcdefgh", "", "xyz", "0123456"], 3, 1).tolist() == ["bcd", "efg", "123", "456"]
    assert cut(["ab"], 3).shape == (0,) and cut(["ab"], 3).dtype == object


def test_divergence_is_the_square_of_scipys_distance():
    random = FRESH(0)
    a, b = random.poisson(0.5, (20, 30)), random.poisson(0.7, (25, 30))
    assert divergence(a, b) == pytest.approx(jensenshannon(a.sum(0), b.sum(0), base=2) ** 2, abs=1e-12)
    assert (
        divergence(a, a) == pytest.approx(0, abs=1e-12)
        and divergence([[1, 0]] * np.ones((2, 1)), np.array([[0, 3]])) == 1
    )


def test_ngrams_are_counted_as_by_loops():
    kinds = [["abcab", "", "ab"], ["中文\U0001f600中文\U0001f600", "cabca"]]
    known = grams(kinds)
    counted = [Counter(t[i : i + 3] for t in kind for i in range(len(t) - 2)) for kind in kinds]
    every = sorted(set().union(*counted))
    expected = jensenshannon(*[[count[gram] for gram in every] for count in counted], base=2) ** 2
    assert divergence(*known) == pytest.approx(expected, abs=1e-12) and expected < 1
    assert [np.asarray(table.sum(1)).ravel().tolist() for table in known] == [[3, 0, 0], [4, 3]]


def test_words_are_whole_ones_in_any_script():
    assert words("ng -- The king's men, they'Ve come\nhom") == ["the", "king's", "men", "they've", "come"]
    assert words("中文沒有空格,") == list("中文沒有空格")[1:]
    assert words("या हिन्दी में लिखा है") == ["हिन्दी", "में", "लिखा"]  # vowel signs do not part words
    assert words("") == words("word") == []


def test_distinct_pairs_are_counted_as_by_loops():
    parts = [list(FRESH(i).choice(list("abcd"), 12)) for i in range(9)]
    pairs = [pair for part in parts for pair in zip(part, part[1:])]
    assert distinct(parts)[0] == pytest.approx(len(set(pairs)) / len(pairs))


@pytest.mark.parametrize("figure", ["distinct", "share"])
def test_intervals_hold_the_mean_of_other_texts(figure):
    def measured(seed):
        lengths = FRESH(seed).integers(5, 60, 40)
        parts = [list(FRESH(seed * 100 + i).zipf(1.7, n)) for i, n in enumerate(lengths)]
        if figure == "distinct":
            return distinct(parts)
        return share(np.array([(part.count(1), len(part)) for part in parts]), seed)

    found = [measured(seed) for seed in range(150)]
    mean = np.mean([value for value, _ in found])
    assert 0.88 <= np.mean([low <= mean <= high for _, (low, high) in found]) <= 0.99


def test_surprise_is_that_of_each_passage_alone(pool):
    text = "".join(pool[:50])
    known, tokens = np.unique([ord(c) for c in text], return_inverse=True)
    model = NGram.fit(tokens, len(known) + 1, 4)
    some = ["", "a", *pool[60:70], "\U0001f600 is new"]
    for passage, (nats, count) in zip(some, surprise(model, known, some)):
        ids = [int(np.searchsorted(known, ord(c))) if ord(c) in known else len(known) for c in passage]
        alone = model.nats(np.array(ids))[3:] if ids else np.zeros(0)
        assert nats == pytest.approx(alone.sum()) and count == len(alone)


# what they say


def scores(made, pool, n=400):
    real, other, train = pool[:n], pool[n : 2 * n], "".join(pool[2 * n :])
    return {score.name: score for score in written(made, real, other, train)}


def test_real_text_is_as_good_as_real_text(pool):
    found = scores(pool[400:800], pool)
    assert list(found) == NAMES
    for name, score in found.items():
        assert score.ci is not None and score.ci[0] <= score.value <= score.ci[1]
        assert score.value == pytest.approx(score.reference, rel=0.1) and score.verdict
        assert score.answer == (None if "divergence" in name else "good")
    assert found["ngram_divergence"].value == found["ngram_divergence"].reference  # `other` in the place of samples


def mixed(text, seed):
    return "".join(FRESH(seed).permutation(list(text)))


def test_letters_thrown_together_are_no_words(pool):
    found = scores([mixed(text, seed) for seed, text in enumerate(pool[400:800])], pool)
    bad = {name: (score.question, score.answer) for name, score in found.items() if score.answer == "bad"}
    assert bad == {"word_validity": ("faithful", "bad"), "sample_perplexity": ("faithful", "bad")}
    assert "garbled" in found["sample_perplexity"].verdict and "made up" in found["word_validity"].verdict
    assert found["ngram_divergence"].value > 2 * found["ngram_divergence"].reference


def test_text_that_repeats_itself_is_not_varied(pool):
    line = "\n".join(pool[800:804])
    found = scores(cut([line * 150], 160, 7)[:400], pool)
    assert (found["distinct_2"].question, found["distinct_2"].answer) == ("varied", "bad")
    assert found["sample_perplexity"].question == "varied" and found["sample_perplexity"].answer in ("unsure", "bad")
    assert "repeat" in found["distinct_2"].verdict and "duller" in found["sample_perplexity"].verdict
    assert found["word_validity"].answer == "good"


def test_lines_of_the_wrong_length_show(pool):
    found = scores([text.replace("\n", " ", 1) for text in pool[1000:2000]], pool, 1000)
    score = found["length_divergence"]
    assert "lines" in score.unit and score.ci[0] > 2 * score.reference
    flat = [text.replace("\n", " ") for text in pool]
    assert "words" in scores(flat[400:800], np.array(flat, object))["length_divergence"].unit


def test_distinct_pairs_are_of_as_many_words(pool):
    """More text has more words that were there before: 100 samples are not to look more varied than 400 real passages."""
    few = scores(pool[400:500], pool)["distinct_2"]
    assert few.value == pytest.approx(few.reference, rel=0.06)


def test_odd_samples_have_scores_too(pool):
    train = "".join(pool[800:900])
    for made in (
        [""],
        [],
        ["word"] * 3,
        ["", "a b c d"],
        ["没有空格的文字" * 9] * 4,
        ["\ud800 \U0001f600"] * 2,
        ["\n" * 50] * 2,
    ):
        for real in (pool[:20], ["没有空格的别的文字。" * 5] * 3, ["x"]):
            found = written(made, real, pool[20:40], train)
            assert found and all(np.isfinite(score.value) for score in found)
            json.dumps([score.to_json() for score in found])
    (empty,) = written(["", ""], pool[:20], pool[20:40], train)
    assert empty.answer == "bad" and "empty" in empty.verdict


# the judge


def shuffled(text, seed):
    return " ".join(FRESH(seed).permutation(text.split(" ")))


@pytest.fixture(scope="module")
def light():
    """Both classifiers, the Transformer on a fifth of its budget."""
    before, passages.SEEN = passages.SEEN, passages.SEEN // 5
    yield CLASSIFIERS
    passages.SEEN = before


def test_shuffled_words_are_told_apart(pool, light):
    fake = np.array([shuffled(text, seed) for seed, text in enumerate(pool[300:600])], object)
    found = judged(pool[:300], fake, light)
    assert found.verdict == "told apart" and found.classifier in CLASSIFIERS


def test_real_text_is_not_told_apart(pool, light):
    found = judged(pool[:300], pool[300:600], light)
    assert found.verdict == "not told apart" and found.ci[0] < 0.5


def test_ten_percent_of_duplicates_are_told_apart(pool):
    fake = pool[1000:2000].copy()
    fake[:100] = np.repeat(fake[900:910], 10)  # ten passages over and over
    only = {"hashed n-grams": CLASSIFIERS["hashed n-grams"]}
    assert judged(pool[:1000], fake, only).verdict == "told apart"
    assert judged(pool[:1000], pool[1000:2000], only).verdict == "not told apart"


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_learns_by_its_seed_alone(pool, name, light):
    items = np.concatenate(
        [pool[:60], np.array([mixed(t, i) for i, t in enumerate(pool[60:118])] + ["", "é\ud800"], object)]
    )
    fake = np.arange(120) >= 60
    before = torch.get_rng_state()
    scorers = [CLASSIFIERS[name](items, fake, 7) for _ in range(2)]
    one, two = (scorer(items) for scorer in scorers)
    assert torch.equal(torch.get_rng_state(), before) and np.array_equal(one, two) and one.shape == (120,)
    assert one[fake].mean() > one[~fake].mean()
    assert np.allclose(
        CLASSIFIERS[name](items, fake, 7)(items[50:70]), one[50:70], atol=1e-5
    )  # a score is of one passage alone
