"""Variational autoencoder of rows (Kingma & Welling 2013, arXiv:1312.6114; for tables: Xu et al. 2019, arXiv:1907.00503, "TVAE").

    tokens (B,F) -> embeddings, summed (B,C) -> L x block -> mean, log-variance (B,Z)
    z = mean + std * noise -> L x block -> heads: a distribution for every field; z <-> u by a flow, u is N(0, 1)

    block:  x -- norm -- feed-forward (C -> 2C -> C) -- + --> x

B rows, F fields, C width, Z latent size. A number is a token too: its bin is the mode it belongs to, and inside the bin it is
drawn evenly. Fields are independent given z, so p(what is given | z) is known, and rows that keep to it are sampled by weighing
the draws of z. The prior is an affine-coupling flow (Dinh et al. 2016, arXiv:1605.08803). Losses in nats per row.
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


@dataclass(frozen=True)
class Config:
    """Sizes and objective of the VAE of rows."""

    latent_dim: int = 32
    """Z, the length of the vector a row becomes"""
    width: int = 192
    """C, numbers that stand for a row on its way in and out"""
    blocks: int = 2
    """L, feed-forward blocks of the encoder, and of the decoder"""
    prior_layers: int = 4
    """coupling layers of the learned prior; 0 = standard normal"""
    beta: float = 1.0
    """weight of the divergence from the prior; 1 = the evidence lower bound"""
    beta_warmup: float = 0.1
    """share of the training in which beta rises from zero"""

    @classmethod
    def preset(cls, size: Size, spec: TableSpec) -> Config:
        return {
            "tiny": cls(latent_dim=16, width=96, blocks=1),
            "small": cls(),
            "base": cls(latent_dim=64, width=384, blocks=3, prior_layers=6),
        }[size]


class Block(nn.Module):
    """x + a feed-forward network that starts at zero: (B,C) -> (B,C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width, bias=False)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.silu(self.wide(F.rms_norm(x, x.shape[-1:]))))


class Flow(nn.Module):
    """z <-> u: each layer scales and shifts one half of the numbers by what a small network makes of the other half."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(layers):
            last = nn.Linear(4 * size, 2 * (size - size // 2))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.layers.append(nn.Sequential(nn.Linear(size // 2, 4 * size), nn.SiLU(), last))

    def forward(self, u: Tensor) -> Tensor:
        """u (B,Z) -> z (B,Z)."""
        for network in reversed(self.layers):
            known, other = u.flip(1).tensor_split([u.shape[1] // 2], 1)
            scale, shift = network(known).chunk(2, 1)
            u = torch.cat([known, other * torch.exp(torch.tanh(scale)) + shift], 1)
        return u

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, (B,)."""
        total = torch.zeros(len(z), device=z.device)
        for network in self.layers:
            known, other = z.tensor_split([z.shape[1] // 2], 1)
            scale, shift = network(known).chunk(2, 1)
            scale = torch.tanh(scale)
            z = torch.cat([known, (other - shift) * torch.exp(-scale)], 1).flip(1)
            total = total - scale.sum(1)
        return total + normal_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))


