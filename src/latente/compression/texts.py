"""Files in and out of a .latente file, through a language model, byte by byte."""

from __future__ import annotations

import math
import platform
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from latente.codec import tokens
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.compression import chunks, headers
from latente.compression.chunks import Chunk
from latente.compression.headers import PIECE
from latente.config import from_json
from latente.data import named
from latente.data.errors import DataError
from latente.data.files import located, readable
from latente.data.tokenizer import Tokenizer
from latente.drafts import check_free, draft
from latente.evaluation.findings import Say
from latente.run import Run, TextRun, built
from latente.training import devices

MEANINGS = 1 << 20, 1 << 9  # bytes that what tokens stand for may take: in all, and of each
ALL = "everything"  # the one file, where names are damaged


class Meanings:
    """What each token stands for: all that decoding needs of a tokenizer."""

    def __init__(self, each: Sequence[bytes]) -> None:
        self.each, self.lengths = each, np.array([len(one) for one in each], np.int64)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Meanings:
        return cls([tokenizer.bytes_of(token) for token in range(tokenizer.size)])

    def pack(self) -> bytes:
        content = self.lengths.astype("<u4").tobytes() + b"".join(self.each)
        if len(content) > self._most(len(self.each)):
            raise ValueError(f"what the tokens of this run stand for takes {len(content):,} bytes; too many for a file")
        return chunks.squeezed(content)

    @classmethod
    def unpack(cls, packed: bytes, count: int) -> Meanings:
        """Raises ValueError for bytes that are not of so many tokens."""
        content = chunks.unsqueezed(packed, cls._most(count))
        ends = np.cumsum(np.frombuffer(content[: 4 * count], "<u4"), dtype=np.int64).tolist()
        if len(ends) != count or ends[-1] != len(content) - 4 * count:
            raise ValueError("its tokens are of another model")
        return cls([content[4 * count + start : 4 * count + end] for start, end in zip([0, *ends], ends)])

    @staticmethod
    def _most(count: int) -> int:
        return MEANINGS[0] + MEANINGS[1] * count

    def digest(self) -> str:
        return chunks.digest(self.lengths.astype("<u4").tobytes() + b"".join(self.each))

    def spell(self, ids: np.ndarray, size: int) -> bytes:
        """The bytes of tokens. Raises ValueError where they are not `size`."""
        if int(self.lengths[ids].sum()) != size:
            raise ValueError("its tokens spell another number of bytes")
        return b"".join(map(self.each.__getitem__, ids.tolist()))


class TextJob:
    """Files on their way into a file."""

    psnr = None

    def __init__(self, run: TextRun, source: Any, external_model: bool) -> None:
        given = _given(source)
        self.model, self.tokenizer, self.meanings = run.model, run.tokenizer, Meanings.of(run.tokenizer)
        self.pieces = [piece for _, content in given.files for piece in _pieces(content)]
        self.raw, self.notes = sum(len(content) for _, content in given.files), given.notes
        self._files = [(name, len(content)) for name, content in given.files]
        weights = _weights(run.model)
        sizes = np.array([len(content) for _, content in given.files], "<u8")
        self.parts = {
            "names": chunks.squeezed_names([name for name, _ in given.files]), "sizes": chunks.squeezed(sizes.tobytes())
        }  # fmt: skip
        if not external_model:
            self.parts |= {"model": weights, "tokens": self.meanings.pack()}
        first = next((ids for piece in self.pieces if (ids := self._ids(piece)) is not None), np.empty(0, np.int64))
        self.header = {
            "codec": "tokens", "model": run.family.name,
            "config": asdict(from_json(run.family.Config, run.record["config"])), "spec": asdict(run.spec),
            "items": self.raw, "files": len(given.files), "folder": given.folder,
            "weights": chunks.digest(weights), "tokens": self.meanings.digest(), "made_with": _made_with(),
            "probe": len(first), "fingerprint": tokens.fingerprint(self.model, len(first)) if len(first) else "",
        }  # fmt: skip
        if not external_model:
            _restored(headers.exactly(headers.Texts, self.header, "header"), weights)  # it must be readable

    def _ids(self, piece: bytes) -> np.ndarray | None:
        """The tokens that spell a piece, and nothing else; None where there are none."""
        ids = self.tokenizer.encode(piece)
        spelled = b"".join(map(self.tokenizer.bytes_of, ids.tolist()))
        return ids if spelled == piece and 1 <= len(ids) <= len(piece) else None

    def settle(self, size: int) -> None:
        """As `Job.settle`: every size will do."""

    def chunks(self, say: Say) -> Iterator[Chunk]:
        """As `Job.chunks`."""
        done = 0
        for piece in self.pieces:
            say(f"coding, {done:,} of {self.raw:,} bytes done")
            ids, coded, expected = self._ids(piece), None, 0.0
            if ids is not None:
                code, bits = tokens.encoded(self.model, ids)
                coded, expected = len(ids).to_bytes(4, "little") + code, bits / 8
            yield Chunk(chunks.kept(piece, coded), len(piece), expected, chunks.digest(piece))
            done += len(piece)

    def matches(self, content: PackedTexts) -> bool:
        """As `Job.matches`."""
        return content.files(None) == self._files and content.held.folder == self.header["folder"]


