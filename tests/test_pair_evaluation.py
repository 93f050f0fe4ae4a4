"""What models of pairs are measured by: edits, errors by token and sequence, simpler methods beside them."""

import json
import random

import numpy as np
import pytest

from latente.evaluation import pairs
from latente.evaluation.findings import Map


def plainly(a, b):
    """Levenshtein's table, cell by cell."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def test_edits_are_levenshteins():
    assert pairs.edits("kitten", "sitting") == 3
    assert pairs.edits("", "abc") == pairs.edits("abc", "") == 3 and pairs.edits([], []) == 0
    assert pairs.edits(["HH", "AH0", "L", "OW1"], ["HH", "EH0", "L", "OW1", "Z"]) == 2
    chance = random.Random(0)
    for _ in range(300):
        a, b = ("".join(chance.choices("abc", k=chance.randrange(9))) for _ in range(2))
        assert pairs.edits(a, b) == plainly(a, b)


TEXTS = {
    "source": [f"word{n}" for n in range(40)] + ["word3", "new"],
    "target": [f"wort{n}" for n in range(40)] + ["wort drei", "neu"],
}


def a_measure(made, confidence=(0.5, 0.5, 0.5)):
    test = np.array([3, 40, 41, 5])
    train = np.setdiff1d(np.arange(42), test)
    held = pairs.held(TEXTS, test, train, np.array([1.0, 2.0, 3.0, 4.0]), np.array([5, 5, 5, 5]), np.array([9.0] * 4))
    assert held.sources == ["word3", "new", "word5"] and held.references[0] == ["wort3", "wort drei"]
    return pairs.evaluated(held, pairs.Written(made, np.array(confidence)), lambda texts: list(texts))


def test_the_nearest_of_several_targets_counts():
    found = a_measure(["wort drei", "neu", "wort5"])
    assert found["token_error_rate"].value == found["sequence_error_rate"].value == 0
    assert found["chrf"].value == pytest.approx(100) and "bleu" not in {score.name for score in found}
    assert any("1 sources have several targets" in note for note in found.notes)
    found = a_measure(["wort drei", "nau", "wort55"])
    assert found["token_error_rate"].value == pytest.approx(2 / (9 + 3 + 5))
    assert found["sequence_error_rate"].value == pytest.approx(2 / 3)
    assert found["nats_per_token"].value == pytest.approx(0.5) and found["nats_per_token"].reference == pytest.approx(
        1.8
    )
    low, high = found["token_error_rate"].ci
    assert low < 2 / 17 < high


def test_the_errors_it_was_surest_of_come_first_and_nothing_of_training_is_shown():
    found = a_measure(["wort drei", "nau", "wort55"], (0.5, 0.2, 0.9))
    wrong, right = found.galleries
    assert [list(texts) for _, texts in wrong.rows] == [["word5", "new"], ["wort5", "neu"], ["wort55", "nau"]]
    assert wrong.captions == ["confidence 90.0%, 1 edit from right", "confidence 20.0%, 1 edit from right"]
    assert not any(wrong.maps) and [texts for _, texts in right.rows] == [["word3"], ["wort drei"], ["wort drei"]]
    shown = found.to_json()["details"]["pairs"]
    assert [(one["shown_as"], one["source"], one["errors"]) for one in json.loads(json.dumps(shown))] == [
        ("surest errors", "word5", 1), ("surest errors", "new", 1), ("right", "word3", 0),
    ]  # fmt: skip


def test_no_pair_is_shown_twice():
    errors, confidence = np.array([0, 1] * 30), np.linspace(0.1, 0.9, 60)
    wrong, right, doubted = pairs._groups(errors, confidence).values()
    assert wrong[0] == 59 and wrong == sorted(wrong, reverse=True) and len(wrong) == 12
    assert right == [0, 2, 4, 6, 8, 10] and doubted == [1, 3, 5, 7, 9, 11]
    few = pairs._groups(np.array([1, 0, 0]), np.array([0.1, 0.9, 0.8]))
    assert list(few.values()) == [[0], [1, 2], []]


def test_maps_stand_below_the_first_errors_that_are_short_enough():
    def looked(source, target):
        size = 40 if source == "long" else 3
        return Map(list(source), list(target), np.full((size, size), 1 / size))

    all_of = [pairs.Pair("long" if n == 1 else f"s{n}", "x", "y", 0.9, 1, 1) for n in range(9)]
    maps = pairs._gallery("surest errors", all_of, looked).maps
    assert [at for at, one in enumerate(maps) if one] == [0, 2, 3, 4, 5, 6] and len(maps) == 9
    assert not pairs._gallery("right", all_of, looked).maps and not any(
        pairs._gallery("surest errors", all_of, None).maps
    )


@pytest.mark.parametrize(("share", "theirs", "free", "answer"), [
    (0.05, 0.9, False, "good"), (0.3, 0.9, False, "unsure"), (0.6, 0.95, False, "bad"), (0.05, 0.01, False, "bad"),
    (0.6, 0.95, True, "good"), (0.6, 0.1, True, "bad"),
])  # fmt: skip
def test_to_be_ahead_of_a_simpler_method_is_not_enough_unless_the_wording_is_free(share, theirs, free, answer):
    score = pairs._sequence_errors(np.arange(1000) < 1000 * share, theirs, free)
    assert score.answer == answer and f"{share:.1%} of the targets are not exactly right" in score.verdict


def test_wording_is_free_where_both_sides_are_sentences():
    def real(source, target):
        return pairs.Held([source], [[target]], [], *[np.zeros(1)] * 3)

    assert pairs._free(real("the cat sat there", "le chat etait assis"))
    assert not pairs._free(real("hello", "HH AH0 L OW1")) and not pairs._free(real("the cat sat there", "chat"))


def test_errors_by_confidence_hold_every_source_once():
    confidence, errors = np.linspace(0.01, 1, 100), np.r_[np.ones(50, int), np.zeros(50, int)]
    bars = pairs._by_confidence(errors, np.full(100, 2), confidence)
    assert bars.labels[0] == "1.0% to 20.0%" and bars.labels[-1] == "81.0% to 100.0%" and len(bars.labels) == 5
    assert bars.bars["sequence error rate"].tolist() == [1, 1, 0.5, 0, 0]
    assert bars.bars["token error rate"].tolist() == [0.5, 0.5, 0.25, 0, 0]


def test_bleu_of_whole_sentences():
    import sacrebleu

    references = [["the cat sat on the mat .", "a cat is on the mat ."], ["there is no dog here today ."]]
    made = ["the cat is on the mat .", "there is no dog today ."]
    scores = {score.name: score.value for score in pairs._overlaps(made, made[:1], references, False)}
    columns = [[several[at] if at < len(several) else None for several in references] for at in range(2)]
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(made, columns).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(made, columns).score)


def test_errors_by_length_hold_every_source_once():
    sizes = np.array([1, 1, 1, 1, 1, 2, 7, 9, 9, 30])
    bars = pairs._by_length(np.array([0, 1, 0, 0, 0, 2, 0, 0, 9, 30]), sizes)
    assert bars.labels[0] == "1" and bars.labels[-1].endswith("30")
    assert len(bars.labels) == len(bars.bars["token error rate"]) >= 3
    assert bars.bars["token error rate"][0] == pytest.approx(1 / 5)
    one = pairs._by_length(np.array([0, 4]), np.array([4, 4]))
    assert one.labels == ["4"] and one.bars["sequence error rate"].tolist() == [0.5]
