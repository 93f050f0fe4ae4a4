"""Generative pre-trained Transformer (Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2019, "GPT-2").

    tokens (B,T) -> embedding (B,T,C) -> L x block -> norm -> head -> logits (B,T,V): what the next token may be

    block:  x -- norm -- causal self-attention -- + -- norm -- feed-forward (C -> 4C -> C) -- + --> x
             \\_____________________________________/ \\_________________________________________/

B texts, T tokens, C width, L layers, H heads of D = C/H numbers, V vocabulary. Two shapes, each the exact function of an
architecture that `transformers` loads (`export`):

    modern  NanoChat: rotary positions (Su et al. 2021, arXiv:2104.09864), queries and keys normalised (Dehghani et al. 2023,
            arXiv:2302.05442), RMSNorm without weights, ReLU^2 (So et al. 2021, arXiv:2109.08668), grouped-query attention
            (Ainslie et al. 2023, arXiv:2305.13245), an output head of its own, logits capped at +-15
    gpt2    GPT-2: learned positions, LayerNorm, GELU, biases, the head is the embedding

`ngrams` above 1 adds hashed embeddings of the last 2, 3, ... tokens to the input: a look-up costs no multiplications and knows
at once what attention would have to learn (it leaves what `transformers` can load). Losses in nats per token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latente.config import Recipe, Size
from latente.phases import Losses, Phase
from latente.spec import TextSpec

Batch = dict[str, Tensor]
CAP = 15.0  # NanoChat's bound on logits
EPSILON = {"modern": 1e-6, "gpt2": 1e-5}


@dataclass(frozen=True)
class Config:
    """Sizes and shape of the Transformer."""

    shape: Literal["modern", "gpt2"] = "modern"
    """modern: rotary positions, RMSNorm, ReLU^2 (loads as NanoChat); gpt2: the textbook one (loads as GPT-2)"""
    layers: int = 4
    """L, attention blocks"""
    heads: int = 4
    """H, attention heads of a block"""
    kv_heads: int | None = None
    """heads of keys and values, which share them among the query heads; unset: as many as heads"""
    width: int = 128
    """C, numbers that stand for a token"""
    dropout: float = 0.0
    """share of the channels a block adds to that are left out of a whole window while training (Gal & Ghahramani 2016)"""
    ngrams: int = 1
    """longest run of tokens that has an embedding of its own, by hashing; above 1 the model leaves what transformers loads"""
    ngram_rows: int = 16384
    """rows of each hashed table, a power of two"""
    ngram_dropout: float = 0.3
    """share of places where an n-gram is left out while training, as if never seen, so that it is not all there is to rely on"""

    def __post_init__(self) -> None:
        shared = self.heads if self.kv_heads is None else self.kv_heads
        sizes = {"layers": self.layers, "heads": self.heads, "kv-heads": shared, "width": self.width, "ngrams": self.ngrams,
                 "ngram-rows": self.ngram_rows}  # fmt: skip
        for name, size in sizes.items():
            most = {"layers": 1 << 10, "ngrams": 1 << 4}.get(name, 1 << 24)
            if not 1 <= size <= most:
                raise ValueError(f"--{name} {size}: at {'least 1' if size < 1 else f'most {most:,}'}")
        for wrong, line in (
            (self.width % (2 * self.heads) > 0, f"--width {self.width}: a multiple of twice --heads {self.heads}"),
            (self.heads % shared > 0, f"--kv-heads {shared}: a divisor of --heads {self.heads}"),
            (self.shape == "gpt2" and (shared != self.heads or self.ngrams > 1), "--shape gpt2 has no --kv-heads and no --ngrams"),
            (not 0 <= self.dropout < 1, f"--dropout {self.dropout}: from 0 to below 1"),
            (not 0 <= self.ngram_dropout < 1, f"--ngram-dropout {self.ngram_dropout}: from 0 to below 1"),
            (self.ngram_rows & (self.ngram_rows - 1) > 0, f"--ngram-rows {self.ngram_rows}: a power of two"),
        ):  # fmt: skip
            if wrong:
                raise ValueError(line)

    @classmethod
    def preset(cls, size: Size, spec: TextSpec) -> Config:
        return {
            "tiny": cls(layers=4, heads=2, width=128),
            "small": cls(layers=6, heads=4, width=256),
            "base": cls(layers=6, heads=6, width=384),
        }[size]


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
    """What `normalised` computes, in a third of the passes over memory that torch's own makes on a CPU, there and back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = torch.rsqrt(norm.square() / x.shape[-1] + EPSILON["modern"])
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
    return F.rms_norm(x, x.shape[-1:], eps=EPSILON["modern"])


