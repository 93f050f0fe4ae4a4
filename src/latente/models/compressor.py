"""Learned lossy compression: an autoencoder whose latents are whole numbers, trained for few bits and small errors together
(Ballé et al. 2017, arXiv:1611.01704; with an autoregressive prior: Minnen et al. 2018, arXiv:1809.02736).

    x (B,C,H,W) -> encoder -> y (B,K,h,w), h = H/4 -> times a gain -> round -> s, whole numbers, symbols -> divided again -> decoder -> x
                                                                      s -> what each symbol costs, given those before it -> bits

B batch, C channels, H W height and width, K latent channels, D width of the prior. Encoder and decoder are a cosine transform of 4x4
pixels, as it begins, and what a network adds to it: from the first step on it is a codec. One model serves `levels`
qualities: each has its own price of an error, gain for every channel (Cui et al. 2020, arXiv:2003.02012) and embedding in prior
and decoder. Rounding passes gradients straight through; bits are interpolated between the two nearest symbols, so they have a
slope. What is kept to decode (`coder`) has no function but relus, some of them leaky: with whole numbers for weights it is exact on
any machine. Losses in bits a dimension + price * squared error, errors in the 0..255 of pixels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.func import functional_call

from latente.config import Recipe, Size
from latente.phases import Losses, Phase
from latente.rng import keyed
from latente.spec import ImageSpec

Batch = dict[str, Tensor]
SYMBOLS = 64, 32  # of a patch's brightness, one channel a colour, and of every other latent channel; half are below 0
PATCH = 4  # pixels of a side that become one place of the latents
NEAR = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))  # rows and columns away: what a block of the prior sees
HEAT = 0.5, 0.25  # of refined symbols: the first and the last temperature
PACE = 0.04  # of refined symbols: the rate of Adam at first, in symbols
EASE = 50  # steps that keep the rate; of more, the last goes at EASE / steps of it
ROUNDED_FROM = 0.3  # of the training: from here on the coder's weights are rounded, as they are in a file
LEAK = 0.125  # units that never fire learn nothing; eighths stay exact
FINE = 8  # bits at least of a weight of the coder's `fine` layers
MOST_BITS = 12  # of a weight that is rounded by what it is worth
SPREAD = 8  # powers of two between the steps of such a layer's columns, at most
LOOK = 20  # batches from one that says how much weights matter to the next
KEPT = 0.98  # of what batches said before
COARSER = 3.0  # is the square of the step of a weight that training knows of than that of one which is rounded unawares
LEAST = 0.003  # of what weights of a layer matter on average, so much each does at least
WINDOW = 2  # rows above and places to either side that its first layer sees


@dataclass(frozen=True)
class Config:
    """Sizes and prices of the compressor."""

    latent_channels: int = 16
    """K, symbols of every 4x4 pixels"""
    width: int = 48
    """D, numbers of the prior for each place"""
    decoder_width: int = 48
    """F, channels of the decoder at the smallest grid; half of it above"""
    encoder_width: int = 128
    """channels of the encoder, which no file has to hold"""
    blocks: int = 2
    """residual blocks of prior, decoder and encoder, each"""
    levels: int = 8
    """qualities that one model serves"""
    weight_bits: int = 6
    """bits of a weight of prior and decoder, as most of the training has them and a file may"""
    leak: float = 0.0
    """of what hidden units of encoder and decoder are below zero, so much gets through: 0, as in early files, or an eighth"""
    views: int = 1
    """what prior and decoder are told of a symbol: itself, from 2 on its size as well, from 3 on the prior whether it is 0"""
    refine: int = 0
    """steps that refine the symbols of a batch before prior and decoder learn from them: slow, and worth it after `--init`"""
    shared_by: int = 0
    """images of a file, which share its weights, as many as the source has if not given: each weight is rounded as finely as that is
    worth to so many, and finer by each bit that a file has beyond `weight_bits`; 0: all alike, in `weight_bits`"""
    least_price: float = 0.001
    """bits a dimension that a squared error of 1 is worth, at the lowest quality"""
    most_price: float = 0.012
    """the same at the highest"""

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("latent-channels", self.latent_channels, 1, 48), ("width", self.width, 1, 1024), ("blocks", self.blocks, 1, 64),
            ("decoder-width", self.decoder_width, 2, 1024), ("encoder-width", self.encoder_width, 2, 4096),
            ("views", self.views, 1, 3), ("levels", self.levels, 1, 64), ("weight-bits", self.weight_bits, 3, 12),
            ("refine", self.refine, 0, 10_000), ("shared-by", self.shared_by, 0, 10**9),
        ):  # fmt: skip
            if not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"--{name} {value}: from {least} to {most}")
        if self.leak not in (0, LEAK):
            raise ValueError(f"--leak {self.leak}: 0 or {LEAK}")
        if not 0 < self.least_price <= self.most_price < 1e6:
            raise ValueError(
                f"--least-price {self.least_price} --most-price {self.most_price}: above 0, the least first"
            )

    @classmethod
    def preset(cls, size: Size, spec: ImageSpec) -> Config:
        found = {
            "tiny": cls(8 * spec.channels, width=24, decoder_width=24, encoder_width=48, blocks=1),
            "small": cls(16 * spec.channels),
            "base": cls(16 * spec.channels, width=96, decoder_width=96, encoder_width=256, blocks=3),
        }[size]
        return replace(found, leak=LEAK, views=3, shared_by=10_000)

    def for_items(self, n: int) -> Config:
        """The same for a file of so many images."""
        return replace(self, shared_by=n)


class Patches(nn.Module):
    """A 3x3 convolution (B,I,h,w) -> (B,O,h,w) as one linear layer over patches, which is what can be made exact."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear: Any = nn.Linear(9 * inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.linear, nn.Linear):
            return F.conv2d(x, self.linear.weight.view(-1, x.shape[1], 3, 3), self.linear.bias, padding=1)
        return self.linear(F.unfold(x, 3, padding=1).mT).mT.unflatten(2, x.shape[2:])


