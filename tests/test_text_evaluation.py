"""Scores of language models: what is counted, in which unit, beside which references; and the n-gram model that is one of them."""

import bz2
import io
import itertools
import json
import lzma
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from latente.evaluation import text
from latente.evaluation.ngram import NGram, best_order
from latente.evaluation.scores import Score, check, table
from latente.reports.comparing import marks

REFERENCES = {"bz2 alone": 2.0, "a 5-gram model": 1.5}


def markov(n, vocabulary=5, seed=0):
    """(n,) tokens of a random chain of order 1, and its transitions (V,V)."""
    generator = np.random.default_rng(seed)
    transitions = generator.dirichlet(np.full(vocabulary, 0.4), size=vocabulary)
    draws, tokens = generator.random(n), np.zeros(n, np.int64)
    edges = transitions.cumsum(1)
    for i in range(1, n):
        tokens[i] = min(np.searchsorted(edges[tokens[i - 1]], draws[i]), vocabulary - 1)
    return tokens, transitions


# the n-gram model


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [1, 2, 7, 500])
def test_probabilities_of_an_ngram_sum_to_one_after_any_context(order, n):
    vocabulary = 6  # the last token never occurs
    model = NGram.fit(np.random.default_rng(n).integers(vocabulary - 1, size=n), vocabulary, order)
    for context in [(), *itertools.product(range(vocabulary), repeat=2), (5,) * 9, tuple(markov(40)[0])]:
        after = [model.nats(np.array([*context, token]))[-1] for token in range(vocabulary)]
        assert np.exp(np.negative(after)).sum() == pytest.approx(1, abs=1e-12)


def test_a_bigram_worked_out_by_hand():
    # 0 1 0: 0 stands after the edge and after 1, 1 after 0, so the unigram counts different predecessors 2 and 1; of
    # these counts one is 1 and one is 2: D = 1/3, so P(0) = (5/3)/3 + (2/9)/2 = 2/3 and P(1) = 1/3.
    # Both bigrams occur once, no count is 2: D = 1/2, so P(1|0) = 1/2 + P(1)/2 = 2/3 and P(0|1) = 1/2 + P(0)/2 = 5/6.
    model = NGram.fit(np.array([0, 1, 0]), 2, order=2)
    assert np.exp(-model.nats(np.array([0, 1, 0, 0]))) == pytest.approx([2 / 3, 2 / 3, 5 / 6, 1 / 3])


def test_discounts_of_chen_and_goodman():
    # counts of counts 8, 4, 2, 1: Y = 8/16, D1 = 1 - 2Y 4/8 = 1/2, D2 = 2 - 3Y 2/4 = 5/4, D3 = 3 - 4Y 1/2 = 2
    counts = [1] * 8 + [2] * 4 + [3] * 2 + [4] + [9]
    tokens = np.repeat(np.arange(16), counts)
    model, n = NGram.fit(tokens, 16, order=1), sum(counts)
    left = (8 * 0.5 + 4 * 1.25 + 4 * 2) / n
    taken = np.array([0.5] * 8 + [1.25] * 4 + [2] * 4)
    expected = (np.array(counts) - taken) / n + left / 16
    assert np.exp(-model.nats(np.arange(16))) == pytest.approx(expected)


def test_an_ngram_agrees_with_dictionaries_and_loops():
    tokens, _ = markov(300, vocabulary=4)
    train, held = tokens[:200], [3, 3, 3, *tokens[200:]]
    model = NGram.fit(train, 4, order=3)
    assert model.nats(np.array(held)) == pytest.approx(
        [-math.log(slow(train, held[:i], 4)[held[i]]) for i in range(103)]
    )


