"""Both models of pairs: causality, padding, the textbook's Transformer with the same weights, and the search for targets."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latente import registry
from latente.generation import Sampling, Search, _repeating, search, targets
from latente.models import seq2seq
from latente.rng import keyed
from latente.spec import PairSpec

SPEC = PairSpec(13, 11, 12, 12, usual_target=6.0)
SHAPES = {
    "modern": ("seq2seq", {}),
    "swiglu": ("seq2seq", {"activation": "swiglu", "tied": False, "decoder_layers": 1}),
    "both ends": ("seq2seq", {"both_ends": True}),
    "textbook": ("seq2seq", {"shape": "textbook"}),
    "textbook, norms before": ("seq2seq", {"shape": "textbook", "norm": "pre"}),
    "rnn": ("attention-rnn", {}),
    "rnn of two layers": ("attention-rnn", {"layers": 2}),
}
every_shape = pytest.mark.parametrize("shape", SHAPES)


def made(shape, spec=SPEC, **config):
    """A model with random weights all over: fresh ones hold zeros, which would hide what a part does."""
    name, own = SHAPES[shape]
    family = registry.load(name)
    model = family.Model(dataclasses.replace(family.Config.preset("tiny", spec), **own, **config), spec).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter += 0.15 * torch.randn(parameter.shape, generator=keyed("weights", number))
    return model


def ragged(n=6, spec=SPEC):
    return spec.example(n, keyed("ragged"))


def cut(row, pad=PairSpec.pad):
    """A row of a batch alone, without its filling."""
    return row[row != pad][None]


@every_shape
def test_a_token_sees_nothing_after_it(shape):
    model, batch = made(shape), ragged()
    target = batch["target"][:, :-1]
    with torch.no_grad():
        before = model.predicted(batch["source"], target)
        for place in range(1, target.shape[1]):
            other = target.clone()
            other[:, place:] = (other[:, place:] + 1) % SPEC.target
            after = model.predicted(batch["source"], other)
            assert torch.allclose(after[:, :place], before[:, :place], atol=1e-5)
            assert not torch.allclose(after[:, place], before[:, place], atol=1e-3)


@every_shape
def test_the_whole_source_is_seen(shape):
    model, batch = made(shape), ragged(1)
    target = batch["target"][:, :2]
    with torch.no_grad():
        before = model.predicted(batch["source"], target)
        for place in range(batch["source"].shape[1]):
            other = batch["source"].clone()
            other[:, place] = (other[:, place] + 1 - SPEC.special) % (SPEC.source - SPEC.special) + SPEC.special
            assert not torch.allclose(model.predicted(other, target), before, atol=1e-5)


@every_shape
def test_filling_changes_nothing(shape):
    model, batch = made(shape), ragged()
    wide = {side: F.pad(tokens, (0, 5), value=SPEC.pad) for side, tokens in batch.items()}
    wide = {"source": wide["source"][:, :12], "target": wide["target"][:, :13]}
    with torch.no_grad():
        together = model.predicted(batch["source"], batch["target"][:, :-1])
        nats = model.log_prob(batch)
        for row in range(len(together)):
            source, target = cut(batch["source"][row]), cut(batch["target"][row])
            alone = model.predicted(source, target[:, :-1])
            assert torch.allclose(alone[0], together[row, : alone.shape[1]], atol=1e-4)
            assert float(model.log_prob({"source": source, "target": target})) == pytest.approx(
                float(nats[row]), abs=1e-4
            )
        assert torch.allclose(model.log_prob(wide), nats, atol=1e-4)


@every_shape
def test_the_likelihood_is_a_distribution(shape):
    """Over all targets of up to two tokens, and those that go on, probabilities sum to 1."""
    spec = PairSpec(6, 5, 4, 4)
    model = made(shape, spec)
    source = torch.tensor([[3, 4, 5, PairSpec.end]])
    total = 0.0
    with torch.no_grad():
        for length in range(3):
            for tokens in itertools.product([t for t in range(5) if t != PairSpec.end], repeat=length):
                logits = model.predicted(source, torch.tensor([[PairSpec.begin, *tokens]])).log_softmax(2)[0]
                ahead = sum(float(logits[at, token]) for at, token in enumerate(tokens))
                total += math.exp(ahead + float(logits[length, PairSpec.end])) if length < 2 else math.exp(ahead)
    assert total == pytest.approx(1, abs=1e-4)


@every_shape
def test_one_token_at_a_time_gives_what_all_at_once_gives(shape):
    model, batch = made(shape), ragged()
    target = batch["target"][:, :-1]
    with torch.no_grad():
        whole = model.predicted(batch["source"], target)
        for pace in (1, 3):
            cache, parts = model.cache(batch["source"]), []
            for start in range(0, target.shape[1], pace):
                parts.append(model.logits(target[:, start : start + pace], cache))
            assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-4)
            assert cache.room == SPEC.reach * SPEC.longest_target - target.shape[1]


@every_shape
def test_attention_maps_are_what_is_looked_at(shape):
    model, batch = made(shape), ragged()
    with torch.no_grad():
        maps = model.attention_maps(batch["source"], batch["target"][:, :-1])
    assert maps.shape[1] == 6 and maps.shape[3:] == (batch["target"].shape[1] - 1, batch["source"].shape[1])
    assert torch.allclose(maps.sum(4), torch.ones(()), atol=1e-5)
    hidden = (batch["source"] == SPEC.pad)[None, :, None, None].expand_as(maps)
    assert (maps[hidden] == 0).all()


# ---- the textbook --------------------------------------------------------------------------------------------------


def attention_of(theirs, ours):
    theirs.in_proj_weight.copy_(torch.cat([p.weight for p in (ours.query, ours.key, ours.value)]))
    theirs.in_proj_bias.copy_(torch.cat([p.bias for p in (ours.query, ours.key, ours.value)]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())


def feedforward_of(theirs, ours):
    theirs.linear1.load_state_dict(ours.widen.state_dict())
    theirs.linear2.load_state_dict(ours.narrow.state_dict())


@torch.no_grad()
def as_torch(model):
    """`torch.nn.Transformer` with the weights of a model of the textbook's shape."""
    c = model.config
    theirs = nn.Transformer(
        c.width, c.heads, c.layers, len(model.decoder), 4 * c.width, 0.0, batch_first=True, norm_first=c.norm == "pre"
    ).eval()
    for layer, block in zip(theirs.encoder.layers, model.encoder):
        attention_of(layer.self_attn, block.attention.part)
        feedforward_of(layer, block.feedforward.part)
        for norm, part in ((layer.norm1, block.attention), (layer.norm2, block.feedforward)):
            norm.load_state_dict(part.norm.state_dict())
    for layer, block in zip(theirs.decoder.layers, model.decoder):
        attention_of(layer.self_attn, block.attention.part)
        attention_of(layer.multihead_attn, block.cross.part)
        feedforward_of(layer, block.feedforward.part)
        norms = ((layer.norm1, block.attention), (layer.norm2, block.cross), (layer.norm3, block.feedforward))
        for norm, part in norms:
            norm.load_state_dict(part.norm.state_dict())
    theirs.encoder.norm.load_state_dict(model.encoder_norm.state_dict())
    theirs.decoder.norm.load_state_dict(model.decoder_norm.state_dict())
    return theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", ["textbook", "textbook, norms before"])
