"""Recurrent network with attention (Bahdanau et al. 2014, arXiv:1409.0473): the baseline of sequence-to-sequence.

    source (B,S) -> embedding -> GRU there and back -> memory (B,S,2C)
    for each target token:  state (B,C) asks the memory -> context (B,2C)
                            token before, context -> GRU -> state -> readout (with token and context) -> logits (B,V)

    a place s of the memory is looked at by softmax over s of  v . tanh(W state + U memory_s)

B pairs, S and T tokens, C width, V vocabulary. Where a batch is filled up nothing looks at the filling, and the network stops
before it. Losses in nats per token: those of a pair over `spec.usual_target`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from latente.config import Recipe, Size
from latente.phases import Losses, Phase
from latente.spec import PairSpec

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Config:
    """Sizes of the recurrent network."""

    width: int = 256
    """C, numbers that stand for a token, and of a state"""
    layers: int = 1
    """GRUs above each other that read the source"""
    dropout: float = 0.1
    """share of the numbers that are left out of embeddings and readouts, while training"""
    label_smoothing: float = 0.1
    """share of the target's probability that training spreads over all tokens (Szegedy et al. 2016, arXiv:1512.00567)"""

    def __post_init__(self) -> None:
        for name, size, most in (("width", self.width, 1 << 24), ("layers", self.layers, 1 << 10)):
            if not 1 <= size <= most:
                raise ValueError(f"--{name} {size}: at {'least 1' if size < 1 else f'most {most:,}'}")
        for name, share in (("dropout", self.dropout), ("label-smoothing", self.label_smoothing)):
            if not 0 <= share < 1:
                raise ValueError(f"--{name} {share}: from 0 to below 1")

    @classmethod
    def preset(cls, size: Size, spec: PairSpec) -> Config:
        return {"tiny": cls(width=128), "small": cls(width=256), "base": cls(width=512, layers=2)}[size]


