"""Sequence-to-sequence Transformer (Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762).

    source (B,S) -> embedding (B,S,C) -> L x encoder block -> norm -> memory (B,S,C)
    target (B,T) -> embedding (B,T,C) -> L x decoder block -> norm -> head -> logits (B,T,V): what the next token may be
                                              ^ memory

    encoder block:  + self-attention, + feed-forward
    decoder block:  + causal self-attention, + cross-attention (the target asks, the memory answers), + feed-forward

B pairs, S and T tokens, C width, L layers, H heads of D = C/H numbers, V vocabulary. Each + adds to what comes in. Two shapes:

    modern    a norm before each part: RMSNorm without weights (Zhang & Sennrich 2019, arXiv:1910.07467); rotary positions (Su et al.
              2021, arXiv:2104.09864), within a side and across; queries and keys normalised (Dehghani et al. 2023, arXiv:2302.05442);
              ReLU^2 (So et al. 2021, arXiv:2109.08668) or SwiGLU (Shazeer 2020, arXiv:2002.05202); no biases
    textbook  the paper's, exactly the function of `torch.nn.Transformer`: sinusoids for positions, LayerNorm after each part or
              before it, ReLU, biases

Where a batch is filled up nothing looks at the filling. Losses in nats per token: those of a pair over `spec.usual_target`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.config import Recipe, Size
from latente.phases import Losses, Phase
from latente.spec import PairSpec

Batch = dict[str, Tensor]
Memory = list[tuple[Tensor, Tensor]]
"""For each decoder block the keys and values (B,H,S,D) of the sources"""
EPSILON = 1e-5
FIRST = 16  # tokens there is room for at first
SHORT = 256  # tokens of keys: up to so many, attention step by step trains faster than torch's in bfloat16 on a CPU
PACKED = 0.75  # sources that are done are dropped once at most this share has rows


@dataclass(frozen=True)
class Config:
    """Sizes and shape of the Transformer."""

    shape: Literal["modern", "textbook"] = "modern"
    """modern: RMSNorm, rotary positions, normalised queries and keys; textbook: that of 2017 (as torch.nn.Transformer)"""
    layers: int = 3
    """L, blocks of the encoder, and of the decoder unless it has its own number"""
    decoder_layers: int | None = None
    """blocks of the decoder; unset: as many as the encoder has"""
    heads: int = 4
    """H, attention heads of a block"""
    width: int = 256
    """C, numbers that stand for a token"""
    activation: Literal["relu2", "swiglu"] = "relu2"
    """of the modern shape's feed-forward parts; the textbook has ReLU"""
    norm: Literal["post", "pre"] = "post"
    """of the textbook: LayerNorm after each part, as in the paper, or before it; the modern shape has it before"""
    both_ends: bool = False
    """in half of the heads of the modern shape's cross-attention the source's places are counted from its end"""
    tied: bool = True
    """the output head is the target embedding; where both sides have one vocabulary, the source embedding is the same too"""
    dropout: float = 0.1
    """share of the channels of embeddings and of what each part adds that are left out of a whole pair while training"""
    label_smoothing: float = 0.1
    """share of the target's probability that training spreads over all tokens (Szegedy et al. 2016, arXiv:1512.00567)"""

    def __post_init__(self) -> None:
        decoder = self.layers if self.decoder_layers is None else self.decoder_layers
        sizes = {"layers": self.layers, "decoder-layers": decoder, "heads": self.heads, "width": self.width}
        for name, size in sizes.items():
            most = 1 << 10 if name.endswith("layers") else 1 << 24
            if not 1 <= size <= most:
                raise ValueError(f"--{name} {size}: at {'least 1' if size < 1 else f'most {most:,}'}")
        if self.width % (2 * self.heads):
            raise ValueError(f"--width {self.width}: a multiple of twice --heads {self.heads}")
        if self.both_ends and (self.shape != "modern" or self.heads < 2):
            raise ValueError("--both-ends: of the modern shape, with two heads or more")
        for name, share in (("dropout", self.dropout), ("label-smoothing", self.label_smoothing)):
            if not 0 <= share < 1:
                raise ValueError(f"--{name} {share}: from 0 to below 1")

    @classmethod
    def preset(cls, size: Size, spec: PairSpec) -> Config:
        return {
            "tiny": cls(layers=2, heads=4, width=128),
            "small": cls(layers=3, heads=4, width=256),
            "base": cls(layers=6, heads=8, width=512),
        }[size]

    @property
    def post(self) -> bool:
        """Whether a norm follows each part."""
        return self.shape == "textbook" and self.norm == "post"