def test_the_textbook_shape_is_torchs_transformer(shape, dtype):
    model, batch = made(shape, decoder_layers=3).to(dtype), ragged()
    theirs, width = as_torch(model).to(dtype), model.config.width
    target = batch["target"][:, :-1]
    place = torch.arange(12)[:, None].float()
    angle = place / 10000 ** (torch.arange(0, width, 2) / width)
    waves = torch.stack([angle.sin(), angle.cos()], 2).reshape(12, width).to(dtype)
    with torch.no_grad():
        source = model.source_embedding(batch["source"]) * width**0.5 + waves[: batch["source"].shape[1]]
        beginnings = model.embedding(target) * width**0.5 + waves[: target.shape[1]]
        hidden = theirs(
            source, beginnings, tgt_mask=torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1),
            src_key_padding_mask=batch["source"] == SPEC.pad, memory_key_padding_mask=batch["source"] == SPEC.pad,
        )  # fmt: skip
        logits = hidden @ model.embedding.weight.T
        ours = model.predicted(batch["source"], target)
    there = batch["target"][:, :-1] != SPEC.pad
    scale = logits[there].abs().max().clamp(min=1) if dtype == torch.float32 else 1.0
    assert ((ours - logits)[there] / scale).abs().max() < 1e-5


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["modern", "rnn"])
def test_label_smoothing_is_torchs_and_figures_are_without_it(shape):
    model, batch = made(shape, label_smoothing=0.2, dropout=0.0), ragged()
    logits = model.predicted(batch["source"], batch["target"][:, :-1]).transpose(1, 2)

    def expected(smoothing):
        each = F.cross_entropy(
            logits, batch["target"][:, 1:], ignore_index=SPEC.pad, reduction="none", label_smoothing=smoothing
        )
        return float(each.sum(1).mean()) / SPEC.usual_target

    training = model.train()(batch, "main", 0.5)
    assert float(training.total) == pytest.approx(expected(0.2), rel=1e-5)
    assert float(training.terms["nats_per_token"]) == pytest.approx(expected(0.0), rel=1e-5)
    assert float(model.eval()(batch, "main", 1.0).total) == pytest.approx(expected(0.0), rel=1e-5)
    assert float(-model.log_prob(batch).mean()) / SPEC.usual_target == pytest.approx(expected(0.0), rel=1e-5)
    told = [cut(row)[0] for row in batch["target"]]
    wrong = sum(int((logits[i, :, : len(row) - 1].argmax(0) != row[1:]).sum()) for i, row in enumerate(told))
    found = model(batch, "main", 1.0).terms["token_error"]
    assert wrong > 0 and float(found) == pytest.approx(wrong / len(told) / SPEC.usual_target, rel=1e-5)