class Cache:
    """The memory of the sources, and the state of each target so far; the targets of a source follow one another."""

    def __init__(self, memory: Tensor, keys: Tensor, mask: Tensor, state: Tensor, room: int) -> None:
        self.memory, self.keys, self.mask, self.state = memory, keys, mask, state
        owner = torch.arange(len(keys), device=keys.device).repeat_interleave(len(state) // len(keys))
        self.owner = owner if len(state) > len(keys) else None
        """of which source each target is, (R,); None where every source has one"""
        self.room = room
        """how many more tokens fit"""

    def select(self, rows: Tensor) -> None:
        """Row i goes on from what row `rows[i]` was, int64 (R,): any of them, in the order of their sources."""
        if not torch.equal(rows, torch.arange(len(self.state), device=rows.device)):
            self.state, self.owner = self.state[rows], rows if self.owner is None else self.owner[rows]

    def asked(self, of_sources: Tensor) -> Tensor:
        """What each target asks: (B,...) -> (R,...)."""
        return of_sources if self.owner is None else of_sources[self.owner]


class Model(nn.Module):
    accepts = (PairSpec,)
    phases = (Phase("main"),)
    recipe = Recipe(batch_size=128, learning_rate=2e-3, beta2=0.98, ema=0.0, decay=0.5)
    monitor = "token_error"

    def __init__(self, config: Config, spec: PairSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        width = config.width
        self.source_embedding = nn.Embedding(spec.source, width)
        self.embedding = nn.Embedding(spec.target, width)
        inner = config.dropout if config.layers > 1 else 0.0
        self.encoder = nn.GRU(width, width, config.layers, batch_first=True, bidirectional=True, dropout=inner)
        self.bridge = nn.Linear(width, width)
        self.asks = nn.Linear(width, width, bias=False)
        self.answers = nn.Linear(2 * width, width, bias=False)
        self.energy = nn.Linear(width, 1, bias=False)
        self.cell = nn.GRUCell(3 * width, width)
        self.readout = nn.Linear(4 * width, width)
        self.head = nn.Linear(width, spec.target)

    # ---- training -------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, phase: str, progress: float) -> Losses:
        """Cross-entropy of the targets. Terms: `nats_per_token` is without label smoothing; `token_error`, on held-out pairs, is how many
        tokens a model that is told all those before would get wrong."""
        target = batch["target"]
        log_probs = F.log_softmax(self.predicted(batch["source"], target[:, :-1]), 2)
        there = target[:, 1:] != self.spec.pad
        nats = -log_probs.gather(2, target[:, 1:, None])[..., 0]
        share = self.config.label_smoothing if self.training else 0.0
        smooth = (1 - share) * nats - share * log_probs.mean(2) if share else nats
        means = {"total": smooth, "nats_per_token": nats}
        if not self.training:
            means["token_error"] = (log_probs.argmax(2) != target[:, 1:]).float()
        terms = {name: (each * there).sum(1).mean() / self.spec.usual_target for name, each in means.items()}
        return Losses(terms.pop("total"), terms)

    def predicted(self, source: Tensor, target: Tensor) -> Tensor:
        """Sources (B,S) and the beginnings (B,T) of their targets -> logits (B,T,V) of the token after each."""
        return self.logits(target, self.cache(source))

    def cache(self, source: Tensor, each: int = 1) -> Cache:
        """What writing `each` targets of every one of the sources (B,S) begins with."""
        mask = source != self.spec.pad
        x = F.dropout(self.source_embedding(source), self.config.dropout, self.training)
        packed = pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        read, last = self.encoder(packed)
        memory, _ = pad_packed_sequence(read, batch_first=True, total_length=source.shape[1])
        state = torch.tanh(self.bridge(last[-1]))  # what the way back ends with has seen all of the source
        return Cache(memory, self.answers(memory), mask, state.repeat_interleave(each, 0), self.spec.most_target)

    def logits(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Next tokens (R,T) of the targets -> (R,T,V) float32: unnormalised log-probabilities after each; the cache goes on."""
        dropout = self.config.dropout
        before = F.dropout(self.embedding(tokens), dropout, self.training)
        made = []
        for token in before.unbind(1):
            _, context = self._looked(cache)
            cache.state = self.cell(torch.cat([token, context], 1), cache.state)
            made.append(torch.cat([cache.state, context, token], 1))
        cache.room -= tokens.shape[1]
        read = torch.tanh(self.readout(torch.stack(made, 1)))
        return self.head(F.dropout(read, dropout, self.training)).float()

    def _looked(self, cache: Cache) -> tuple[Tensor, Tensor]:
        """How much each state looks at each place of its source, (R,S), and what it sees there, (R,2C)."""
        energy = self.energy(torch.tanh(self.asks(cache.state)[:, None] + cache.asked(cache.keys)))[..., 0]
        weights = F.softmax(energy.masked_fill(~cache.asked(cache.mask), -torch.inf), 1)
        return weights, (weights[:, None] @ cache.asked(cache.memory))[:, 0]

    # ---- use ------------------------------------------------------------------------------------------------------

    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator, temperature: float = 1.0
    ) -> Batch:
        """Targets of the `n` sources `condition` (n,S), {"target": int64 (n,T)}: each token drawn from the model's distribution.

        `end` closes them, `pad` follows. Raises ValueError without sources.
        """
        if condition is None:
            raise ValueError("targets are made of sources: condition, int64 (n,S)")
        device = self.embedding.weight.device
        cache = self.cache(condition.to(device))
        tokens, ended = torch.full((n, 1), self.spec.begin, device=device), torch.zeros(n, 1, dtype=torch.bool)
        barred = torch.tensor([self.spec.pad, self.spec.begin], device=device)
        drawn = []
        while len(drawn) < self.spec.longest_target and not ended.all():
            logits = self.logits(tokens, cache)[:, -1].index_fill(1, barred, -torch.inf)
            new = torch.multinomial(F.softmax(logits / temperature, 1).cpu(), 1, generator=generator)
            drawn.append(new.masked_fill(ended, self.spec.pad))
            ended |= new == self.spec.end
            tokens = drawn[-1].to(device)
        return {"target": torch.cat(drawn, 1)}

    def log_prob(self, batch: Batch) -> Tensor:
        """Log-probability in nats of each target given its source, (B,)."""
        target = batch["target"]
        logits = self.predicted(batch["source"], target[:, :-1])
        nats = F.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=self.spec.pad, reduction="none")
        return -nats.sum(1)

    def attention_maps(self, source: Tensor, target: Tensor) -> Tensor:
        """What each place of the targets (B,T) looks at in the sources (B,S): (1,B,1,T,S); rows sum to 1."""
        cache, maps = self.cache(source), []
        for place in range(target.shape[1]):
            maps.append(self._looked(cache)[0])
            self.logits(target[:, place : place + 1], cache)
        return torch.stack(maps, 1)[None, :, None]