class SquaredReLU(torch.autograd.Function):
    """max(0, x)^2; remembers one tensor and goes back over memory once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        kept = F.relu(x)
        ctx.save_for_backward(kept)
        return kept.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (kept,) = ctx.saved_tensors
        return torch.mul(gradient, kept).mul_(2)


class RootMeanSquare(torch.autograd.Function):
    """What `normalised` computes, in fewer passes over memory than torch's own makes on a CPU, there and back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = torch.rsqrt(norm.square() / x.shape[-1] + EPSILON)
        y = x * inverse
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        y, inverse = ctx.saved_tensors
        along = (gradient * y).mean(-1, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1).mul_(inverse)


def normalised(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) over the last axis."""
    if torch.is_grad_enabled():
        return RootMeanSquare.apply(x)  # type: ignore[return-value]
    return F.rms_norm(x, x.shape[-1:], eps=EPSILON)


class RMSNorm(nn.Module):
    """`normalised` as a module; no weights."""

    def forward(self, x: Tensor) -> Tensor:
        return normalised(x)


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax(query key^T / sqrt(D)) value, (B,H,T,D), of values that `mask` (.,.,.,S) or `causal` lets through."""
    trains = torch.is_grad_enabled() and query.dtype == torch.bfloat16 and query.device.type == "cpu"
    if not trains or key.shape[2] > SHORT:
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
    scores = (query @ key.transpose(2, 3)).float() / math.sqrt(query.shape[3])
    if causal:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return F.softmax(scores, 3).to(value.dtype) @ value


def dropped(x: Tensor, share: float, training: bool) -> Tensor:
    """x (B,T,C) with a share of its channels left out while training, the same at all places of a pair (Gal & Ghahramani 2016)."""
    if not (share and training):
        return x
    kept = torch.empty(len(x), 1, x.shape[2], dtype=x.dtype, device=x.device).bernoulli_(1 - share)
    return x * (kept / (1 - share))


def norm(config: Config) -> nn.Module:
    return RMSNorm() if config.shape == "modern" else nn.LayerNorm(config.width, EPSILON)


