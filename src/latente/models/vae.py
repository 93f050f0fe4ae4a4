"""Variational autoencoder (Kingma & Welling 2013, arXiv:1312.6114).

    x (B,C,H,W) -> encoder -> mean, log-variance (B,Z) -> z = mean + std * noise -> decoder -> a distribution for every pixel
                                                          z <-> u by a flow: the prior of z is learned, that of u is N(0, 1)

B batch, C channels, H W height and width, Z latent size, K mixture components, h w the smallest feature map (at most 8x8).
Pixels are 8-bit numbers and get a true likelihood: a mixture of K discretised logistics (Salimans et al. 2017,
arXiv:1701.05517), so the evidence lower bound is comparable with any lossless codec. The prior is an affine-coupling
flow (Dinh et al. 2016, arXiv:1605.08803); with `prior_layers = 0` it is the standard normal.
Losses in nats per sample, and in bits per dimension (nats / (C*H*W) / ln 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.config import Recipe, Size
from latente.phases import Losses, Phase
from latente.spec import ImageSpec

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Config:
    """Sizes and objective of the VAE."""

    latent_dim: int = 32
    """Z, the length of the vector an image becomes"""
    width: int = 32
    """channels at half resolution; deeper maps have up to four times as many"""
    blocks: int = 2
    """residual blocks at the smallest feature map, in the encoder and in the decoder"""
    hidden: int = 512
    """units of the layers between feature map and latent vector"""
    components: int = 2
    """K, logistics mixed for every pixel"""
    prior_layers: int = 6
    """coupling layers of the learned prior; 0 = standard normal"""
    beta: float = 1.0
    """weight of the divergence from the prior; 1 = the evidence lower bound"""
    free_bits: float = 0.0
    """divergence (nats per sample) that costs nothing"""
    beta_warmup: float = 0.1
    """share of the training in which beta rises from zero"""

    @classmethod
    def preset(cls, size: Size, spec: ImageSpec) -> Config:
        small = spec.dimensions <= 256
        return {
            "tiny": cls(latent_dim=8 if small else 16, width=16, blocks=1, hidden=192, prior_layers=4),
            "small": cls(latent_dim=16 if small else 32, width=32, blocks=2, hidden=512),
            "base": cls(latent_dim=32 if small else 64, width=64, blocks=3, hidden=1024, prior_layers=8),
        }[size]


def kl_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) in nats, summed over the last axis: (B,Z), (B,Z) -> (B,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


def normal_log_prob(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(z; mean, variance) in nats, summed over the last axis."""
    return -0.5 * ((z - mean).square() / log_variance.exp() + log_variance + math.log(2 * math.pi)).sum(-1)


