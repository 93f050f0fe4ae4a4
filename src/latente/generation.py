"""Text from a model, token by token: filters, batches of unequal length, streaming, and the search for the likeliest target.

    prompts -> one pass over all of them -> draw a token -> one pass over that token -> draw ...
    sources -> one pass over all of them -> draw, or keep the likeliest beams -> one pass over a token of each -> ...

The model gives `logits(tokens, cache)` and `cache(rows, padding)`; what it has read stays in the cache. When a text fills the
context, its window slides: the oldest half is forgotten and the newest half is read again, so every later token is drawn
with between half a context and a whole one before it, and the cost per token stays constant. A model of pairs gives
`cache(source, each)`, which holds what it read of the sources and whose rows can be chosen among, and `logits(tokens, cache)`.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

COLDEST = 1e-6  # temperatures below are 0: float32 could not hold what they make of logits


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. The filters apply in the order of the fields."""

    repetition_penalty: float = 1.0
    """above 1: tokens that the text holds already become less likely (Keskar et al. 2019, arXiv:1909.05858)"""
    temperature: float = 1.0
    """below 1: likelier, plainer text; 0: always the likeliest token"""
    top_k: int | None = None
    """only the k likeliest tokens"""
    top_p: float | None = None
    """only the likeliest tokens that together reach this probability (Holtzman et al. 2019, arXiv:1904.09751)"""
    min_p: float | None = None
    """only tokens at least this share as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082)"""

    def __post_init__(self) -> None:
        for name, value, holds, says in (
            ("repetition-penalty", self.repetition_penalty, lambda v: v > 0, "above 0"),
            ("temperature", self.temperature, lambda v: v >= 0, "at least 0"),
            ("top-k", self.top_k, lambda v: v >= 1, "at least 1"),
            ("top-p", self.top_p, lambda v: 0 < v <= 1, "above 0, at most 1"),
            ("min-p", self.min_p, lambda v: 0 <= v <= 1, "from 0 to 1"),
        ):
            if value is not None and not (holds(value) and value < float("inf")):
                raise ValueError(f"--{name} {value}: {says}")


class Step(NamedTuple):
    """One token for every prompt, and what the model's own distribution, before any filter, gave it, in nats."""

    tokens: Tensor  # (B,) int64
    log_probs: Tensor  # (B,)


