"""Generation: filters by hand, rows that do not depend on each other, sliding windows, streams of characters."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from latente.generation import Sampling, Stream, drawn, generate
from latente.models.gpt import Config, Model
from latente.rng import keyed
from latente.spec import TextSpec

SPEC = TextSpec(29, 16)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = Model(Config(width=32, heads=2, layers=2), SPEC).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def written(model, prompts, tokens=40, sampling=None, seed=0, never=()):
    draws = torch.stack([torch.rand(tokens, generator=keyed(seed, row)) for row in range(len(prompts))])
    steps = list(generate(model, prompts, draws, sampling, never))
    return torch.stack([s.tokens for s in steps], 1), torch.stack([s.log_probs for s in steps], 1)


PROMPTS = [[3], [1, 2, 3, 4, 5], [7] * 9, list(range(25))]


def test_a_row_does_not_depend_on_its_neighbours(model):
    together, _ = written(model, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        draws = torch.rand(40, generator=keyed(0, row))[None]
        alone = torch.stack([step.tokens for step in generate(model, [prompt], draws)], 1)
        assert torch.equal(alone[0], together[row])


@torch.no_grad()
def test_greedy_and_its_log_probabilities_are_those_of_the_whole_text(model):
    """Within the context, by one uncached pass; past it, by the window that the file states."""
    prompt = [1, 2, 3]
    tokens, log_probs = written(model, [prompt], 40, Sampling(temperature=0))
    text = torch.tensor(prompt + tokens[0].tolist())
    start = 0
    for place in range(3, len(text)):
        if place - start > SPEC.context:  # full: the newest half is read again
            start = place - SPEC.context // 2
        logits = model.logits(text[None, start:place])[0, -1]
        assert logits.argmax() == text[place], place
        assert log_probs[0, place - 3].item() == pytest.approx(F.log_softmax(logits, 0)[text[place]].item(), abs=1e-4)
    assert start > 0


@torch.no_grad()
def test_a_prompt_longer_than_the_context_is_read_from_its_end(model):
    long, end = [5] * 30 + list(range(SPEC.context)), list(range(SPEC.context))
    assert torch.equal(written(model, [long])[0], written(model, [end])[0])


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model):
    assert torch.equal(written(model, PROMPTS, seed=1)[0], written(model, PROMPTS, seed=1)[0])
    assert not torch.equal(written(model, PROMPTS, seed=1)[0], written(model, PROMPTS, seed=2)[0])


def test_barred_tokens_never_come(model):
    tokens, _ = written(model, PROMPTS * 5, 60)
    common = int(torch.bincount(tokens.flatten()).argmax())
    assert common not in written(model, PROMPTS * 5, 60, never=(common,))[0]


# ---- filters ---------------------------------------------------------------------------------------------------------

LOGITS = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625]]))


def shares(sampling, seen=None, n=20_000):
    uniform = torch.rand(n, generator=keyed("shares"))
    seen = None if seen is None else seen.expand(n, -1)
    tokens = drawn(LOGITS.expand(n, -1), uniform, sampling, seen)
    return torch.bincount(tokens, minlength=5) / n


def near(found, wanted):
    wanted = torch.tensor(wanted) / sum(wanted)
    assert torch.equal(found == 0, wanted == 0), found
    assert (found - wanted).abs().max() < 0.015, found


def test_what_each_filter_leaves():
    near(shares(Sampling()), [8.0, 4, 2, 1, 1])
    near(shares(Sampling(top_k=2)), [2.0, 1, 0, 0, 0])
    near(shares(Sampling(top_p=0.75)), [2.0, 1, 0, 0, 0])
    near(shares(Sampling(top_p=0.76)), [4.0, 2, 1, 0, 0])
    near(shares(Sampling(min_p=0.2)), [4.0, 2, 1, 0, 0])
    near(shares(Sampling(temperature=0.5)), [64.0, 16, 4, 1, 1])
    near(shares(Sampling(temperature=0)), [1.0, 0, 0, 0, 0])
    near(shares(Sampling(top_k=1, temperature=3)), [1.0, 0, 0, 0, 0])
    near(shares(Sampling(temperature=1e-310)), [1.0, 0, 0, 0, 0])
    near(shares(Sampling(top_p=1e-300)), [1.0, 0, 0, 0, 0])


def test_the_repetition_penalty_lowers_what_was_said():
    seen = torch.tensor([[True, False, False, False, False]])
    penalised = shares(Sampling(repetition_penalty=2.0), seen)
    near(penalised, [4.0, 4, 2, 1, 1])  # log 1/2 is doubled: 1/2 becomes 1/4


@given(st.floats(0, 1, exclude_max=True, width=32), st.integers(1, 5), st.floats(0.01, 1))
def test_every_draw_is_a_token_with_a_chance(uniform, k, p):
    falling = torch.arange(5, 0, -1.0)[None]
    token = drawn(falling, torch.tensor([uniform]), Sampling(top_k=k, top_p=p))
    assert 0 <= int(token) < k


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"temperature": -1}, "--temperature"), ({"top_k": 0}, "--top-k"), ({"top_p": 0.0}, "--top-p"), ({"min_p": 2}, "--min-p"),
     ({"repetition_penalty": 0}, "--repetition-penalty"), ({"temperature": float("nan")}, "--temperature")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Sampling(**settings)


# ---- streams ---------------------------------------------------------------------------------------------------------


def streamed(text, stops=()):
    stream = Stream(lambda byte: bytes([byte]), stops)
    pieces = [stream.push(byte) for byte in text.encode()]
    return pieces, "".join(pieces) + stream.close(), stream.stopped


@given(st.text(max_size=40))
def test_characters_come_whole(text):
    pieces, whole, stopped = streamed(text)
    assert whole == text and not stopped
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string(text, stops):
    _, whole, stopped = streamed(text, stops)
    # The stop string that is complete first ends the text; of two complete at once, the one that began first.
    ends = [(end, text.find(stop, max(0, end - len(stop)), end)) for stop in stops for end in range(1, len(text) + 1)
            if text[:end].endswith(stop)]  # fmt: skip
    assert stopped == bool(ends)
    assert whole == (text[: min(ends)[1]] if ends else text)


def test_nothing_that_may_begin_a_stop_string_is_given_out():
    pieces, whole, _ = streamed("one\n\ntwo", ["\n\nthree"])
    assert pieces[3] == "" and pieces[4] == "" and pieces[5] == "\n\nt"[:0] and whole == "one\n\ntwo"
