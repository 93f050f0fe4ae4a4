"""Convolutional autoencoder, plain or denoising (Vincent et al. 2008; generation by a fitted density as in Ghosh et al. 2019,
arXiv:1903.12436).

    x (B,C,H,W) [+ noise] -> encoder -> z (B,Z) -> decoder -> reconstruction (B,C,H,W)
         noisy x, reconstruction -> refiner (a small U-Net, only when trained with noise) -> clean estimate (B,C,H,W)

B batch, C channels, H W height and width, Z latent size, h w the smallest feature map (at most 8x8). The reconstruction has
only z to go by, which is what makes z a compressed image; a good denoiser must also see the pixels, hence the refiner.
Losses are mean squared errors of pixels in 0..1. After training a Gaussian mixture is fitted to the latents, one for each
class, so that the decoder can also generate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.config import Recipe, Size
from latente.phases import Losses, Phase
from latente.spec import ImageSpec

Batch = dict[str, Tensor]
NOISES = {"gaussian": (0.0, 1.0), "salt-pepper": (0.0, 1.0), "mask": (0.0, 1.0)}


@dataclass(frozen=True)
class Config:
    """Sizes and objective of the autoencoder."""

    latent_dim: int = 32
    """Z, the length of the vector an image becomes"""
    width: int = 32
    """channels at half resolution; deeper maps have up to four times as many"""
    blocks: int = 2
    """residual blocks at the smallest feature map, and in each half of the refiner"""
    hidden: int = 512
    """units of the layers between feature map and latent vector"""
    noise: str = "none"
    """what to learn to remove: gaussian:0.1 (standard deviation, of 0..1), salt-pepper:0.1 or mask:0.3 (share of pixels)"""
    mixture: int = 8
    """Gaussians fitted to the latents of each class at the end"""

    def __post_init__(self) -> None:
        parse_noise(self.noise)

    @classmethod
    def preset(cls, size: Size, spec: ImageSpec) -> Config:
        small = spec.dimensions <= 256
        return {
            "tiny": cls(latent_dim=12 if small else 24, width=16, blocks=1, hidden=192, mixture=4),
            "small": cls(latent_dim=16 if small else 32, width=32, blocks=2, hidden=512),
            "base": cls(latent_dim=24 if small else 64, width=64, blocks=3, hidden=1024),
        }[size]


def parse_noise(text: str) -> tuple[str, float]:
    """("gaussian", 0.1) from "gaussian:0.1"; ("none", 0) from "none". Raises ValueError for anything else."""
    if text == "none":
        return "none", 0.0
    kind, _, amount = text.partition(":")
    try:
        value = float(amount or "0.1")
    except ValueError:
        value = math.nan
    if kind not in NOISES or not NOISES[kind][0] < value <= NOISES[kind][1]:
        raise ValueError(
            f"--noise {text}: say none, gaussian:0.1, salt-pepper:0.1 or mask:0.3, amounts above 0 and up to 1"
        )
    return kind, value


def corrupted(x: Tensor, draws: Tensor, kind: str, amount: float) -> Tensor:
    """8-bit images (B,C,H,W) made noisy and 8-bit again (rounded, clipped), as real noisy images are. `draws` comes from `noise`."""
    if kind == "gaussian":
        return (x.float() + 255 * amount * draws).round().clamp(0, 255).to(torch.uint8)
    if kind == "salt-pepper":
        return torch.where(draws < amount / 2, 0, torch.where(draws > 1 - amount / 2, 255, x)).to(torch.uint8)
    if kind == "mask":
        return torch.where(draws < amount, 0, x).to(torch.uint8)
    return x


def grid(spec: ImageSpec) -> tuple[int, tuple[int, int]]:
    """How often the sides are halved, at least once and until both are at most 8; and the sides that are left."""
    stages = max(1, math.ceil(math.log2(max(spec.height, spec.width) / 8)))
    return stages, (-(-spec.height // 2**stages), -(-spec.width // 2**stages))


class Block(nn.Module):
    """x + conv(silu(conv(silu(x)))): (B,D,h,w) -> (B,D,h,w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class Encoder(nn.Module):
    """(B,C,H,W) floats -> (B,Z)."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        self.depth, self.grid = grid(spec)
        channels = [4 * spec.channels] + [config.width * min(2**i, 4) for i in range(self.depth)]
        downs = [nn.Conv2d(channels[0], channels[1], 3, padding=1)]
        downs += [nn.Conv2d(i, o, 4, stride=2, padding=1) for i, o in zip(channels[1:], channels[2:])]
        self.downs = nn.ModuleList(downs)
        self.blocks = nn.Sequential(*(Block(channels[-1]) for _ in range(config.blocks)))
        self.first = nn.Linear(channels[-1] * self.grid[0] * self.grid[1], config.hidden)
        self.last = nn.Linear(config.hidden, config.latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = (side << self.depth for side in self.grid)
        x = self.downs[0](F.pixel_unshuffle(F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2])), 2))
        for down in self.downs[1:]:
            x = down(F.silu(x))
        return self.last(F.silu(self.first(F.silu(self.blocks(x)).flatten(1)))).float()


class Decoder(nn.Module):
    """(B,Z) -> images in about 0..1, (B,C,H,W)."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        stages, self.grid = grid(spec)
        self.size = spec.height, spec.width
        channels = [config.width * min(2**i, 4) for i in range(stages)]
        self.first = nn.Linear(config.latent_dim, config.hidden)
        self.last = nn.Linear(config.hidden, channels[-1] * self.grid[0] * self.grid[1])
        self.blocks = nn.Sequential(*(Block(channels[-1]) for _ in range(config.blocks)))
        steps = zip(reversed(channels), [*reversed(channels[:-1]), spec.channels])
        self.ups = nn.ModuleList(nn.Conv2d(i, 4 * o, 3, padding=1) for i, o in steps)

    def forward(self, z: Tensor) -> Tensor:
        x = F.silu(self.last(F.silu(self.first(z)))).unflatten(1, (-1, *self.grid))
        x = self.blocks(x.contiguous(memory_format=torch.channels_last))
        for up in self.ups:
            x = F.pixel_shuffle(up(F.silu(x)), 2)
        return x[:, :, : self.size[0], : self.size[1]].float() + 0.5


class Refiner(nn.Module):
    """Noisy image and reconstruction, (B,C,H,W) each in 0..1 -> clean estimate: what to add to the noisy one. Works at half and
    a quarter of the resolution."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        width = 2 * config.width
        self.into = nn.Conv2d(8 * spec.channels, width, 3, padding=1)
        self.before = nn.Sequential(*(Block(width) for _ in range(config.blocks)))
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.middle = nn.Sequential(*(Block(2 * width) for _ in range(config.blocks)))
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.after = nn.Sequential(*(Block(width) for _ in range(config.blocks)))
        self.out = nn.Conv2d(width, 4 * spec.channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)

    def forward(self, noisy: Tensor, reconstruction: Tensor) -> Tensor:
        height, width = noisy.shape[2:]
        both = F.pad(torch.cat([noisy, reconstruction], 1), (0, -width % 4, 0, -height % 4))
        fine = self.before(self.into(F.pixel_unshuffle(both, 2)))
        coarse = F.pixel_shuffle(self.up(self.middle(self.down(fine))), 2)
        change = F.pixel_shuffle(self.out(F.silu(self.after(fine + coarse))), 2)
        return noisy + change[:, :, :height, :width].float()


class Model(nn.Module):
    accepts = (ImageSpec,)
    phases = (Phase("main"),)
    recipe = Recipe(batch_size=128, learning_rate=2e-3, ema=0.999, clip=1.0)
    monitor = "total"
    mixture_weights: Tensor
    mixture_means: Tensor
    mixture_factors: Tensor

    def __init__(self, config: Config, spec: ImageSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.kind, self.amount = parse_noise(config.noise)
        self.encoder = Encoder(spec, config)
        self.decoder = Decoder(spec, config)
        self.refiner = Refiner(spec, config) if self.kind != "none" else None
        groups, size = max(1, len(spec.classes)), config.latent_dim
        self.register_buffer("mixture_weights", torch.full((groups, config.mixture), 1 / config.mixture))
        self.register_buffer("mixture_means", torch.zeros(groups, config.mixture, size))
        self.register_buffer("mixture_factors", torch.eye(size).repeat(groups, config.mixture, 1, 1))

    # ---- training -------------------------------------------------------------------------------------------------

    def noise(self, n: int, phase: str, generator: torch.Generator) -> Batch:
        if self.kind == "none":
            return {}
        if self.kind == "gaussian":
            return {"noise": torch.randn(n, *self.spec.shape, generator=generator)}
        channels = 1 if self.kind == "mask" else self.spec.channels  # a masked pixel is lost in every channel
        return {"noise": torch.rand(n, channels, *self.spec.shape[1:], generator=generator)}

    def forward(self, batch: Batch, phase: str, progress: float) -> Losses:
        """Mean squared errors per pixel, pixels in 0..1: of the reconstruction, and of the refined estimate when denoising."""
        clean = batch["x"].float() / 255
        noisy = corrupted(batch["x"], batch["noise"], self.kind, self.amount).float() / 255 if self.refiner else clean
        made = self.decoder(self.encoder(2 * noisy - 1))
        reconstruction = F.mse_loss(made, clean)
        terms, total = {"reconstruction": reconstruction}, reconstruction
        if self.refiner:
            terms["denoised"] = F.mse_loss(self.refiner(noisy, made.detach()), clean)
            total = total + terms["denoised"]
        return Losses(total, terms)

    def validate(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The losses, and `psnr` in dB (of the refined estimate when denoising) at the mean error of the batch."""
        drawn = {n: t.to(batch["x"].device) for n, t in self.noise(len(batch["x"]), "main", generator).items()}
        losses = self.forward({**batch, **drawn}, "main", 1.0)
        error = losses.terms.get("denoised", losses.terms["reconstruction"])
        return {"total": losses.total, **losses.terms, "psnr": -10 * torch.log10(error.clamp(min=1e-10))}

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> None:
        """Fits a Gaussian mixture to the latents of each class, on at most 20,000 images."""
        from sklearn.mixture import GaussianMixture

        latents, labels = [], []
        for batch in batches:
            latents.append(self.encode(batch).cpu())
            labels.append(batch["label"].cpu() if self.spec.classes else torch.zeros(len(batch["x"]), dtype=torch.long))
            if sum(map(len, latents)) >= 20_000:
                break
        every, label = torch.cat(latents).double().numpy(), torch.cat(labels).numpy()
        for group in range(len(self.mixture_weights)):
            mine = every[label == group] if (label == group).sum() > 1 else every
            count = max(1, min(self.config.mixture, len(mine) // (5 * self.config.latent_dim)))
            fitted = GaussianMixture(count, random_state=0, reg_covar=1e-4 * float(mine.var()) + 1e-9).fit(mine)
            self.mixture_weights[group] = 0
            self.mixture_weights[group, :count] = torch.from_numpy(fitted.weights_)
            self.mixture_means[group, :count] = torch.from_numpy(fitted.means_)
            self.mixture_factors[group, :count] = torch.linalg.cholesky(torch.from_numpy(fitted.covariances_)).float()

    # ---- use ------------------------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Tensor:
        """Latent vectors, (B,Z)."""
        return self.encoder(batch["x"].float() / 127.5 - 1)

    def decode(self, z: Tensor) -> Tensor:
        """(B,Z) -> uint8 (B,C,H,W)."""
        return _eight_bit(self.decoder(z))

    def reconstruct(self, batch: Batch) -> Batch:
        return {"x": self.decode(self.encode(batch))}

    def denoise(self, batch: Batch) -> Batch:
        """Clean estimates of noisy 8-bit images. Raises ValueError for a model that was not trained with noise."""
        if self.refiner is None:
            raise ValueError("this autoencoder was trained without --noise, so it cannot denoise")
        return {"x": _eight_bit(self.refiner(batch["x"].float() / 255, self.decoder(self.encode(batch))))}

    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator, temperature: float = 1.0
    ) -> Batch:
        """Images decoded from the fitted mixture. `temperature` below 1 keeps nearer to its centres."""
        groups = len(self.mixture_weights)
        drawn = torch.randint(groups, (n,), generator=generator)
        label = (drawn if condition is None else condition).cpu()
        part = torch.multinomial(self.mixture_weights.cpu()[label], 1, generator=generator)[:, 0]
        spread = torch.randn(n, self.config.latent_dim, 1, generator=generator)
        z = (
            self.mixture_means.cpu()[label, part]
            + temperature * (self.mixture_factors.cpu()[label, part] @ spread)[..., 0]
        )
        made = {"x": self.decode(z.to(self.mixture_means.device))}
        return {**made, "label": label.to(self.mixture_means.device)} if self.spec.classes else made


def _eight_bit(x: Tensor) -> Tensor:
    return (255 * x).round().clamp(0, 255).to(torch.uint8)
