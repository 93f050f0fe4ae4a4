"""Autoregressive model of rows in any order of columns (Uria et al. 2014, arXiv:1310.1757; Tiwald et al. 2025, arXiv:2501.12012).

    tokens (B,F) -> embedding (B,F,C) -- those that are known, summed --> + what is asked for -> L x block -> head of the field

    block:  x -- norm -- feed-forward (C -> 2C -> C) -- + --> x

B rows, F fields, C width, L blocks. The columns of every training row come in an order of its own, so the model knows the
distribution of any column given any others: it fills gaps, keeps to what is given, and predicts. All F predictions of a row
are made at once; a new row takes F small steps, of which each adds one embedding to a sum. Losses in nats per row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.config import Recipe, Size
from latente.phases import Losses, Phase
from latente.spec import TableSpec

Batch = dict[str, Tensor]
MANY = 512  # fields


@dataclass(frozen=True)
class Config:
    """Sizes of the model of rows."""

    width: int = 128
    """C, numbers that stand for what is known of a row"""
    blocks: int = 1
    """L, feed-forward blocks"""
    widen: int = 2
    """a block's inner width, in widths"""
    dropout: float = 0.0
    """share of a block's inner numbers that are left out while training"""
    sorted: float = 0.5
    """share of training rows whose columns come by their number of levels, the target last, as in sampling"""

    def __post_init__(self) -> None:
        # A norm of whole numbers is exact up to 2048 of them (`latente.codec.exact`).
        for name, value, most in (("width", self.width, 2048), ("blocks", self.blocks, 64), ("widen", self.widen, 64)):
            if not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(f"--{name} {value}: from 1 to {most}")

    @classmethod
    def preset(cls, size: Size, spec: TableSpec) -> Config:
        return {"tiny": cls(width=64), "small": cls(), "base": cls(width=256, blocks=2)}[size]


