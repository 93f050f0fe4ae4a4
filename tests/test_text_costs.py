"""What lines cost: the nats of their tokens, over their characters; the ends of that, each line once."""

import math

import numpy as np
import pytest

from latente.evaluation import text_costs
from latente.evaluation.text_costs import FEWEST, LEAST, costs, lines

WORDS = [
    b"",
    b"\n",
    b"a",
    "\u00e9".encode(),
    b"\xe6\x97",
    b"\xa5",
    b"two words ",
    b". \n",
    b"longer than sixteen characters",
]
"""of tokens: the end of a document, two that end lines, two that share a character"""


def made(n, seed=0, chances=(0.01, 0.02, 0.2, 0.2, 0.1, 0.1, 0.25, 0.02, 0.1)):
    """Tokens (n,) and nats (n-1,)."""
    random = np.random.default_rng(seed)
    return random.choice(len(WORDS), n, p=chances), random.gamma(2, 1, n - 1)


def by_hand(tokens, nats):
    """{first token: (bits a character, text)} of whole lines that are long enough."""
    found, start = {}, 0
    for at, token in enumerate(tokens):
        if WORDS[token] and b"\n" not in WORDS[token]:
            continue
        content = b"".join(WORDS[t] for t in tokens[start : at + 1])
        size = sum(byte & 0xC0 != 0x80 for byte in content)
        if start and size >= LEAST:
            found[start] = (sum(nats[start - 1 : at]) / math.log(2) / size, content)
        start = at + 1
    return found


def test_a_line_costs_what_its_tokens_cost():
    tokens, nats = made(3_000)
    expected, context = by_hand(tokens, nats), 10_000  # one window: but for its first eighth all of it counts
    found = lines(tokens.astype(np.uint16), nats, WORDS.__getitem__, context)
    assert found.of == "lines" and len(found.starts) == len(expected) > 50  # fewer than FEWEST: none is left out
    for start, stop, bits in zip(found.starts, found.stops, found.bits):
        assert bits == pytest.approx(expected[start][0])
        assert b"".join(WORDS[t] for t in tokens[start:stop]) == expected[start][1]


def test_lines_are_looked_at_where_enough_was_read_before_them():
    tokens, nats = made(60_000)
    context, skipped = 256, 32
    found = lines(tokens, nats, WORDS.__getitem__, context)
    first, last = (found.starts - 1) % context, (found.stops - 2) % context  # places of what is predicted
    assert (
        len(found.starts) > FEWEST
        and (first >= skipped).all()
        and (last == first + found.stops - found.starts - 1).all()
    )
    every = by_hand(tokens, nats)
    kept = [start for start in every if (start - 1) % context >= skipped]
    assert set(found.starts) <= set(kept) and len(found.starts) > len(kept) / 2


@pytest.mark.parametrize("context", [32, 256])
def test_a_text_that_is_not_in_lines_is_cut_into_passages(context):
    chances = np.array([0, 1e-4, 0.4, 0.2, 0.1, 0.1, 0.1999, 0, 0])
    tokens, nats = made(20_000, chances=chances)
    found = lines(tokens, nats, WORDS.__getitem__, context)
    sizes = found.stops - found.starts
    assert found.of == "passages" and len(found.starts) > 100 and len(set(sizes)) == 1
    assert ((found.starts - 1) % context >= context // 8).all() and ((found.stops - 2) % context >= sizes - 1).all()
    spent = [nats[start - 1 : stop - 1].sum() / math.log(2) for start, stop in zip(found.starts, found.stops)]
    assert found.bits == pytest.approx(np.array(spent) / found.characters)
    if context == 256:
        assert found.characters.mean() == pytest.approx(text_costs.PASSAGE, rel=0.1)


def test_the_ends_are_shown_once_each_and_told():
    text = b"".join(
        b"this very line comes often\n" if i % 3 else b"line %d is a line of its own\n" % i for i in range(900)
    )
    tokens = np.frombuffer(text, np.uint8)
    nats = np.where(np.isin(tokens[1:], list(b"0123456789")), 6.0, 0.5)
    letters = [bytes([byte]) for byte in range(256)]
    parts = {"training": tokens, "test": tokens}, {"training": nats / 2, "test": nats}
    (chart,), (dear, cheap), told = costs(*parts, letters.__getitem__, 256, {"xz alone": 0.4})
    assert chart.title == "Bits by line" and chart.marks == {"xz alone": 0.4} and chart.x == "bits a character"
    assert list(chart.lines) == ["training lines", "test lines"] and "16 characters" in chart.note
    for end, gallery in (("costliest", dear), ("cheapest", cheap)):
        (_, figures), (kind, texts) = gallery.rows
        assert gallery.paired and kind == "line" and texts == [one["text"] for one in told[end]]
        assert figures == [f"{one['bits_per_char']:.2f} bits a character" for one in told[end]]
        assert len(texts) == len(set(texts)) == 12 and gallery.title == f"{end.capitalize()} lines"
    assert cheap.rows[1][1][0] == "this very line comes often" and "often" not in "".join(dear.rows[1][1])
    assert told["cheapest"][0] == {
        "bits_per_char": pytest.approx(0.5 / math.log(2)),
        "characters": 27,
        "text": texts[0],
    }
    assert told["test"]["mean"] == pytest.approx(2 * told["training"]["mean"]) and told["of"] == "lines"


def test_nothing_is_said_of_a_text_too_short_for_a_line():
    tokens = np.array([2, 2, 1, 2, 2, 1])
    assert costs({"test": tokens}, {"test": np.ones(5)}, WORDS.__getitem__, 8, {}) == ([], [], {})
