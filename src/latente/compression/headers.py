"""The header of a .latente file, and what the columns of its rows are: exactly these fields, each of its own type and within its bounds.

A file may come from a stranger, so nothing of it is used before its header was read here; `compress` has its own headers read here as
well, before it writes them. What a header may ask for is bounded, in memory, by the constants below.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from latente import registry
from latente.codec import exact
from latente.codec.tokens import Layout
from latente.data.columns import Column, Columns
from latente.data.forms import Form
from latente.data.scales import FORMATS, MARKERS, MOST_DECIMALS, Scale
from latente.spec import ImageSpec, TableSpec, TextSpec

PIXELS = 400_000  # of a chunk of images
PIECE = 1 << 18  # bytes of a chunk of text
TABLE = 1 << 12  # rows of a chunk
ROWS = 1 << 26  # bytes of their cells
FIELD = 1 << 16  # tokens of a field of a row
COLUMNS = 1 << 16
DESCRIBED = 24 << 20  # bytes of what they are: some thirty times as many while they are read
ITEMS = 1 << 31  # images
NAMES = 1 << 26  # bytes of all names together
FILES = 1 << 22  # that have names
CLASSES = 1 << 16
LABELS = 1 << 18  # bytes of the names of classes that a model does not know
CONTEXT = 1 << 16  # tokens a language model sees at once
STREAMS = 1 << 10  # of tokens, side by side
THREADS = 256
WEIGHTS = 16, 1 << 20  # that a file may have for each byte of them, and besides: one that asks for more is a forgery

T = TypeVar("T")


@dataclass(frozen=True)
class Images:
    """Of a file of images."""

    codec: Literal["pixels", "latents"]
    """without loss, with some"""
    model: str
    """the family"""
    config: dict
    """its settings"""
    spec: ImageSpec
    items: int
    classes: tuple[int, ...]
    """how many images are of each class"""
    size: int
    """images of a chunk; the last may have fewer"""
    bits: int
    """of a weight"""
    weights: str
    """what `packing.digest` says of them"""
    quality: int | None
    """of latents, as the model counts them"""
    better: int
    """how many of the images, evenly spread, have the next quality: about so many where they are `nested`"""
    nested: bool
    """which of them: as `Point` says"""
    labels: tuple[str, ...]
    """the names of the classes, where the model knows of none"""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called."""
        return self.labels or self.spec.classes

    def __post_init__(self) -> None:
        spec, names = self.spec, self.class_names
        _check(spec.channels in (1, 3) and spec.height > 0 and spec.width > 0, "the shape of its images")
        _check(self.size > 0 and self.size * spec.height * spec.width <= PIXELS, "its size of a chunk")
        _check(2 <= self.bits <= exact.MOST_BITS, "its bits of a weight")
        _check((self.quality is not None) == (self.codec == "latents"), "its quality")
        _check(
            0 <= self.better <= (self.quality is not None) * max(0, self.items - 1), "how many of its images are better"
        )
        _check(self.codec == "latents" or not self.nested, "which of its images are better")
        _check(self.items <= ITEMS, "its count of images")
        _check(not (self.labels and spec.classes), "its classes")
        _check(len(self.classes) == len(set(names)) == len(names) <= CLASSES, "its classes")
        _check(all(map(is_folder, names)), "the name of a class")
        _check(min(self.classes, default=0) >= 0 <= self.items, "its count of images")
        _check(not self.classes or sum(self.classes) == self.items, "its count of classes")


@dataclass(frozen=True)
class Machine:
    """What decides how floating-point numbers are added up."""

    torch: str
    machine: str
    threads: int

    def __post_init__(self) -> None:
        _check(1 <= self.threads <= THREADS, "its number of threads")


@dataclass(frozen=True)
class Texts:
    """Of a file of texts."""

    codec: Literal["text"]
    model: str
    config: dict
    spec: TextSpec
    items: int
    """bytes of all files"""
    files: int
    folder: bool
    """whether they lay in one; else it is one file"""
    weights: str
    tokens: str
    """a hash of what every token stands for"""
    made_with: Machine
    layout: Layout
    """how its tokens lie side by side"""
    probes: tuple[int, ...]
    """a machine's arithmetic is tried on so many tokens: one count for each number of streams that chunks have"""
    fingerprint: str
    """what came of them"""

    def __post_init__(self) -> None:
        spec = self.spec
        _check(0 <= spec.start < spec.vocabulary and 1 <= spec.context <= CONTEXT, "its text")
        _check(self.items >= 0, "its size")
        _check(all(0 < n <= 2 * PIECE for n in self.probes) and len(self.probes) <= STREAMS.bit_length(), "its probes")
        _check(1 <= self.layout.streams <= STREAMS and self.layout.stretch >= 1, "its streams")
        _check(1 <= self.layout.kept <= spec.context, "its context")
        _check(0 <= self.files <= FILES and (self.folder or self.files == 1), "its number of files")