class PackedTexts:
    """Files in a file."""

    together = 1
    notes: tuple[str, ...] = ()

    def __init__(self, reader: Reader, held: headers.Texts, run: Run | None) -> None:
        self.reader, self.held = reader, held
        if "model" in reader.parts:
            weights = reader.part("model")
            if chunks.digest(weights) != held.weights:
                raise ValueError("these are not the weights it was made with")
            self.model = _restored(held, weights)
            self.meanings = Meanings.unpack(reader.part("tokens"), held.spec.vocabulary)
        else:
            given = chunks.made_with(run, TextRun, held)
            if chunks.digest(_weights(given.model)) != held.weights:
                raise ValueError("these are not the weights it was made with")
            self.model, self.meanings = given.model, Meanings.of(given.tokenizer)
        if self.meanings.digest() != held.tokens:
            raise ValueError("these are not the tokens it was made with")
        self._check_machine()

    def _check_machine(self) -> None:
        held = self.held
        with devices.threads(held.made_with.threads):
            if held.probe and tokens.fingerprint(self.model, held.probe) != held.fingerprint:
                mine, theirs = _made_with(), asdict(held.made_with)
                unlike = [
                    f"{name} {theirs[name]}, here {value}" for name, value in mine.items() if theirs[name] != value
                ]
                said = "; ".join(unlike) or "the processor rounds otherwise"
                raise ValueError(
                    f"it was made on a machine whose arithmetic differs from this one's ({said:.200}); decompress it there"
                )

    def decode(self, numbers: Sequence[int]) -> list[bytes]:
        """The bytes of some chunks. Raises Damaged."""
        found = []
        for number in numbers:
            size = len(self.reader.items_of(number))
            try:
                if size > PIECE:
                    raise ValueError("more bytes than it can hold")
                payload = self.reader.chunk(number)
                with devices.threads(self.held.made_with.threads):
                    found.append(_bytes(self.model, self.meanings, payload, size))
            except Damaged:
                raise
            except Exception as error:  # of a forged payload, each library raises whatever it met
                raise chunks.undecodable(self.reader.name, number, error) from None
        return found

    plain = decode

    def item(self, chunk: bytes, at: int) -> int:
        """A byte of a chunk."""
        return chunk[at]

    def write(self, out: Path, lost: list[Damaged] | None, say: Say) -> Path:
        """The file, or the folder of files; without what is `lost`."""
        check_free(out)
        files = self.files(lost)
        try:
            with draft(out) as hidden:
                out.parent.mkdir(parents=True, exist_ok=True)
                if self.held.folder:
                    hidden.mkdir()
                places = [hidden / chunks.inside(name) if self.held.folder else hidden for name, _ in files]
                for place in places:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.open("xb").close()
                starts = list(accumulate((size for _, size in files), initial=0))
                for number, content in chunks.each(len(self.reader), 1, self.decode, lost, say):
                    items = self.reader.items_of(number)
                    at = min(bisect_right(starts, items.start), len(places)) - 1
                    if not places or items.stop > starts[at + 1]:
                        raise ValueError("the sizes of its files are not those of its chunks")
                    with places[at].open("ab") as file:
                        file.write(content)
        except OSError as error:
            raise DataError(f"cannot write {out}: {error.strerror or error}") from None
        return out

    def files(self, lost: list[Damaged] | None) -> list[tuple[str, int]]:
        """Names and sizes; one file that holds everything, where they are damaged and that may be."""
        try:
            names, packed = self.reader.part("names"), self.reader.part("sizes")
        except Damaged as error:
            if lost is None:
                raise
            where = f"one file, {ALL}" if self.held.folder else "one file"
            lost.append(Damaged(f"{self.reader.name}: {error.part} is damaged; all is written to {where}", error.part))
            return [(ALL, self.held.items)]
        sizes = np.frombuffer(chunks.unsqueezed(packed, 8 * self.held.files), "<u8").tolist()
        if len(sizes) != self.held.files or sum(sizes) != self.held.items:
            raise ValueError("the sizes of its files are not those of its chunks")
        return list(zip(chunks.unsqueezed_names(names, self.held.files), sizes))


