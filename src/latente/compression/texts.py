"""Files in and out of a .latente file, through a language model, byte by byte."""

from __future__ import annotations

import math
import platform
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from latente.codec import layout, tokens
from latente.codec.layout import Damaged
from latente.codec.reader import Reader
from latente.compression import chunks, headers
from latente.compression.chunks import Chunk
from latente.compression.spelling import Meanings, Speller, restored, unpacked
from latente.config import from_json
from latente.data import named
from latente.data.errors import DataError
from latente.data.files import located, readable
from latente.data.images import suffixed
from latente.drafts import check_free, draft
from latente.evaluation.findings import Say
from latente.run import Run, TextRun, built
from latente.training import devices

ALL = "everything"  # the one file, where names are damaged


class TextJob:
    """Files on their way into a file: one after another, those of UTF-8 first, so that what no model expects is among its like.

    All is coded at once, for the header says in which shapes tokens lie.
    """

    psnr = None

    def __init__(self, run: TextRun, source: Any, external_model: bool, say: Say) -> None:
        given = _given(source)
        groups: list[list[tuple[str, bytes]]] = [[], []]
        for file in given.files:
            groups[not _unicode(file[1])].append(file)
        files = [*groups[0], *groups[1]]
        speller = Speller(run.tokenizer, run.spec.start == run.tokenizer.end)
        self.model, self.meanings, self.layout = run.model, speller.meanings, tokens.Layout.of(run.model)
        self.raw, self.notes = sum(len(content) for _, content in files), given.notes
        self._files = [(name, len(content)) for name, content in files] if given.folder else [(ALL, self.raw)]
        self._chunks: list[Chunk] = []
        counts, done = [], 0  # tokens of each chunk that the model codes; bytes
        for piece, ends in chain.from_iterable(map(_pieces, groups)):
            say(f"coding, {done:,} of {self.raw:,} bytes done")
            ids, aside = speller(piece, ends)
            chunk = self._coded(piece, ids, aside)
            counts += [len(ids)] * chunk.modelled
            self._chunks.append(chunk)
            done += len(piece)
        weights, self.parts = _weights(run.model), {}
        if given.folder:
            sizes = np.array([size for _, size in self._files], "<u8")
            names = chunks.squeezed_names([name for name, _ in self._files])
            self.parts |= {"names": names, "sizes": chunks.squeezed(sizes.tobytes())}
        if not external_model:
            self.parts |= {"model": weights, "tokens": self.meanings.pack()}
        probes, made_with = self.layout.probes(counts), _made_with()
        self.bound = _named(made_with)
        self.header = {
            "codec": "text", "model": run.family.name,
            "config": {} if external_model else asdict(from_json(run.family.Config, run.record["config"])), "spec": asdict(run.spec),
            "items": self.raw, "files": len(files), "folder": given.folder,
            "weights": chunks.digest(weights), "tokens": self.meanings.digest(), "made_with": made_with,
            "layout": asdict(self.layout), "probes": probes,
            "fingerprint": tokens.fingerprint(self.model, self.layout, probes),
        }  # fmt: skip
        if not external_model:
            _restored(headers.exactly(headers.Texts, self.header, "header"), weights)  # it must be readable

    def settle(self, size: int) -> None:
        """As `Job.settle`: every size will do."""

    def chunks(self, say: Say) -> Iterator[Chunk]:
        """As `Job.chunks`."""
        yield from self._chunks

    def _coded(self, piece: bytes, ids: np.ndarray, aside: bytes) -> Chunk:
        payload, expected = chunks.kept(piece, None), 0.0
        if len(ids):
            code, bits = tokens.encoded(self.model, self.layout, ids.astype(np.int64))
            expected = bits / 8 + len(aside)
            coded = layout.varint(len(ids)) + layout.varint(len(aside)) + aside + code
            payload = min(chunks.kept(piece, coded), payload, key=len)
        return Chunk(payload, len(piece), expected, chunks.digest(piece))

    def matches(self, content: PackedTexts) -> bool:
        """As `Job.matches`."""
        return content.files(None) == self._files and content.held.folder == self.header["folder"]