@dataclass(frozen=True)
class Tables:
    """Of a file of rows."""

    codec: Literal["rows"]
    model: str
    config: dict
    spec: TableSpec
    items: int
    size: int
    """rows of a chunk, at most"""
    bits: int
    """of a weight"""
    weights: str
    """what `packing.digest` says of them"""
    columns: str
    """a hash of what the columns are"""

    def __post_init__(self) -> None:
        spec = self.spec
        _check(len(spec.columns) == len(spec.sizes) == len(spec.ordered) == len(spec.never) > 0, "its columns")
        _check(all(sizes and min(sizes) > 1 and max(sizes) <= FIELD for sizes in spec.sizes), "its fields")
        _check(spec.target is None or 0 <= spec.target < len(spec.columns), "its target")
        _check(0 < self.size <= TABLE and self.items >= 0, "its size of a chunk")
        _check(2 <= self.bits <= exact.MOST_BITS, "its bits of a weight")


KINDS = {"pixels": Images, "latents": Images, "text": Texts, "rows": Tables}
PAST = ("tokens",)  # of text, by older versions


def read(header: Any) -> Images | Texts | Tables:
    """Raises ValueError for a header that `compress` would not write."""
    codec = header.get("codec")
    if codec in PAST:
        raise ValueError(f"it is coded by {codec!r}, of an older latente, which can read it; this one cannot")
    if not isinstance(codec, str) or codec not in KINDS:
        raise ValueError(f"it is coded by {codec!r:.40}, which this latente does not know: upgrade")
    if KINDS[codec] is Images:
        header = {"better": 0, "nested": False, "labels": [], **header}  # which older files lack
    return exactly(KINDS[codec], header, "header")


@dataclass(frozen=True)
class _Described:
    """As `Columns.to_json` writes it."""

    format: Literal[1]
    form: Form
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = {column.name for column in self.columns}
        _check(0 < len(self.columns) == len(names) <= COLUMNS, "its columns")
        _check(all(map(_is_column, self.columns)), "a column")
        _check(_is_form(self.form), "the form of its rows")


def columns(content: bytes) -> Columns:
    """What `Columns.to_json` made. Raises ValueError for columns that no run has."""
    if len(content) > DESCRIBED:
        raise ValueError(f"{len(content):,} bytes say what its columns are; at most {DESCRIBED:,} can be read")
    found = exactly(_Described, json.loads(content), "columns")
    return Columns(found.columns, found.form)


def _is_column(column: Column) -> bool:
    """Whether it is within its bounds, so that no cell it decodes to takes more than its levels do."""
    ends = [end for one in column.bins for end in one]
    in_order = ends == sorted(ends) and all(len(one) == 2 for one in column.bins)
    if column.scale is None:
        return not column.ordered and column.marker is None
    return in_order and column.marker in (None, *MARKERS) and _is_scale(column.scale, column.type)


def _is_scale(scale: Scale, kind: str) -> bool:
    return (
        (kind in ("string", "large_string") if scale.written else scale.type == kind)
        and 0 <= scale.decimals <= MOST_DECIMALS
        and scale.multiple > 0
        and scale.decimal_sign in (".", ",")
        and len(scale.thousands) <= 1
        and scale.format in ("", *FORMATS)
    )


def _is_form(form: Form) -> bool:
    """Whether rows can be written like that. Raises LookupError for an encoding that there is not."""
    "".encode(form.encoding)
    return (
        len(form.delimiter) == 1
        and len(form.quote) <= 1
        and not {form.delimiter, form.quote} & {"\r", "\n"}
        and form.delimiter != form.quote
        and form.line_end in ("\n", "\r\n", "\r")
        and form.trailing in ("", "rows", "all")
    )


def family(name: str, does: str) -> registry.Family:
    """A family of ours that can do something; ValueError for any other: a stranger's path would be a program to run."""
    if name in registry.names() and hasattr((found := registry.load(name)).Model, does):
        return found
    raise ValueError(f"its model {name!r:.40} is none that decodes such files")


def config(kind: type[T], record: dict[str, Any]) -> T:
    """The config of a model; settings that came after the file are the usual ones. Raises ValueError for others."""
    usual = {f.name: f.default for f in fields(kind) if f.default is not MISSING}  # type: ignore[arg-type]
    return exactly(kind, usual | record, "config")


def exactly(kind: type[T], record: Any, what: str) -> T:
    """A dataclass from a JSON object that has its fields, no others, each of its own type. Raises ValueError for anything else."""
    hints = _hints(kind)
    if type(record) is not dict or record.keys() != hints.keys():
        raise ValueError(f"its {what} is not one that this latente writes")
    return kind(**{name: _typed(hints[name], value, name) for name, value in record.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The fields of a dataclass with their types."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _typed(hint: Any, value: Any, name: str) -> Any:
    kind, inside = get_origin(hint), get_args(hint)
    if kind is Literal and any(type(value) is type(known) and value == known for known in inside):
        return value
    if kind is UnionType:
        return None if value is None and type(None) in inside else _typed(inside[0], value, name)
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_typed(inside[0], each, name) for each in value)
    if is_dataclass(hint):
        return exactly(hint, value, name)  # type: ignore[arg-type]
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) is hint and not (hint is int and not -(1 << 63) <= value < 1 << 63):
        return value
    raise ValueError(f"its {name} cannot be {value!r:.40}")


def holds(classes: Sequence[str]) -> bool:
    """Whether a header can hold the names of classes that a model does not know."""
    return len(classes) <= CLASSES and all(map(is_folder, classes)) and len(json.dumps(classes)) <= LABELS


def is_folder(name: str) -> bool:
    """Whether images can lie in a folder of that name, where a - stands for a /."""
    return bool(name.strip(". ")) and not set(name) & set("\\\0")


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} cannot be as its header says")
