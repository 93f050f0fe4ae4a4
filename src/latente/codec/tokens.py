"""Text without loss: each token is coded with what a language model expects of it after those before it.

    tokens (N,), cut into S streams of L, side by side -> a token of every stream at a time --chances--> a range coder -> bytes

The decoder makes the same passes over the same shapes as the encoder, token by token. Floating-point networks differ between
machines all the same, so whoever decodes compares `fingerprint` first. When a stream fills the context its oldest part is
forgotten, as in generation. N tokens, V vocabulary, T context.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latente.codec.coding import Decoder, Encoder

STREAMS = 64  # at most: each begins from nothing
RARE = 2.0**-24  # the least chance the coder gives
KEPT = 0.75  # of the context, when it is full
HELD = 1 << 28  # numbers, 1 GiB, that all streams may hold: with more, fewer go side by side
PROBED = 2_000  # tokens of a stream, at most, that a fingerprint is taken of


def encoded(model: Any, tokens: np.ndarray) -> tuple[bytes, float]:
    """Tokens (N,) int64, by a language model's `logits(tokens, cache)`, and the bits that it expects them to need."""
    coder, total = Encoder(), 0.0
    rows, length = _layout(model, len(tokens))
    known = np.pad(tokens, (0, rows * length - len(tokens))).reshape(rows, length)

    def told(chances: np.ndarray, place: int) -> Tensor:
        nonlocal total
        values = known[: len(chances), place]
        coder.add(values, chances)
        total -= float(np.log2(np.maximum(chances[np.arange(len(values)), values], RARE)).sum())
        return torch.from_numpy(values)

    _pass(model, len(tokens), told)
    return coder.finish(), total


def decoded(model: Any, coded: bytes, n: int) -> np.ndarray:
    """The `n` tokens, int64."""
    coder = Decoder(coded)
    return _pass(model, n, lambda chances, place: torch.from_numpy(coder.take(chances)).long())


def fingerprint(model: Any, n: int) -> str:
    """A hash of what the model makes of some tokens on this machine, in the shapes that `n` tokens take: equal where `decoded` will be."""
    rows, length = _layout(model, n)
    digest, random = hashlib.blake2b(digest_size=8), np.random.default_rng(0)

    def drawn(chances: np.ndarray, place: int) -> Tensor:
        digest.update(chances.tobytes())
        return torch.from_numpy(random.integers(0, model.spec.vocabulary, len(chances)))

    short = min(length, model.spec.context + 3, PROBED)
    _pass(model, rows * short, drawn, (rows, short))
    return digest.hexdigest()


def held(model: Any) -> int:
    """Numbers that a stream holds, at most: its cache, and the chances of all of its context."""
    return model.cached + model.spec.context * model.spec.vocabulary


def _layout(model: Any, n: int) -> tuple[int, int]:
    """Streams, and tokens of each."""
    rows = max(1, min(STREAMS, n // (4 * model.spec.context), HELD // held(model)))
    return rows, -(-n // rows)


@torch.inference_mode()
def _pass(
    model: Any, n: int, choose: Callable[[np.ndarray, int], Tensor], layout: tuple[int, int] | None = None
) -> np.ndarray:
    """All of the tokens, (n,): `choose` maps the chances of the tokens at a place, float32 (rows,V), to the tokens (rows,)."""
    rows, length = layout or _layout(model, n)
    made = torch.zeros(rows, length, dtype=torch.int64)
    kept = max(1, int(KEPT * model.spec.context))
    cache, last = model.cache(rows), torch.full((rows, 1), model.spec.start)
    for place in range(length):
        if not cache.room:
            cache, last = model.cache(rows), made[:, max(0, place - kept) : place]
        chances = F.softmax(model.logits(last, cache)[:, -1].float(), 1).numpy()
        here = -(-(n - place) // length)  # the last streams may be shorter
        made[:here, place] = choose(chances[:here], place)
        last = made[:, place : place + 1]
    return made.flatten()[:n].numpy()
