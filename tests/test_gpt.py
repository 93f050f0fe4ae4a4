"""The mini-GPT: the function `transformers` computes, causality, the cache, hashed n-grams."""

import math

import pytest
import torch
import torch.nn.functional as F

from latente.models import gpt
from latente.models.gpt import Config, Model
from latente.optim import orthogonal
from latente.rng import keyed
from latente.spec import TextSpec

SPEC = TextSpec(65, 32)
SHAPES = {
    "modern": Config(width=64, heads=4, layers=3),
    "modern, grouped queries": Config(width=64, heads=4, kv_heads=2, layers=3),
    "gpt2": Config(shape="gpt2", width=64, heads=4, layers=3),
    "n-grams": Config(width=64, heads=4, layers=3, ngrams=4, ngram_rows=256),
}


def scrambled(config, spec=SPEC):
    """A model whose every weight is a draw, so that no zero of the initial weights hides a mistake."""
    torch.manual_seed(0)
    model = Model(config, spec).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def model(request):
    return scrambled(request.param)


@pytest.mark.parametrize("name", ["modern", "modern, grouped queries", "gpt2"])
def test_transformers_computes_the_same_logits(name):
    import transformers

    model = scrambled(SHAPES[name])
    architecture, settings, weights = model.export()
    kind = getattr(transformers, architecture)
    theirs = kind(kind.config_class(**settings)).eval()
    theirs.load_state_dict(weights)  # strict: every weight of theirs, and no other
    tokens = torch.randint(65, (3, 32), generator=keyed(1))
    with torch.no_grad():
        ours = model.logits(tokens)
        assert (ours - theirs(tokens).logits).abs().max() <= 1e-4
    assert ours.std() > 0.1


def test_a_model_with_n_grams_says_that_it_cannot_be_exported():
    with pytest.raises(ValueError, match="--ngrams"):
        scrambled(SHAPES["n-grams"]).export()


def test_a_later_token_changes_no_earlier_logit(model):
    tokens = torch.randint(65, (2, 32), generator=keyed(2))
    with torch.no_grad():
        before = model.logits(tokens)
        for place in (1, 9, 31):
            changed = tokens.clone()
            changed[:, place:] = (changed[:, place:] + 1) % 65
            after = model.logits(changed)
            assert torch.allclose(before[:, :place], after[:, :place], atol=1e-6)
            assert not torch.allclose(before[:, place], after[:, place], atol=1e-3)


@torch.no_grad()
def test_cached_logits_are_uncached_ones(model):
    tokens = torch.randint(65, (3, 32), generator=keyed(3))
    whole, cache = model.logits(tokens), model.cache(3)
    parts = [
        model.logits(tokens[:, a:b], cache) for a, b in ((0, 5), (5, 6), (6, 13), *((i, i + 1) for i in range(13, 32)))
    ]
    assert cache.room == 0
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-4)


@torch.no_grad()
def test_padding_on_the_left_changes_nothing(model):
    tokens = torch.randint(65, (3, 20), generator=keyed(4))
    padding = [0, 3, 7]
    rows = [torch.cat([torch.full((n,), 13), row[: 20 - n]]) for n, row in zip(padding, tokens)]
    block, cache = torch.stack(rows), model.cache(3, torch.tensor(padding))
    seen = torch.cat([model.logits(block[:, a:b], cache) for a, b in ((0, 15), (15, 16), (16, 20))], 1)
    for n, row, found in zip(padding, tokens, seen):
        assert torch.allclose(found[n:], model.logits(row[None, : 20 - n])[0], atol=1e-4)


@pytest.mark.parametrize("name", ["modern", "n-grams"])
def test_the_first_loss_is_that_of_guessing(name):
    torch.manual_seed(0)
    model = Model(SHAPES[name], SPEC)
    loss = model(SPEC.example(4, keyed(5)), "main", 0.0).total
    assert loss.item() == pytest.approx(math.log(65), abs=1e-5)
    torch.manual_seed(0)
    textbook = Model(SHAPES["gpt2"], SPEC)(SPEC.example(4, keyed(5)), "main", 0.0).total
    assert textbook.item() == pytest.approx(math.log(65), abs=0.05)


def test_log_prob_is_the_loss_of_every_window(model):
    batch = SPEC.example(4, keyed(6))
    with torch.no_grad():
        total = -model.log_prob(batch).mean() / SPEC.context
        assert total.item() == pytest.approx(model(batch, "main", 0.0).total.item(), rel=1e-5)


@torch.no_grad()
def test_attention_maps_are_the_weights_attention_uses():
    model = scrambled(SHAPES["modern, grouped queries"])
    tokens = torch.randint(65, (2, 12), generator=keyed(7))
    maps = model.attention_maps(tokens)
    assert maps.shape == (3, 2, 4, 12, 12)
    assert torch.allclose(maps.sum(-1), torch.ones(3, 2, 4, 12), atol=1e-5)
    assert maps.triu(1).abs().max() == 0
    attention = model.blocks[0].attention
    x = model.norm(model.norm(model.embedding(tokens)))
    rotation = model.rotation[torch.arange(12)]
    value = attention.heads_of(x, rotation)[2].repeat_interleave(2, 1)
    by_hand = attention.out((maps[0] @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(by_hand, attention(x, rotation, None, None, 0), atol=1e-5)


def test_hand_written_gradients():
    x = torch.randn(5, 10, dtype=torch.float64, generator=keyed(8)).requires_grad_(True)
    assert torch.equal(gpt.SquaredReLU.apply(x), F.relu(x).square())
    assert torch.allclose(gpt.RootMeanSquare.apply(x), F.rms_norm(x, (10,), eps=1e-6))
    assert torch.autograd.gradcheck(gpt.SquaredReLU.apply, x)
    assert torch.autograd.gradcheck(gpt.RootMeanSquare.apply, x)


def test_an_n_gram_has_the_same_row_wherever_it_stands():
    torch.manual_seed(0)
    ngrams = scrambled(SHAPES["n-grams"]).ngrams
    line = torch.tensor([[0, 0, 0, 5, 9, 2, 7, 1, 5, 9, 2, 7]])  # 5 9 2 7 twice, the second time after 1
    found = ngrams(line)[0]
    assert torch.allclose(found[3], found[8])  # after 5 9 2 7 both times
    assert not torch.allclose(found[2], found[7])  # 5 9 2: nothing before it, then 1


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 48), (2, 48, 16)])
def test_orthogonal_brings_singular_values_near_one(shape):
    matrices = torch.randn(shape, generator=keyed(9))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.5 and values.max() < 1.3
    one = orthogonal(matrices[:1])
    assert torch.allclose(one, orthogonal(matrices)[:1], atol=1e-5)  # neighbours do not matter


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"width": 30, "heads": 4}, "--width 30"),
        ({"heads": 4, "kv_heads": 3}, "--kv-heads 3"),
        ({"shape": "gpt2", "ngrams": 2}, "--ngrams"),
        ({"dropout": 1.0}, "--dropout"),
        ({"ngrams": 3, "ngram_rows": 1000}, "--ngram-rows 1000"),
        ({"layers": 0}, "at least 1"),
    ],
)
def test_settings_that_make_no_model_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Config(**settings)