@pytest.mark.parametrize(
    ("masked", "causal", "asks"), [(True, False, 7), (False, True, 7), (False, False, 7), (True, False, 4)]
)
def test_attention_that_trains_in_bfloat16_is_torchs(masked, causal, asks):
    sizes = {"query": asks, "key": 7, "value": 7, "way": asks}
    drawn = [torch.randn(3, 2, size, 8, generator=keyed(name)).bfloat16() for name, size in sizes.items()]
    mask = (torch.arange(7) < torch.tensor([7, 3, 1])[:, None])[:, None, None] if masked else None
    found = []
    for attention in (
        seq2seq.attended,
        lambda q, k, v, mask, causal: F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal),
    ):
        given = [x.clone().requires_grad_() for x in drawn[:3]]
        made = attention(*given, mask, causal)
        made.backward(drawn[3])
        found.append([made, *(x.grad for x in given)])
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, atol=0.03, rtol=0.03)


def test_places_are_counted_from_both_ends():
    model = made("both ends")
    rotation = model._rotation(0, 5)
    there = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    forth, back = model._both_ways(rotation, there).chunk(2, 1)
    assert torch.equal(forth, rotation.expand_as(forth))
    assert torch.equal(back[0], rotation.flip(0).expand_as(back[0]))
    assert torch.equal(back[1, :, :3], rotation[:3].flip(0).expand_as(back[1, :, :3]))


def test_tied_embeddings_are_one():
    one = PairSpec(11, 11, 12, 12, shared=True)
    counts = {}
    for name, spec, tied in (("all", one, True), ("two", SPEC, True), ("none", SPEC, False)):
        model = made("modern", spec, tied=tied)
        counts[name] = len(
            [
                n
                for n, _ in model.named_parameters()
                if n in ("head.weight", "embedding.weight", "source_embedding.weight")
            ]
        )
        assert len(model.state_dict()) == len(dict(model.named_parameters()))  # nothing is saved twice
    assert counts == {"all": 1, "two": 2, "none": 3}
    model = made("modern", tied=True)
    assert model.head is None
    model(ragged(), "main", 0.5).total.backward()
    assert model.embedding.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", ["modern", "textbook", "rnn"])