class Block(nn.Module):
    """x + a feed-forward network that starts at zero: (...,C) -> (...,C)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inner = config.widen * config.width
        self.norm = nn.RMSNorm(config.width, elementwise_affine=False)
        self.wide = nn.Linear(config.width, inner)
        self.narrow = nn.Linear(inner, config.width, bias=False)
        self.dropout = config.dropout
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor, one: int) -> Tensor:
        inner = F.relu(self.wide(self.norm(x))).square()
        if one > 1:  # whole multiples of 1/one
            inner = torch.round(inner / one)
        return x + self.narrow(F.dropout(inner, self.dropout, self.training))


class Model(nn.Module):
    starts: Tensor
    owners: Tensor
    places: Tensor
    accepts = (TableSpec,)
    phases = (Phase("main"),)
    recipe = Recipe(batch_size=256, learning_rate=3e-3, muon_learning_rate=0.02, ema=0.99, weight_decay=0.3)
    monitor = "nats_per_row"

    def __init__(self, config: Config, spec: TableSpec) -> None:
        super().__init__()
        self.config, self.spec, self.one = config, spec, 1
        sizes = spec.fields
        self.register_buffer("starts", torch.tensor([0, *sizes]).cumsum(0)[:-1], persistent=False)
        self.register_buffer("owners", torch.tensor(spec.owners), persistent=False)
        rank = torch.tensor([size[0] for size in spec.sizes])
        if spec.target is not None:
            rank[spec.target] = rank.max() + 1
        self.register_buffer("places", rank.argsort(stable=True).argsort() / len(spec.columns), persistent=False)
        self.embedding = nn.Embedding(sum(sizes), config.width)
        self.asked = nn.Embedding(len(sizes), config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.RMSNorm(config.width, elementwise_affine=False)
        self.heads = nn.Linear(config.width, sum(sizes))
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    def muon_parameters(self) -> list[str]:
        """The matrices of the blocks."""
        return [f"blocks.{name}" for name, p in self.blocks.named_parameters() if p.ndim == 2]

    def noise(self, n: int, phase: str, generator: torch.Generator) -> Batch:
        """The place of each column in the order of each row, {"places": (n, columns)}."""
        places = torch.rand(n, len(self.spec.columns), generator=generator)
        straight = torch.rand(n, 1, generator=generator) < self.config.sorted
        return {"places": torch.where(straight, self.places.cpu(), places)}

    def forward(self, batch: Batch, phase: str, progress: float) -> Losses:
        """Cross-entropy of every field given those before it in the order of its row, in nats per row."""
        nats = self.nats(batch["tokens"], batch["places"]).sum(1).mean()
        return Losses(nats, {"nats_per_row": nats})

    def nats(self, tokens: Tensor, places: Tensor) -> Tensor:
        """-ln p of each field given those before it, (B,F), when columns come at `places` (B, columns)."""
        sums = self.before(self.embedding(tokens + self.starts), places[:, self.owners])
        x = self.hidden(sums + self.asked.weight).transpose(0, 1).contiguous()
        # Cut once: the gradient of every slice on its own would be as large as that of all.
        heads = zip(*(part.split(self.spec.fields) for part in (self.heads.weight, self.heads.bias)))
        logits = (F.linear(own, *head).float() for own, head in zip(x, heads))
        each = [F.cross_entropy(own, tokens[:, f], reduction="none") for f, own in enumerate(logits)]
        return torch.stack(each, 1)

    def before(self, embedded: Tensor, at: Tensor) -> Tensor:
        """The sum of the embeddings (B,F,C) of all fields before each, when fields come at `at` (B,F), those of a column together."""
        if len(self.owners) > MANY:  # a running sum, which takes less memory than a matrix of all pairs
            order = at.argsort(dim=1, stable=True)[:, :, None].expand_as(embedded)
            sorted_ = embedded.float().gather(1, order)
            return torch.zeros_like(sorted_).scatter(1, order, sorted_.cumsum(1) - sorted_).to(embedded.dtype)
        order = torch.arange(len(self.owners), device=at.device)
        same = (self.owners == self.owners[:, None]) & (order < order[:, None])  # earlier fields of the column itself
        known = (at[:, None, :] < at[:, :, None]) | same  # (B, asked, known)
        return torch.bmm(known.to(embedded.dtype), embedded)

    def hidden(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, self.one)
        return self.norm(x)

    def head(self, x: Tensor, field: int) -> Tensor:
        """(B,C) -> (B, size of the field) float32: unnormalised log-probabilities of its tokens."""
        part = self.part(field)
        return F.linear(x, self.heads.weight[part], self.heads.bias[part]).float()

    def part(self, field: int) -> slice:
        """Where the tokens of a field are among those of all fields."""
        return slice(int(self.starts[field]), int(self.starts[field]) + self.spec.fields[field])

    # ---- use ------------------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator,
        allowed: Mapping[int, Tensor] | None = None,
    ) -> Batch:
        """`n` rows {"tokens": int64 (n,F), "log_weight": (n,)}, field after field.

        `allowed` holds the tokens that some fields may have, {field: bool (size,)}. Those come first, fields with one token
        before the others; exp(log_weight), at most 1, is how much rarer a row is than it was drawn: what several sets of
        tokens need to be right.
        """
        device = self.embedding.weight.device
        nothing = torch.zeros(n, len(self.spec.fields), dtype=torch.int64, device=device)
        return self.fill(nothing, nothing.bool(), generator=generator, allowed=allowed)

    def fill(
        self, tokens: Tensor, known: Tensor, *, generator: torch.Generator, allowed: Mapping[int, Tensor] | None = None
    ) -> Batch:
        """As `sample`, for rows (n,F) of which the fields that are `known` (n,F) bool stay as they are."""
        allowed, owners = allowed or {}, self.spec.owners
        n = len(tokens)
        states, of = self._known(tokens, known)
        weight, drawn, free = torch.zeros(n, device=tokens.device), list(tokens.unbind(1)), False
        for field in self.order(allowed):
            open_ = ~known[:, field]
            uniform = torch.rand(n, generator=generator, dtype=torch.float64).to(tokens.device)
            logits = self.head(self.hidden(states + self.asked.weight[field]), field)
            if field in allowed:
                kept = logits.masked_fill(~allowed[field].to(tokens.device), -math.inf)
                if free:  # what was drawn before is not the same in all rows
                    rarer = kept.logsumexp(1) - logits.logsumexp(1)
                    weight = weight + torch.where(open_, rarer[of], 0.0)
                free, logits = free or int(allowed[field].sum()) > 1, kept
            elif not field or owners[field - 1] != owners[field]:
                logits[:, list(self.spec.never[owners[field]])] = -math.inf
            token = _drawn(logits, uniform, of)
            drawn[field] = torch.where(open_, token, drawn[field])
            states, of = self.after(states, of, field, token, open_)
        return {"tokens": torch.stack(drawn, 1), "log_weight": weight}

    def begun(self, n: int) -> tuple[Tensor, Tensor]:
        """What is known of `n` rows at first, which is nothing: different states (G,C), and which of them each row has (n,). Rows
        that begin alike are worked on once until they part, which is most of the work where columns have few levels."""
        weight = self.embedding.weight
        return weight.new_zeros(1, self.config.width), torch.zeros(n, dtype=torch.int64, device=weight.device)

    def after(
        self, states: Tensor, of: Tensor, field: int, token: Tensor, open_: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `begun`, once the tokens (n,) of a field are known too; of rows that are not `open_` (n,) they were so before."""
        n, size = len(of), self.spec.fields[field]
        embedded = self.embedding.weight[self.part(field)]
        if len(states) < n:
            pairs, merged = (of * size + token).unique(return_inverse=True)
            if len(pairs) <= n // 2:
                return states[pairs // size] + embedded[pairs % size], merged
            states, of = states[of], torch.arange(n, device=of.device)
        return states + (embedded[token] if open_ is None else embedded[token] * open_[:, None]), of

    def _known(self, tokens: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """As `begun`, for rows (n,F) whose `known` fields (n,F) bool are known."""
        if not known.any():
            return self.begun(len(tokens))
        embedded = self.embedding(tokens + self.starts)
        states = torch.bmm(known[:, None].to(embedded.dtype), embedded)[:, 0]
        return states, torch.arange(len(tokens), device=tokens.device)

    def order(self, allowed: Mapping[int, Tensor]) -> list[int]:
        """Fields in the order of drawing: columns with one token that may be, with several, all others by size, the target last."""
        owners, places = self.spec.owners, self.places.tolist()
        rank: dict[int, int] = {}
        for field, tokens in allowed.items():
            rank[owners[field]] = max(rank.get(owners[field], 0), 1 if int(tokens.sum()) == 1 else 2)
        return sorted(range(len(owners)), key=lambda field: (rank.get(owners[field], 3), places[owners[field]], field))

    def chances(self, tokens: Tensor, known: Tensor, field: int) -> Tensor:
        """Log-probabilities of the tokens of a field given those that are `known` (n,F) bool: (n, size of the field)."""
        states, of = self._known(tokens, known)
        return self.head(self.hidden(states + self.asked.weight[field]), field).log_softmax(1)[of]

    def log_prob(self, batch: Batch) -> Tensor:
        """Log-probability in nats of each row, its columns in their own order, or at the "places" (B, columns) of the batch, (B,)."""
        places = batch.get("places", self.places.expand(len(batch["tokens"]), -1))
        return -self.nats(batch["tokens"], places).sum(1)

    def walk(self, n: int) -> Walk:
        """`n` rows about to be read again, field by field."""
        return Walk(self, n)

    @property
    def remembered(self) -> int:
        """Numbers that a walk holds of a row, at most."""
        return (3 + 2 * self.config.widen) * self.config.width + 4 * max(self.spec.fields) + len(self.spec.fields)


class Walk:
    """Rows read again field by field; `model` is a `Model` that has whole numbers for weights."""

    def __init__(self, model: Any, n: int) -> None:
        self.model, self.n = model, n

    @torch.no_grad()
    def through(self, choose: Any) -> Tensor:
        """Tokens of all rows, int64 (n,F): `choose` maps logits (n, size) of a field to its tokens (n,), in the order of sampling."""
        model = self.model
        states, of = model.begun(self.n)
        tokens = torch.zeros(self.n, len(model.spec.fields), dtype=torch.int64)
        for field in model.order({}):
            part = model.part(field)
            x = model.hidden(states + model.asked.weight[field])
            token = tokens[:, field] = choose(model.heads.part(x, part)[of])
            states, of = model.after(states, of, field, token)
        return tokens


def _drawn(logits: Tensor, uniform: Tensor, of: Tensor) -> Tensor:
    """A token (n,) for each row from the distribution `of` (n,) those in `logits` (G,V), by `uniform` numbers (n,) float64: all ladders of
    cumulated probabilities stand on top of each other, and a row looks for its place in its own."""
    up_to = logits.softmax(1).double().cumsum(1)
    ladder = up_to / up_to[:, -1:] + torch.arange(len(logits), device=logits.device)[:, None]
    place = torch.searchsorted(ladder.flatten(), uniform + of, right=True)
    return (place - of * logits.shape[1]).clamp(0, logits.shape[1] - 1)
