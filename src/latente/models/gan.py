"""Generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661), trained as in R3GAN (Huang et al. 2024, arXiv:2501.05441).

    noise z (B,Z) [, label] -> generator -> fake (B,C,H,W) --\
                                                              augment -> discriminator -> score (B,)
                                            real (B,C,H,W) --/

B batch, C channels, H W height and width, Z noise size, h w the smallest feature map (at most 8x8). A real and a fake are
paired and the discriminator learns which is which: softplus(-(D(real) - D(fake))), in nats per pair; the generator minimises
the same with the two exchanged. Zero-centred penalties on the squared gradient of D at reals (R1) and fakes (R2) make the
game converge; they are computed every `Phase.every` steps and weighed accordingly (lazily; Karras et al. 2019,
arXiv:1912.04958). Nothing is normalised over the batch. What samples is the generator's running average.
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
LAZY = 8


@dataclass(frozen=True)
class Config:
    """Sizes and objective of the GAN."""

    noise_dim: int = 64
    """Z, numbers of noise an image is made from"""
    generator_width: int = 64
    """generator channels at half resolution; deeper maps have up to four times as many"""
    discriminator_width: int = 64
    """discriminator channels at half resolution; deeper maps have up to four times as many"""
    blocks: int = 1
    """residual blocks at each of the smaller feature maps, in both networks"""
    penalty: float = 0.1
    """weight of the gradient penalties (gamma), reached by the end of the first tenth from ten times as much"""
    augment: float = 0.0
    """share of images that discriminator sees shifted, cut and re-lit, real and fake alike; 0.5 helps below 5,000 images"""

    @classmethod
    def preset(cls, size: Size, spec: ImageSpec) -> Config:
        few = spec.dimensions <= 256  # images of so few pixels come in small sets and are soon known by heart
        own: dict[str, Any] = {"penalty": 0.5, "augment": 0.3} if few else {}
        return {
            "tiny": cls(noise_dim=32, generator_width=32, discriminator_width=32, **own),
            "small": cls(discriminator_width=48, **own),
            "base": cls(generator_width=96, discriminator_width=96, blocks=2, **own),
        }[size]


def grid(spec: ImageSpec) -> tuple[int, tuple[int, int]]:
    """How often the sides are halved, at least once and until both are at most 8; and the sides that are left."""
    stages = max(1, math.ceil(math.log2(max(spec.height, spec.width) / 8)))
    return stages, (-(-spec.height // 2**stages), -(-spec.width // 2**stages))


class Block(nn.Module):
    """x + a bottleneck of half the channels whose last convolution starts at zero: (B,D,h,w) -> (B,D,h,w).

    A fifth of the multiplications of two full 3x3 convolutions; in the same time, measurably better images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, channels // 2, 1)
        self.mix = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)
        self.widen = nn.Conv2d(channels // 2, channels, 1, bias=False)
        nn.init.zeros_(self.widen.weight)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(F.leaky_relu(self.narrow(F.leaky_relu(x, 0.2)), 0.2))
        return x + self.widen(F.leaky_relu(mixed, 0.2))


class Generator(nn.Module):
    """Noise (B,Z) and one-hot label (B,Y) -> images in -1..1, (B,C,H,W)."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        stages, self.grid = grid(spec)
        self.size = spec.height, spec.width
        channels = [config.generator_width * min(2**i, 4) for i in range(stages)]
        inputs, deepest = config.noise_dim + len(spec.classes), channels[-1]
        self.embed = nn.Sequential(
            nn.Linear(inputs, 256), nn.LeakyReLU(0.2), nn.Linear(256, deepest * self.grid[0] * self.grid[1])
        )
        self.stages = nn.ModuleList()
        for i in reversed(range(stages)):
            blocks = [Block(channels[i]) for _ in range(config.blocks + (i == stages - 1))] if i or stages == 1 else []
            self.stages.append(nn.Sequential(*blocks))
        steps = zip(reversed(channels), [*reversed(channels[:-1]), spec.channels])
        self.ups = nn.ModuleList(nn.Conv2d(i, 4 * o, 3, padding=1) for i, o in steps)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        x = (
            self.embed(torch.cat([z, label], 1))
            .unflatten(1, (-1, *self.grid))
            .contiguous(memory_format=torch.channels_last)
        )
        for blocks, up in zip(self.stages, self.ups):
            x = F.pixel_shuffle(up(F.leaky_relu(blocks(x), 0.2)), 2)
        # Real pixels are often exactly black or white; only an output that saturates can say so, else the discriminator
        # lives off the difference.
        return torch.tanh(x[:, :, : self.size[0], : self.size[1]].float())


class Discriminator(nn.Module):
    """Images (B,C,H,W) and one-hot label (B,Y) -> score (B,); only differences of scores mean anything."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        self.depth, self.grid = grid(spec)
        channels = [4 * spec.channels] + [config.discriminator_width * min(2**i, 4) for i in range(self.depth)]
        downs = [nn.Conv2d(channels[0], channels[1], 3, padding=1)]
        downs += [nn.Conv2d(i, o, 4, stride=2, padding=1) for i, o in zip(channels[1:], channels[2:])]
        self.downs = nn.ModuleList(downs)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(c) for _ in range(config.blocks if i or self.depth == 1 else 0)))
            for i, c in enumerate(channels[1:])
        )
        self.features = nn.Linear(channels[-1] * self.grid[0] * self.grid[1], 256)
        self.score = nn.Linear(256, max(1, len(spec.classes)), bias=False)  # a bias would cancel in every pair

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        height, width = (side << self.depth for side in self.grid)
        x = F.pixel_unshuffle(F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2])), 2)
        for number, (down, blocks) in enumerate(zip(self.downs, self.stages)):
            x = blocks(down(F.leaky_relu(x, 0.2) if number else x))
        scores = self.score(F.leaky_relu(self.features(F.leaky_relu(x, 0.2).flatten(1)), 0.2)).float()
        return (scores * label).sum(1) if label.shape[1] else scores[:, 0]


