"""Generative adversarial network of rows (Goodfellow et al. 2014, arXiv:1406.2661; for tables: Xu et al. 2019, arXiv:1907.00503,
"CTGAN"), trained as in R3GAN (Huang et al. 2024, arXiv:2501.05441).

    noise z (B,Z) -> generator -> a distribution for every field -> drawn one-hot (B,V) --\\
                                                                                            discriminator -> score (B/P,)
                                                                    real one-hot (B,V) ----/
    real one-hot (B,V) -> encoder -> z (B,Z) -> generator -> the same row again

B rows, V tokens of all fields, Z noise size, P rows judged together (Lin et al. 2017, arXiv:1712.04086, "PacGAN"). A number is a
token too: its bin is the mode it belongs to. Tokens are drawn by the Gumbel trick, and gradients go through as if the
distribution itself had been shown (Jang et al. 2016, arXiv:1611.01144, straight-through). The generator is the decoder of a
variational autoencoder as well (Larsen et al. 2015, arXiv:1512.09300): from that it learns in minutes which rows there are, all of
them; the discriminator teaches it what goes with what. Losses in nats per pair, and per row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.config import Recipe, Size
from latente.phases import Losses, Phase
from latente.spec import TableSpec

Batch = dict[str, Tensor]
LAZY = 8


@dataclass(frozen=True)
class Config:
    """Sizes and objective of the GAN of rows."""

    noise_dim: int = 32
    """Z, numbers of noise a row is made from"""
    width: int = 192
    """C, numbers that stand for a row in both networks"""
    blocks: int = 2
    """feed-forward blocks of each network"""
    together: int = 1
    """P, rows the discriminator sees at once"""
    penalty: float = 0.1
    """weight of the gradient penalties (gamma), reached by the end of the first tenth from ten times as much"""
    temperature: float = 0.5
    """of the distributions that gradients go through"""
    likelihood: float = 0.3
    """weight of the likelihood of real rows in what the generator learns; 0 = by the discriminator alone"""

    @classmethod
    def preset(cls, size: Size, spec: TableSpec) -> Config:
        return {"tiny": cls(noise_dim=32, width=96, blocks=1), "small": cls(), "base": cls(width=384, blocks=3)}[size]


class Block(nn.Module):
    """x + a feed-forward network that starts at zero: (B,C) -> (B,C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width, bias=False)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.leaky_relu(self.wide(F.leaky_relu(x, 0.2)), 0.2))


class Generator(nn.Module):
    """Noise (B,Z) -> logits of all tokens (B,V)."""

    def __init__(self, config: Config, tokens: int) -> None:
        super().__init__()
        self.first = nn.Linear(config.noise_dim, config.width)
        self.blocks = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)))
        self.heads = nn.Linear(config.width, tokens)

    def forward(self, z: Tensor) -> Tensor:
        x = self.blocks(self.first(z))
        return self.heads(F.leaky_relu(x, 0.2))


class Encoder(nn.Module):
    """One-hot rows (B,V) -> mean and log-variance of z, (B,2Z)."""

    def __init__(self, config: Config, tokens: int) -> None:
        super().__init__()
        self.first = nn.Linear(tokens, config.width)
        self.blocks = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)))
        self.last = nn.Linear(config.width, 2 * config.noise_dim)
        nn.init.normal_(self.last.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.leaky_relu(self.blocks(self.first(x)), 0.2)).float()