@torch.inference_mode()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    draws: Tensor,
    sampling: Sampling | None = None,
    never: Sequence[int] = (),
) -> Iterator[Step]:
    """Continues each of B prompts (at least one token each) by N tokens, one `Step` at a time.

    `draws` (B,N) uniform in [0,1) decide the tokens: a row's text depends on its own draws alone, not on its neighbours.
    A prompt longer than the context is read from its last `context` tokens; the tokens `never` are not drawn.
    """
    sampling = sampling or Sampling()
    device, context = draws.device, model.spec.context
    held = [torch.tensor(list(prompt), device=device) for prompt in prompts]
    assert all(len(prompt) for prompt in held), "a prompt has at least one token"
    seen = _seen(held, model.spec.vocabulary) if sampling.repetition_penalty != 1 else None
    cache, logits = _read(model, [prompt[-context:] for prompt in held])
    barred = torch.tensor(list(never), dtype=torch.int64, device=device)
    new = torch.empty(draws.shape, dtype=torch.int64, device=device)
    for place, uniform in enumerate(draws.unbind(1)):
        allowed = logits.index_fill(1, barred, -torch.inf) if len(barred) else logits
        tokens = drawn(allowed, uniform, sampling, seen)
        new[:, place] = tokens
        if seen is not None:
            seen[torch.arange(len(tokens), device=device), tokens] = True
        yield Step(tokens, F.log_softmax(logits, 1).gather(1, tokens[:, None])[:, 0])
        if place + 1 == draws.shape[1]:
            return
        if cache.room:
            logits = model.logits(tokens[:, None], cache)[:, -1]
        else:
            windows = [context - empty for empty in _padding(cache, len(held))]
            kept = [max(1, context // 2) if window == context else window + 1 for window in windows]
            cache, logits = _read(model, [torch.cat([p, row[: place + 1]])[-k:] for p, row, k in zip(held, new, kept)])


def _padding(cache: Any, rows: int) -> list[int]:
    return [0] * rows if cache.padding is None else cache.padding.tolist()


def _read(model: Any, texts: list[Tensor]) -> tuple[Any, Tensor]:
    """A cache that holds the texts, flush right, and the logits (B,V) after each."""
    longest = max(map(len, texts))
    padding = torch.tensor([longest - len(text) for text in texts], device=texts[0].device)
    cache = model.cache(len(texts), padding if padding.any() else None)
    block = torch.stack([F.pad(text, (longest - len(text), 0)) for text in texts])
    return cache, model.logits(block, cache)[:, -1]


def _seen(held: list[Tensor], vocabulary: int) -> Tensor:
    marks = torch.zeros(len(held), vocabulary, dtype=torch.bool, device=held[0].device)
    for row, prompt in zip(marks, held):
        row[prompt] = True
    return marks


def drawn(logits: Tensor, uniform: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """One token a row, (B,): the inverse of the filtered distribution's cumulative sum at `uniform` (B,).

    `logits` (B,V); `seen` (B,V) marks the tokens a repetition penalty bears on.
    """
    if seen is not None:
        lowered = torch.where(logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty)
        logits = torch.where(seen, lowered, logits)
    if sampling.temperature < COLDEST:
        return logits.argmax(1)
    chances = F.softmax(logits if sampling.temperature == 1 else logits / sampling.temperature, 1)
    if sampling.top_k is not None and sampling.top_k < chances.shape[1]:
        kept, places = chances.topk(sampling.top_k, 1)
        chances = torch.zeros_like(chances).scatter(1, places, kept)
    if sampling.top_p is not None and sampling.top_p < 1:
        ranked, order = torch.sort(chances, dim=1, descending=True, stable=True)
        before = ranked.cumsum(1) - ranked
        enough = before < sampling.top_p * ranked.sum(1, keepdim=True)
        enough[:, 0] = True  # however small top_p: float32 may round it to nothing
        chances = torch.zeros_like(chances).scatter(1, order, ranked * enough)
    if sampling.min_p is not None:
        chances = chances * (chances >= sampling.min_p * chances.amax(1, keepdim=True))
    reached = chances.cumsum(1)
    # Rounding can leave the last sum at the target itself; the last token with a chance is then the one.
    target = (uniform[:, None] * reached[:, -1:]).minimum(reached[:, -1:] * (1 - 1e-6))
    return (reached <= target).sum(1)


# ---- targets of sources --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """How the likeliest target of a source is looked for."""

    beams: int = 4
    """how many unfinished targets are kept at each step; 1: the likeliest token is always taken"""
    length_penalty: float = 0.6
    """a: targets of T tokens are ranked by their log-probability over ((5 + T) / 6)^a, so that longer ones stand a chance
    (Wu et al. 2016, arXiv:1609.08144); 0: by their log-probability"""
    no_repeat: int = 0
    """no run of this many tokens comes twice in a target; 0: they may"""

    def __post_init__(self) -> None:
        if not 1 <= self.beams <= 1 << 10:
            raise ValueError(f"--beams {self.beams}: from 1 to {1 << 10:,}")
        if not 0 <= self.length_penalty <= 10:
            raise ValueError(f"--length-penalty {self.length_penalty}: from 0 to 10")
        if self.no_repeat < 0:
            raise ValueError(f"--no-repeat {self.no_repeat}: at least 0")

    def score(self, log_prob: Any, tokens: int) -> Any:
        """What a target is ranked by; of many at once where their log-probabilities are a tensor."""
        return log_prob / ((5 + tokens) / 6) ** self.length_penalty


class Hypothesis(NamedTuple):
    """A target, without special tokens."""

    tokens: list[int]
    log_prob: float
    """what the model's own distribution, before any filter, gives it with its end, in nats"""
    score: float
    """what it is ranked by"""
    ended: bool
    """whether its end came, or only that of the room there is"""
    sure: bool = False
    """whether no target that ends is ranked higher: none that was not looked at could be"""


@torch.inference_mode()
def search(
    model: Any, source: Tensor, how: Search, never: Sequence[int] = (), most: int | None = None, n: int | None = None,
    known: Sequence[Hypothesis] | None = None,
) -> list[list[Hypothesis]]:  # fmt: skip
    """For each of the sources (B,S) its `n` best targets by beam search, best first: by default as many as there are beams, or fewer.
    Those that end come before those that only ran out of room.

    A beam that ends among the best `beams` candidates is done; a source is done with as many. What cannot come among the `n` best any
    more, as log-probabilities only fall, is not gone on with; of one target (`n` = 1), that is all that cannot beat the one that is
    `known` of each source. `never` are not written; targets have at most `most` tokens, the end counted (default: as many as the
    longest of training). Raises ValueError where no target has a chance.
    """
    width, device, end = how.beams, source.device, model.spec.end
    n = n or width
    assert known is None or n == 1, "one target is known"
    cache, barred = model.cache(source), _barred(model, never, device)
    done: list[list[Hypothesis]] = [[] for _ in source] if known is None else [[one] for one in known]
    ended = [0] * len(source)
    least = torch.tensor([_least(found, n) for found in done], device=device)  # what has to be beaten
    rival = torch.full_like(least, -torch.inf)  # of all that was left out: the highest log-probability
    room = min(cache.room, most or model.spec.longest_target)
    # A row is a target that is being written: of source going[at], its slot-th best. Rows of a source follow one another.
    going = at = torch.arange(len(source), device=device)
    slot = torch.zeros_like(at)
    log_probs = torch.zeros(len(source), 1, device=device)
    tokens = torch.full((len(source), 1), model.spec.begin, device=device)
    written = torch.empty(len(source), 0, dtype=torch.int64, device=device)
    for place in range(1, room + 1):
        each = F.log_softmax(model.logits(tokens, cache)[:, -1], 1).index_fill(1, barred, -torch.inf)
        if how.no_repeat:
            each = each.masked_fill(_repeating(written, how.no_repeat, each.shape[1]), -torch.inf)
        ahead, vocabulary = each + log_probs[at, slot][:, None], each.shape[1]
        both = ahead.new_full((*log_probs.shape, vocabulary), -torch.inf).index_put_((at, slot), ahead).flatten(1)
        best, places = both.topk(min(2 * width, both.shape[1]), 1)
        if best.shape[1] > width:
            rival[going] = torch.maximum(rival[going], best[:, width])
        row_of = torch.zeros(log_probs.shape, dtype=torch.int64, device=device)
        row_of[at, slot] = torch.arange(len(at), device=device)
        rows, new = row_of.gather(1, places // vocabulary), places % vocabulary
        ends = new == end
        # Only what is worth going on with takes a place, so that places are those of a search that goes on with everything.
        worth = how.score(best, room) > least[going][:, None]
        for which, rank in (ends & worth)[:, :width].nonzero().tolist():
            found = done[number := int(going[which])]
            one = _hypothesis(written[rows[which, rank]].tolist(), float(best[which, rank]), how, ended=True)
            if ended[number] < width and one.score > least[number]:
                found.append(one)
                least[number] = _least(found, n)
            ended[number] += 1
        alive = ends.long().argsort(dim=1, stable=True)[:, :width]  # those that go on, best first
        log_probs = best.masked_fill(ends, -torch.inf).gather(1, alive)
        better = how.score(log_probs, room) > least[going][:, None]  # than what has ended by now
        for which in [which for which, number in enumerate(going.tolist()) if ended[number] >= width]:
            rival[going[which]] = torch.maximum(rival[going[which]], log_probs[which, 0])
            better[which] = False
        at, slot = better.nonzero(as_tuple=True)
        if not len(at):
            break
        chosen, tokens = (each.gather(1, alive)[at, slot] for each in (rows, new))
        tokens = tokens[:, None]
        written = torch.cat([written[chosen], tokens], 1)
        open_, at = at.unique_consecutive(return_inverse=True)
        going, log_probs = going[open_], log_probs[open_][:, : int(slot.max()) + 1]
        if place < room:
            cache.select(chosen)
    for which, number, told in zip(at.tolist(), slot.tolist(), written.tolist()):
        if ended[of := int(going[which])] < width:
            done[of].append(_hypothesis(told, float(log_probs[which, number]), how, ended=False))
            ended[of] += 1
    if not all(done):
        raise ValueError("no target has a chance: what the model gives are no numbers, or no token may be written")
    ranked = [sorted(found, key=lambda one: (not one.ended, -one.score))[:n] for found in done]
    for found, left in zip(ranked, how.score(rival, room).tolist()):
        found[0] = found[0]._replace(sure=found[0].ended and found[0].score >= left)
    return ranked


def _least(found: list[Hypothesis], n: int) -> float:
    """What has to be beaten to come among the `n` best of what is `found`."""
    scores = sorted(one.score for one in found if one.ended)
    return scores[-n] if len(scores) >= n else -torch.inf


def _hypothesis(tokens: list[int], log_prob: float, how: Search, ended: bool) -> Hypothesis:
    return Hypothesis(tokens, log_prob, how.score(log_prob, len(tokens) + ended), ended)


@torch.inference_mode()
def targets(
    model: Any, source: Tensor, draws: Tensor, sampling: Sampling | None = None, never: Sequence[int] = ()
) -> list[list[Hypothesis]]:
    """For each of the sources (B,S) its targets as they are drawn, likeliest first.

    `draws` (B,n,T) uniform in [0,1) decide their tokens, n targets of at most T each: they do not depend on the neighbours.
    """
    sampling = sampling or Sampling()
    rows, each = draws.shape[:2]
    cache, end, device = model.cache(source, each), model.spec.end, source.device
    barred = _barred(model, never, device)
    tokens = torch.full((rows * each, 1), model.spec.begin, device=device)
    seen = None
    if sampling.repetition_penalty != 1:
        seen = torch.zeros(rows * each, model.spec.target, dtype=torch.bool, device=device)
    log_probs, ended = (
        torch.zeros(rows * each, device=device),
        torch.zeros(rows * each, dtype=torch.bool, device=device),
    )
    written = []
    for uniform in draws.flatten(0, 1).unbind(1)[: cache.room]:
        logits = model.logits(tokens, cache)[:, -1]
        new = drawn(logits.index_fill(1, barred, -torch.inf), uniform, sampling, seen)
        step = F.log_softmax(logits, 1).gather(1, new[:, None])[:, 0]
        log_probs = log_probs + step.masked_fill(ended, 0.0)
        if seen is not None:
            seen[torch.arange(len(new), device=device), new] = True
        written.append(new.masked_fill(ended, model.spec.pad))
        ended |= new == end
        tokens = new[:, None]
        if ended.all():
            break
    found = []
    for line, nats, over in zip(torch.stack(written, 1).tolist(), log_probs.tolist(), ended.tolist()):
        told = line[: line.index(end)] if over else line
        found.append(Hypothesis(told, nats, nats, over))
    grouped = [found[at : at + each] for at in range(0, len(found), each)]
    return [sorted(group, key=lambda hypothesis: -hypothesis.score) for group in grouped]


def _barred(model: Any, never: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([model.spec.pad, model.spec.begin, *never], dtype=torch.int64, device=device)


def _repeating(written: Tensor, run: int, vocabulary: int) -> Tensor:
    """Which tokens would make the last `run` tokens of each row (R,T) ones that it holds already: bool (R,V)."""
    marks = torch.zeros(len(written), vocabulary, dtype=torch.bool, device=written.device)
    if written.shape[1] < run:
        return marks
    runs = written.unfold(1, run, 1)
    last = written[:, written.shape[1] - run + 1 :]
    alike = (runs[:, :, :-1] == last[:, None]).all(2)
    row, at = alike.nonzero(as_tuple=True)
    marks[row, runs[row, at, -1]] = True
    return marks


class Stream:
    """Tokens in, text out as soon as it is sure: whole characters, and nothing that may begin a stop string.

    `bytes_of(token)` is what a token stands for. `stopped` tells that a stop string has come; it is not given out.
    """

    def __init__(self, bytes_of: Callable[[int], bytes], stops: Sequence[str] = ()) -> None:
        self._bytes_of, self._stops = bytes_of, [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that the token makes sure."""
        return self._released(self._decoder.decode(self._bytes_of(token)), last=False)

    def close(self) -> str:
        """What was held back, at the end."""
        return self._released(self._decoder.decode(b"", final=True), last=True)

    def _released(self, text: str, last: bool) -> str:
        if self.stopped:
            return ""
        self._waiting += text
        found = [place for stop in self._stops if (place := self._waiting.find(stop)) >= 0]
        if found:
            self.stopped = True
            sure, self._waiting = self._waiting[: min(found)], ""
            return sure
        held = 0 if last else max((_overlap(self._waiting, stop) for stop in self._stops), default=0)
        sure = self._waiting[: len(self._waiting) - held]
        self._waiting = self._waiting[len(sure) :]
        return sure


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