class Residual(nn.Module):
    """x + conv(relu(conv(x))), a leaky relu: (B,D,h,w) -> (B,D,h,w)."""

    def __init__(self, channels: int, leak: float) -> None:
        super().__init__()
        self.leak = leak
        self.one, self.two = Patches(channels, channels), Patches(channels, channels)
        nn.init.zeros_(self.two.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(F.leaky_relu(self.one(x), self.leak))


class Encoder(nn.Module):
    """(B,C,H,W) floats and a quality (B,) -> (B,K,h,w)."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        width, self.leak = config.encoder_width, config.leak
        self.first = Patches(4 * spec.channels, width // 2)
        self.fine = nn.ModuleList(Residual(width // 2, self.leak) for _ in range(config.blocks))
        self.down = nn.Conv2d(2 * width, width, 1)
        self.level = nn.Embedding(config.levels, width)
        self.blocks = nn.ModuleList(Residual(width, self.leak) for _ in range(config.blocks))
        self.last = nn.Conv2d(width, config.latent_channels, 1)
        self.patch = nn.Conv2d(PATCH**2 * spec.channels, config.latent_channels, 1, bias=False)
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            self.patch.weight.copy_(cosines(spec.channels)[: config.latent_channels, :, None, None])

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        straight = self.patch(F.pixel_unshuffle(x, PATCH))
        x = self.first(F.pixel_unshuffle(x, 2))
        for block in self.fine:
            x = block(x)
        x = self.down(F.pixel_unshuffle(x, 2)) + self.level(level)[:, :, None, None]
        for block in self.blocks:
            x = block(x)
        return (straight + self.last(F.leaky_relu(x, self.leak))).float()


class Synthesis(nn.Module):
    """Latents (B,K,h,w) and a quality (B,) -> pixels (B,C,4h,4w), 0 = grey, 1 = white."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        wide, half, self.leak = config.decoder_width, config.decoder_width // 2, config.leak
        self.sizes = config.views > 1
        self.first = Patches(config.latent_channels * (1 + self.sizes), wide)
        self.level = nn.Embedding(config.levels, wide)
        self.blocks = nn.ModuleList(Residual(wide, self.leak) for _ in range(config.blocks))
        self.up = nn.Linear(wide, 4 * half)
        self.fine = nn.ModuleList(Residual(half, self.leak) for _ in range(config.blocks))
        self.last = Patches(half, 4 * spec.channels)
        self.patch = nn.Linear(config.latent_channels, PATCH**2 * spec.channels)
        with torch.no_grad():
            self.last.linear.weight.mul_(0.1)
            self.patch.weight.copy_(cosines(spec.channels)[: config.latent_channels].T)

    def forward(self, z: Tensor, level: Tensor) -> Tensor:
        straight = F.pixel_shuffle(self.patch(z.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), PATCH)
        x = self.first(torch.cat([z, z.abs()], 1) if self.sizes else z) + self.level(level)[:, :, None, None]
        for block in self.blocks:
            x = block(x)
        x = F.leaky_relu(x, self.leak).permute(0, 2, 3, 1)
        x = F.pixel_shuffle(self.up(x).permute(0, 3, 1, 2), 2)
        for block in self.fine:
            x = block(x)
        return straight + F.pixel_shuffle(self.last(F.leaky_relu(x, self.leak)), 2)


def cosines(channels: int) -> Tensor:
    """The orthonormal discrete cosine transform of 4x4 pixels and their channels, (16C,16C), low frequencies first; columns as
    `pixel_unshuffle` orders pixels."""

    def basis(n: int) -> Tensor:
        rows = torch.cos(torch.pi / n * torch.outer(torch.arange(n), torch.arange(n) + 0.5))
        return rows / rows.norm(dim=1, keepdim=True)

    of_pixels, of_colours = torch.kron(basis(PATCH), basis(PATCH)), basis(channels)
    down, across, colour = torch.meshgrid(
        torch.arange(PATCH), torch.arange(PATCH), torch.arange(channels), indexing="ij"
    )
    order = (down + across + 2 * colour).flatten().argsort(stable=True)
    both = torch.einsum(
        "pq,cd->pcdq", of_pixels, of_colours
    )  # pixel_unshuffle: channel by channel, then pixel by pixel
    return both.flatten(0, 1).flatten(1)[order]


class Head(nn.Module):
    """What is known at a place, and its earlier symbols, (N,D+j) -> logits of the next one, (N,S)."""

    def __init__(self, inputs: int, hidden: int, symbols: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(inputs, hidden), nn.Linear(hidden, symbols)
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            self.out.bias.copy_(-0.7 * torch.arange(-symbols // 2, symbols // 2).abs())

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(x)))


class Coder(nn.Module):
    """What decoding takes: the prior of the symbols, how they become latents again, and the synthesis."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        self.config, self.spec, self.one = config, spec, 1
        self.grid = -(-spec.height // PATCH), -(-spec.width // PATCH)
        k, width, seen = config.latent_channels, config.width, config.latent_channels * config.views
        if k > PATCH**2 * spec.channels:
            raise ValueError(
                f"--latent-channels {k}: {PATCH}x{PATCH} pixels have {PATCH**2 * spec.channels} numbers at most"
            )
        before = [(row, column) for row in range(-WINDOW, 0) for column in range(-WINDOW, WINDOW + 1)]
        self.before = before + [(0, column) for column in range(-WINDOW, 0)]
        self.steps = nn.Embedding(config.levels, k)
        self.first = nn.Linear(len(self.before) * seen, width)
        self.level = nn.Embedding(config.levels, width)
        self.label: Any = nn.Embedding(len(spec.classes), width) if spec.classes else None
        self.rows, self.columns = nn.Embedding(self.grid[0], width), nn.Embedding(self.grid[1], width)
        self.blocks: Any = nn.ModuleList(
            nn.ModuleList([nn.Linear(len(NEAR) * width, width), nn.Linear(width, width)]) for _ in range(config.blocks)
        )
        self.symbols = [SYMBOLS[channel >= spec.channels] for channel in range(k)]
        self.heads: Any = nn.ModuleList(
            Head(width + channel * config.views, width, of) for channel, of in enumerate(self.symbols)
        )
        self.synthesis = Synthesis(spec, config)
        self.fine = ("first", *(n for n in self.layers() if n.startswith("synthesis.") and ".blocks." not in n))
        """layers of few weights that much depends on, kept finer than the others"""
        for table in (self.rows, self.columns, self.label):
            if table is not None:
                nn.init.zeros_(table.weight)
        if config.shared_by:
            self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
            for layer in self.layers().values():
                layer.register_buffer("row_fisher", torch.zeros(layer.out_features))
                layer.register_buffer("column_fisher", torch.zeros(layer.in_features))
        # At high rates the best step is sqrt(6 / (price * ln 2)) / 127.5 for bits and errors a dimension.
        prices = torch.linspace(math.log(config.least_price), math.log(config.most_price), config.levels)
        with torch.no_grad():
            self.steps.weight.copy_((6 / prices.exp() / math.log(2)).sqrt()[:, None].expand(-1, k) / 127.5)

    def layers(self) -> dict[str, Any]:
        """The linear ones, by name."""
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, nn.Linear)}

    def look(self, symbols: Tensor, batch: Batch, price: Tensor, weights: dict[str, Tensor]) -> None:
        """Learns, from every `LOOK`-th batch (B) and its prices of an error, how much what images cost depends on `weights`, rounded: the
        diagonal of the Fisher information in bits an image, its means over rows and columns (as Adafactor has them; Shazeer and
        Stern 2018, arXiv:1804.04235), by symbols drawn from the prior's own chances and random errors of the pixels."""
        (before, between), layers = divmod(int(self.batches), LOOK), self.layers()
        self.batches += 1
        if between:
            return
        held = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        with torch.enable_grad():
            logits, pixels = functional_call(self, held, (symbols, symbols, batch["level"], batch.get("label")))
            drawn, signs = by_chance(logits, pixels, batch["seed"])
            cost = (127.5 * (2 * price).sqrt()[:, None, None, None] * pixels * signs * (pixels.detach() > -1)).sum()
            for part, chosen in zip(logits, drawn):
                nats = F.cross_entropy(part.flatten(0, -2), chosen.flatten(), reduction="sum")
                cost = cost + nats / math.log(2) ** 0.5
            found = torch.autograd.grad(cost, [held[f"{name}.weight"] for name in layers])
        flat = torch.cat([slope.float().flatten() for slope in found])
        images = torch.tensor(float(len(symbols)), device=flat.device)
        if distributed.is_available() and distributed.is_initialized():
            for each in (flat, images):
                distributed.all_reduce(each)
        squares, new = flat.square() / images, 1 - min(KEPT, before / (before + 1))
        for layer, part in zip(layers.values(), squares.split([slope.numel() for slope in found])):
            square = part.view(layer.weight.shape)
            layer.row_fisher.lerp_(square.mean(1), new)
            layer.column_fisher.lerp_(square.mean(0), new)

    def shifts(self, name: str, bits: int) -> tuple[Tensor, Tensor] | None:
        """How a layer's weights are rounded where it is by their worth: to multiples of 2^(column - row), whole numbers (O,) and (I,). A
        step costs as much in errors as it saves in bits where its square is 12 / (images * ln 2 * Fisher information)."""
        if not self.config.shared_by:
            return None
        if not self.batches:
            return self.alike(name, bits)
        layer: Any = self.get_submodule(name)
        rows, columns = (one + LEAST * one.mean() + 1e-30 for one in (layer.row_fisher, layer.column_fisher))
        wide = (-0.5 * (columns / columns.mean()).log2()).round()
        least = wide.min()
        wide = (wide - least).clamp(max=SPREAD)
        step = 0.5 * (COARSER * 12 / (self.config.shared_by * math.log(2) * rows)).log2() + least
        return torch.minimum(
            (bits - self.config.weight_bits - step).round(), finest(layer.weight, MOST_BITS, wide)
        ), wide

    def alike(self, name: str, bits: int) -> tuple[Tensor, Tensor]:
        """The same where all are worth as much, and a layer's rows are as fine as so many bits allow for the largest of each."""
        layer: Any = self.get_submodule(name)
        columns = torch.zeros_like(layer.weight[0])
        return finest(layer.weight, max(bits, FINE) if name in self.fine else bits, columns), columns

    @property
    def remembered(self) -> int:
        """Numbers that a walk holds of an image, at most."""
        (height, width), k = self.grid, self.config.latent_channels
        seen = self.config.views * ((height + WINDOW) * (width + 2 * WINDOW) + 2 * len(self.before))
        return k * (seen + height * width) + 2 * self.config.width * (len(self.blocks) * (width + 2) + len(NEAR))

    @property
    def drawn(self) -> int:
        """Numbers that the synthesis holds of an image, at most."""
        widest = max(9 * 2 * self.config.latent_channels, 24 * self.config.decoder_width, 16 * self.spec.channels)
        return 2 * widest * self.grid[0] * self.grid[1]

    def seen(self, symbols: Tensor) -> Tensor:
        """Symbols (B,K,...) -> what the prior is told of them, (B,K*views,...)."""
        size = symbols.abs()
        return torch.stack([symbols, size, size.clamp(max=1)][: self.config.views], 2).flatten(1, 2)

    def latents(self, symbols: Tensor, level: Tensor) -> Tensor:
        """Symbols (B,K,h,w), whole, of a quality (B,) -> what the synthesis takes."""
        return symbols * self.steps(level)[:, :, None, None]

    def pixels(self, symbols: Tensor, level: Tensor) -> Tensor:
        """Symbols of a quality -> (B,C,H,W), in units of the weights."""
        return self.synthesis(self.latents(symbols, level), level)[:, :, : self.spec.height, : self.spec.width]

    def shown(self, symbols: Tensor, level: int | Tensor) -> Tensor:
        """Symbols (B,K,h,w) of one quality, or of a quality each (B,), as images, uint8."""
        pixels = self.pixels(symbols, torch.as_tensor(level, device=symbols.device).expand(len(symbols)))
        return ((pixels / self.one + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)

    def known(self, level: Tensor, label: Tensor | None) -> Tensor:
        """What is known of images before their first symbol, (B,D), from quality and, where there are classes, label (B,)."""
        return self.level(level) if self.label is None else self.level(level) + self.label(label)

    def logits(self, symbols: Tensor, level: Tensor, label: Tensor | None = None) -> list[Tensor]:
        """What each symbol of (B,K,h,w) may be, given those before it, row by row, place by place: (k,B,h,w,S) for the k channels of S."""
        seen, views = self.seen(symbols.float()), self.config.views
        places = self.rows.weight.T[:, :, None] + self.columns.weight.T[:, None, :]
        h = causal(seen, self.first.weight, self.before) + self.first.bias[:, None, None]
        h = h + places + self.known(level, label)[:, :, None, None]
        for wide, narrow in self.blocks:
            inner = F.relu(causal(h, wide.weight, NEAR) + wide.bias[:, None, None])
            h = h + F.conv2d(inner, narrow.weight[:, :, None, None], narrow.bias)
        both = torch.cat([F.relu(h), seen.to(h.dtype)], 1).permute(0, 2, 3, 1).flatten(0, 2)
        # All heads and places at once: one matrix, that is 0 where a head does not see so far.
        rows = [F.pad(head.hidden.weight, (0, (len(self.heads) - i) * views)) for i, head in enumerate(self.heads)]
        inner = F.relu(F.linear(both, torch.cat(rows), torch.cat([head.hidden.bias for head in self.heads])))
        groups = [[*heads] for _, heads in groupby(self.heads, key=lambda head: head.out.out_features)]
        parts, found = inner.unflatten(1, (len(rows), -1)).transpose(0, 1).split([*map(len, groups)]), []
        for part, heads in zip(parts, groups):
            out, bias = torch.stack([head.out.weight for head in heads]), torch.stack([head.out.bias for head in heads])
            logits = part @ out.mT + bias[:, None]
            found.append(logits.float().unflatten(1, (len(seen), *self.grid)))
        return found

    def forward(self, y: Tensor, symbols: Tensor, level: Tensor, label: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """`logits` of `symbols`, and `pixels` of y, both (B,K,h,w), the same but for their slopes."""
        return self.logits(symbols, level, label), self.pixels(y, level)

    def walk(self, n: int, level: Tensor, label: Tensor | None = None) -> Walk:
        """The symbols of `n` images of a quality and class, (n,) each, about to be made, or read again, one by one."""
        return Walk(self, n, self.known(level, label))


@torch.no_grad()
def by_chance(logits: list[Tensor], pixels: Tensor, seeds: Tensor) -> tuple[list[Tensor], Tensor]:
    """Symbols as likely as logits (k,B,h,w,S) say, (k,B,h,w), and 1 or -1 for each pixel, by a seed for every image, (B,)."""
    symbols, signs = [part.argmax(-1) for part in logits], torch.ones_like(pixels)
    for item, seed in enumerate(seeds.tolist()):
        generator = torch.Generator().manual_seed(seed)
        signs[item] = torch.randint(2, pixels.shape[1:], generator=generator) * 2 - 1
        for part, chosen in zip(logits, symbols):
            chances = part[:, item].softmax(-1).cpu()
            picked = torch.multinomial(chances.flatten(0, -2), 1, generator=generator)
            chosen[:, item] = picked.view(chances.shape[:-1])
    return symbols, signs


def rounded(coder: Coder, bits: int) -> dict[str, Tensor]:
    """The matrices of a coder as a file holds them with so many bits a weight, by name; gradients pass straight through."""
    found = {}
    for name, layer in coder.layers().items():
        weight, (rows, columns) = layer.weight.float(), coder.shifts(name, bits) or coder.alike(name, bits)
        scale = torch.exp2(rows[:, None] - columns)
        found[f"{name}.weight"] = weight + ((weight.detach() * scale).round() / scale - weight.detach())
    return found


def finest(weight: Tensor, bits: int, columns: Tensor) -> Tensor:
    """The largest shifts of rows (O,) at which multiples of 2^(column - row) of so many bits reach all of a matrix (O,I)."""
    largest = (weight.detach().float().abs() / columns.exp2()).amax(1).clamp(min=2.0**-20)
    return ((2.0 ** (bits - 1) - 1) / largest).log2().floor()


def causal(x: Tensor, weight: Tensor, places: Any) -> Tensor:
    """A convolution (B,I,H,W) -> (B,O,H,W) that sees the `places` (rows, columns away; none after its own) by weight (O, places*I)."""
    up, side = -min(row for row, _ in places), max(abs(column) for _, column in places)
    parts = weight.unflatten(1, (len(places), -1)).transpose(0, 1)
    rows, columns = (torch.tensor(part) for part in zip(*places))
    kernel = weight.new_zeros(up + 1, 2 * side + 1, *parts.shape[1:]).index_put((rows + up, columns + side), parts)
    return F.conv2d(F.pad(x, (side, side, up, 0)), kernel.permute(2, 3, 0, 1))


class Model(nn.Module):
    accepts = (ImageSpec,)
    phases = (Phase("main"),)
    # At Muon's usual rate hidden units fall silent: nine in ten of them, and in the decoder's coarse blocks all.
    recipe = Recipe(batch_size=32, learning_rate=4e-3, muon_learning_rate=0.01, ema=0.999, clip=1.0, decay=0.9)
    monitor = "total"
    prices: Tensor

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.needs_label = bool(spec.classes)
        self.encoder, self.coder = Encoder(spec, config), Coder(spec, config)
        prices = torch.linspace(math.log(config.least_price), math.log(config.most_price), config.levels).exp()
        self.register_buffer("prices", prices, persistent=False)

    def muon_parameters(self) -> list[str]:
        """The matrices of all blocks."""
        return [n for n, p in self.named_parameters() if p.ndim == 2 and (".blocks." in n or ".fine." in n)]

    # ---- training -------------------------------------------------------------------------------------------------

    def noise(self, n: int, phase: str, generator: torch.Generator) -> Batch:
        """A quality for every image, and a seed of what is drawn where the coder looks at it."""
        level = torch.randint(self.config.levels, (n,), generator=generator)
        return {"level": level, "seed": torch.randint(2**62, (n,), generator=generator)}

    def forward(self, batch: Batch, phase: str, progress: float) -> Losses:
        """Bits a dimension, squared errors of pixels 0..255, and what both cost at the prices of the images' qualities. Where the config
        says `refine`, prior and decoder learn from `refined` symbols, and the encoder from its own; the total is the mean of both."""
        level, steps = batch["level"], self.config.refine
        late = progress >= ROUNDED_FROM or steps > 0
        weights = rounded(self.coder, self.config.weight_bits) if late else {}
        if not steps:
            y = self.scaled(batch["x"], level)
            self._look(y, batch, weights)
            return self._losses(y, batch, weights)
        half = torch.is_autocast_enabled(level.device.type)
        held = {name: weight.detach() for name, weight in (dict(self.coder.named_parameters()) | weights).items()}
        symbols = self.refined(batch, level, steps, half, held).float()
        self._look(symbols, batch, weights)
        learned = self._losses(symbols, batch, weights)
        encoded = self._losses(self.scaled(batch["x"], level, held["steps.weight"]), batch, held)
        return learned._replace(total=(learned.total + encoded.total) / 2)

    def _look(self, y: Tensor, batch: Batch, weights: dict[str, Tensor]) -> None:
        if self.training and weights and self.config.shared_by:
            self.coder.look(y.detach().round(), batch, self.prices[batch["level"]], weights)

    def _losses(self, y: Tensor, batch: Batch, weights: dict[str, Tensor]) -> Losses:
        """What y (B,K,h,w), rounded, costs with a coder of such weights."""
        level, symbols = batch["level"], y.detach().round()
        given = y + (symbols - y.detach()), symbols, level, batch.get("label")
        logits, pixels = functional_call(self.coder, weights, given)
        error = self._error(pixels, batch["x"])
        bits = self._bits(y, symbols, logits) / self.spec.dimensions
        total = (bits + self.prices[level] * error).mean()
        return Losses(total, {"bits_per_dim": bits.mean(), "squared_error": error.mean()})

    def scaled(self, x: Tensor, level: Tensor, steps: Tensor | None = None) -> Tensor:
        """uint8 (B,C,H,W) of a quality (B,) -> what is rounded to symbols, (B,K,h,w) within their range. `steps` (levels,K): in place of
        the coder's."""
        height, width = (PATCH * side for side in self.coder.grid)
        x = F.pad(x.float() / 127.5 - 1, (0, width - x.shape[3], 0, height - x.shape[2]), mode="replicate")
        steps = self.coder.steps.weight if steps is None else steps
        return self._possible(self.encoder(x, level) / F.embedding(level, steps)[:, :, None, None])

    def _possible(self, y: Tensor) -> Tensor:
        """(B,K,h,w), brought into the range of the symbols."""
        most = torch.tensor([of // 2 - 1.0 for of in self.coder.symbols], device=y.device)[:, None, None]
        return y.clamp(-1 - most, most)

    def _bits(self, y: Tensor, symbols: Tensor, logits: list[Tensor], between: bool = False) -> Tensor:
        """What an image's symbols cost, (B,), with the slope of what numbers between two symbols cost, in proportion; `between`: that
        cost itself, of `symbols` that lie between as well."""
        y, symbols = y.transpose(0, 1), symbols.transpose(0, 1)
        below, total, first = y.detach().floor(), y.new_zeros(y.shape[1]), 0
        for part in logits:
            of, at = part.shape[-1], slice(first, first + len(part))
            near = torch.stack([below[at], below[at] + 1, symbols[at]][: 2 if between else 3], 4) + of // 2
            cost = -F.log_softmax(part, 4).gather(4, near.long().clamp(max=of - 1))
            low, high, *there = cost.unbind(4)
            if not between:
                low, high = low.detach(), high.detach()
            sloped = low + (high - low) * (y - below)[at]
            total = total + (sloped if between else there[0] + sloped - sloped.detach()).sum((0, 2, 3))
            first += len(part)
        return total / math.log(2)

    # ---- use ------------------------------------------------------------------------------------------------------

    def at(self, level: int, levels: int = 1) -> Model:
        """A copy that knows only so many qualities from `level` on, as its levels 0, 1, ..."""
        if not 0 <= level <= self.config.levels - levels:
            raise ValueError(f"quality {level}: from 0 to {self.config.levels - levels}")
        made, kept = copy.deepcopy(self), slice(level, level + levels)
        made.config = made.coder.config = replace(self.config, levels=levels)
        for table in (made.encoder.level, made.coder.level, made.coder.steps, made.coder.synthesis.level):
            table.weight, table.num_embeddings = nn.Parameter(table.weight.detach()[kept]), levels
        made.prices = self.prices[kept]
        return made

    def _filed(self) -> Coder:
        """The coder as a file has it. Weights rounded by their worth differ too much from what training goes on with."""
        if not self.config.shared_by:
            return self.coder
        made = copy.deepcopy(self.coder)
        with torch.no_grad():
            for name, weight in rounded(self.coder, self.config.weight_bits).items():
                made.get_parameter(name).copy_(weight)
        return made

    def symbols(self, batch: Batch, level: int | Tensor) -> Tensor:
        """What images of a quality, or of a quality each (B,), are coded as, int64 (B,K,h,w)."""
        each = torch.as_tensor(level, device=self.prices.device).expand(len(batch["x"]))
        return self.scaled(batch["x"], each).round().long()

    def refined(
        self, batch: Batch, level: Tensor, steps: int, half: bool = False, weights: dict[str, Tensor] | None = None,
        go_on: Callable[[], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """What images of a quality each, (B,), are coded as, int64 (B,K,h,w), cheaper in bits and errors together than the encoder's choice
        by what `steps` of stochastic Gumbel annealing find (Yang, Bamler and Mandt 2020, arXiv:2006.04240): every number is rounded up
        or down by chance, evenly at first and nearly always to the nearest at last, and moves to where the expected cost falls.
        `half`: in bfloat16; `weights`: of the coder, by name, if not its own; `go_on` is called at every step, and may raise."""
        weights = weights or {}
        with torch.no_grad():
            encoded = self.scaled(batch["x"], level)
        if not steps:
            return encoded.round().long()
        y, generator = encoded.clone().requires_grad_(), keyed("refined")
        optimizer = torch.optim.Adam([y], PACE)
        for step in range(steps):
            if go_on:
                go_on()
            heat = HEAT[0] * (HEAT[1] / HEAT[0]) ** (step / steps)
            optimizer.param_groups[0]["lr"] = PACE * min(1, EASE / steps) ** (step / steps)
            below, even = y.detach().floor(), torch.rand(y.shape, generator=generator).to(y).clamp(1e-4, 1 - 1e-4)
            with torch.enable_grad(), torch.autocast(y.device.type, torch.bfloat16, enabled=half):
                share = (y - below).clamp(1e-4, 1 - 1e-4)
                pull = (torch.atanh(share) - torch.atanh(1 - share)) / heat
                cost = self._cost(below + torch.sigmoid((pull + torch.logit(even)) / heat), level, batch, weights)
                (y.grad,) = torch.autograd.grad(cost.sum(), y)
            optimizer.step()
            with torch.no_grad():
                y.copy_(self._possible(y))
        with torch.no_grad():
            before, after = encoded.round(), y.detach().round()
            better = self._cost(after, level, batch, weights) < self._cost(before, level, batch, weights)
        return torch.where(better[:, None, None, None], after, before).long()

    def _cost(self, y: Tensor, level: Tensor, batch: Batch, weights: dict[str, Tensor]) -> Tensor:
        """What numbers between symbols cost in bits a dimension and errors, (B,), with a coder of such weights."""
        logits, pixels = functional_call(self.coder, weights, (y, y, level, batch.get("label")))
        bits = self._bits(y, y, logits, between=True) / self.spec.dimensions
        return bits + self.prices[level] * self._error(pixels, batch["x"])

    def _error(self, pixels: Tensor, x: Tensor) -> Tensor:
        """The mean squared error of the synthesis's images, (B,), x (B,C,H,W). What is darker than black is black and costs nothing; the
        slope is that of black, so it leads out."""
        made = 127.5 * (1 + pixels.float())
        made = made + (made.clamp(0, 255) - made).detach()
        return (made - x.float()).square().flatten(1).mean(1)

    def rate(self, batch: Batch, level: int) -> tuple[Tensor, Tensor]:
        """Bits of each image at a quality, and the mean squared error of its pixels, (B,) each."""
        each = torch.full((len(batch["x"]),), level, device=self.prices.device)
        symbols, coder = self.symbols(batch, level).float(), self._filed()
        bits = self._bits(symbols, symbols, coder.logits(symbols, each, batch.get("label")))
        error = coder.shown(symbols, level).float() - batch["x"].float()
        return bits, error.square().flatten(1).mean(1)

    def encode(self, batch: Batch) -> Tensor:
        """The symbols of the highest quality as a vector, (B,K*h*w)."""
        return self.symbols(batch, self.config.levels - 1).float().flatten(1)

    def reconstruct(self, batch: Batch) -> Batch:
        """Images as the highest quality keeps them."""
        level = self.config.levels - 1
        return {"x": self._filed().shown(self.symbols(batch, level).float(), level)}

    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator, temperature: float = 1.0
    ) -> Batch:
        """Images decoded from symbols drawn one by one at the highest quality."""
        device, made = self.prices.device, {}
        if self.spec.classes:
            drawn = torch.randint(len(self.spec.classes), (n,), generator=generator)
            made["label"] = (drawn if condition is None else condition).to(device)

        def draw(logits: Tensor) -> Tensor:
            chances = F.softmax(logits.float() / temperature, 1).cpu()
            return torch.multinomial(chances, 1, generator=generator)[:, 0].to(device)

        level, coder = self.config.levels - 1, self._filed()
        symbols = coder.walk(n, torch.full((n,), level, device=device), made.get("label")).through(draw)
        return {"x": coder.shown(symbols.float(), level), **made}


class Walk:
    """Symbols made or read again one by one, remembering of every layer what later ones look at. `coder` may be an exact one."""

    def __init__(self, coder: Any, n: int, known: Tensor) -> None:
        """`known` (n,D) as `Coder.known` gives it."""
        self.coder, self.known = coder, known
        (height, width), weight = coder.grid, coder.rows.weight
        k, seen = coder.config.latent_channels, coder.config.latent_channels * coder.config.views
        self.symbols = torch.zeros(n, k, height, width, dtype=torch.int64, device=weight.device)
        self.seen = weight.new_zeros(n, height + WINDOW, width + 2 * WINDOW, seen)
        self.lines = weight.new_zeros(len(coder.blocks), 2, n, width + 2, coder.config.width)

    @torch.no_grad()
    def through(self, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """All of the symbols, int64 (n,K,h,w): `choose` maps logits (n,S) to which of S it is, (n,)."""
        for row in range(self.coder.grid[0]):
            for column in range(self.coder.grid[1]):
                known = self.context(row, column)
                for channel, head in enumerate(self.coder.heads):
                    value = choose(head(known)) - self.coder.symbols[channel] // 2
                    self.symbols[:, channel, row, column] = value
                    told = self.coder.seen(value[:, None]) * self.coder.one
                    known = torch.cat([known, told.to(known.dtype)], 1)
                self.seen[:, row + WINDOW, column + WINDOW] = known[:, self.coder.config.width :]
        return self.symbols

    def context(self, row: int, column: int) -> Tensor:
        """What is known at a place, from all before it, (n,D)."""
        coder = self.coder
        above = self.seen[:, row : row + WINDOW, column : column + 2 * WINDOW + 1].flatten(1)
        before = self.seen[:, row + WINDOW, column : column + WINDOW].flatten(1)
        places = coder.rows.weight[row] + coder.columns.weight[column]
        h = coder.first(torch.cat([above, before], 1)) + places + self.known
        for number, (wide, narrow) in enumerate(coder.blocks):
            upper, line = self.lines[number, (row + 1) % 2], self.lines[number, row % 2]
            line[:, column + 1] = h
            near = torch.cat([upper[:, column : column + 3].flatten(1), line[:, column : column + 2].flatten(1)], 1)
            h = h + narrow(F.relu(wide(near)))
        return F.relu(h)