def slow(train, context, vocabulary):
    """P_3(. | context) (V,), as the paper writes it."""
    grams = [{}, {}, {}]
    for k, i in itertools.product((1, 2, 3), range(len(train))):
        if i + k <= len(train):
            gram, before = tuple(train[i : i + k]), train[i - 1] if i else "edge"
            grams[k - 1].setdefault(gram, []).append(before)
    probability = np.full(vocabulary, 1 / vocabulary)
    for k, found in enumerate(grams, 1):
        if len(context) < k - 1:
            break
        counts = {gram: len(before if k == 3 else set(before)) for gram, before in found.items()}
        n = [sum(c == i for c in counts.values()) for i in range(5)]
        plain = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
        discount = {0: 0.0}
        for c in (1, 2, 3):
            exact = c - (c + 1) * plain * n[c + 1] / n[c] if n[c] and n[1] and n[2] else -1
            discount[c] = exact if 0 < exact < c else plain
        head = tuple(context[len(context) - k + 1 :])
        row = np.array([counts.get((*head, token), 0) for token in range(vocabulary)])
        if row.sum():
            taken = np.array([discount[min(c, 3)] for c in row])
            probability = (row - taken + taken.sum() * probability) / row.sum()
    return probability


def test_an_ngram_of_independent_tokens_approaches_their_entropy():
    p = np.array([0.5, 0.25, 0.15, 0.1])
    tokens = np.random.default_rng(0).choice(4, p=p, size=220_000)
    held = tokens[200_000:]
    best_possible = -np.log(p[held]).mean()
    for order in (1, 2, 4):
        assert 0 < NGram.fit(tokens[:200_000], 4, order).nats(held).mean() - best_possible < 0.004
    assert best_order(tokens[:200_000], 4) == 2


def test_the_order_follows_the_source():
    tokens, transitions = markov(60_000)
    assert best_order(tokens, 5) == 2
    after_two = np.cumsum(tokens) % 5  # now two tokens tell the state
    assert best_order(after_two, 5) == 3
    model = NGram.fit(tokens[:50_000], 5)
    true = -np.log(transitions[tokens[49_999:-1], tokens[50_000:]])
    assert model.order == 2 and abs(model.nats(tokens[49_999:])[1:].mean() - true.mean()) < 0.002


def test_tokens_outside_the_vocabulary_are_refused():
    for bad in (np.array([0, 5]), np.array([-1])):
        with pytest.raises(ValueError, match="vocabulary of 5"):
            NGram.fit(bad, 5)
    with pytest.raises(ValueError, match="at least one"):
        NGram.fit(np.array([], np.int64), 5)


# a model's nats


class Causal(torch.nn.Module):
    """Logits from a running mean of embeddings: every token so far matters."""

    def __init__(self, vocabulary=7):
        super().__init__()
        self.embed, self.out = torch.nn.Embedding(vocabulary, 8), torch.nn.Linear(8, vocabulary)

    def forward(self, tokens):
        place = torch.arange(1, tokens.shape[1] + 1)[:, None]
        return self.out(3 * self.embed(tokens).cumsum(1) / place)


def test_a_uniform_model_needs_log_v_everywhere():
    nats = text.token_nats(lambda x: torch.zeros(*x.shape, 65, dtype=torch.bfloat16), np.arange(60), context=16)
    assert nats.shape == (59,) and nats.dtype == np.float64 and nats == pytest.approx(math.log(65), rel=1e-6)


