"""What the data *is*, to a model.

A spec is small, frozen and JSON-friendly; a model is built from `(config, spec)` and nothing else. Every spec can make
`example` batches, so one test suite drives every model without reading a file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ImageSpec:
    """8-bit images of one size. A batch is `{"x": uint8 (B,C,H,W)}`, and `"label": int64 (B,)` when there are classes."""

    kind: ClassVar[str] = "image"
    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def dimensions(self) -> int:
        """Numbers in one image: C*H*W, what bits/dim divides by."""
        return self.channels * self.height * self.width

    def example(self, n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """`n` made-up images: smooth blobs on a dark ground, one place and size per class, so that models can learn them."""
        import torch

        classes = len(self.classes) or 4
        label = torch.randint(classes, (n,), generator=generator)
        angle = label * (2 * torch.pi / classes)
        jitter = 0.1 * torch.randn(2, n, 1, 1, generator=generator)
        rows = torch.linspace(-1, 1, self.height)[None, :, None] - 0.4 * angle.sin()[:, None, None] - jitter[0]
        columns = torch.linspace(-1, 1, self.width)[None, None, :] - 0.4 * angle.cos()[:, None, None] - jitter[1]
        blob = torch.exp(-6 * (rows**2 + columns**2))[:, None]
        tint = torch.linspace(1.0, 0.5, self.channels)[None, :, None, None]
        grain = 0.02 * torch.rand(n, *self.shape, generator=generator)
        batch = {"x": ((0.9 * blob * tint + grain).clamp(0, 1) * 255).to(torch.uint8)}
        if self.classes:
            batch["label"] = label
        return batch


@dataclass(frozen=True)
class TextSpec:
    """A stream of tokens seen through windows. A batch is `{"tokens": int64 (B, context + 1)}`: every token but the last is an
    input, every token but the first a target."""

    kind: ClassVar[str] = "text"
    vocabulary: int
    """V, how many different tokens there are; ids go from 0 to V - 1"""
    context: int
    """T, tokens a model sees at once"""
    start: int = 0
    """the token that stands before a text begun from nothing"""

    def example(self, n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """`n` made-up windows: each counts upwards from a random token in steps of 1 or 2, with one token in twenty replaced."""
        import torch

        first = torch.randint(self.vocabulary, (n, 1), generator=generator)
        pace = torch.randint(1, 3, (n, 1), generator=generator)
        tokens = (first + pace * torch.arange(self.context + 1)) % self.vocabulary
        noise = torch.randint(self.vocabulary, tokens.shape, generator=generator)
        replaced = torch.rand(tokens.shape, generator=generator) < 0.05
        return {"tokens": torch.where(replaced, noise, tokens)}


@dataclass(frozen=True)
class TableSpec:
    """Rows of tokens. A column is one field, or several that refine each other; a batch is `{"tokens": int64 (B,F)}`, the fields of
    all columns side by side, each token below the size of its field.

    In the first field of a column token 0 is a missing value; in that of a category token 1 is a level that is rare or was
    never seen, and of the ordered columns (numbers, dates) higher tokens are higher values.
    """

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    """names of the columns that are learned"""
    sizes: tuple[tuple[int, ...], ...]
    """for each column, how many tokens each of its fields has"""
    ordered: tuple[bool, ...]
    """for each column, whether it has an order"""
    never: tuple[tuple[int, ...], ...]
    """for each column, tokens of its first field that are not to be sampled: what training rows do not have, and what stands for
    a protected level"""
    target: int | None = None
    """the column that others are there to foretell"""

    @cached_property
    def fields(self) -> tuple[int, ...]:
        """The number of tokens of each of the F fields."""
        return tuple(size for sizes in self.sizes for size in sizes)

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """The column that each of the F fields belongs to."""
        return tuple(column for column, sizes in enumerate(self.sizes) for _ in sizes)

    def example(self, n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """`n` made-up rows: one hidden number from 0 to 1 decides all fields but for noise, one token in ten is replaced by any other."""
        import torch

        hidden = torch.rand(n, 1, generator=generator)
        size = torch.tensor(self.fields)
        pace = 1 + torch.arange(len(size)) % 3
        tokens = ((hidden * pace) % 1 * size).long()
        noise = (torch.rand(tokens.shape, generator=generator) * size).long()
        tokens = torch.where(torch.rand(tokens.shape, generator=generator) < 0.1, noise, tokens)
        return {"tokens": torch.minimum(tokens, size - 1)}


@dataclass(frozen=True)
class PairSpec:
    """Pairs of texts as tokens. A batch is `{"source": int64 (B,S), "target": int64 (B,T+1)}`: sources close with `end`, targets open
    with `begin` and close with `end`, and both are filled up with `pad` on the right to the longest of the batch."""

    kind: ClassVar[str] = "pair"
    pad: ClassVar[int] = 0
    begin: ClassVar[int] = 1
    end: ClassVar[int] = 2
    special: ClassVar[int] = 3
    """how many tokens are special: they come first, those of a tokenizer after them"""
    reach: ClassVar[int] = 2
    """a model reads and writes up to this many times the longest of training"""
    source: int
    """V', how many different tokens sources have, the special ones counted"""
    target: int
    """V, the same of targets"""
    longest_source: int
    """S at most in training, the end counted"""
    longest_target: int
    """T at most in training, the end counted"""
    usual_target: float = 16.0
    """T on average: what the loss of a pair is divided by, so that it is in nats per token and a mean over pairs"""
    shared: bool = False
    """whether both sides have one vocabulary"""

    @property
    def most_target(self) -> int:
        """Tokens of the longest target that is written, the end counted."""
        return self.reach * self.longest_target

    def example(self, n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """`n` made-up pairs of 1 token to as many as there may be: a target is the source backwards, one token in twenty replaced."""
        import torch

        most = min(self.longest_source, self.longest_target) - 1
        length = torch.randint(1, most + 1, (n, 1), generator=generator)
        length[0] = most
        fewest = min(self.source, self.target) - self.special
        source = self.special + torch.randint(fewest, (n, most), generator=generator)
        places = torch.arange(most)
        target = source.gather(1, (length - 1 - places).clamp(min=0))
        noise = self.special + torch.randint(fewest, target.shape, generator=generator)
        target = torch.where(torch.rand(target.shape, generator=generator) < 0.05, noise, target)
        closed = torch.full((n, most + 1), self.pad).scatter(1, length, self.end)
        inside = torch.arange(most + 1) < length
        source, target = (
            torch.where(inside, torch.nn.functional.pad(side, (0, 1)), closed) for side in (source, target)
        )
        return {"source": source, "target": torch.cat([torch.full((n, 1), self.begin), target], 1)}


Spec = ImageSpec | TextSpec | TableSpec | PairSpec
SPECS: dict[str, type[Spec]] = {spec.kind: spec for spec in (ImageSpec, TextSpec, TableSpec, PairSpec)}


def spec_to_json(spec: Spec) -> dict[str, Any]:
    return {"kind": spec.kind, **asdict(spec)}


def spec_from_json(record: dict[str, Any]) -> Spec:
    """The inverse of `spec_to_json`. Raises ValueError for a kind or a field it does not know."""
    fields = dict(record)
    kind = fields.pop("kind", None)
    if kind not in SPECS:
        raise ValueError(f"unknown spec kind {kind!r}; known: {', '.join(SPECS)}")
    try:
        return SPECS[kind](**{name: _tuples(value) for name, value in fields.items()})
    except TypeError as error:
        raise ValueError(f"bad {kind} spec: {error}") from None


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