def test_dropout_draws_only_while_training(shape):
    model, batch = made(shape, dropout=0.5), ragged()
    assert torch.equal(model(batch, "main", 1.0).total, model(batch, "main", 1.0).total)
    model.train()
    assert not torch.equal(model(batch, "main", 0.5).total, model(batch, "main", 0.5).total)


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("seq2seq", {"layers": 0}, "--layers 0"), ("seq2seq", {"width": 30}, "--width 30"), ("seq2seq", {"dropout": 1.0}, "--dropout"),
        ("seq2seq", {"decoder_layers": 0}, "--decoder-layers"), ("seq2seq", {"label_smoothing": -0.1}, "--label-smoothing"),
        ("seq2seq", {"shape": "textbook", "both_ends": True}, "--both-ends"), ("seq2seq", {"heads": 1, "both_ends": True}, "--both-ends"),
        ("attention-rnn", {"width": 0}, "--width"), ("attention-rnn", {"dropout": 1.0}, "--dropout"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(name, config, said):
    with pytest.raises(ValueError, match=said):
        registry.load(name).Config(**config)


def test_sampling_needs_sources():
    with pytest.raises(ValueError, match="condition"):
        made("modern").sample(3, generator=keyed(0))


# ---- targets -------------------------------------------------------------------------------------------------------


def greedily(model, source, most=12):
    """The likeliest token after the other, without a cache."""
    tokens = [SPEC.begin]
    while len(tokens) <= most:
        logits = model.predicted(source, torch.tensor([tokens]))[0, -1]
        logits[[SPEC.pad, SPEC.begin]] = -torch.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] == SPEC.end:
            return tokens[1:-1], True
    return tokens[1:], False


@every_shape
def test_one_beam_is_greedy_cached_or_not_in_a_batch_or_alone(shape):
    model, source = made(shape), ragged()["source"]
    beams = search(model, source, Search(beams=1, length_penalty=1.0))
    cold = targets(model, source, torch.zeros(len(source), 1, 12), Sampling(temperature=0))
    with torch.no_grad():
        for row, ((beam,), (drawn,)) in enumerate(zip(beams, cold)):
            tokens, ended = greedily(model, cut(source[row]))
            assert beam.tokens == drawn.tokens == tokens and beam.ended == drawn.ended == ended
            assert beam.log_prob == pytest.approx(drawn.log_prob, abs=1e-4)


@every_shape
@pytest.mark.parametrize("penalty", (0.0, 0.6, 2.0))
def test_what_is_asked_for_is_the_best_of_a_whole_search_or_better(shape, penalty):
    model, source = made(shape), ragged()["source"].repeat(4, 1)
    how = Search(beams=5, length_penalty=penalty)
    whole = search(model, source, how)
    greedy = [found[0] for found in search(model, source, dataclasses.replace(how, beams=1))]
    for n, known in ((1, None), (2, None), (1, greedy)):
        alike = 0
        for found, all_of_them in zip(search(model, source, how, n=n, known=known), whole):
            for one, other in zip(found, all_of_them[:n], strict=True):
                # Better, as a whole search may be done, with as many as there are beams, before the best one ends.
                assert (one.ended, one.score) > (other.ended, other.score - 1e-4)
                alike += one.tokens == other.tokens
        assert alike >= n * len(whole) * 0.7


@every_shape
def test_log_probabilities_are_the_models(shape):
    model, source = made(shape), ragged()["source"]
    drawn = targets(model, source, torch.rand(6, 2, 12, generator=keyed(1)))
    assert all(len(several) == 2 for several in drawn)
    # Of one target, beams are left as they fall behind; 24 tokens are more than a cache has room for at first.
    several = [search(model, source, Search(beams=3), n=n, most=most) for n in (None, 1) for most in (None, 24)]
    for row, found in enumerate(zip(drawn, *several)):
        for hypothesis in itertools.chain(*found):
            written = torch.tensor([*hypothesis.tokens, *[SPEC.end] * hypothesis.ended])
            before = torch.cat([torch.tensor([SPEC.begin]), written[:-1]])[None]
            with torch.no_grad():
                each = model.predicted(cut(source[row]), before)[0].log_softmax(1)
            expected = float(each[torch.arange(len(written)), written].sum())
            assert hypothesis.log_prob == pytest.approx(expected, abs=1e-3)


