"""Text from a language model, token by token: filters, batches of prompts of unequal length, streaming.

    prompts -> one pass over all of them -> draw a token -> one pass over that token -> draw ...

The model gives `logits(tokens, cache)` and `cache(rows, padding)`; what it has read stays in the cache. When a text fills the
context, its window slides: the oldest half is forgotten and the newest half is read again, so every later token is drawn
with between half a context and a whole one before it, and the cost per token stays constant.
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
