"""Autoregressive pixel model (van den Oord et al. 2016, arXiv:1601.06759, arXiv:1606.05328): the chance of an image is the product of
the chances of its numbers, each given all before it, row by row.

    x (B,C,H,W) -> E numbers a pixel -> window of R rows above and R pixels before -> L x causal block -> h (B,D,H,W)
                                                            class, row, column --^
    h of a pixel, its channels before this one -> high half byte (16) -> low half byte (16)

    block:  h -- relu -- 3 pixels above, 1 before, itself -> D -- relu -> D -- + --> h
             \\________________________________________________________________/

B batch, C channels, H W height and width, D width. A number 0..255 is two choices among 16, so that nothing has to be assumed about
its distribution. There is no norm, no division and no function but relu: with whole numbers for weights the network is exact on
any machine, which makes it a codec (`latente.codec.exact`). `Walk` computes it pixel by pixel, for samples and for decoding.
Losses in bits per dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.config import Recipe, Size
from latente.phases import Losses, Phase
from latente.spec import ImageSpec

Batch = dict[str, Tensor]
NEAR = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))  # rows and columns away: what a block sees
HALF = 16  # values of half a byte


@dataclass(frozen=True)
class Config:
    """Sizes of the pixel model."""

    width: int = 64
    """D, numbers that stand for a pixel and what lies before it"""
    blocks: int = 6
    """L, causal blocks"""
    window: int = 5
    """R, rows above and pixels to either side that the first layer sees"""
    embedding: int = 4
    """E, numbers that a pixel's channel becomes"""

    def __post_init__(self) -> None:
        for name, value, most in (
            ("width", self.width, 1024), ("blocks", self.blocks, 64), ("window", self.window, 16), ("embedding", self.embedding, 64),
        ):  # fmt: skip
            if not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(f"--{name} {value}: from 1 to {most}")

    @classmethod
    def preset(cls, size: Size, spec: ImageSpec) -> Config:
        return {
            "tiny": cls(width=32, blocks=3, window=4),
            "small": cls(),
            "base": cls(width=96, blocks=8, window=6),
        }[size]


class Block(nn.Module):
    """What a pixel adds to its numbers after a look at those just before it: (B,5D) -> (B,D), or over a whole image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Linear(len(NEAR) * width, width)
        self.narrow = nn.Linear(width, width)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(B,D,H,W) -> (B,D,H,W)."""
        wide = causal(F.relu(h), self.wide.weight, NEAR) + self.wide.bias[:, None, None]
        return h + F.conv2d(F.relu(wide), self.narrow.weight[:, :, None, None], self.narrow.bias)


class Head(nn.Module):
    """From a pixel's numbers and its channels before this one, (N,D+E'), to the chances of one channel's value."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, 2 * hidden)
        self.high = nn.Linear(hidden, HALF)
        self.known = nn.Embedding(HALF, hidden)
        self.low = nn.Linear(hidden, HALF)
        nn.init.zeros_(self.high.weight)
        nn.init.zeros_(self.low.weight)
        nn.init.zeros_(self.known.weight)

    def halves(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the high half (N,16), and what `second` needs (N,hidden)."""
        first, rest = self.base(h).chunk(2, 1)
        return self.high(F.relu(first)), rest

    def second(self, rest: Tensor, high: Tensor) -> Tensor:
        """Logits of the low half (N,16), given the high one (N,)."""
        return self.low(F.relu(rest + self.known(high)))


def causal(x: Tensor, weight: Tensor, places: Any) -> Tensor:
    """A convolution (B,I,H,W) -> (B,O,H,W) that sees the `places` (rows, columns away; none after the pixel) by weight (O, places*I)."""
    up, side = -min(row for row, _ in places), max(abs(column) for _, column in places)
    kernel = weight.new_zeros(up + 1, 2 * side + 1, *weight.unflatten(1, (len(places), -1))[:, 0].shape)
    rows, columns = (torch.tensor(part) for part in zip(*places))
    kernel = kernel.index_put((rows + up, columns + side), weight.unflatten(1, (len(places), -1)).transpose(0, 1))
    return F.conv2d(F.pad(x, (side, side, up, 0)), kernel.permute(2, 3, 0, 1))