@every_shape
def test_as_many_beams_as_there_are_targets_find_the_likeliest(shape):
    spec = PairSpec(6, 6, 4, 4)
    model = made(shape, spec)
    source = torch.tensor([[3, 4, 5, PairSpec.end]])
    (found,) = search(model, source, Search(beams=40, length_penalty=0.0), most=3)
    known = {}
    with torch.no_grad():
        for length in range(3):
            for tokens in itertools.product((3, 4, 5), repeat=length):
                whole = torch.tensor([[PairSpec.begin, *tokens, PairSpec.end]])
                known[tokens] = float(model.log_prob({"source": source, "target": whole}))
    ended = [hypothesis for hypothesis in found if hypothesis.ended]
    assert {tuple(hypothesis.tokens) for hypothesis in ended} == set(known)
    assert [hypothesis.score for hypothesis in ended] == sorted((h.score for h in ended), reverse=True)
    best = max(known, key=lambda tokens: known[tokens])
    assert tuple(ended[0].tokens) == best and ended[0].log_prob == pytest.approx(known[best], abs=1e-3)


@every_shape
def test_a_source_alone_gives_what_it_gives_among_others(shape):
    model, source = made(shape), ragged()["source"]
    how = Search(beams=4)
    together = search(model, source, how)
    greedy = [found[0] for found in search(model, source, dataclasses.replace(how, beams=1))]
    best = search(model, source, how, n=1, known=greedy)
    draws = torch.rand(6, 3, 12, generator=keyed(2))
    drawn = targets(model, source, draws)
    for row in range(len(source)):
        (alone,) = search(model, cut(source[row]), Search(beams=4))
        assert [h.tokens for h in alone] == [h.tokens for h in together[row]]
        ((alone,),) = search(model, cut(source[row]), how, n=1, known=[greedy[row]])
        assert alone.tokens == best[row][0].tokens and alone.score == pytest.approx(best[row][0].score, abs=1e-4)
        (alone,) = targets(model, cut(source[row]), draws[row : row + 1])
        assert [h.tokens for h in alone] == [h.tokens for h in drawn[row]]


class Chain:
    """Stands in for a model: what comes next depends on the token before alone; `chances` of (end, a, b) after each."""

    spec = PairSpec(6, 5, 4, 40)

    def __init__(self, chances):
        self.chances = chances

    def cache(self, source, each=1):
        return SimpleNamespace(room=40, select=lambda rows: None)

    def logits(self, tokens, cache):
        after = torch.tensor([self.chances[{3: "a", 4: "b"}.get(token, "")] for token in tokens[:, 0].tolist()])
        logits = torch.full((len(tokens), 1, 5), -torch.inf)
        logits[:, 0, [PairSpec.end, 3, 4]] = after.log()
        return logits


@pytest.mark.parametrize("penalty", (0.0, 0.6, 2.0))
def test_a_target_said_to_be_surely_the_likeliest_is(penalty):
    random, said = np.random.default_rng(0), {1: 0, 2: 0, 30: 0}
    for _ in range(40):
        chances = {before: random.dirichlet((0.3,) * 3).tolist() for before in ("", "a", "b")}
        scores = {}
        for tokens in itertools.chain.from_iterable(itertools.product("ab", repeat=length) for length in range(5)):
            path = ["", *tokens]
            steps = [chances[was][1 + "ab".index(now)] for was, now in zip(path, tokens)] + [chances[path[-1]][0]]
            scores[tuple({"a": 3, "b": 4}[token] for token in tokens)] = Search(length_penalty=penalty).score(
                sum(math.log(max(step, 1e-30)) for step in steps), len(steps)
            )
        for beams in said:
            how = Search(beams=beams, length_penalty=penalty)
            ((best,),) = search(Chain(chances), torch.tensor([[3, 2]]), how, most=5, n=1)
            if best.sure:
                said[beams] += 1
                assert best.score == pytest.approx(max(scores.values()), abs=1e-4)
                assert scores[tuple(best.tokens)] == pytest.approx(best.score, abs=1e-4)
    assert 5 < said[1] <= said[2] <= said[30] == 40