def augmented(x: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Differentiable augmentation (Zhao et al. 2020, arXiv:2006.10738): brightness, shift by up to an eighth, one square cut.

    x (B,C,H,W); draws (B,8) uniform in 0..1 fix what is done, so real and fake images of one row may be treated alike.
    """
    if strength == 0:
        return x
    on = (draws[:, :3] < strength).to(x.dtype)
    height, width = x.shape[2:]
    x = x + (on[:, 0] * (draws[:, 3] - 0.5))[:, None, None, None]
    device = x.device
    limit = max(1, round(max(height, width) / 8))
    rows = ((draws[:, 4] * 2 - 1) * limit * on[:, 1]).round().long()
    columns = ((draws[:, 5] * 2 - 1) * limit * on[:, 1]).round().long()
    row = (torch.arange(height, device=device)[None] + rows[:, None] + limit).clamp(0, height + 2 * limit - 1)
    column = (torch.arange(width, device=device)[None] + columns[:, None] + limit).clamp(0, width + 2 * limit - 1)
    padded = F.pad(x, (limit,) * 4, value=-1.0)
    one = torch.arange(len(x), device=device)[:, None, None]
    x = padded.permute(0, 2, 3, 1)[one, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)
    half = 0.2
    far_rows = (torch.linspace(0, 1, height, device=device)[None] - draws[:, 6:7]).abs() > half
    far_columns = (torch.linspace(0, 1, width, device=device)[None] - draws[:, 7:8]).abs() > half
    kept = (far_rows[:, :, None] | far_columns[:, None, :])[:, None].to(x.dtype)
    return x * (1 - on[:, 2, None, None, None] * (1 - kept))


class Model(nn.Module):
    accepts = (ImageSpec,)
    phases = (
        Phase("discriminator", ("discriminator",)),
        Phase("penalty", ("discriminator",), every=LAZY, float32=True),
        Phase("generator", ("generator",)),
    )
    recipe = Recipe(batch_size=48, learning_rate=2e-3, beta1=0.0, beta2=0.98, clip=0.0, ema=0.998, decay=0.5)
    monitor = None

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.generator = Generator(spec, config)
        self.discriminator = Discriminator(spec, config)

    # ---- training -------------------------------------------------------------------------------------------------

    def noise(self, n: int, phase: str, generator: torch.Generator) -> Batch:
        return {
            "z": torch.randn(n, self.config.noise_dim, generator=generator),
            "draws": torch.rand(n, 8, generator=generator),
        }

    def forward(self, batch: Batch, phase: str, progress: float) -> Losses:
        """Terms in nats per pair. `gap` is the mean of D(real) - D(fake): near zero, the two cannot be told apart."""
        label = self._one_hot(batch.get("label"), len(batch["x"]))
        real = batch["x"].float() / 127.5 - 1
        if phase == "generator":
            fake = self.generator(batch["z"], label)
        else:
            with torch.no_grad():
                fake = self.generator(batch["z"], label)
        real, fake = (augmented(x, batch["draws"], self.config.augment) for x in (real, fake))
        if phase == "penalty":
            return self._penalty(real, fake, label, progress)
        if phase == "generator":
            with torch.no_grad():
                above = self.discriminator(real, label)
            loss = F.softplus(above - self.discriminator(fake, label)).mean()
            return Losses(loss, {})
        gap = torch.sub(*self.discriminator(torch.cat([real, fake]), torch.cat([label, label])).chunk(2))
        return Losses(F.softplus(-gap).mean(), {"gap": gap.mean()})

    def _penalty(self, real: Tensor, fake: Tensor, label: Tensor, progress: float) -> Losses:
        """Half of gamma times the squared gradient norm of D at reals and at fakes, times the steps it stands for."""
        x = torch.cat([real, fake]).detach().requires_grad_(True)
        with torch.enable_grad():
            scores = self.discriminator(x, torch.cat([label, label]))
            (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        r1, r2 = gradient.square().flatten(1).sum(1).chunk(2)
        gamma = self.config.penalty * (1 + 9 * max(0.0, 1 - 10 * progress))
        return Losses(LAZY * gamma / 2 * (r1 + r2).mean(), {"r1": r1.mean(), "r2": r2.mean()})

    def validate(self, batch: Batch, generator: torch.Generator) -> Batch:
        """How well the discriminator tells held-out reals from fakes.

        `pair_accuracy`     share of (held-out real, fake) pairs in which the real scores higher; 0.5 = cannot tell
        `real_accuracy`     share of held-out reals above the mid-point of the two mean scores: falling while training goes on
                            means that the discriminator memorises its training images
        `fake_accuracy`     share of fakes below it; near 1 together with a small `spread` means collapse
        `spread`            standard deviation of fake pixels over a batch, relative to that of reals
        """
        n = len(batch["x"])
        label = self._one_hot(batch.get("label"), n)
        real = batch["x"].float() / 127.5 - 1
        z = torch.randn(n, self.config.noise_dim, generator=generator).to(real.device)
        fake = self.generator(z, label)
        above, below = self.discriminator(real, label), self.discriminator(fake, label)
        middle = (above.mean() + below.mean()) / 2
        return {
            "pair_accuracy": (above > below).float().mean(),
            "real_accuracy": (above > middle).float().mean(),
            "fake_accuracy": (below <= middle).float().mean(),
            "spread": fake.std(0, correction=0).mean() / real.std(0, correction=0).mean().clamp(min=1e-6),
        }

    def warnings(self, figures: dict[str, float]) -> list[str]:
        """What a user should know about these validation figures."""
        if figures.get("spread", 1.0) < 0.5:
            return [
                "mode collapse: samples vary less than half as much as real images; try a higher --penalty, or --augment 0.5"
            ]
        return []

    def _one_hot(self, label: Tensor | None, n: int) -> Tensor:
        device = self.discriminator.score.weight.device
        if label is None or not self.spec.classes:
            return torch.zeros(n, 0, device=device)
        return F.one_hot(label, len(self.spec.classes)).float()

    # ---- use ------------------------------------------------------------------------------------------------------

    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator, truncation: float = 1.0
    ) -> Batch:
        """New images. `truncation` below 1 shrinks the noise: safer, less varied."""
        device = self.discriminator.score.weight.device
        z = (truncation * torch.randn(n, self.config.noise_dim, generator=generator)).to(device)
        label = None
        if self.spec.classes:
            drawn = torch.randint(len(self.spec.classes), (n,), generator=generator)
            label = (drawn if condition is None else condition).to(device)
        x = self.generator(z, self._one_hot(label, n))
        made = {"x": (x * 127.5 + 127.5).round().to(torch.uint8)}
        return made if label is None else {**made, "label": label}