class Model(nn.Module):
    accepts = (ImageSpec,)
    phases = (Phase("main"),)
    recipe = Recipe(batch_size=32, learning_rate=6e-3, ema=0.999, clip=1.0, decay=0.9)
    monitor = "bits_per_dim"

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.needs_label = bool(spec.classes)
        radius, features = config.window, spec.channels * config.embedding
        before = [(row, column) for row in range(-radius, 0) for column in range(-radius, radius + 1)]
        self.before = before + [(0, column) for column in range(-radius, 0)]
        self.embedding = nn.Embedding(spec.channels * 256, config.embedding)
        self.first = nn.Linear(len(self.before) * features, config.width)
        self.rows, self.columns = nn.Embedding(spec.height, config.width), nn.Embedding(spec.width, config.width)
        self.label: Any = nn.Embedding(len(spec.classes), config.width) if spec.classes else None
        self.blocks: Any = nn.ModuleList(Block(config.width) for _ in range(config.blocks))
        inputs = [config.width + channel * config.embedding for channel in range(spec.channels)]
        self.heads: Any = nn.ModuleList(Head(size, config.width) for size in inputs)
        # A pixel begins as its brightness and as whether it is black or white: what most of its neighbours want to know of it.
        value = torch.linspace(-1, 1, 256)
        start = torch.stack([value, 1 - (value + 1).clamp(max=1), 1 - (1 - value).clamp(max=1)], 1)
        with torch.no_grad():
            self.embedding.weight.normal_(std=0.1)
            shown = min(3, config.embedding)
            self.embedding.weight.view(spec.channels, 256, -1)[:, :, :shown] += start[:, :shown]
        for table in (self.rows, self.columns, self.label):
            if table is not None:
                nn.init.zeros_(table.weight)

    def muon_parameters(self) -> list[str]:
        """The matrices of the blocks."""
        return [f"blocks.{name}" for name, p in self.blocks.named_parameters() if p.ndim == 2]

    # ---- training -------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, phase: str, progress: float) -> Losses:
        """Bits per dimension of the batch."""
        bits = self.nats(batch).sum(1).mean() / (self.spec.dimensions * math.log(2))
        return Losses(bits, {"bits_per_dim": bits})

    def nats(self, batch: Batch) -> Tensor:
        """-ln p of every number of the images given those before it, (B, H*W*C)."""
        x = batch["x"].long()
        spec, channels = self.spec, self.spec.channels
        pixels = x.permute(0, 2, 3, 1)
        seen = self.pixels(pixels)
        h = causal(seen.permute(0, 3, 1, 2), self.first.weight, self.before) + self.first.bias[:, None, None]
        places = self.rows.weight.T[:, :, None] + self.columns.weight.T[:, None, :]
        h = h + (places if self.label is None else places + self.label(batch["label"])[:, :, None, None])
        for block in self.blocks:
            h = block(h)
        h, seen, pixels = F.relu(h).permute(0, 2, 3, 1).flatten(0, 2), seen.flatten(0, 2), pixels.flatten(0, 2)
        found = []
        for channel, head in enumerate(self.heads):
            high, low = pixels[:, channel] // HALF, pixels[:, channel] % HALF
            logits, rest = head.halves(torch.cat([h, seen[:, : channel * self.config.embedding]], 1))
            nats = F.cross_entropy(logits.float(), high, reduction="none")
            found.append(nats + F.cross_entropy(head.second(rest, high).float(), low, reduction="none"))
        return torch.stack(found, 1).view(len(x), spec.height * spec.width * channels)

    def pixels(self, x: Tensor) -> Tensor:
        """The numbers that stand for pixels, int64 (...,C) -> (...,C*E)."""
        return self.embedding(x + 256 * torch.arange(x.shape[-1], device=x.device)).flatten(-2)

    # ---- use ------------------------------------------------------------------------------------------------------

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None, samples: int = 1) -> Tensor:
        """log p(x) in nats, (B,): exact, nothing is drawn."""
        return -self.nats(batch).sum(1)

    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator, temperature: float = 1.0
    ) -> Batch:
        """Images drawn number by number; `temperature` below 1 keeps to the likelier, plainer ones."""
        device, made = self.first.weight.device, {}
        if self.label is not None:
            drawn = torch.randint(len(self.spec.classes), (n,), generator=generator)
            made["label"] = (drawn if condition is None else condition).to(device)

        def draw(logits: Tensor) -> Tensor:
            chances = F.softmax(logits.float() / temperature, 1).cpu()
            return torch.multinomial(chances, 1, generator=generator)[:, 0].to(device)

        return {"x": self.walk(n, made.get("label")).through(draw), **made}

    @property
    def remembered(self) -> int:
        """Numbers that a walk holds of an image, at most; by an exact network usually, and up to twice as many."""
        radius, (channels, height, width) = self.config.window, self.spec.shape
        seen = (height + radius) * (width + 2 * radius) + 2 * len(self.before)
        lines = 2 * self.config.width * (len(self.blocks) * (width + 2) + len(NEAR))
        return channels * self.config.embedding * seen + (lines // 2 if pairs(self.first) else lines)

    def walk(self, n: int, label: Tensor | None) -> Walk:
        """`n` images about to be made, or read again, number by number; `label` (n,) where there are classes."""
        return Walk(self, n, label)


class Walk:
    """Images made or read again pixel by pixel, remembering of every layer what later pixels look at.

    `model` is a `Model`, or one with whole numbers for weights.
    """

    def __init__(self, model: Any, n: int, label: Tensor | None) -> None:
        self.model, self.spec, self.n = model, model.spec, n
        radius, weight = model.config.window, model.rows.weight
        features = self.spec.channels * model.config.embedding
        self.x = torch.zeros(n, *self.spec.shape, dtype=torch.uint8, device=weight.device)
        self.seen = weight.new_zeros(n, self.spec.height + radius, self.spec.width + 2 * radius, features)
        self.lines = [Lines(block.wide, n, self.spec.width, model.config.width) for block in model.blocks]
        self.label = model.label(label) if model.label is not None else 0

    @torch.inference_mode()
    def through(self, choose: Any) -> Tensor:
        """All of the images, uint8 (n,C,H,W): `choose` maps logits (n,16) of half a byte to its values (n,), and is called for the
        high and then the low half of each number, row by row, pixel by pixel, channel by channel."""
        model, radius = self.model, self.model.config.window
        for row in range(self.spec.height):
            for column in range(self.spec.width):
                h = self.context(row, column)
                known = h.new_zeros(self.n, 0)
                for channel, head in enumerate(model.heads):
                    logits, rest = head.halves(torch.cat([h, known], 1))
                    high = choose(logits)
                    value = HALF * high + choose(head.second(rest, high))
                    self.x[:, channel, row, column] = value
                    known = torch.cat([known, model.embedding(value + 256 * channel)], 1)
                self.seen[:, row + radius, column + radius] = known
        return self.x

    def context(self, row: int, column: int) -> Tensor:
        """What is known at a pixel, from all before it, (n,D)."""
        model, radius = self.model, self.model.config.window
        above = self.seen[:, row : row + radius, column : column + 2 * radius + 1].flatten(1)
        before = self.seen[:, row + radius, column : column + radius].flatten(1)
        places = model.rows.weight[row] + model.columns.weight[column]
        h = through(model.first, torch.cat([above, before], 1)) + places + self.label
        for block, lines in zip(model.blocks, self.lines):
            h += through(block.narrow, F.relu(lines.look(F.relu(h), row, column), inplace=True))
        return F.relu(h, inplace=True)


class Lines:
    """What the wide layer of a block looks at: two rows of numbers of n images, `paired` while that layer can tell them apart."""

    def __init__(self, layer: Any, n: int, columns: int, width: int) -> None:
        self.layer, self.n, self.pairs = layer, n, pairs(layer)
        self.x = layer.weight.new_zeros(2, columns + 2, (n + 1) // 2 if self.pairs else n, width)
        self.squares = layer.weight.new_zeros(2, columns + 2, n)  # of their lengths

    def look(self, x: Tensor, row: int, column: int) -> Tensor:
        """What the layer makes, (n,D), of the numbers x (n,D) of a place and those of the places just before it."""
        if self.pairs:
            try:
                return self._paired(x, row, column)
            except OverflowError:
                self.x, self.pairs = self.layer.apart(self.x.movedim(2, 0))[: self.n].movedim(0, 2).contiguous(), False
        self.x[row % 2, column + 1] = x
        return self.layer(torch.cat(near(self.x, row, column), 1))

    def _paired(self, x: Tensor, row: int, column: int) -> Tensor:
        squares = self.squares[row % 2, column + 1] = self.layer.squares(x)
        self.x[row % 2, column + 1] = self.layer.paired(x, squares)
        squares = torch.stack(near(self.squares, row, column)).sum(0)
        return self.layer.of_pairs(torch.cat(near(self.x, row, column), 1), squares)


def near(lines: Tensor, row: int, column: int) -> list[Tensor]:
    """What stands at the places `NEAR` one, of lines (2,W+2,...)."""
    return [*lines[(row + 1) % 2, column : column + 3], *lines[row % 2, column : column + 2]]


def pairs(layer: Any) -> bool:
    """Whether a layer takes numbers `paired`: one of whole numbers does (codec/exact.py)."""
    return hasattr(layer, "of_pairs")


def through(layer: Any, x: Tensor) -> Tensor:
    """What a layer makes of numbers (n,D), those of two images as one if it can."""
    return layer.in_pairs(x) if pairs(layer) else layer(x)
