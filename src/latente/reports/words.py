"""How the page and the terminal say numbers, times and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def shown(text: str) -> str:
    """`text` with what would not be seen, or would turn other text around, spelled as in Python."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t\u00a0" else c.encode("unicode_escape").decode() for c in text)


def number(value: float | None) -> str:
    """Four digits, and no exponent where a person would write none."""
    if value is None or math.isnan(value):
        return "no number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if value == 0:
        return "0"
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    return text.replace("-", "\u2212") if text.startswith("-") else text


def interval(ci: Sequence[float | None] | None) -> str:
    return f"{number(ci[0])} to {number(ci[1])}" if ci else "not measured"


def duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def listed(items: Sequence[str]) -> str:
    return " and ".join(items) if len(items) < 3 else f"{', '.join(items[:-1])}, and {items[-1]}"


def told(value: Any) -> str:
    """A value of a record in few words."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not set"}[value]
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, list | tuple):
        said = ", ".join(told(part) for part in value)
        return said if len(said) < 300 else said[:300] + " ..."
    return str(value)
