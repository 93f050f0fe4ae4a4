"""What the lines of a text cost a language model, in bits a character: how that spreads, the cheapest and the costliest lines.

    tokens (N,), nats (N-1,) --cut after line ends--> lines of tokens --> bits / characters of each

A text that is hardly in lines is cut into passages. Windows of T tokens are predicted one by one, and their first tokens from little, so
that lines count that lie in one window and begin after its first tokens. L lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from latente.evaluation.costs import ends, histogram, summary
from latente.evaluation.findings import Chart, Gallery

LEAST = 16  # characters of a line: what shorter ones cost a character says little
LONG = 500  # of a line; where most of a text is in longer ones, passages are looked at
PASSAGE = 200  # characters of one, about
UNREAD = 8  # lines begin no earlier than after so large a part (an eighth) of a window
FEWEST = 100  # lines that a text must have left so; else all of them count
SHOWN, MOST = 12, 1_000  # lines, and characters of one


@dataclass(frozen=True)
class Lines:
    """Lines, or passages, of tokens [start, stop)."""

    of: str
    starts: np.ndarray
    stops: np.ndarray
    characters: np.ndarray
    bits: np.ndarray
    """a character (L,)"""


def costs(
    tokens: Mapping[str, np.ndarray], nats: Mapping[str, np.ndarray], spelled: Callable[[int], bytes], context: int,
    marks: Mapping[str, float],
) -> tuple[list[Chart], list[Gallery], dict[str, Any]]:  # fmt: skip
    """How bits a character spread over lines, the costliest and the cheapest test lines, and both as plain values; nothing where no
    line is long enough.

    `tokens` (N,) and `nats` (N-1,) of all but the first by part of the data, "test" among them; `spelled` gives the bytes of a token,
    `context` is T; `marks`: bits a character that others need for the whole test text.
    """
    cut = {part: lines(of, nats[part], spelled, context) for part, of in tokens.items()}
    found, bits = (
        cut["test"],
        {part: one.bits for part, one in cut.items() if one.of == cut["test"].of and len(one.bits)},
    )
    if not len(found.bits):
        return [], [], {}
    least = f" of {LEAST} characters or more" if found.of == "lines" else ""
    note = f"{found.of.capitalize()}{least}; beside them what others need for all of the held-out text. Weights are not counted."
    chart = histogram(f"Bits by {found.of[:-1]}", note, "bits a character", found.of, bits, marks)
    galleries: list[Gallery] = []
    note = f"Held-out {found.of}{least}, by what a character of them costs."
    told: dict[str, Any] = {"unit": "bits a character", "of": found.of, **summary(bits)}
    for end, which in ends(found.bits, len(found.bits)).items():
        told[end] = _different(found, which, tokens["test"], spelled)
        rows = [
            ("costs", [f"{one['bits_per_char']:.2f} bits a character" for one in told[end]]),
            (found.of[:-1], [one["text"] for one in told[end]]),
        ]
        galleries.append(Gallery(f"{end.capitalize()} {found.of}", note, rows, True))
    return [chart], galleries, told


def lines(tokens: np.ndarray, nats: np.ndarray, spelled: Callable[[int], bytes], context: int) -> Lines:
    """The lines of a text of tokens (N,), or its passages, and what they cost; nats (N-1,) are of all tokens but the first."""
    size = np.zeros(int(tokens.max(initial=0)) + 1, np.int64)
    closes = np.zeros(len(size), bool)
    for token in np.flatnonzero(np.bincount(tokens)).tolist():
        content = spelled(token)
        size[token] = sum(byte & 0xC0 != 0x80 for byte in content)  # bytes that begin a character
        closes[token] = b"\n" in content or not content  # a line, or a document
    characters = np.append(0, np.cumsum(size[tokens]))
    stops = np.flatnonzero(closes[tokens]) + 1  # what follows the last line end may be cut
    starts = np.append(0, stops)[: len(stops)]
    length = characters[stops] - characters[starts]
    of, unread = "lines", context // UNREAD
    if 2 * length[length <= LONG].sum() < characters[-1]:
        of, each = "passages", max(1, min(context - unread, round(PASSAGE * len(tokens) / max(1, characters[-1]))))
        first = np.arange(unread, context - each + 1, each)
        starts = 1 + (np.arange(0, len(nats), context)[:, None] + first).reshape(-1)
        starts = starts[starts + each <= len(tokens)]
        stops = starts + each
        length = characters[stops] - characters[starts]
    kept = (starts > 0) & (length >= LEAST)  # nothing predicts the first token
    read = kept & ((starts - 1) % context >= unread) & ((starts - 1) // context == (stops - 2) // context)
    kept = read if read.sum() >= min(FEWEST, kept.sum()) else kept
    starts, stops, length = starts[kept], stops[kept], length[kept]
    spent = np.append(0, np.cumsum(nats)) / math.log(2)
    return Lines(of, starts, stops, length, (spent[stops - 1] - spent[starts - 1]) / length)


def _different(
    found: Lines, order: np.ndarray, tokens: np.ndarray, spelled: Callable[[int], bytes]
) -> list[dict[str, Any]]:
    """The first lines of an order, those that come again once."""
    told: dict[str, dict[str, Any]] = {}
    for at in order:
        content = b"".join(map(spelled, tokens[found.starts[at] : found.stops[at]].tolist()))
        text = content.decode("utf-8", "replace").lstrip("\r\n").rstrip()[:MOST]
        told.setdefault(
            text, {"bits_per_char": float(found.bits[at]), "characters": int(found.characters[at]), "text": text}
        )
        if len(told) == SHOWN:
            break
    return list(told.values())
