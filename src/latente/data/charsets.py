"""From the bytes of a text file to UTF-8, in chunks: what its encoding is, and which byte does not fit.

A byte order mark says it; else a file that is UTF-8 to its last byte is UTF-8. Of the others, one with more valid
multi-byte sequences than bad bytes is damaged UTF-8; the rest is guessed from a sample by charset-normalizer.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latente.data.errors import DataError
from latente.data.files import readable

CHUNK = 1 << 22
_SAMPLE = 1 << 17
# UTF-32 goes first: its little-endian mark begins with the one of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")
BadBytes = Literal["stop", "replace"]


class BadByte(DataError):
    """A byte that does not fit, at `offset` from 0: `what` it is."""

    def __init__(self, message: str, offset: int, what: str) -> None:
        super().__init__(message)
        self.offset, self.what = offset, what


@dataclass(frozen=True)
class Charset:
    """How the bytes of a file are read."""

    codec: str
    skip: int = 0
    """bytes of a byte order mark to pass over"""
    guessed: bool = False
    intact: bool = False
    """known to be UTF-8 to the last byte, so that the file can be used as it is"""

    def __str__(self) -> str:
        return f"{self.codec} (guessed)" if self.guessed else self.codec


def charset_of(path: Path, encoding: str, bad_bytes: BadBytes) -> Charset:
    """What a file is encoded in: `encoding`, or found out when that is "auto".

    Raises DataError for an unknown encoding, for a binary file and, unless bad bytes are to be replaced, for damaged UTF-8.
    """
    with readable(path), path.open("rb") as file:
        head = file.read(4)
    marked, skip = next(((codec, len(mark)) for mark, codec in _MARKS if head.startswith(mark)), ("", 0))
    auto = encoding == "auto"
    codec = marked if auto else _known(encoding)
    if codec not in ("", "utf-8"):
        return Charset(codec)  # the codecs of UTF-16 and UTF-32 read their mark themselves
    skip = skip if marked == "utf-8" else 0
    bad = _first_bad(path, skip, binary=auto)
    if bad is None:
        return Charset("utf-8", skip, intact=True)
    damaged = codec == "utf-8" or _speaks_utf8(path, bad)
    guess = None if damaged else _guess(path, bad)
    if guess is not None:
        return Charset(guess, guessed=True)
    if bad_bytes == "stop":
        what = "damaged UTF-8" if damaged else "not UTF-8, and in no encoding that can be told"
        raise _bad_byte(path, bad, what)
    return Charset("utf-8", skip)


def utf8_of(path: Path, charset: Charset, bad_bytes: BadBytes) -> Iterator[bytes]:
    """A file's text as chunks of UTF-8. Raises DataError naming the first byte that does not fit, unless it is replaced."""
    if charset.intact:
        yield from _chunks(path, charset.skip)
        return
    errors = "strict" if bad_bytes == "stop" else "replace"
    for text in _decoded(path, charset, errors):
        yield as_utf8(text, str(path), bad_bytes)


def as_utf8(text: str, where: str, bad_bytes: BadBytes) -> bytes:
    """`text` in UTF-8. Raises DataError, unless it is replaced, for half a surrogate pair: JSON and UTF-7 can spell one."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        if bad_bytes == "stop":
            raise DataError(
                f"{where} holds half a surrogate pair, which is no character; mend it, or take --bad-bytes replace"
            ) from None
        return _SURROGATE.sub("\ufffd", text).encode()


def _known(encoding: str) -> str:
    """The standard name of an encoding. Raises DataError for one that is unknown or is not of text."""
    try:
        "".encode(encoding)  # of a codec that is not of text, LookupError
        codecs.getincrementaldecoder(encoding)
        return codecs.lookup(encoding).name
    except (LookupError, ValueError, UnicodeError):
        raise DataError(
            f"--encoding {encoding!r}: no such encoding; say utf-8, cp1252, utf-16, shift_jis ..."
        ) from None


def _chunks(path: Path, skip: int = 0) -> Iterator[bytes]:
    with readable(path), path.open("rb") as file:
        file.seek(skip)
        while chunk := file.read(CHUNK):
            yield chunk


def _decoded(path: Path, charset: Charset, errors: str) -> Iterator[str]:
    decoder: Any = codecs.getincrementaldecoder(charset.codec)(errors)
    read = charset.skip
    for chunk in _with_last(_chunks(path, charset.skip)):
        read += len(chunk)
        try:
            yield decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            # What failed ends where reading has come to: the decoder puts what it kept back in front of the chunk.
            offset = read - len(error.object) + error.start
            raise _bad_byte(path, offset, f"not {charset}") from None
        except UnicodeError as error:  # UTF-16 and UTF-32 without the mark they need
            raise DataError(f"{path} is not {charset}: {error}; name another --encoding") from None


def _with_last(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield from chunks
    yield b""


def _bad_byte(path: Path, offset: int, what: str) -> DataError:
    message = (
        f"{path}: byte {offset:,} (from 0) is {what}; mend it, name the file's --encoding, or take --bad-bytes replace"
    )
    return BadByte(message, offset, what)


def _first_bad(path: Path, skip: int, binary: bool) -> int | None:
    """The offset of the first byte that is not UTF-8, None if there is none. With `binary`, DataError for a zero byte."""
    decoder: Any = codecs.getincrementaldecoder("utf-8")()
    read, bad = skip, None
    for chunk in _with_last(_chunks(path, skip)):
        if binary and (zero := chunk.find(0)) >= 0:
            message = f"{path} is binary (byte {read + zero:,} is zero): train on its bytes with --tokenizer byte, or name its --encoding"
            raise BadByte(message, read + zero, "zero, which no text holds")
        read += len(chunk)
        if bad is None:
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                bad = read - len(error.object) + error.start
    return bad


def _speaks_utf8(path: Path, bad: int) -> bool:
    """Whether the neighbourhood of a bad byte holds more multi-byte sequences that are valid UTF-8 than bytes that are not."""
    text = _neighbourhood(path, bad).decode("utf-8", "replace")
    damage = text.count("\ufffd")
    return sum(character > "\x7f" for character in text) - damage > damage


def _guess(path: Path, bad: int) -> str | None:
    """The likeliest encoding of a sample, None if none fits. Windows-1252 goes before what fits no better: it is by far the
    most common, and short texts of western Europe fit its neighbours as well."""
    from charset_normalizer import from_bytes

    matches = from_bytes(_neighbourhood(path, bad))
    best = matches.best()
    if best is None:
        return None
    rivals = [match for match in matches if match.coherence >= best.coherence]
    western = any("cp1252" in (match.encoding, *match.could_be_from_charset) for match in rivals)
    return "cp1252" if western else codecs.lookup(best.encoding).name


def _neighbourhood(path: Path, bad: int) -> bytes:
    """A sample around a byte, from the beginning of a line where there is one so that no character is cut at its start."""
    start = max(0, bad - _SAMPLE // 2)
    with readable(path), path.open("rb") as file:
        file.seek(start)
        sample = file.read(_SAMPLE)
    return sample[sample.find(b"\n", 0, bad - start) + 1 :] if start else sample