def test_targets_that_end_count_also_where_they_are_not_the_best():
    """Else a target that never ends, and hardly loses by it, would be gone on with for ever, and win."""
    model = Chain({"": (0.1, 0.6, 0.3), "a": (0.9, 0.1, 0.0), "b": (0.01, 0.0, 0.99)})
    source, how = torch.tensor([[3, 2]]), Search(beams=2, length_penalty=0.6)
    ((greedy,),) = search(model, source, dataclasses.replace(how, beams=1), most=30)
    assert greedy.tokens == [3] and not greedy.sure
    for n, known in ((None, None), (1, None), (1, [greedy])):
        assert search(model, source, how, most=30, n=n, known=known)[0][0].tokens == [3]


def test_a_model_whose_figures_are_no_numbers_gets_a_line():
    model = Chain({"": (float("nan"),) * 3})
    with pytest.raises(ValueError, match="no numbers"):
        search(model, torch.tensor([[3, 2]]), Search(beams=2))


def test_a_length_penalty_makes_targets_longer():
    model, source = made("modern"), ragged(32)["source"]
    lengths = [
        sum(len(several[0].tokens) for several in search(model, source, Search(beams=4, length_penalty=a)))
        for a in (0.0, 1.0, 3.0)
    ]
    assert lengths[0] < lengths[2] and lengths[0] <= lengths[1] <= lengths[2]
    assert Search(length_penalty=0.5).score(-3.0, 7) == pytest.approx(-3.0 / 2**0.5)


@pytest.mark.parametrize("run", [1, 2, 3])
def test_no_run_of_tokens_comes_twice(run):
    model, source = made("modern"), ragged(16)["source"]
    with torch.no_grad():
        model.decoder[0].cross.part.out.weight.mul_(0.1)  # so that it would repeat itself

    def repeats(tokens):
        runs = [tuple(tokens[at : at + run]) for at in range(len(tokens) - run + 1)]
        return len(runs) > len(set(runs))

    free = [h for several in search(model, source, Search(beams=3)) for h in several]
    barred = [h for several in search(model, source, Search(beams=3, no_repeat=run)) for h in several]
    assert not any(repeats(h.tokens) for h in barred)
    assert run > 1 or any(repeats(h.tokens) for h in free)


def test_what_would_repeat():
    written = torch.tensor([[3, 4, 3], [3, 3, 3], [5, 4, 3]])
    assert [row.nonzero()[:, 0].tolist() for row in _repeating(written, 2, 7)] == [[4], [3], []]
    assert [row.nonzero()[:, 0].tolist() for row in _repeating(written, 1, 7)] == [[3, 4], [3], [3, 4, 5]]
    assert not _repeating(written[:, :1], 2, 7).any()


def test_draws_follow_the_models_distribution():
    spec = PairSpec(6, 6, 4, 2)
    model = made("modern", spec)
    source = torch.tensor([[3, 4, 5, PairSpec.end]])
    draws = torch.rand(1, 4000, 1, generator=keyed(5))
    (found,) = targets(model, source, draws)
    with torch.no_grad():
        logits = model.predicted(source, torch.tensor([[PairSpec.begin]]))[0, 0]
    logits[[PairSpec.pad, PairSpec.begin]] = -torch.inf
    chances = logits.softmax(0)
    for token in (3, 4, 5):
        share = sum(h.tokens == [token] for h in found) / 4000
        assert share == pytest.approx(float(chances[token]), abs=4 * math.sqrt(0.25 / 4000))
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_filters_and_tokens_that_are_never_written():
    model, source = made("modern"), ragged(16)["source"]
    draws = torch.rand(16, 4, 12, generator=keyed(3))
    for how in (Sampling(top_k=2), Sampling(repetition_penalty=2.0), Sampling(top_p=0.5)):
        assert len(targets(model, source, draws, how)) == 16
    banned = [4, 6]
    for found in (targets(model, source, draws, never=banned), search(model, source, Search(), banned)):
        assert not any(token in banned for several in found for h in several for token in h.tokens)
    assert all(len(h.tokens) + h.ended <= 5 for several in search(model, source, Search(), most=5) for h in several)


def test_searches_that_cannot_be():
    for how, said in (
        ({"beams": 0}, "--beams"),
        ({"length_penalty": -1}, "--length-penalty"),
        ({"length_penalty": 500}, "--length-penalty"),
        ({"no_repeat": -1}, "--no-repeat"),
    ):
        with pytest.raises(ValueError, match=said):
            Search(**how)