class Cache:
    """Keys and values of the target tokens seen so far, and of the sources, so that each new token costs one token's work.

    A row is a target that is written; the rows of a source follow one another.
    """

    def __init__(self, model: Model, memory: Memory, mask: Tensor | None, each: int) -> None:
        """`each` rows of every source."""
        c, weight = model.config, model.embedding.weight
        sources = len(memory[0][0])
        self.longest = model.spec.most_target
        held = min(FIRST, self.longest)
        # Rows first, each in one piece: choosing among them is most of the memory that moves.
        self.held = weight.new_zeros(sources * each, len(model.decoder), 2, c.heads, held, c.width // c.heads)
        self.spare = torch.empty_like(self.held)
        self.memory, self.mask, self.length = memory, mask, 0
        self.owner = torch.arange(sources, device=weight.device).repeat_interleave(each)
        """of which source each row is, (R,)"""
        self.each = each
        """how many rows a source has, at most"""
        self.places: Tensor | None = None
        """where rows stand among `each` of every source, (R,); None where all sources have as many"""

    @property
    def room(self) -> int:
        """How many more tokens fit."""
        return self.longest - self.length

    def select(self, rows: Tensor) -> None:
        """Row i goes on from what row `rows[i]` was, int64 (R,): any of them, in the order of their sources."""
        if not torch.equal(rows, torch.arange(len(self.held), device=rows.device)):
            out = self.spare[: len(rows)] if len(rows) <= len(self.spare) else None
            self.held, self.spare = torch.index_select(self.held, 0, rows, out=out), self.held
            self._own(self.owner[rows])

    def _own(self, owner: Tensor) -> None:
        """Rows are of these sources from now on; where few sources still have rows, the others are dropped."""
        kept, owner, counts = owner.unique_consecutive(return_inverse=True, return_counts=True)
        if len(kept) <= PACKED * len(self.memory[0][0]):
            self.memory = [(key[kept], value[kept]) for key, value in self.memory]
            self.mask = None if self.mask is None else self.mask[kept]
            kept = torch.arange(len(kept), device=kept.device)
        within = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
        self.owner, self.each = kept[owner], int(counts.max())
        alike = len(owner) == self.each * len(self.memory[0][0])
        self.places = None if alike else self.owner * self.each + within

    def extended(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of everything seen in a layer, to which those of new tokens are added."""
        after = self.length + key.shape[2]
        if after > self.held.shape[4]:
            more = min(self.longest, max(after, 2 * self.held.shape[4])) - self.held.shape[4]
            self.held = F.pad(self.held, (0, 0, 0, more))
            self.spare = torch.empty_like(self.held)
        keys, values = self.held[:, layer].narrow(3, 0, after).unbind(1)
        keys[:, :, self.length :], values[:, :, self.length :] = key, value
        return keys, values


class Attention(nn.Module):
    """Every token of x asks (query); those it may look at answer (key) with their values."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.size, self.modern = config.width // config.heads, config.shape == "modern"
        self.query, self.key, self.value, self.out = (
            nn.Linear(config.width, config.width, bias=not self.modern) for _ in range(4)
        )

    def forward(
        self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, rotation: Tensor | None,
        each: int = 1, places: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x (R,T,C), keys and values (B,H,S,D), mask (.,.,.,S) bool -> (R,T,C). `each` rows of x ask each of B, or fewer, which then
        stand at `places` (R,) among so many."""
        query = self.asked(x, rotation)
        length = query.shape[2]
        if places is not None:
            query = query.new_zeros(each * len(key), *query.shape[1:]).index_copy_(0, places, query)
        if each > 1:
            query = query.unflatten(0, (-1, each)).transpose(1, 2).flatten(2, 3)
        mixed = attended(query, key, value, mask, causal)
        if each > 1:
            mixed = mixed.unflatten(2, (each, length)).transpose(1, 2).flatten(0, 1)
        if places is not None:
            mixed = mixed[places]
        return self.out(mixed.transpose(1, 2).flatten(2))

    def asked(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        """Queries (B,H,T,D)."""
        return self._turned(self.query(x), rotation)

    def answers(self, x: Tensor, rotation: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values (B,H,S,D) of x (B,S,C)."""
        value = self.value(x).unflatten(2, (-1, self.size)).transpose(1, 2)
        return self._turned(self.key(x), rotation), value

    def _turned(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        """Heads (B,H,T,D); in the modern shape each pair of numbers is turned by its position's angles, and D are normalised."""
        x = x.unflatten(2, (-1, self.size)).transpose(1, 2)
        if not self.modern:
            return x
        if rotation is not None:
            pairs = torch.view_as_complex(x.float().unflatten(3, (-1, 2)).contiguous())
            x = torch.view_as_real(pairs * rotation).flatten(3).to(x.dtype)
        return normalised(x)


class FeedForward(nn.Module):
    """(B,T,C) -> (B,T,C), through 4C numbers; SwiGLU through as many weights."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.kind = config.activation if config.shape == "modern" else "relu"
        wide = 4 * config.width if self.kind != "swiglu" else -(-8 * config.width // 24) * 8
        bias = config.shape == "textbook"
        self.widen = nn.Linear(config.width, wide * (1 + (self.kind == "swiglu")), bias=bias)
        self.narrow = nn.Linear(wide, config.width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.widen(x)
        if self.kind == "swiglu":
            gate, wide = wide.chunk(2, 2)
            return self.narrow(F.silu(gate) * wide)
        if self.kind == "relu":
            return self.narrow(F.relu(wide))
        return self.narrow(SquaredReLU.apply(wide) if torch.is_grad_enabled() else wide.relu_().square_())


class Part(nn.Module):
    """A part of a block and its norm: x + part(norm(x)), or the paper's norm(x + part(x))."""

    def __init__(self, config: Config, part: nn.Module) -> None:
        super().__init__()
        self.norm, self.part = norm(config), part
        self.post, self.dropout = config.post, config.dropout

    def forward(self, x: Tensor, use: Callable[[Any, Tensor], Tensor]) -> Tensor:
        """`use(part, y)` is what the part makes of y."""
        made = use(self.part, x if self.post else self.norm(x))
        x = x + dropped(made, self.dropout, self.training)
        return self.norm(x) if self.post else x


class EncoderBlock(nn.Module):
    """(B,S,C) -> (B,S,C)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Part(config, Attention(config))
        self.feedforward = Part(config, FeedForward(config))

    def forward(self, x: Tensor, mask: Tensor | None, rotation: Tensor | None) -> Tensor:
        x = self.attention(x, lambda part, y: part(y, *part.answers(y, rotation), mask, False, rotation))
        return self.feedforward(x, lambda part, y: part(y))


class DecoderBlock(nn.Module):
    """(R,T,C) -> (R,T,C), beside the keys and values of the sources."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Part(config, Attention(config))
        self.cross = Part(config, Attention(config))
        self.feedforward = Part(config, FeedForward(config))

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None, rotation: Tensor | None, cache: Cache | None,
        layer: int,
    ) -> Tensor:  # fmt: skip
        def earlier(part: Attention, y: Tensor) -> Tensor:
            key, value = part.answers(y, rotation)
            if cache is None:
                return part(y, key, value, None, True, rotation)
            key, value = cache.extended(layer, key, value)
            visible = torch.ones(y.shape[1], key.shape[2], dtype=torch.bool, device=y.device).tril(cache.length)
            return part(y, key, value, visible if y.shape[1] > 1 else None, False, rotation)

        x = self.attention(x, earlier)
        rows = {} if cache is None else {"each": cache.each, "places": cache.places}
        x = self.cross(x, lambda part, y: part(y, *memory, mask, False, rotation, **rows))
        return self.feedforward(x, lambda part, y: part(y))


class Model(nn.Module):
    accepts = (PairSpec,)
    phases = (Phase("main"),)
    recipe = Recipe(
        batch_size=128, learning_rate=3e-3, muon_learning_rate=0.02, beta1=0.8, beta2=0.95, clip=1.0, ema=0.0, decay=0.5
    )
    monitor = "token_error"
    positions: Tensor

    def __init__(self, config: Config, spec: PairSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        one = spec.shared and config.tied
        self.embedding = nn.Embedding(spec.target, config.width)
        self.source_embedding: Any = None if one else nn.Embedding(spec.source, config.width)
        self.head: Any = None if config.tied else nn.Linear(config.width, spec.target, bias=False)
        decoder = config.layers if config.decoder_layers is None else config.decoder_layers
        self.encoder: Any = nn.ModuleList(EncoderBlock(config) for _ in range(config.layers))
        self.decoder: Any = nn.ModuleList(DecoderBlock(config) for _ in range(decoder))
        self.encoder_norm, self.decoder_norm = norm(config), norm(config)
        size = config.width // config.heads if config.shape == "modern" else config.width
        places = torch.arange(spec.reach * max(spec.longest_source, spec.longest_target))
        angles = torch.outer(places, 10000.0 ** (-torch.arange(0, size, 2) / size))
        if config.shape == "modern":
            table = torch.polar(torch.ones_like(angles), angles)
        else:
            table = torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
        self.register_buffer("positions", table, persistent=False)
        self.reset()

    def reset(self) -> None:
        """Initial weights. In the modern shape whatever writes to the residual stream starts at zero."""
        modern, bound = self.config.shape == "modern", math.sqrt(3 / self.config.width)
        for name, parameter in self.named_parameters():
            if name.endswith("embedding.weight"):
                # Small where it is the head too: a token's own embedding would else be by far the likeliest to follow it.
                nn.init.normal_(parameter, std=0.02 if modern else self.config.width**-0.5)
            elif parameter.ndim == 1:
                (nn.init.ones_ if name.endswith("norm.weight") else nn.init.zeros_)(parameter)
            elif modern and name.endswith(("out.weight", "narrow.weight", "head.weight")):
                nn.init.zeros_(parameter)
            elif modern:
                nn.init.uniform_(parameter, -bound, bound)
            else:
                nn.init.xavier_uniform_(parameter)

    @property
    def steps_worth(self) -> int:
        """The steps below which a smaller model learns more in the same time: eight tokens for every weight."""
        weights = sum(p.numel() for name, p in self.named_parameters() if p.ndim == 2 and "embedding" not in name)
        return int(8 * weights / (self.recipe.batch_size * 2 * self.spec.usual_target))

    def muon_parameters(self) -> list[str]:
        """The matrices of the blocks."""
        return [
            name for name, p in self.named_parameters() if p.ndim == 2 and name.startswith(("encoder.", "decoder."))
        ]

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
        memory, mask = self.read(source)
        return self._decoded(target, memory, mask, None)

    def read(self, source: Tensor) -> tuple[Memory, Tensor | None]:
        """Sources (B,S) -> keys and values for each decoder block, and which places are no filling: bool (B,1,1,S), None for all."""
        there = source != self.spec.pad
        mask = None if bool(there.all()) else there[:, None, None]
        x = self._placed(self.embedding if self.source_embedding is None else self.source_embedding, source, 0)
        rotation = self._rotation(0, source.shape[1])
        for block in self.encoder:
            x = block(x, mask, rotation)
        x = self.encoder_norm(x)
        if rotation is not None and self.config.both_ends:
            rotation = self._both_ways(rotation, there)
        return [block.cross.part.answers(x, rotation) for block in self.decoder], mask

    def _decoded(self, target: Tensor, memory: Memory, mask: Tensor | None, cache: Cache | None) -> Tensor:
        at = cache.length if cache is not None else 0
        x = self._placed(self.embedding, target, at)
        rotation = self._rotation(at, target.shape[1])
        for layer, block in enumerate(self.decoder):
            x = block(x, memory[layer], mask, rotation, cache, layer)
        x = self.decoder_norm(x)
        return (F.linear(x, self.embedding.weight) if self.head is None else self.head(x)).float()

    def _placed(self, embedding: nn.Embedding, tokens: Tensor, at: int) -> Tensor:
        """Tokens (B,T) that stand from place `at` on, as (B,T,C)."""
        x = embedding(tokens)
        if self.config.shape == "modern":
            return dropped(normalised(x), self.config.dropout, self.training)
        placed = x * math.sqrt(self.config.width) + self.positions[at : at + tokens.shape[1]]
        return dropped(placed, self.config.dropout, self.training)

    def _rotation(self, at: int, length: int) -> Tensor | None:
        return self.positions[at : at + length] if self.config.shape == "modern" else None

    def _both_ways(self, rotation: Tensor, there: Tensor) -> Tensor:
        """A rotation (S,D/2) for the heads (B,H,S,D/2) of sources: in half of them by the place from the end of what is `there` (B,S)."""
        heads = self.config.heads
        back = rotation[
            (there.sum(1, keepdim=True) - 1 - torch.arange(len(rotation), device=there.device)).clamp(min=0)
        ]
        forth = rotation.expand(len(there), heads - heads // 2, -1, -1)
        return torch.cat([forth, back[:, None].expand(-1, heads // 2, -1, -1)], 1)

    # ---- use ------------------------------------------------------------------------------------------------------

    def cache(self, source: Tensor, each: int = 1) -> Cache:
        """What writing `each` targets of every one of the sources (B,S) begins with."""
        return Cache(self, *self.read(source), each)

    def logits(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Next tokens (R,T) of the targets -> (R,T,V) float32: unnormalised log-probabilities after each; the cache is extended."""
        made = self._decoded(tokens, cache.memory, cache.mask, cache)
        cache.length += tokens.shape[1]
        return made

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
        """What each place of the targets (B,T) looks at in the sources (B,S): (L,B,H,T,S); rows sum to 1."""
        maps: list[Tensor] = []

        def keep(attention: Any, given: tuple[Any, ...], _: Any) -> None:
            x, key, _, mask, _, rotation = given
            scores = attention.asked(x, rotation) @ key.transpose(2, 3) / math.sqrt(attention.size)
            maps.append(F.softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf), 3))

        watched = [block.cross.part.register_forward_hook(keep) for block in self.decoder]
        try:
            self.predicted(source, target)
        finally:
            for hook in watched:
                hook.remove()
        return torch.stack(maps)
