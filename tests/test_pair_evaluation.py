"""What models of pairs are measured by: edits, errors by token and sequence, simpler methods beside them."""

import random

import numpy as np
import pytest

from latente.evaluation import pairs


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


def a_measure(made):
    test = np.array([3, 40, 41, 5])
    train = np.setdiff1d(np.arange(42), test)
    held = pairs.held(TEXTS, test, train, np.array([1.0, 2.0, 3.0, 4.0]), np.array([5, 5, 5, 5]), np.array([9.0] * 4))
    assert held.sources == ["word3", "new", "word5"] and held.references[0] == ["wort3", "wort drei"]
    return pairs.evaluated(held, made, lambda texts: list(texts))


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
    wrong = found.galleries[0].rows
    assert [list(texts)[:2] for _, texts in wrong] == [["new", "word5"], ["neu", "wort5"], ["nau", "wort55"]]


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
    assert bars.labels[0].startswith("1 to") and bars.labels[-1].endswith("30")
    assert len(bars.labels) == len(bars.bars["token error rate"]) >= 3
    assert bars.bars["token error rate"][0] == pytest.approx(1 / 5)
    one = pairs._by_length(np.array([0, 4]), np.array([4, 4]))
    assert one.labels == ["4 to 4"] and one.bars["sequence error rate"].tolist() == [0.5]