class PackedTexts:
    """Files in a file."""

    together = 1

    def __init__(self, reader: Reader, held: headers.Texts, run: Run | None) -> None:
        self.reader, self.held, self.notes = reader, held, []
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
        if held.layout.streams > tokens.most(self.model):
            raise ValueError("so many streams of tokens take more memory than any may have")
        self._check_machine()

    def _check_machine(self) -> None:
        held = self.held
        with devices.threads(held.made_with.threads):
            if tokens.fingerprint(self.model, held.layout, held.probes) != held.fingerprint:
                theirs, mine = _named(asdict(held.made_with)), _named(_made_with())
                here = f"here {mine}" if mine != theirs else "as here, by name, with other settings or libraries"
                raise ValueError(
                    f"it was made where arithmetic differs from this machine's: {theirs:.200}; {here}; decompress it there"
                )

    def decode(self, numbers: Sequence[int]) -> list[bytes]:
        """The bytes of some chunks. Raises Damaged."""
        return chunks.decoded(self.reader, numbers, headers.PIECE, self._pieces)

    plain = decode

    def _pieces(self, payloads: Sequence[bytes], items: Sequence[range]) -> list[bytes]:
        with devices.threads(self.held.made_with.threads):
            return [
                _bytes(self.model, self.held.layout, self.meanings, payload, len(of))
                for payload, of in zip(payloads, items)
            ]

    def item(self, chunk: bytes, at: int) -> int:
        """A byte of a chunk."""
        return chunk[at]

    def write(self, out: Path, lost: list[Damaged] | None, say: Say) -> Path:
        """The file, or the folder of files; without what is `lost`: of a folder, files that lack some of it get another name."""
        check_free(out)
        files, self.notes = self.files(lost), []
        try:
            with draft(out) as hidden:
                out.parent.mkdir(parents=True, exist_ok=True)
                if self.held.folder:
                    hidden.mkdir()

                def place(at: int) -> Path:
                    return hidden / chunks.inside(files[at][0]) if self.held.folder else hidden

                for at in range(len(files)):
                    place(at).parent.mkdir(parents=True, exist_ok=True)
                    place(at).open("xb").close()
                starts = list(accumulate((size for _, size in files), initial=0))
                for number, content in chunks.each(len(self.reader), 1, self.decode, lost, say):
                    items = self.reader.items_of(number)
                    if items.stop > starts[-1]:
                        raise ValueError("the sizes of its files are not those of its chunks")
                    at = bisect_right(starts, items.start) - 1
                    while at < len(files) and starts[at] < items.stop:
                        with place(at).open("ab") as file:
                            file.write(content[max(0, starts[at] - items.start) : starts[at + 1] - items.start])
                        at += 1
                if lost and self.held.folder:
                    self._set_apart(hidden, files)
        except OSError as error:
            raise DataError(f"cannot write {out}: {error.strerror or error}") from None
        return out

    def _set_apart(self, folder: Path, files: list[tuple[str, int]]) -> None:
        """Gives those of the files that lack bytes other names, so that none of them passes for whole, and notes it."""
        taken, named = {name for name, _ in files}, []
        for name, size in files:
            if (folder / name).stat().st_size < size:
                named.append(suffixed(name, ".damaged", taken))
                taken.add(named[-1])
                (folder / name).rename(folder / named[-1])
        if named:
            shown = ", ".join(named[:3]) + ", ..." * (len(named) > 3)
            self.notes.append(
                f"{len(named):,} files lack what is damaged and have .damaged behind their names: {shown}"
            )

    def files(self, lost: list[Damaged] | None) -> list[tuple[str, int]]:
        """Names and sizes; one file that holds everything, where they are damaged and that may be."""
        if not self.held.folder:
            return [(ALL, self.held.items)]
        try:
            names, packed = self.reader.part("names"), self.reader.part("sizes")
        except Damaged as error:
            if lost is None:
                raise
            said = f"{self.reader.name}: {error.part} is damaged; all is written to one file, {ALL}"
            lost.append(Damaged(said, error.part))
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


def _unicode(content: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pieces(files: list[tuple[str, bytes]]) -> Iterator[tuple[bytes, np.ndarray]]:
    """All files one after another, up to `PIECE` bytes each, none ending inside a character of UTF-8; and where in a piece files end."""
    whole, start = b"".join(content for _, content in files), 0
    ends = np.cumsum([len(content) for _, content in files])
    while start < len(whole):
        stop = start + headers.PIECE
        while stop < len(whole) and stop > start + headers.PIECE - 4 and whole[stop] & 0xC0 == 0x80:
            stop -= 1
        yield whole[start:stop], ends[slice(*np.searchsorted(ends, (start, stop), "right"))] - start
        start = stop


def _bytes(model: Any, held: tokens.Layout, meanings: Meanings, payload: bytes, size: int) -> bytes:
    """What a chunk of so many bytes holds. Raises ValueError for a payload that holds something else."""
    content, modelled = chunks.opened(payload, size)
    if not modelled:
        return chunks.checked(payload, content, size)
    n, length = [*islice(layout.varints(content), 2), 0, 0][:2]
    at = len(layout.varint(n)) + len(layout.varint(length))
    apart = unpacked(content[at : at + length], size)
    if not 1 <= n <= 2 * size:
        raise ValueError("more tokens than it can hold")
    try:
        ids = tokens.decoded(model, held, content[at + length :], n)
        text = meanings.spell(ids, size - sum(len(part) for _, part in apart))
        return chunks.checked(payload, restored(text, apart), size)
    except ValueError as error:  # of a chunk whose checksum is right
        raise ValueError(f"{error}; or this machine computes otherwise than the one it was made on") from None


def _restored(held: headers.Texts, weights: bytes) -> Any:
    """The model of weights that lie in a file. Raises ValueError where they are not of such a model, before anything large is made."""
    family = headers.family(held.model, "cached")
    config = headers.config(family.Config, held.config)
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


def _named(made_with: dict[str, Any]) -> str:
    return ", ".join(f"{what} {value}" for what, value in made_with.items())


def _made_with() -> dict[str, Any]:
    """What a machine is, as far as sums depend on it."""
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"torch": str(torch.__version__), "machine": kind, "threads": torch.get_num_threads()}
