"""What the data room says when it cannot use what it was given."""

from __future__ import annotations


class DataError(ValueError):
    """The user's data cannot be used; the message names the file or flag and what to do."""


def first_line(error: Exception) -> str:
    """What a library's own error says, shortened to one line; its kind when it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(said: object) -> str:
    """Words to print, in which names may occur that a stranger gave: what no terminal shows, or obeys, is written as an escape."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(said))