def normal_log_prob(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(x; mean, exp(log_variance)) in nats, summed over the last axis."""
    squares = (x - mean).square() * torch.exp(-log_variance)
    return -0.5 * (squares + log_variance + math.log(2 * math.pi)).sum(-1)


class Model(nn.Module):
    starts: Tensor
    accepts = (TableSpec,)
    phases = (Phase("main"),)
    recipe = Recipe(batch_size=256, learning_rate=4e-3, ema=0.995, weight_decay=0.01)
    monitor = "total"

    def __init__(self, config: Config, spec: TableSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        sizes, width = spec.fields, config.width
        self.register_buffer("starts", torch.tensor([0, *sizes]).cumsum(0)[:-1], persistent=False)
        self.embedding = nn.Embedding(sum(sizes), width)
        self.encoder = nn.Sequential(*(Block(width) for _ in range(config.blocks)))
        self.posterior_of = nn.Linear(width, 2 * config.latent_dim)
        self.prior = Flow(config.latent_dim, config.prior_layers)
        self.spread = nn.Linear(config.latent_dim, width)
        self.decoder = nn.Sequential(*(Block(width) for _ in range(config.blocks)))
        self.heads = nn.Linear(width, sum(sizes))
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.normal_(self.posterior_of.weight, std=0.02)
        nn.init.zeros_(self.heads.weight)

    def muon_parameters(self) -> list[str]:
        """The matrices of the blocks."""
        return [n for n, p in self.named_parameters() if n.startswith(("encoder.", "decoder.")) and p.ndim == 2]

    # ---- training -------------------------------------------------------------------------------------------------

    def noise(self, n: int, phase: str, generator: torch.Generator) -> Batch:
        return {"noise": torch.randn(n, self.config.latent_dim, generator=generator)}

    def forward(self, batch: Batch, phase: str, progress: float) -> Losses:
        """Terms in nats per row; `bound` is the negative evidence lower bound. `total` weighs the divergence by beta."""
        tokens = batch["tokens"]
        mean, log_variance = self.posterior(batch)
        z = mean + torch.exp(0.5 * log_variance) * batch["noise"]
        reconstruction = -self.log_likelihood(tokens, z).mean()
        kl = (normal_log_prob(z, mean, log_variance) - self.prior.log_prob(z)).mean()
        beta = self.config.beta * min(1.0, progress / max(self.config.beta_warmup, 1e-9))
        total = reconstruction + beta * kl
        return Losses(total, {"reconstruction": reconstruction, "kl": kl, "bound": reconstruction + kl})

    def validate(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The losses without warm-up."""
        drawn = self.noise(len(batch["tokens"]), "main", generator)["noise"].to(batch["tokens"].device)
        losses = self.forward({**batch, "noise": drawn}, "main", 1.0)
        return {"total": losses.total, **losses.terms}

    # ---- distributions --------------------------------------------------------------------------------------------

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (B,Z) each, of q(z | row)."""
        x = self.encoder(self.embedding(batch["tokens"] + self.starts).sum(1))
        mean, log_variance = self.posterior_of(F.rms_norm(x, x.shape[-1:])).float().chunk(2, 1)
        return mean, log_variance.clamp(-12, 6)

    def log_chances(self, z: Tensor) -> list[Tensor]:
        """Log-probabilities of the tokens of every field, F tensors of (B, size of the field)."""
        x = self.decoder(self.spread(z))
        logits = self.heads(F.rms_norm(x, x.shape[-1:])).float()
        return [part.log_softmax(1) for part in logits.split(self.spec.fields, 1)]

    def log_likelihood(self, tokens: Tensor, z: Tensor) -> Tensor:
        """log p(row | z) in nats, (B,)."""
        parts = [chances.gather(1, tokens[:, f : f + 1]) for f, chances in enumerate(self.log_chances(z))]
        return torch.cat(parts, 1).sum(1)

    def log_prob(self, batch: Batch, generator: torch.Generator, samples: int = 64) -> Tensor:
        """The importance-weighted bound on log p(row) in nats with `samples` draws, (B,) (Burda et al. 2015, arXiv:1509.00519)."""
        mean, log_variance = self.posterior(batch)
        weights = []
        for _ in range(samples):
            z = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=generator).to(mean.device)
            joint = self.log_likelihood(batch["tokens"], z) + self.prior.log_prob(z)
            weights.append(joint - normal_log_prob(z, mean, log_variance))
        return torch.logsumexp(torch.stack(weights), 0) - math.log(samples)

    # ---- use ------------------------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Tensor:
        """The posterior mean, (B,Z)."""
        return self.posterior(batch)[0]

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator,
        allowed: Mapping[int, Tensor] | None = None,
    ) -> Batch:
        """`n` rows {"tokens": int64 (n,F), "log_weight": (n,)}: z from the prior, then every field from its distribution.

        `allowed` holds the tokens that some fields may have, {field: bool (size,)}; exp(log_weight), at most 1, is their probability
        given z, and rows kept with that probability are right.
        """
        allowed, owners, device = allowed or {}, self.spec.owners, self.spread.weight.device
        u = torch.randn(n, self.config.latent_dim, generator=generator)
        weight, drawn = torch.zeros(n, device=device), []
        for field, chances in enumerate(self.log_chances(self.prior(u.to(device)))):
            if field in allowed:
                chances = chances.masked_fill(~allowed[field].to(device), -math.inf)
                weight = weight + chances.logsumexp(1)
            elif not field or owners[field - 1] != owners[field]:
                chances[:, list(self.spec.never[owners[field]])] = -math.inf
            up_to = chances.softmax(1).cumsum(1)
            uniform = torch.rand(n, 1, generator=generator).to(device) * up_to[:, -1:]
            drawn.append((up_to < uniform).sum(1).clamp(max=up_to.shape[1] - 1))
        return {"tokens": torch.stack(drawn, 1), "log_weight": weight}