class Discriminator(nn.Module):
    """One-hot rows (B,V) -> score (B/P,); only differences of scores mean anything."""

    def __init__(self, config: Config, tokens: int) -> None:
        super().__init__()
        self.together = config.together
        self.first = nn.Linear(tokens, config.width)
        self.blocks = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)))
        self.last = nn.Linear(config.width * config.together, config.width)
        self.score = nn.Linear(config.width, 1, bias=False)  # a bias would cancel in every pair

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.blocks(self.first(x)), 0.2)
        x = self.last(x.reshape(len(x) // self.together, -1))
        return self.score(F.leaky_relu(x, 0.2))[:, 0].float()


class Model(nn.Module):
    starts: Tensor
    barred: Tensor
    accepts = (TableSpec,)
    phases = (
        Phase("discriminator", ("discriminator",)),
        Phase("penalty", ("discriminator",), every=LAZY, float32=True),
        Phase("generator", ("generator", "encoder")),
    )
    recipe = Recipe(batch_size=256, learning_rate=2e-3, beta1=0.0, beta2=0.98, clip=0.0, ema=0.998, decay=0.5)
    monitor = None

    def __init__(self, config: Config, spec: TableSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        tokens = sum(spec.fields)
        self.register_buffer("starts", torch.tensor([0, *spec.fields]).cumsum(0)[:-1], persistent=False)
        barred = torch.zeros(tokens)
        for column, never in enumerate(spec.never):
            first = spec.owners.index(column)
            barred[[int(self.starts[first]) + token for token in never]] = -math.inf
        self.register_buffer("barred", barred, persistent=False)
        self.generator = Generator(config, tokens)
        self.encoder = Encoder(config, tokens)
        self.discriminator = Discriminator(config, tokens)

    def muon_parameters(self) -> list[str]:
        """The matrices of the generator's and the encoder's blocks."""
        return [
            n
            for n, p in self.named_parameters()
            if n.startswith(("generator.blocks", "encoder.blocks")) and p.ndim == 2
        ]

    # ---- training -------------------------------------------------------------------------------------------------

    def noise(self, n: int, phase: str, generator: torch.Generator) -> Batch:
        return {
            "z": torch.randn(n, self.config.noise_dim, generator=generator),
            "noise": torch.randn(n, self.config.noise_dim, generator=generator),
            "uniform": torch.rand(n, sum(self.spec.fields), generator=generator),
        }

    def forward(self, batch: Batch, phase: str, progress: float) -> Losses:
        """Terms in nats per pair. `gap` is the mean of D(real) - D(fake): near zero, the two cannot be told apart."""
        real = self.one_hot(batch["tokens"])
        with torch.set_grad_enabled(phase == "generator"):
            fake = self.fake(batch["z"], batch["uniform"])
        if phase == "penalty":
            return self._penalty(real, fake, progress)
        if phase == "generator":
            with torch.no_grad():
                above = self.discriminator(real)
            opposed = F.softplus(above - self.discriminator(fake)).mean()
            bound = self._bound(real, batch["tokens"], batch["noise"])
            return Losses(opposed + self.config.likelihood * bound, {"opposed": opposed, "bound": bound})
        gap = torch.sub(*self.discriminator(torch.cat([real, fake])).chunk(2))
        return Losses(F.softplus(-gap).mean(), {"gap": gap.mean()})

    def _bound(self, real: Tensor, tokens: Tensor, noise: Tensor) -> Tensor:
        """The negative evidence lower bound of real rows in nats, the generator being the decoder."""
        mean, log_variance = self.encoder(real).chunk(2, 1)
        log_variance = log_variance.clamp(-12, 6)
        logits = self.generator(mean + torch.exp(0.5 * log_variance) * noise).float()
        each = [F.cross_entropy(p, tokens[:, f]) for f, p in enumerate(logits.split(self.spec.fields, 1))]
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return torch.stack(each).sum() + divergence

    def _penalty(self, real: Tensor, fake: Tensor, progress: float) -> Losses:
        """Half of gamma times the squared gradient norm of D at reals and at fakes, times the steps it stands for."""
        x = torch.cat([real, fake]).detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.discriminator(x).sum(), x, create_graph=True)
        r1, r2 = gradient.square().sum(1).chunk(2)
        gamma = self.config.penalty * (1 + 9 * max(0.0, 1 - 10 * progress))
        return Losses(LAZY * gamma / 2 * (r1 + r2).mean(), {"r1": r1.mean(), "r2": r2.mean()})

    def one_hot(self, tokens: Tensor) -> Tensor:
        """(B,F) -> (B,V)."""
        zeros = torch.zeros(len(tokens), sum(self.spec.fields), device=tokens.device)
        return zeros.scatter_(1, tokens + self.starts, 1.0)

    def fake(self, z: Tensor, uniform: Tensor) -> Tensor:
        """One-hot rows (B,V), through which gradients reach the generator."""
        logits = self.generator(z).float() + self.barred
        logits = logits - torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
        parts = []
        for part in logits.split(self.spec.fields, 1):
            soft = (part / self.config.temperature).softmax(1)
            hard = torch.zeros_like(soft).scatter_(1, part.argmax(1, keepdim=True), 1.0)
            parts.append(hard + soft - soft.detach())
        return torch.cat(parts, 1)

    def validate(self, batch: Batch, generator: torch.Generator) -> Batch:
        """How well the discriminator tells held-out reals from fakes.

        `pair_accuracy`  share of (held-out real, fake) pairs in which the real scores higher; 0.5 = cannot tell
        """
        n = len(batch["tokens"]) // self.config.together * self.config.together
        drawn = {name: value.to(batch["tokens"].device) for name, value in self.noise(n, "", generator).items()}
        above = self.discriminator(self.one_hot(batch["tokens"][:n]))
        below = self.discriminator(self.fake(drawn["z"], drawn["uniform"]))
        return {"pair_accuracy": (above > below).float().mean()}

    # ---- use ------------------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator,
        allowed: Mapping[int, Tensor] | None = None,
    ) -> Batch:
        """`n` rows {"tokens": int64 (n,F), "log_weight": (n,)}; -inf for a row with a token that is not `allowed` {field: bool (size,)}."""
        drawn = self.noise(n, "", generator)
        logits = self.generator(drawn["z"].to(self.barred.device)).float().cpu() + self.barred.cpu()
        logits = logits - torch.log(-torch.log(drawn["uniform"].clamp(1e-9, 1 - 1e-7)))
        tokens = torch.stack([part.argmax(1) for part in logits.split(self.spec.fields, 1)], 1)
        kept = torch.ones(n, dtype=torch.bool)
        for field, mask in (allowed or {}).items():
            kept &= mask[tokens[:, field]]
        return {"tokens": tokens, "log_weight": torch.where(kept, 0.0, -math.inf)}