@dataclass
class _Given:
    files: list[tuple[str, bytes]]
    """name and content"""
    folder: bool = False
    notes: list[str] = field(default_factory=list)


def _given(source: Any) -> _Given:
    """A file, all files of a folder, a named text, or bytes. Raises DataError."""
    if isinstance(source, bytes):
        return _Given([("bytes", source)])
    if isinstance(source, str) and any(source in names for names in named.NAMES.values()) and source != "shakespeare":
        raise DataError(f"{source} is no file: a gpt compresses a file or a folder of files, byte by byte")
    path = named.shakespeare() if source == "shakespeare" else located(source)
    with readable(path):
        if not path.is_dir():
            return _Given([(path.name, path.read_bytes())])
        below = sorted(path.rglob("*"))
        files = [file for file in below if file.is_file() and not file.is_symlink()]
        empty = [
            folder for folder in below if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
        ]
        left_out = [place for place in below if place.is_symlink() or not (place.is_dir() or place.is_file())]
        notes = [
            f"{len(places):,} {what} left out: {', '.join(str(place.relative_to(path)) for place in places[:3])}"
            for what, places in (("empty folders are", empty), ("links and the like are", left_out)) if places
        ]  # fmt: skip
        return _Given([(file.relative_to(path).as_posix(), file.read_bytes()) for file in files], True, notes)


def _pieces(content: bytes) -> Iterator[bytes]:
    """Up to `PIECE` bytes each, none ending inside a character of UTF-8."""
    start = 0
    while start < len(content):
        stop = start + PIECE
        while stop < len(content) and stop > start + PIECE - 4 and content[stop] & 0xC0 == 0x80:
            stop -= 1
        yield content[start:stop]
        start = stop


def _bytes(model: Any, meanings: Meanings, payload: bytes, size: int) -> bytes:
    """What a chunk of so many bytes holds. Raises ValueError for a payload that holds something else."""
    content, modelled = chunks.opened(payload, size)
    if modelled:
        n = int.from_bytes(content[:4], "little")
        if not 1 <= n <= size:
            raise ValueError("more tokens than it can hold")
        content = meanings.spell(tokens.decoded(model, content[4:], n), size)
    return chunks.checked(payload, content, size)


def _restored(held: headers.Texts, weights: bytes) -> Any:
    """The model of weights that lie in a file. Raises ValueError where they are not of such a model, before anything large is made."""
    family = headers.family(held.model, "cached")
    config = headers.exactly(family.Config, held.config, "config")
    with torch.device("meta"):  # shapes alone
        shapes = built(family, config, held.spec, 0)
    if tokens.held(shapes) > tokens.HELD:
        raise ValueError(f"a context of {held.spec.context:,} tokens takes more memory than any it may have")
    try:
        found = safetensors.torch.load(weights)
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"its weights cannot be read: {error}") from None
    kinds = {name: (value.shape, value.dtype) for name, value in found.items()}
    if kinds != {name: (value.shape, value.dtype) for name, value in shapes.state_dict().items()}:
        raise ValueError("its weights are of another model")
    if not all(math.isfinite(float(value.abs().sum(dtype=torch.float64))) for value in found.values()):
        raise ValueError("some of its weights are no finite numbers")
    model = built(family, config, held.spec, 0)
    model.load_state_dict(found)
    return model.eval()


def _weights(model: Any) -> bytes:
    return safetensors.torch.save({name: value.contiguous() for name, value in model.state_dict().items()})


def _made_with() -> dict[str, Any]:
    return {"torch": str(torch.__version__), "machine": platform.machine(), "threads": torch.get_num_threads()}
