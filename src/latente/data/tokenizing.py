"""From a corpus to tokens: cut into splits, the tokenizer trained on the training one, encoded by all cores, cached.

    corpus --split--> bytes of train, validation, test --blocks--> ids --> tokens.bin, record.json, tokenizer.json

No more than a few blocks are in memory at once. A cache entry is found again by what identifies the source without reading it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from latente.data.cache import Progress, cache_folder, digest, entry
from latente.data.errors import DataError
from latente.data.text import TextDataset, TextOptions, windows
from latente.data.text_audit import TextAudit
from latente.data.text_sources import Corpus, Texts, collect, sniff
from latente.data.tokenizer import Tokenizer, check_kind, cut
from latente.spec import TextSpec

BLOCK = 1 << 22
FEWEST = 1000
_FORMAT = 2
# A block is made longer by this much to end before white space; without any, it ends between two characters, or memory would.
_UNBROKEN = 1 << 20
# Merges from this much text spread over the training split are those of all of it, and the table of words stays small.
_SAMPLE = 1 << 26
A = TypeVar("A")
B = TypeVar("B")


def open_text(source: Any, options: TextOptions, tell: Progress) -> TextDataset:
    """The dataset a path, a name, `hf:NAME`, a text or a list of texts stands for.

    Raises DataError, one line, when it cannot be used.
    """
    own = Path(options.tokenizer).expanduser().exists() and options.tokenizer not in ("char", "byte")
    tokenizer = Tokenizer.load(options.tokenizer) if own else check_kind(options.tokenizer)
    texts = sniff(source, options)
    record, tokens, tokenizer = _tokens(texts, options, tokenizer, tell)
    ranges = {split: (start, stop) for split, (start, stop) in record["ranges"].items()}
    context, starts = windows(texts.name, ranges, options.context)
    newline = tokenizer.encode("\n")
    start = record["frequent"]
    if record["documents"] > 1 and tokenizer.end is not None:
        start = tokenizer.end
    elif len(newline) == 1 and newline[0] != tokenizer.unknown:
        start = int(newline[0])
    audit = TextAudit(record["documents"], record["duplicates"], record["encodings"], tuple(record["line_ends"]),
                      record["unknown"])  # fmt: skip
    return TextDataset(
        texts.name, TextSpec(tokenizer.size, context, start), digest(record["content"], tokenizer.digest(), ranges),
        tokens, tokenizer, ranges, record["characters"], record["bytes"], starts, audit,
    )  # fmt: skip


# ---- once, and kept ------------------------------------------------------------------------------------------------


def _tokens(
    texts: Texts, options: TextOptions, tokenizer: Tokenizer | str, tell: Progress
) -> tuple[dict[str, Any], np.ndarray, Tokenizer]:
    if texts.stamp is None:
        sink = io.BytesIO()
        record, made = _make(texts, options, tokenizer, None, sink, tell)
        return record, np.frombuffer(sink.getvalue(), made.dtype), made
    kind = tokenizer if isinstance(tokenizer, str) else tokenizer.digest()
    told = (texts.stamp, kind, options.column, options.encoding, options.bad_bytes, options.validation, _FORMAT)
    folder = cache_folder() / f"text-{digest(*told)}"
    ready = _read_cache(folder)
    if ready is None:
        with entry(folder, lambda: _read_cache(folder) is not None) as draft:
            with (draft / "tokens.bin").open("wb") as sink:
                record, made = _make(texts, options, tokenizer, draft, sink, tell)
            (draft / "text").unlink(missing_ok=True)
            made.save(draft)
            (draft / "record.json").write_text(json.dumps(record), encoding="utf-8")
        ready = _read_cache(folder)
    assert ready is not None
    return ready


def _read_cache(folder: Path) -> tuple[dict[str, Any], np.ndarray, Tokenizer] | None:
    try:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.load(folder)
        tokens = np.memmap(folder / "tokens.bin", tokenizer.dtype, "r")
        whole = len(tokens) == record["ranges"]["test"][1]
    except (OSError, ValueError, KeyError):
        return None
    return (record, tokens, tokenizer) if whole else None


def _make(
    texts: Texts, options: TextOptions, tokenizer: Tokenizer | str, folder: Path | None, sink: BinaryIO, tell: Progress
) -> tuple[dict[str, Any], Tokenizer]:
    """Reads a source and writes its tokens to `sink`; gives the record of what they are, and their tokenizer."""
    as_bytes = "byte" in (tokenizer, getattr(tokenizer, "kind", None))
    corpus = collect(texts, options, as_bytes, folder, tell)
    _enough(texts.name, corpus.stream, "bytes" if as_bytes else "characters")
    spans = split(corpus, options.validation)
    if isinstance(tokenizer, str):
        tokenizer = Tokenizer.train(tokenizer, _training(corpus, spans["train"], tokenizer, tell))
    return _encode(corpus, spans, tokenizer, sink, tell), tokenizer


def _enough(name: str, stream: np.ndarray, unit: str) -> None:
    """Raises DataError for a text that is too short or always the same character."""
    if not len(stream):
        raise DataError(f"{name} is empty; at least {FEWEST:,} characters are needed")
    if len(stream) < 4 * FEWEST:  # a character has at most four bytes
        count = len(stream) if unit == "bytes" else _characters(np.asarray(stream))
        if count < FEWEST:
            raise DataError(f"{name} holds {count:,} {unit}: too few to train on; at least {FEWEST:,} are needed")
    width = 1 if unit == "bytes" else _forward(stream, 1)
    for start in range(0, len(stream) - width, BLOCK):
        part = stream[start : start + BLOCK + width]
        if (part[width:] != part[:-width]).any():
            return
    raise DataError(f"{name} is one character over and over: there is nothing to learn")


# ---- cutting -------------------------------------------------------------------------------------------------------


Spans = dict[str, list[tuple[int, int]]]


def split(corpus: Corpus, validation: float) -> Spans:
    """{train, validation, test: stretches from a first byte to before a last one} by the rule on top of text.py."""
    count = len(corpus.stream)
    held = corpus.test if corpus.test is not None else _forward(corpus.stream, int(count * 0.9))
    first, last = (_forward(corpus.stream, int(held * (1 + side * validation) / 2)) for side in (-1, 1))
    return {"train": [(0, first), (last, held)], "validation": [(first, last)], "test": [(held, count)]}


def _forward(stream: np.ndarray, place: int) -> int:
    """The first offset from `place` on at which a UTF-8 character begins; it has at most three further bytes."""
    for at in range(place, min(place + 4, len(stream))):
        if stream[at] & 0xC0 != 0x80:
            return at
    return min(place, len(stream))


def blocks(corpus: Corpus, start: int, stop: int, exact: bool) -> Iterator[tuple[int, int, np.ndarray]]:
    """(first byte, byte after the last, ends) of the blocks that make up start..stop: of 4 MiB, or of 1 MiB if `exact`.

    A block stops where a document does; within one that is longer, before white space (`exact`) or a character.
    `ends` are the offsets in the block behind which an end token goes: none when there is one document alone.
    """
    size = BLOCK // 4 if exact else BLOCK  # the library takes some hundred bytes a token, the tables twenty
    ends = corpus.ends if len(corpus.ends) > 1 else corpus.ends[:0]
    data = corpus.stream.data
    while start < stop:
        to = min(start + size, stop)
        if to < stop:
            before, after = np.searchsorted(ends, (start, to), "right")
            limit = min(stop, int(ends[after])) if after < len(ends) else stop
            to = int(ends[after - 1]) if after > before else _within(corpus.stream, data, to, limit, exact)
        first, last = np.searchsorted(ends, (start, to), "right")
        yield start, to, ends[first:last] - start
        start = to


def _within(stream: np.ndarray, data: memoryview, place: int, limit: int, exact: bool) -> int:
    found = cut(data, place, min(limit, place + _UNBROKEN)) if exact else place
    return min(limit, _forward(stream, found))


# ---- encoding ------------------------------------------------------------------------------------------------------


def _training(corpus: Corpus, spans: list[tuple[int, int]], kind: str, tell: Progress) -> Iterator[bytes]:
    """The training bytes, document by document, for a tokenizer to be made from; for BPE, every n-th block of a long text."""
    if kind == "byte":
        return
    words = kind != "char"
    size, seen = sum(stop - start for start, stop in spans), 0
    every = -(-size // _SAMPLE) if words else 1
    for number, (start, to, ends) in enumerate(chain(*(blocks(corpus, *span, words) for span in spans))):
        seen += to - start
        tell("making the vocabulary", seen, size)
        if number % every:
            continue
        data = corpus.stream[start:to].tobytes()
        # Only merges could join the last letters of a document to the first of the next.
        edges = [0, *(ends.tolist() if words else []), len(data)]
        yield from (data[a:b] for a, b in zip(edges, edges[1:]) if a < b)


@dataclass
class _Block:
    """One block, encoded."""

    ids: np.ndarray
    characters: int
    line_ends: tuple[int, int]


def _encode(corpus: Corpus, spans: Spans, tokenizer: Tokenizer, sink: BinaryIO, tell: Progress) -> dict[str, Any]:
    def one(block: tuple[int, int, np.ndarray]) -> _Block:
        data = corpus.stream[block[0] : block[1]].tobytes()
        ids = tokenizer.encode_documents(data, block[2])
        windows_ends = data.count(b"\r\n")
        count = _characters(np.frombuffer(data, np.uint8))
        return _Block(ids, count, (windows_ends, data.count(b"\n") - windows_ends))

    exact = tokenizer.kind not in ("char", "byte")
    workers = 2 if exact else min(4, os.cpu_count() or 1)  # the library brings its own threads
    content, done, seen = hashlib.blake2b(digest_size=16), 0, 0
    line_ends = np.zeros(2, np.int64)
    ranges, characters, counts = {}, {}, {}
    with ThreadPoolExecutor(workers) as pool:
        for name, stretches in spans.items():
            first, characters[name], counts[name] = done, 0, np.zeros(tokenizer.size, np.int64)
            parts = chain(*(blocks(corpus, *span, exact) for span in stretches))
            for block, (start, to, _) in _in_order(pool, one, parts, 2 * workers):
                sink.write(block.ids.tobytes())
                content.update(block.ids.tobytes())
                counts[name] += np.bincount(block.ids, minlength=tokenizer.size)
                characters[name] += block.characters
                line_ends += block.line_ends
                done += len(block.ids)
                seen += to - start
                tell("encoding", seen, len(corpus.stream))
            ranges[name] = (first, done)
    unknown = tokenizer.unknown
    sizes = {name: sum(stop - start for start, stop in stretches) for name, stretches in spans.items()}
    return {
        "ranges": ranges, "characters": characters, "bytes": sizes,
        "documents": len(corpus.ends), "duplicates": corpus.duplicates, "encodings": corpus.encodings,
        "line_ends": line_ends.tolist(), "frequent": int(counts["train"].argmax()), "content": content.hexdigest(),
        "unknown": {name: 0 if unknown is None else int(count[unknown]) for name, count in counts.items()},
    }  # fmt: skip


def _characters(data: np.ndarray) -> int:
    """How many characters UTF-8 bytes hold: all bytes but those that go on with one."""
    return int(((data & 0xC0) != 0x80).sum())


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[A], B], items: Iterable[A], ahead: int
) -> Iterator[tuple[B, A]]:
    """(result, item) in the order of the items, with at most `ahead` of them under way."""
    pending: deque[tuple[Future[B], A]] = deque()
    for item in items:
        pending.append((pool.submit(work, item), item))
        if len(pending) >= ahead:
            future, done = pending.popleft()
            yield future.result(), done
    for future, done in pending:
        yield future.result(), done