@pytest.mark.parametrize("n", [2, 9, 10, 17, 41, 42])
def test_windows_agree_with_a_plain_loop(n):
    torch.manual_seed(0)
    model, context = Causal(), 8
    tokens = np.random.default_rng(n).integers(7, size=n).astype(np.uint16)
    expected = []
    for i in range(n - 1):
        seen = torch.from_numpy(tokens[i // context * context : i + 1].astype(np.int64))[None]
        expected.append(-model(seen)[0, -1].log_softmax(-1)[int(tokens[i + 1])].item())
    for batch in (1, 2, 32):
        assert text.token_nats(model, tokens, context, batch) == pytest.approx(expected, rel=1e-5)


def test_a_text_with_nothing_to_predict_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        text.token_nats(Causal(), np.array([1]), context=8)


def test_units_follow_from_the_nats():
    nats = np.random.default_rng(0).gamma(2.0, size=1000)
    per_char, bits, perplexity = text.likelihood(nats, 50, 3000, 3300, REFERENCES)
    assert per_char.value == pytest.approx(nats.sum() / 3000)
    assert bits.value == pytest.approx(nats.sum() / math.log(2) / 3300)
    assert perplexity.value == pytest.approx(math.exp(nats.mean()))
    assert bits.references["bz2 alone"] == pytest.approx(2.0 * 3000 / math.log(2) / 3300)
    assert perplexity.references["a 5-gram model"] == pytest.approx(math.exp(1.5 * 3))
    for score in (per_char, bits, perplexity):
        assert score.better == "lower" and score.ci[0] < score.value < score.ci[1]
        assert score.reference_kind == "a 5-gram model"
    assert text.likelihood(nats, 50, 3000, 3300, {})[0].ci == per_char.ci  # the same draws every time
    assert text.likelihood(nats, 1000, 3000, 3300, {})[0].ci is None
    assert text.likelihood(np.full(10, 1e4), 5, 10, 10, {})[2].value == math.inf


def test_the_interval_covers_the_truth_though_passages_differ():
    generator, covered = np.random.default_rng(0), 0
    for _ in range(100):
        passages = np.repeat(generator.normal(2, 0.3, size=60), 100)
        low, high = text.likelihood(passages + generator.normal(0, 1, 6000), 100, 6000, 6000, {})[0].ci
        covered += low <= 2 <= high
    assert 88 <= covered <= 99


# references


def test_references_are_lengths_of_real_files_in_nats_per_character():
    tokens, transitions = markov(30_000, vocabulary=12)
    letters = np.frombuffer(b"abcdefghijkl", np.uint8)[tokens].tobytes()
    train, held = letters[:25_000], letters[25_000:]
    found = text.references(train, held, tokens[:25_000], tokens[25_000:], 12, 5_000)
    kinds = {"bz2 after 25 kB of training text", "xz after 25 kB of training text", "a 2-gram model"}
    assert set(found) <= kinds | {"bz2 alone", "xz alone"} and len(found) == 3
    given = len(bz2.compress(letters, 9)) - len(bz2.compress(train, 9))
    (bz2_nats,) = [value for kind, value in found.items() if kind.startswith("bz2")]
    assert bz2_nats == pytest.approx(8 * math.log(2) * min(given, len(bz2.compress(held, 9))) / 5_000)
    entropy = -np.log(transitions[tokens[24_999:-1], tokens[25_000:]]).mean()
    assert found["a 2-gram model"] == pytest.approx(entropy, abs=0.02) and found["a 2-gram model"] < bz2_nats


def test_training_text_helps_a_compressor_or_is_left_out():
    held = np.random.default_rng(0).integers(256, size=4_000, dtype=np.uint8).tobytes()
    tokens = np.frombuffer(held, np.uint8)
    seen = text.references(held, held, tokens, tokens, 256, 4_000)
    assert seen["xz after 4 kB of training text"] < 0.2
    unseen = text.references(b"", held, tokens, tokens, 256, 4_000)
    strongest = 9 | lzma.PRESET_EXTREME
    assert unseen["xz alone"] == pytest.approx(len(lzma.compress(held, preset=strongest)) * 8 * math.log(2) / 4_000)


def test_the_training_text_read_is_bounded_and_said(monkeypatch):
    monkeypatch.setattr(text, "XZ_TEXT", 2_000)
    monkeypatch.setattr("latente.evaluation.ngram.TOKENS", 3_000)
    tokens, _ = markov(6_000)
    letters = (tokens + 97).astype(np.uint8).tobytes()
    found = text.references(letters[:5_000], letters[5_000:], tokens[:5_000], tokens[5_000:], 5, 1_000)
    assert any(kind.endswith("-gram model of the last 3,000 training tokens") for kind in found)
    assert "xz after 2 kB of training text" in found


@pytest.mark.parametrize(
    "value, said",
    [
        (1.3, "predicts held-out text better than a 5-gram model (1.5) and bz2 alone (2)"),
        (
            1.5,
            "level with a 5-gram model (1.5); predicts held-out text better than bz2 alone (2)",
        ),
        (
            1.8,
            "LOSES to a 5-gram model (1.5) on held-out text: train longer, or a larger size; predicts held-out text b",
        ),
        (math.nan, "LOSES to a 5-gram model (1.5) and bz2 alone (2) on held-out text: train longer"),
    ],
)
def test_the_verdict_says_who_wins(value, said):
    score = Score("nats_per_char", value, (value - 0.1, value + 0.1), "lower", "nats per character", REFERENCES)
    assert text.verdict(score).startswith(said)


# scores


def test_the_reference_is_the_one_hardest_to_beat():
    score = Score("accuracy", 0.8, None, "higher", "share", {"chance": 0.5, "real against real": 0.9})
    assert (score.reference, score.reference_kind) == (0.9, "real against real")
    assert (score.against("chance"), score.against("real against real")) == ("ahead", "behind")
    assert (
        Score("accuracy", 0.8, (0.7, 0.91), "higher", "share", score.references).against("real against real") == "level"
    )
    bare = Score("accuracy", 0.8, None, "higher", "share")
    assert bare.reference is None and bare.reference_kind is None


def test_scores_are_strict_json():
    score = Score("perplexity", np.float64("inf"), (1.0, math.inf), "lower", "tokens", {"bz2 alone": 2.0})
    record = json.loads(json.dumps(score.to_json(), allow_nan=False))
    assert record["value"] is None and record["ci"] == [1.0, None] and record["references"] == {"bz2 alone": 2.0}
    assert record["reference"] == 2.0 and record["reference_kind"] == "bz2 alone" and record["better"] == "lower"


def test_the_table_names_values_units_and_winners():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table([Score("nats_per_char", 1.7, (1.65, 1.75), "lower", "nats per character", REFERENCES)]))
    shown = console.export_text()
    for words in ("1.65 to 1.75", "lower is better", "WORSE than a 5-gram model (1.5)", "better than bz2 alone (2)"):
        assert words in shown


def test_a_figure_that_is_best_near_its_reference_is_never_ahead():
    near, low = (Score("x", value, (value - 1, value + 1), "nearer", "u", {"real text": 10.0}) for value in (9.5, 4.0))
    assert (near.against("real text"), low.against("real text")) == ("level", "behind")
    assert near.reference_kind == "real text" and near.reference == 10.0
    assert marks([near.to_json(), low.to_json()]) == ["best", ""]


def test_conditions():
    scores = [Score("nats_per_char", 1.8, None, "lower", "nats"), Score("judge_auc", math.nan, None, "lower", "AUC")]
    held = {
        "nats_per_char>1.8": False,
        "nats_per_char >= 1.8": True,
        "nats_per_char<1e1": True,
        "nats_per_char<=.5": False,
    }
    assert {condition: check(scores, condition) for condition in held} == held
    for wrong in (
        "nats_per_char",
        "nats_per_char=1.8",
        "nats_per_char>",
        "1.8<nats_per_char",
        "",
        "nats_per_char>1.8x",
    ):
        with pytest.raises(ValueError, match=r"cannot read .* write SCORE>NUMBER"):
            check(scores, wrong)
    with pytest.raises(ValueError, match=r"no score 'fid'.*known: nats_per_char, judge_auc"):
        check(scores, "fid<3")
    with pytest.raises(ValueError, match="not a number"):
        check(scores, "judge_auc>0.8")
