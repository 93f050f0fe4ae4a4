"""Writes a .latente file (`latente.codec.layout`): whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from latente.codec import layout
from latente.drafts import check_free, draft


class Writer:
    """Writes a .latente file: `with Writer(path, header, parts) as writer: writer.add(payload, items)`, chunk by chunk.

    The file appears under its name whole, synced, when the body ends; or not at all. `finish` ends it before that, for whoever
    wants to read it first. `header` is a dict of JSON values; where it has "items", that is how many there must be. `parts` are
    blobs of the whole file, by name. Raises ValueError when the path is taken or cannot be written, or the header is no JSON or
    too long.
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any], parts: Mapping[str, bytes] | None = None) -> None:
        self.path = Path(path)
        with self._writing():
            check_free(self.path)
        self._header, self._parts = dict(header), dict(parts or {})
        self._head, self._key = layout.packed_head(self._header, self._parts)
        self._lengths: list[int] = []
        self._counts: list[int] = []
        self._items = self._written = 0

    def __enter__(self) -> Writer:
        with self._writing(), ExitStack() as opened:
            self._hidden = opened.enter_context(draft(self.path))
            self._file = self._hidden.open("xb")
            opened.push(self._close)
            for piece in (self._head, *self._parts.values()):
                self._write(piece)
            self._opened = opened.pop_all()
        return self

    @property
    def size(self) -> int:
        """Bytes of the file, if it ends here."""
        return self._written + len(self._end())

    def add(self, payload: bytes, items: int) -> None:
        """Writes the next chunk, which holds the next `items` items."""
        number = len(self._lengths)
        if number == layout.MOST_CHUNKS:
            raise ValueError(f"{self.path}: more than {layout.MOST_CHUNKS:,} chunks; make them larger")
        if len(payload) > layout.MOST or not 0 <= items <= layout.MOST:
            raise ValueError(f"{self.path}: chunk {number} has {len(payload):,} bytes, {items:,} items; 4 GiB at most")
        lead = layout.lead(len(payload), items)
        self._write(lead + layout.chunk_check(self._key, number, self._items, lead, payload))
        self._write(payload)
        self._lengths.append(len(payload))
        self._counts.append(items)
        self._items += items

    def finish(self) -> Path:
        """Ends the file: where it lies, whole and synced, until the body ends."""
        declared = layout.declared(self._header)
        if declared not in (None, self._items):
            raise ValueError(f"{self.path}: {self._items:,} items were added, its header says {declared:,}")
        self._write(self._end())
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
            if os.fstat(self._file.fileno()).st_size != self._written:
                raise ValueError(f"cannot write {self.path}: a write before this one failed")
            self._file.close()
        return self._hidden

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        with self._writing():
            self._opened.__exit__(kind, *error)
            if kind is None and os.name == "posix":
                folder = os.open(self.path.parent, os.O_RDONLY)
                try:
                    with suppress(OSError):  # some file systems cannot; the file is whole
                        os.fsync(folder)
                finally:
                    os.close(folder)

    def _close(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            if kind is None and not self._file.closed:
                self.finish()
        finally:
            with suppress(OSError):  # what is buffered may still find the disk full
                self._file.close()

    def _end(self) -> bytes:
        """Index and footer."""
        index = b"\0" + layout.deflated(b"".join(map(layout.varint, [*self._lengths, *self._counts])))
        return index + layout.FOOTER.pack(len(index), layout.check(b"index", index, key=self._key), layout.END)

    def _write(self, content: bytes) -> None:
        with self._writing():
            self._file.write(content)
        self._written += len(content)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what the system says into one line."""
        try:
            yield
        except OSError as error:
            raise ValueError(f"cannot write {self.path}: {error.strerror or error}") from None