def discretised_logistic_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log P(x) in nats of 8-bit values x in 0..255 under a logistic of `mean` and exp(`log_scale`), in pixel values.

    P(x) is the logistic's mass on [x - 1/2, x + 1/2], the end bins reaching to infinity, so it sums to 1 over 0..255. With
    a, b the standardised upper and lower edge: sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)).
    """
    inverse = torch.exp(-log_scale)
    upper = F.logsigmoid((x + 0.5 - mean) * inverse)
    lower = F.logsigmoid((mean - x + 0.5) * inverse)
    width = torch.log(-torch.expm1(-inverse))
    return torch.where(x == 0, upper, torch.where(x == 255, lower, upper + lower + width))


class Block(nn.Module):
    """x + conv(silu(conv(silu(norm(x))))): (B,D,h,w) -> (B,D,h,w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


class Flow(nn.Module):
    """An invertible map between z and u ~ N(0, 1), both (B,Z): affine couplings, each changing one half of the coordinates."""

    masks: Tensor

    def __init__(self, size: int, layers: int, context: int, hidden: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(
                nn.Linear(size + context, hidden),
                nn.SiLU(),
                nn.Linear(hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, 2 * size),
            )
            for _ in range(layers)
        )
        net: Any
        for net in self.nets:
            nn.init.zeros_(net[-1].weight)
            nn.init.zeros_(net[-1].bias)
        masks = (
            torch.stack([(torch.arange(size) // 2 ** (i // 2 % 3) + i) % 2 for i in range(layers)])
            if layers
            else torch.zeros(0, size)
        )
        self.register_buffer("masks", masks.float(), persistent=False)

    def _coupling(self, number: int, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        mask = self.masks[number]
        shift, scale = self.nets[number](torch.cat([z * mask, context], 1)).float().chunk(2, 1)
        return shift * (1 - mask), 2 * torch.tanh(scale / 2) * (1 - mask)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """log p(z) in nats, (B,)."""
        u, volume = self.inverse(z, context)
        return volume - 0.5 * (u.square() + math.log(2 * math.pi)).sum(1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """z -> u, and the log of the volume change."""
        volume = z.new_zeros(len(z))
        for number in range(len(self.nets)):
            shift, scale = self._coupling(number, z, context)
            z = (z - shift) * torch.exp(-scale)
            volume = volume - scale.sum(1)
        return z, volume

    def forward(self, u: Tensor, context: Tensor) -> Tensor:
        """u -> z."""
        for number in reversed(range(len(self.nets))):
            shift, scale = self._coupling(number, u, context)
            u = u * torch.exp(scale) + shift
        return u


class Encoder(nn.Module):
    """(B,C,H,W) floats and context (B,Y) -> (B, outputs)."""

    def __init__(self, spec: ImageSpec, width: int, blocks: int, hidden: int, context: int, outputs: int) -> None:
        super().__init__()
        self.stages, self.grid = grid(spec)
        channels = [spec.channels * 4] + [width * min(2**i, 4) for i in range(self.stages)]
        downs = [nn.Conv2d(channels[0], channels[1], 3, padding=1)]
        downs += [nn.Conv2d(i, o, 4, stride=2, padding=1) for i, o in zip(channels[1:-1], channels[2:])]
        self.downs = nn.ModuleList(downs)
        self.blocks = nn.Sequential(*(Block(channels[-1]) for _ in range(blocks)))
        self.first = nn.Linear(channels[-1] * self.grid[0] * self.grid[1] + context, hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height, width = (side << self.stages for side in self.grid)
        x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))
        x = self.downs[0](F.pixel_unshuffle(x, 2))
        for down in self.downs[1:]:
            x = down(F.silu(x))
        x = F.silu(self.blocks(x)).flatten(1)
        return self.last(F.silu(self.first(torch.cat([x, context.to(x.dtype)], 1)))).float()


class Decoder(nn.Module):
    """(B,Z) and context (B,Y) -> (B, outputs, H, W)."""

    def __init__(self, spec: ImageSpec, width: int, blocks: int, hidden: int, inputs: int, outputs: int) -> None:
        super().__init__()
        stages, self.grid = grid(spec)
        self.size = spec.height, spec.width
        channels = [width * min(2**i, 4) for i in range(stages)]
        self.first = nn.Linear(inputs, hidden)
        self.last = nn.Linear(hidden, channels[-1] * self.grid[0] * self.grid[1])
        self.blocks = nn.Sequential(*(Block(channels[-1]) for _ in range(blocks)))
        steps = zip(reversed(channels), [*reversed(channels[:-1]), outputs])
        self.ups = nn.ModuleList(nn.Conv2d(i, 4 * o, 3, padding=1) for i, o in steps)

    def forward(self, z: Tensor) -> Tensor:
        x = F.silu(self.last(F.silu(self.first(z))))
        x = self.blocks(x.unflatten(1, (-1, *self.grid)).contiguous(memory_format=torch.channels_last))
        for up in self.ups:
            x = F.pixel_shuffle(up(F.silu(x)), 2)
        return x[:, :, : self.size[0], : self.size[1]].float()


def grid(spec: ImageSpec) -> tuple[int, tuple[int, int]]:
    """How often the sides are halved, at least once and until both are at most 8; and the sides that are left."""
    stages = max(1, math.ceil(math.log2(max(spec.height, spec.width) / 8)))
    return stages, (-(-spec.height // 2**stages), -(-spec.width // 2**stages))


class Model(nn.Module):
    accepts = (ImageSpec,)
    phases = (Phase("main"),)
    recipe = Recipe(batch_size=128, learning_rate=2e-3, ema=0.999, clip=100.0)
    monitor = "total"

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.needs_label = bool(spec.classes)
        context, size = len(spec.classes), config.latent_dim
        shape = (config.width, config.blocks, config.hidden)
        self.encoder = Encoder(spec, *shape, context, 2 * size)
        self.decoder = Decoder(spec, *shape, size + context, spec.channels * config.components * 3)
        self.prior = Flow(size, config.prior_layers, context, 4 * size)
        nn.init.normal_(self.encoder.last.weight, std=0.02)

    # ---- training -------------------------------------------------------------------------------------------------

    def noise(self, n: int, phase: str, generator: torch.Generator) -> Batch:
        return {"noise": torch.randn(n, self.config.latent_dim, generator=generator)}

    def forward(self, batch: Batch, phase: str, progress: float) -> Losses:
        """Terms in nats per sample, and bits_per_dim of the evidence lower bound. `total` weighs the divergence by beta."""
        context = self._context(batch)
        mean, log_variance = self.posterior(batch)
        z = mean + torch.exp(0.5 * log_variance) * batch["noise"]
        reconstruction = -self.log_likelihood(batch["x"], z, context).mean()
        kl = (normal_log_prob(z, mean, log_variance) - self.prior.log_prob(z, context)).mean()
        beta = self.config.beta * min(1.0, progress / max(self.config.beta_warmup, 1e-9))
        total = reconstruction + beta * kl.clamp(min=self.config.free_bits)
        bits = (reconstruction + kl) / (self.spec.dimensions * math.log(2))
        return Losses(total, {"reconstruction": reconstruction, "kl": kl, "bits_per_dim": bits})

    def validate(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The losses without warm-up, and `active_units`: latents whose mean varies over the data by more than 0.01
        (Burda et al. 2015, arXiv:1509.00519)."""
        drawn = self.noise(len(batch["x"]), "main", generator)["noise"].to(batch["x"].device)
        losses = self.forward({**batch, "noise": drawn}, "main", 1.0)
        active = (self.posterior(batch)[0].var(0, correction=0) > 0.01).sum().float()
        return {"total": losses.total, **losses.terms, "active_units": active}

    def warnings(self, figures: dict[str, float]) -> list[str]:
        """What a user should know about these validation figures."""
        active = figures.get("active_units", self.config.latent_dim)
        if active < 0.25 * self.config.latent_dim:
            return [
                f"posterior collapse: {active:.0f} of {self.config.latent_dim} latents carry information; try --beta 0.5 or --free-bits 8"
            ]
        return []

    # ---- distributions --------------------------------------------------------------------------------------------

    def _context(self, batch: Batch) -> Tensor:
        """The label as a one-hot vector (B,Y); (B,0) without classes."""
        if not self.spec.classes:
            return torch.zeros(len(next(iter(batch.values()))), 0, device=self.encoder.last.weight.device)
        return F.one_hot(batch["label"], len(self.spec.classes)).float()

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (B,Z) each, of q(z | x)."""
        x = batch["x"].float() / 127.5 - 1
        mean, log_variance = self.encoder(x, self._context(batch)).chunk(2, 1)
        return mean, log_variance.clamp(-12, 6)

    def _pixels(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means (0..255) and log-scales of the mixtures, (B,C,K,H,W) each."""
        raw = self.decoder(torch.cat([z, context], 1))
        weight, mean, log_scale = raw.unflatten(1, (3, self.spec.channels, self.config.components)).unbind(1)
        return F.log_softmax(weight, 2), 127.5 + 127.5 * mean, (log_scale + 2.5).clamp(-3.0, 6.0)

    def log_likelihood(self, x: Tensor, z: Tensor, context: Tensor) -> Tensor:
        """log p(x | z) in nats, (B,)."""
        weight, mean, log_scale = self._pixels(z, context)
        each = discretised_logistic_log_prob(x.float()[:, :, None], mean, log_scale)
        return torch.logsumexp(weight + each, 2).flatten(1).sum(1)

    def log_prob(self, batch: Batch, generator: torch.Generator, samples: int = 64) -> Tensor:
        """The importance-weighted bound on log p(x) in nats with `samples` draws, (B,) (Burda et al. 2015)."""
        context = self._context(batch)
        mean, log_variance = self.posterior(batch)
        weights = []
        for _ in range(samples):
            z = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=generator).to(mean.device)
            joint = self.log_likelihood(batch["x"], z, context) + self.prior.log_prob(z, context)
            weights.append(joint - normal_log_prob(z, mean, log_variance))
        return torch.logsumexp(torch.stack(weights), 0) - math.log(samples)

    # ---- use ------------------------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Tensor:
        """The posterior mean, (B,Z)."""
        return self.posterior(batch)[0]

    def decode(self, z: Tensor, label: Tensor | None = None, *, sharp: bool = False) -> Tensor:
        """(B,Z) -> uint8 (B,C,H,W): the mean of every pixel's distribution, or the mean of its likeliest component when `sharp`.

        The mean has the smallest squared error and is what a reconstruction wants; it blurs where a pixel may be one thing
        or another, so samples take the likeliest.
        """
        weight, mean, _ = self._pixels(z, self._context({"label": label} if label is not None else {"z": z}))
        mean = mean.clamp(0, 255)
        likeliest = mean.gather(2, weight.argmax(2, keepdim=True))[:, :, 0]
        return (likeliest if sharp else (weight.exp() * mean).sum(2)).round().to(torch.uint8)

    def reconstruct(self, batch: Batch) -> Batch:
        return {"x": self.decode(self.encode(batch), batch.get("label"))}

    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator, temperature: float = 1.0
    ) -> Batch:
        """Images decoded from prior draws, each pixel at its likeliest component.

        `temperature` below 1 keeps to the likelier, plainer images.
        """
        device = self.encoder.last.weight.device
        u = temperature * torch.randn(n, self.config.latent_dim, generator=generator)
        if not self.spec.classes:
            return {"x": self.decode(self.prior(u.to(device), self._context({"z": u})), sharp=True)}
        drawn = torch.randint(len(self.spec.classes), (n,), generator=generator)
        label = (drawn if condition is None else condition).to(device)
        return {
            "x": self.decode(self.prior(u.to(device), self._context({"label": label})), label, sharp=True),
            "label": label,
        }

    def explore(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Titled rows of pictures of the latent space: spherical interpolations, traversals, and a two-latent plane."""
        context, label = self._context(batch), batch.get("label")
        u, _ = self.prior.inverse(self.encode(batch), context)

        def images(points: Tensor, like: int) -> Tensor:
            one = None if label is None else label[like : like + 1].expand(len(points))
            return self.decode(self.prior(points, context[like : like + 1].expand(len(points), -1)), one, sharp=True)

        steps = torch.linspace(0, 1, 12)
        for i in range(0, min(6, len(u) - 1), 2):
            path = torch.stack([spherical(u[i], u[i + 1], float(t)) for t in steps])
            yield f"interpolation {i // 2 + 1}", images(path, i)
        spread = torch.linspace(-2.5, 2.5, 12)
        order = self.posterior(batch)[1].mean(0).argsort()  # the best-known latents first
        for dimension in order[:6].tolist():
            points = u[:1].repeat(12, 1)
            points[:, dimension] = spread.to(u.device)
            yield f"latent {dimension} from -2.5 to 2.5", images(points, 0)
        quantiles = math.sqrt(2) * torch.erfinv(2 * torch.linspace(0.02, 0.98, 12) - 1)
        rows, columns = torch.meshgrid(quantiles, quantiles, indexing="ij")
        plane = u[:1].repeat(144, 1)
        plane[:, order[0]], plane[:, order[-1 if len(order) < 2 else 1]] = (
            rows.flatten().to(u.device),
            columns.flatten().to(u.device),
        )
        yield f"the plane of latents {int(order[0])} and {int(order[min(1, len(order) - 1)])}", images(plane, 0)


def spherical(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The point at share t of the great arc from a to b (Shoemake 1985), which keeps the length normal draws have."""
    angle = torch.arccos(F.cosine_similarity(a, b, dim=0).clamp(-1, 1))
    if angle < 1e-4:
        return torch.lerp(a, b, t)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
