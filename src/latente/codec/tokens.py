"""Text without loss: each token is coded with what a language model expects of it after those before it.

    tokens (N,), cut into S streams of L, side by side -> a token of every stream at a time --chances--> a range coder -> bytes

The decoder makes the same passes over the same shapes as the encoder, token by token. Floating-point networks differ between
machines all the same, so whoever decodes compares `fingerprint` first. When a stream fills the context its older half is
forgotten, as in generation. N tokens, V vocabulary, T context.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latente.codec.coding import Decoder, Encoder

STREAMS = 64  # at most: each begins from nothing
STRETCH = 4  # contexts, at least, of a stream that is not alone
KEPT = 1 / 2  # of the context, when it is full
RARE = 2.0**-24  # the least chance the coder gives
HELD = 1 << 28  # numbers, 1 GiB, that all streams may hold: with more, fewer go side by side
PROBED = 2_000  # tokens of a stream, at most, that a fingerprint is taken of


@dataclass(frozen=True)
class Layout:
    """How tokens are laid side by side; whoever decodes lays them the same way."""

    streams: int
    """at most"""
    stretch: int
    """tokens, at least, of a stream that is not alone"""
    kept: int
    """tokens of a stream that are not forgotten when the context is full"""

    @classmethod
    def of(cls, model: Any) -> Layout:
        context = model.spec.context
        return cls(min(STREAMS, most(model)), STRETCH * context, max(1, int(KEPT * context)))

    def shape(self, n: int) -> tuple[int, int]:
        """Streams that `n` tokens make, a power of two, so that there are few shapes to try; tokens of each, the last having fewer."""
        rows = 1 << max(1, min(self.streams, n // self.stretch)).bit_length() - 1
        return rows, -(-n // rows)

    def probes(self, counts: Sequence[int]) -> list[int]:
        """The largest of some counts of tokens for each number of streams that they make: what is to be tried before they are decoded."""
        return sorted({self.shape(n)[0]: n for n in sorted(counts)}.values())


def encoded(model: Any, layout: Layout, tokens: np.ndarray) -> tuple[bytes, float]:
    """Tokens (N,) int64, by a language model's `logits(tokens, cache)`, and the bits that it expects them to need."""
    coder, total = Encoder(), 0.0
    rows, length = layout.shape(len(tokens))
    known = np.pad(tokens, (0, rows * length - len(tokens))).reshape(rows, length)

    def told(chances: np.ndarray, place: int) -> Tensor:
        nonlocal total
        values = known[: len(chances), place]
        coder.add(values, chances)
        total -= float(np.log2(np.maximum(chances[np.arange(len(values)), values], RARE)).sum())
        return torch.from_numpy(values)

    _pass(model, layout.kept, len(tokens), (rows, length), told)
    return coder.finish(), total


def decoded(model: Any, layout: Layout, coded: bytes, n: int) -> np.ndarray:
    """The `n` tokens, int64."""
    coder = Decoder(coded)

    def taken(chances: np.ndarray, place: int) -> Tensor:
        return torch.from_numpy(coder.take(chances)).long()

    return _pass(model, layout.kept, n, layout.shape(n), taken)


def fingerprint(model: Any, layout: Layout, probes: Sequence[int]) -> str:
    """A hash of what the model makes on this machine of tokens drawn at random, in the shapes that `probes` tokens take: of each stream
    one context, or `PROBED` tokens. Machines that differ in it cannot decode each other's files; those that agree do so
    in every shape that was tried, at every length of the context up to there, for these tokens."""
    digest, random = hashlib.blake2b(digest_size=8), np.random.default_rng(0)

    def drawn(chances: np.ndarray, place: int) -> Tensor:
        digest.update(chances.tobytes())
        return torch.from_numpy(random.integers(0, model.spec.vocabulary, len(chances)))

    for n in probes:
        rows, length = layout.shape(n)
        short = min(length, model.spec.context + 3, PROBED)
        _pass(model, layout.kept, rows * short, (rows, short), drawn)
    return digest.hexdigest()


def held(model: Any) -> int:
    """Numbers that a stream holds, at most: its cache, and the chances of all of its context."""
    return model.cached + model.spec.context * model.spec.vocabulary


def most(model: Any) -> int:
    """Streams that may go side by side."""
    return max(1, HELD // held(model))


@torch.inference_mode()
def _pass(
    model: Any, kept: int, n: int, shape: tuple[int, int], choose: Callable[[np.ndarray, int], Tensor]
) -> np.ndarray:
    """All of the tokens, (n,): `choose` maps the chances of the tokens at a place, float32 (rows,V), to the tokens (rows,)."""
    rows, length = shape
    made = torch.zeros(rows, length, dtype=torch.int64)
    cache, last = model.cache(rows), torch.full((rows, 1), model.spec.start)
    for place in range(length):
        if not cache.room:
            cache, last = model.cache(rows), made[:, max(0, place - kept) : place]
        chances = F.softmax(model.logits(last, cache)[:, -1].float(), 1).numpy()
        here = -(-(n - place) // length)  # the last streams may be shorter
        made[:here, place] = choose(chances[:here], place)
        last = made[:, place : place + 1]
    return made.flatten()[:n].numpy()