class RMSNorm(nn.Module):
    """`normalised` as a module; no weights."""

    def forward(self, x: Tensor) -> Tensor:
        return normalised(x)


class Cache:
    """Keys and values of the tokens seen so far, so that each new token costs one token's work.

    Texts of unequal length stand flush right: `padding` (B,) says how many places on the left of each are empty.
    """

    def __init__(self, model: Model, rows: int, padding: Tensor | None = None) -> None:
        c, weight = model.config, model.embedding.weight
        shape = (c.layers, 2, rows, c.kv_heads or c.heads, model.spec.context, c.width // c.heads)
        self.held = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        # One product for queries, keys and values: at one token a pass, it is the number of operations that takes the time.
        self.joined = [block.attention.joined() for block in model.blocks]
        self.recent = torch.zeros(rows, c.ngrams - 1, dtype=torch.int64, device=weight.device)
        self.padding = padding
        self.length = 0

    @property
    def room(self) -> int:
        """How many more tokens fit."""
        return self.held.shape[4] - self.length


class Attention(nn.Module):
    """Causal self-attention: (B,T,C) -> (B,T,C). Every token asks (query), every earlier one answers (key) with its value."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.shared, self.size = config.heads, config.kv_heads or config.heads, config.width // config.heads
        self.modern, self.dropout = config.shape == "modern", config.dropout
        bias = not self.modern
        self.query = nn.Linear(config.width, self.heads * self.size, bias=bias)
        self.key = nn.Linear(config.width, self.shared * self.size, bias=bias)
        self.value = nn.Linear(config.width, self.shared * self.size, bias=bias)
        self.out = nn.Linear(config.width, config.width, bias=bias)

    def forward(
        self, x: Tensor, rotation: Tensor | None, mask: Tensor | None, cache: Cache | None, layer: int
    ) -> Tensor:
        """`rotation` complex (T,1,D/2) or (B,T,1,D/2)."""
        if cache is None:
            query, key, value = self.heads_of(x, rotation)
        else:
            query, key, value = self.cached(x, rotation, cache, layer)
        mixed = F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None and x.shape[1] > 1, enable_gqa=self.heads != self.shared
        )
        return self.out(mixed.transpose(1, 2).flatten(2))

    def heads_of(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B,H,T,D), keys and values (B,H',T,D)."""
        query, key, value = (linear(x).unflatten(2, (-1, self.size)) for linear in (self.query, self.key, self.value))
        if rotation is not None:
            query, key = (rotated(part, rotation).to(value.dtype) for part in (query, key))
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def cached(self, x: Tensor, rotation: Tensor | None, cache: Cache, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """As `heads_of`, keys and values of everything in the cache, to which those of x are added."""
        heads = F.linear(x, *cache.joined[layer]).unflatten(2, (-1, self.size)).transpose(1, 2)
        turned, value = heads[:, : self.heads + self.shared], heads[:, self.heads + self.shared :]
        if rotation is not None:
            turned = rotated(turned.transpose(1, 2), rotation).to(value.dtype).transpose(1, 2)
        keys, values = cache.held[layer].narrow(3, 0, cache.length + x.shape[1])
        keys[:, :, cache.length :] = turned[:, self.heads :]
        values[:, :, cache.length :] = value
        return turned[:, : self.heads], keys, values

    def joined(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of queries, keys and values as one linear map."""
        parts = (self.query, self.key, self.value)
        return torch.cat([p.weight for p in parts]), None if self.modern else torch.cat([p.bias for p in parts])


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Pairs of numbers of x (B,T,H,D) turned by their position's angles, then normalised over D."""
    pairs = torch.view_as_complex(x.float().unflatten(3, (-1, 2)))
    turned = torch.view_as_real(pairs * rotation).flatten(3)
    return normalised(turned)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)): (B,T,C) -> (B,T,C)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.modern, self.dropout = config.shape == "modern", config.dropout
        self.first_norm, self.second_norm = (norm(config) for _ in range(2))
        self.attention = Attention(config)
        self.widen = nn.Linear(config.width, 4 * config.width, bias=not self.modern)
        self.narrow = nn.Linear(4 * config.width, config.width, bias=not self.modern)

    def forward(
        self, x: Tensor, rotation: Tensor | None, mask: Tensor | None, cache: Cache | None, layer: int
    ) -> Tensor:
        x = x + self.dropped(self.attention(self.first_norm(x), rotation, mask, cache, layer))
        wide = self.widen(self.second_norm(x))
        if not self.modern:
            wide = F.gelu(wide, approximate="tanh")
        elif torch.is_grad_enabled():
            wide = SquaredReLU.apply(wide)
        else:
            wide = wide.relu_().square_()
        return x + self.dropped(self.narrow(wide))

    def dropped(self, x: Tensor) -> Tensor:
        if not (self.dropout and self.training):
            return x
        # One mask for all places of a window: as good a regulariser as one for each, and it costs next to nothing.
        kept = torch.empty(len(x), 1, x.shape[2], dtype=x.dtype, device=x.device).bernoulli_(1 - self.dropout)
        return x * (kept / (1 - self.dropout))


def norm(config: Config) -> nn.Module:
    return RMSNorm() if config.shape == "modern" else nn.LayerNorm(config.width, EPSILON["gpt2"])


class NGrams(nn.Module):
    """For every token the sum of the embeddings of the last 2, ..., N tokens, each found by a hash: (B,N-1+T) -> (B,T,C)."""

    def __init__(self, vocabulary: int, config: Config) -> None:
        super().__init__()
        self.vocabulary, self.rows, self.dropout = vocabulary, config.ngram_rows, config.ngram_dropout
        self.tables: Any = nn.ModuleList(nn.Embedding(self.rows, config.width) for _ in range(config.ngrams - 1))

    def forward(self, line: Tensor) -> Tensor:
        """`line` (B,N-1+T): the window with what stands before it, as token + 1; 0 = nothing."""
        first = len(self.tables)
        code, total = line[:, first:], 0
        for back, table in enumerate(self.tables, 1):
            code = code * (self.vocabulary + 1) + line[:, first - back : line.shape[1] - back]
            # Multiplying by an odd constant mixes low bits upwards (Knuth's multiplicative hash); the high bits are taken.
            found = table((code * 0x5851F42D4C957F2D >> 40) & (self.rows - 1))
            if self.training and self.dropout:
                kept = torch.empty(*found.shape[:2], 1, device=found.device).bernoulli_(1 - self.dropout)
                found = found * (kept / (1 - self.dropout))
            total = total + found
        return total  # type: ignore[return-value]


class Model(nn.Module):
    accepts = (TextSpec,)
    phases = (Phase("main"),)
    recipe = Recipe(
        batch_size=16, learning_rate=3e-3, muon_learning_rate=0.02, beta1=0.8, beta2=0.95, clip=1.0, ema=0.0, decay=0.5
    )
    monitor = "nats_per_token"
    rotation: Tensor

    def __init__(self, config: Config, spec: TextSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.embedding = nn.Embedding(spec.vocabulary, config.width)
        self.positions: Any = nn.Embedding(spec.context, config.width) if config.shape == "gpt2" else None
        self.ngrams: NGrams | None = NGrams(spec.vocabulary, config) if config.ngrams > 1 else None
        self.blocks: Any = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm: Any = norm(config)
        self.head = nn.Linear(config.width, spec.vocabulary, bias=False) if config.shape == "modern" else None
        size = config.width // config.heads
        angles = torch.outer(torch.arange(spec.context), 10000.0 ** (-torch.arange(0, size, 2) / size))
        self.register_buffer("rotation", torch.polar(torch.ones_like(angles), -angles)[:, None], persistent=False)
        self.reset()

    def reset(self) -> None:
        """Initial weights. Whatever writes to the residual stream starts at zero (modern) or small (gpt2)."""
        if self.config.shape == "gpt2":
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    last = name.endswith(("out.weight", "narrow.weight"))
                    nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * self.config.layers) if last else 1))
                elif name.endswith("bias"):
                    nn.init.zeros_(parameter)
            return
        nn.init.normal_(self.embedding.weight)
        bound = math.sqrt(3 / self.config.width)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith(("out.weight", "narrow.weight")):
                nn.init.zeros_(parameter)
            else:
                nn.init.uniform_(parameter, -bound, bound)
        assert self.head is not None
        nn.init.zeros_(self.head.weight)
        for table in self.ngrams.tables if self.ngrams is not None else ():
            nn.init.zeros_(table.weight)

    @property
    def steps_worth(self) -> int:
        """The steps below which a smaller model learns more in the same time: eight tokens for every weight."""
        weights = sum(p.numel() for p in self.blocks.parameters())
        return 8 * weights // (self.recipe.batch_size * self.spec.context)

    def muon_parameters(self) -> list[str]:
        """The matrices of the blocks."""
        return [f"blocks.{name}" for name, p in self.blocks.named_parameters() if p.ndim == 2]

    # ---- training -------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, phase: str, progress: float) -> Losses:
        """Cross-entropy of every next token, in nats per token."""
        tokens = batch["tokens"]
        logits = self.logits(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        return Losses(loss, {"nats_per_token": loss})

    def logits(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """(B,T) int64 -> (B,T,V) float32: unnormalised log-probabilities of the token after each; the cache is extended."""
        rows, length = tokens.shape
        at = cache.length if cache is not None else 0
        places: Any = slice(at, at + length)
        mask = None
        if cache is not None and cache.padding is not None:
            places = (torch.arange(at, at + length, device=tokens.device) - cache.padding[:, None]).clamp(min=0)
        if cache is not None and (cache.padding is not None or (at and length > 1)):
            mask = visible(at, length, cache.padding, tokens.device)
        x = self.embedding(tokens)
        if self.ngrams is not None:
            known = tokens + 1
            if cache is not None and cache.padding is not None:
                known = known.masked_fill(
                    torch.arange(at, at + length, device=tokens.device) < cache.padding[:, None], 0
                )
            before = cache.recent if cache is not None else tokens.new_zeros(rows, self.config.ngrams - 1)
            line = torch.cat([before, known], 1)
            x = x + self.ngrams(line)
            if cache is not None:
                cache.recent = line[:, length:]
        x = self.norm(x) if self.positions is None else x + self.positions.weight[places]
        rotation = None if self.positions is not None else self.rotation[places]
        for number, block in enumerate(self.blocks):
            x = block(x, rotation, mask, cache, number)
        if cache is not None:
            cache.length += length
        x = self.norm(x)
        if self.head is None:
            return F.linear(x, self.embedding.weight).float()
        return CAP * torch.tanh(self.head(x).float() / CAP)

    # ---- use ------------------------------------------------------------------------------------------------------

    @property
    def cached(self) -> int:
        """Numbers that a cache holds of a text."""
        c = self.config
        return 2 * c.layers * (c.kv_heads or c.heads) * (c.width // c.heads) * self.spec.context

    def cache(self, rows: int, padding: Tensor | None = None) -> Cache:
        """An empty cache for `rows` texts, the first `padding` (B,) places of each being empty."""
        return Cache(self, rows, padding)

    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator, temperature: float = 1.0
    ) -> Batch:
        """`n` texts of `context` tokens begun from nothing, {"tokens": int64 (n,T)}: one token after another, drawn from the
        model's distribution. `generation.generate` does this with prompts, filters, and beyond the context."""
        cache, device = self.cache(n), self.embedding.weight.device
        tokens = torch.full((n, 1), self.spec.start, device=device)
        drawn = []
        for _ in range(self.spec.context):
            chances = F.softmax(self.logits(tokens, cache)[:, -1] / temperature, 1).cpu()
            tokens = torch.multinomial(chances, 1, generator=generator).to(device)
            drawn.append(tokens)
        return {"tokens": torch.cat(drawn, 1)}

    def log_prob(self, batch: Batch) -> Tensor:
        """Log-probability in nats of each window's tokens but the first, (B,)."""
        tokens = batch["tokens"]
        logits = self.logits(tokens[:, :-1])
        return -F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").sum(1)

    def attention_maps(self, tokens: Tensor) -> Tensor:
        """Who looks at whom: (B,T) -> (L,B,H,T,T); each row sums to 1 over the earlier tokens and itself."""
        maps: list[Tensor] = []

        def keep(attention: Any, given: tuple[Any, ...], _: Any) -> None:
            query, key, _ = attention.heads_of(given[0], given[1])
            key = key.repeat_interleave(attention.heads // attention.shared, 1)
            scores = query @ key.transpose(2, 3) / math.sqrt(attention.size)
            hidden = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu(1)
            maps.append(F.softmax(scores.masked_fill(hidden, -math.inf), 3))

        watched = [block.attention.register_forward_hook(keep) for block in self.blocks]
        try:
            self.logits(tokens)
        finally:
            for hook in watched:
                hook.remove()
        return torch.stack(maps)

    def export(self) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """The architecture's name in `transformers`, its configuration, and its weights by their names there.

        Raises ValueError for a model with `ngrams`, which no architecture there has.
        """
        if self.ngrams is not None:
            raise ValueError("a model with --ngrams above 1 has no counterpart in transformers; train with --ngrams 1")
        return (_as_gpt2 if self.config.shape == "gpt2" else _as_nanochat)(self)


def visible(at: int, length: int, padding: Tensor | None, device: torch.device) -> Tensor:
    """Which of the at + length places each of the last `length` may look at: bool, (length, places) or (B,1,length,places)."""
    places = torch.arange(at + length, device=device)
    earlier = places <= places[at:, None]
    if padding is None:
        return earlier
    # An empty place sees itself: a row of nothing but hidden places would be 0/0, and nobody looks at its result.
    filled = places >= padding[:, None, None]
    return ((earlier & filled) | (places == places[at:, None]))[:, None]


def _as_gpt2(model: Model) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    c, spec = model.config, model.spec
    weights = {"wte.weight": model.embedding.weight, "wpe.weight": model.positions.weight}
    weights |= {"ln_f.weight": model.norm.weight, "ln_f.bias": model.norm.bias}
    for number, block in enumerate(model.blocks):
        attention = block.attention
        for kind in ("weight", "bias"):
            parts = [getattr(linear, kind) for linear in (attention.query, attention.key, attention.value)]
            named = {
                "ln_1": getattr(block.first_norm, kind), "ln_2": getattr(block.second_norm, kind),
                "attn.c_attn": torch.cat(parts), "attn.c_proj": getattr(attention.out, kind),
                "mlp.c_fc": getattr(block.widen, kind), "mlp.c_proj": getattr(block.narrow, kind),
            }  # fmt: skip
            for name, value in named.items():
                weights[f"h.{number}.{name}.{kind}"] = (
                    value.T if value.ndim == 2 else value
                )  # its matrices lie transposed
    weights = {f"transformer.{name}": value for name, value in weights.items()} | {
        "lm_head.weight": model.embedding.weight
    }
    settings = {"n_layer": c.layers, "n_head": c.heads, "n_embd": c.width, "n_positions": spec.context}
    return "GPT2LMHeadModel", {"vocab_size": spec.vocabulary, "activation_function": "gelu_new", **settings}, weights


def _as_nanochat(model: Model) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    c, spec = model.config, model.spec
    size = c.width // c.heads
    # We turn neighbouring numbers, NanoChat turns number i with number i + D/2.
    halves = torch.cat([torch.arange(0, size, 2), torch.arange(1, size, 2)])

    def parted(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (-1, size))[:, halves].flatten(0, 1)

    weights = {"model.embed_tokens.weight": model.embedding.weight, "lm_head.weight": model.head.weight}  # type: ignore[union-attr]
    for number, block in enumerate(model.blocks):
        attention = block.attention
        for name, value in {
            "self_attn.q_proj": parted(attention.query.weight), "self_attn.k_proj": parted(attention.key.weight),
            "self_attn.v_proj": attention.value.weight, "self_attn.o_proj": attention.out.weight,
            "mlp.fc1": block.widen.weight, "mlp.fc2": block.narrow.weight,
        }.items():  # fmt: skip
            weights[f"model.layers.{number}.{name}.weight"] = value
    settings: dict[str, Any] = {
        "vocab_size": spec.vocabulary, "hidden_size": c.width, "intermediate_size": 4 * c.width,
        "num_hidden_layers": c.layers, "num_attention_heads": c.heads, "num_key_value_heads": c.kv_heads or c.heads,
        "max_position_embeddings": spec.context, "hidden_act": "relu2", "final_logit_softcapping": CAP,
        "rms_norm_eps": EPSILON["modern"], "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }  # fmt: skip
    return "NanoChatForCausalLM", settings, weights
