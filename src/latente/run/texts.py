"""Runs of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from latente.data.text import TextDataset
from latente.data.tokenizer import Tokenizer
from latente.evaluation.findings import Evaluation, Say, silent
from latente.generation import Sampling, Stream, generate
from latente.rng import keyed
from latente.run.base import ASSETS, Run, positive

READ = 50_000_000  # tokens of a split, at most, that samples are compared with
WRITTEN, SKIPPED = 1_056, 32  # tokens of a text that is written to be judged, of which the first are left out
TEXTS = 64  # texts are written this many at a time


class TextRun(Run):
    """A trained language model. Row number i of a seed is drawn from its own key, so it does not depend on the other rows."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        made = Tokenizer.load(self.path / ASSETS)
        if made.size != self.spec.vocabulary:
            raise ValueError(
                f"{self.path / ASSETS}: {made.size} tokens, but the model has {self.spec.vocabulary}: not this run's tokenizer"
            )
        return made

    def sample(
        self, n: int, *, seed: int = 0, tokens: int | None = None, prompt: str = "", stop: Sequence[str] = (), **sampling: Any
    ) -> dict[str, list[str]]:  # fmt: skip
        """`n` new texts {"text": [...]} of up to `tokens` tokens each (default: the context), begun from nothing or a prompt.

        `sampling` are the fields of `generation.Sampling`.
        """
        positive("--n", n)
        texts: list[str] = []
        for first in range(0, n, TEXTS):
            prompts = [prompt] * min(TEXTS, n - first)
            texts += self._written(prompts, tokens or self.spec.context, seed, first, stop, Sampling(**sampling))
        return {"text": texts}

    def complete(
        self, prompt: str | Sequence[str], tokens: int = 200, *, seed: int = 0, stop: Sequence[str] = (), **sampling: Any
    ) -> Any:  # fmt: skip
        """What comes after a prompt (a str), or after each of several (a list of str), in up to `tokens` tokens.

        It ends before the first of the strings `stop`, and at the end of a document; `sampling` are the fields of
        `generation.Sampling`.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            return []
        texts = self._written(prompts, tokens, seed, 0, stop, Sampling(**sampling))
        return texts[0] if isinstance(prompt, str) else texts

    def stream(
        self, prompt: str, tokens: int = 200, *, seed: int = 0, stop: Sequence[str] = (), **sampling: Any
    ) -> Iterator[str]:  # fmt: skip
        """As `complete` for one prompt, piece by piece as it is written."""
        text = Stream(self.tokenizer.bytes_of, stop)
        for step in self._steps([prompt], tokens, seed, 0, Sampling(**sampling)):
            token = int(step.tokens[0])
            if token == self.tokenizer.end:
                break
            yield text.push(token)
            if text.stopped:
                return
        yield text.close()

    def attention_maps(self, text: str) -> np.ndarray:
        """Who looks at whom in a text of T tokens (its first `context` of them): (L,H,T,T), rows sum to 1 over what came before."""
        self.require("attention_maps")
        tokens = torch.from_numpy(self.tokenizer.encode(text)[: self.spec.context])[None]
        if not tokens.numel():
            raise ValueError("attention_maps needs a text of at least one token")
        with torch.no_grad():
            return self.model.attention_maps(tokens)[:, 0].numpy()

    def _written(
        self, prompts: list[str], tokens: int, seed: int, first: int, stop: Sequence[str], sampling: Sampling
    ) -> list[str]:
        texts, pieces = [Stream(self.tokenizer.bytes_of, stop) for _ in prompts], [list[str]() for _ in prompts]
        ended = [False] * len(prompts)
        for step in self._steps(prompts, tokens, seed, first, sampling):
            for row, token in enumerate(step.tokens.tolist()):
                if not ended[row]:
                    ended[row] = token == self.tokenizer.end
                    pieces[row].append("" if ended[row] else texts[row].push(token))
                    ended[row] |= texts[row].stopped
            if all(ended):
                break
        return ["".join(part) + text.close() for part, text in zip(pieces, texts)]

    def _steps(self, prompts: list[str], tokens: int, seed: int, first: int, sampling: Sampling) -> Iterator[Any]:
        positive("--tokens", tokens)
        rows = [self.tokenizer.encode(prompt).tolist() or [self.spec.start] for prompt in prompts]
        draws = [torch.rand(tokens, generator=keyed(seed, "text", first + row)) for row in range(len(rows))]
        unknown = self.tokenizer.unknown
        return generate(self.model, rows, torch.stack(draws), sampling, () if unknown is None else (unknown,))

    def evaluate(self, *, source: Any = None, seed: int = 0, say: Say = silent) -> Evaluation:
        """Likelihood of the whole test split beside compressors and an n-gram model given the same training text; then passages the
        model writes, beside real ones."""
        from latente.evaluation import text

        data: TextDataset = self.reopened(source)
        (start, stop), (held_start, held_stop) = data.ranges["train"], data.ranges["test"]
        tokens = np.asarray(data.tokens[held_start:held_stop], np.int64)
        first = self.tokenizer.bytes_of(int(tokens[0]))  # nothing stands before it, so it is not predicted
        characters = data.characters["test"] - len(first.decode("utf-8", "replace"))
        size = min(len(tokens), stop - start)
        stretches = (tokens, data.tokens[start : start + size], data.tokens[slice(*data.ranges["validation"])])
        say("the likelihood of held-out text")
        with torch.inference_mode():
            nats, known, fresh = (
                text.token_nats(self.model.logits, np.asarray(part, np.int64), self.spec.context) for part in stretches
            )
        train = np.asarray(data.tokens[start:stop])
        say("what compressors and an n-gram model make of the same text")
        references = text.references(
            data.raw("train"), data.raw("test"), train, tokens, self.spec.vocabulary, characters
        )
        scores = text.likelihood(nats, self.spec.context, characters, data.bytes["test"] - len(first), references)
        unknown = 0.0 if self.tokenizer.unknown is None else float((tokens == self.tokenizer.unknown).mean())
        if unknown:
            said = f"{scores[0].verdict}; {unknown:.1%} of the test tokens are unknown to the tokenizer: the figures flatter it"
            scores[0] = replace(scores[0], verdict=said)
        whole = {part: data.text(part, READ) for part in ("train", "test", "validation")}
        parts: dict[str, np.ndarray] = dict(zip(("test", "train", "validation"), stretches))
        real = text.Held(
            **whole, nats={"test": nats, "train": known, "validation": fresh}, tokens=parts, spelled=self.tokenizer.bytes_of,
            context=self.spec.context,
        )  # fmt: skip
        say(f"writing {real.count:,} passages")
        return text.evaluated(self._passages(real.count * real.letters, data, seed), scores, real, seed, say)

    def _passages(self, characters: int, data: TextDataset, seed: int) -> list[str]:
        """Texts of some `characters` in all; their first lines, begun from nothing, are left out. Texts of many documents are one."""
        each = len(data.tokens[slice(*data.ranges["test"])]) / max(1, data.characters["test"])  # tokens a character
        count = max(1, math.ceil(characters * each / (WRITTEN - SKIPPED)))
        texts = self.sample(count, seed=seed, tokens=WRITTEN)["text"]
        skipped = round(SKIPPED / each)
        if self.tokenizer.end is not None and data.audit.documents > 1:
            return ["".join(texts)]
        return [text[skipped:] for text in texts]
