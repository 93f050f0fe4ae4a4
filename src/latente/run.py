"""`load`: a run directory becomes a model one can use; what it can do depends on its kind of data.

ImageRun   sample, encode, reconstruct, denoise, explore, evaluate: arrays of pictures in and out
TextRun    sample, complete, stream, evaluate: strings in and out
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latente import checkpoint, registry
from latente.checkpoint import RunError
from latente.config import from_json
from latente.data.cache import cache_folder
from latente.data.dataset import Dataset, ImageOptions
from latente.data.sources import OPTIONS, open_source
from latente.data.text import TextDataset, TextOptions
from latente.data.tokenizer import Tokenizer
from latente.evaluation import features, images
from latente.evaluation.findings import Evaluation, Say, silent
from latente.generation import Sampling, Stream, generate
from latente.rng import key, keyed
from latente.spec import Spec, spec_from_json

CHUNK = 500  # images are drawn in chunks of this many, each from its own key, so memory stays bounded
LIKELY, DRAWS = 1_000, 16  # images whose likelihood is measured, with so many draws each: what some seconds allow
READ = 50_000_000  # tokens of a split, at most, that samples are compared with
WRITTEN, SKIPPED = 1_056, 32  # tokens of a text that is written to be judged, of which the first are left out
TEXTS = 64  # texts are written this many at a time


def load(path: str | Path, *, model_file: str | None = None) -> Run:
    """Opens a run to use it. Runs nothing that came with the run; a run of a user's own model needs `model_file`."""
    path = Path(path)
    record = checkpoint.read_run(path)
    return opened(path, record, family_of(record, model_file))


def opened(path: Path, record: dict[str, Any], family: registry.Family) -> Run:
    """The run of `record`, as the class of its kind of data."""
    kinds: dict[str, type[Run]] = {"image": ImageRun, "text": TextRun}
    return kinds[record["spec"]["kind"]](path, record, family)


class Run(ABC):
    """A trained model: the averaged weights of its best checkpoint, and what they can do."""

    def __init__(self, path: Path, record: dict[str, Any], family: registry.Family) -> None:
        self.path, self.record, self.family = path, record, family
        self.spec: Any = spec_from_json(record["spec"])
        self.model = built(family, from_json(family.Config, record["config"]), self.spec, record["seed"])
        try:
            self.model.load_state_dict(usable_weights(path))
        except RuntimeError:
            raise ValueError(f"{path}: its weights are not those of the model that run.json describes") from None
        if not all(bool(torch.isfinite(value).all()) for value in self.model.state_dict().values()):
            raise ValueError(f"{path}: some of its weights are no finite numbers; it cannot be used")
        self.model.eval()

    @abstractmethod
    def sample(self, n: int, *, seed: int = 0, **options: Any) -> dict[str, Any]:
        """`n` new items; the same seed gives the same items."""

    @abstractmethod
    def evaluate(self, *, source: Any = None, seed: int = 0, say: Say = silent) -> Evaluation:
        """Scores on the test split, and what to look at. `source` is needed where training was on data in memory; `say` is
        told what is being measured."""

    def reopened(self, source: Any = None) -> Any:
        """The source this run was trained on. Raises ValueError when it was in memory and is not given, or has changed since."""
        source = self.record["data"]["source"] if source is None else source
        if source is None:
            raise ValueError(f"{self.path} was trained on data in memory; give the same: run.evaluate(source=...)")
        data = open_source(source, options_of(self.path, self.record))
        if data.fingerprint != self.record["data"]["fingerprint"]:
            what = source if isinstance(source, str | Path) else "the data"
            raise ValueError(f"{what} has changed since {self.path} was trained on it; restore it, or train anew")
        return data

    def require(self, what: str) -> None:
        """Raises ValueError when this run's family cannot do `what`."""
        if not hasattr(self.model, what):
            raise ValueError(f"{self.family.name} cannot {what}")


class ImageRun(Run):
    """A trained model of images.

    Images go in as uint8 arrays (N,C,H,W), (N,H,W) or (N,H,W,C), or as anything `open_source` reads, and come out as
    uint8 (N,C,H,W).
    """

    def sample(self, n: int, *, seed: int = 0, label: str | None = None, **options: Any) -> dict[str, np.ndarray]:
        """`n` new images {"x": (n,C,H,W) uint8}, with "label" (n,) when there are classes; the same seed gives the same images."""
        _positive("--n", n)
        code = None
        if label is not None:
            if label not in self.spec.classes:
                raise ValueError(
                    f"--label {label!r}: "
                    + (f"one of {', '.join(self.spec.classes)}" if self.spec.classes else "this run has no classes")
                )
            code = self.spec.classes.index(label)
        parts: list[dict[str, np.ndarray]] = []
        with torch.no_grad():
            for chunk in range(-(-n // CHUNK)):
                size = min(CHUNK, n - chunk * CHUNK)
                condition = None if code is None else torch.full((CHUNK,), code)
                drawn = self.model.sample(CHUNK, condition=condition, generator=keyed(seed, "sample", chunk), **options)
                parts.append({name: t[:size].numpy() for name, t in drawn.items()})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def encode(self, source: Any) -> np.ndarray:
        """Latent vectors, float32 (N,Z)."""
        return self._each("encode", source)

    def reconstruct(self, source: Any) -> np.ndarray:
        """What the model keeps of the images, uint8 (N,C,H,W)."""
        return self._each("reconstruct", source)

    def denoise(self, source: Any) -> np.ndarray:
        """The images without their noise, uint8 (N,C,H,W)."""
        return self._each("denoise", source)

    def explore(self) -> list[tuple[str, np.ndarray]]:
        """Titled rows of pictures of the latent space, from test images of the source the run was trained on."""
        self.require("explore")
        data = self.reopened()
        with torch.no_grad():
            return [(title, x.numpy()) for title, x in self.model.explore(data.batch(data.splits["test"][:64]))]

    def evaluate(self, *, source: Any = None, seed: int = 0, say: Say = silent) -> Evaluation:
        """Samples beside the images of the test split, and what validation images score there: judge, distances, copying, use."""
        data = self.reopened(source)
        say("the likelihood of held-out images")
        known = replace(held(data, self._nats(data, seed)), rates=self._rates(data))
        wanted = images.wanted(known)
        say(f"making {wanted:,} samples")
        made = self.sample(wanted, seed=seed)
        return images.evaluated(made["x"], made.get("label"), known, seed, say)

    def _nats(self, data: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
        """-ln p of the first images of the train and test splits, (n,) each, where the model has a likelihood."""
        if not hasattr(self.model, "log_prob"):
            return None
        found = []
        with torch.inference_mode():
            for split in ("train", "test"):
                items, nats = data.splits[split][:LIKELY], []
                for start in range(0, len(items), CHUNK):
                    batch = data.batch(items[start : start + CHUNK])
                    nats.append(-self.model.log_prob(batch, keyed(seed, "likelihood", split, start), DRAWS).numpy())
                found.append(np.concatenate(nats))
        return found[0], found[1]

    def _rates(self, data: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
        """Bits and squared errors of a pixel (L,N), at each of L qualities, of the first N test images, where the model codes with loss."""
        if not hasattr(self.model, "rate"):
            return None
        items = data.splits["test"][:LIKELY]
        batches = [data.batch(items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]
        with torch.inference_mode():
            found = [[self.model.rate(batch, level) for batch in batches] for level in range(self.model.config.levels)]
        bits, errors = (np.stack([np.concatenate([pair[i].numpy() for pair in of]) for of in found]) for i in (0, 1))
        return bits, errors

    @property
    def reading(self) -> ImageOptions:
        """How a source is read: at this run's size and colours."""
        return ImageOptions(f"{self.spec.height}x{self.spec.width}", "grey" if self.spec.channels == 1 else "rgb")

    def open(self, source: Any) -> Dataset:
        """`source` read at this run's size and colours. Raises ValueError when a model that needs labels meets other classes."""
        data = open_source(source, self.reading)
        if getattr(self.model, "needs_label", False) and data.spec.classes != self.spec.classes:
            raise ValueError(
                f"this run is conditional on the classes {', '.join(self.spec.classes)}; {data.name} has others"
            )
        return data

    def _each(self, what: str, source: Any) -> np.ndarray:
        self.require(what)
        if isinstance(source, Dataset):
            data, items = source, source.items
        elif (
            isinstance(source, np.ndarray)
            and source.dtype == np.uint8
            and source.shape[1:] == self.spec.shape
            and not getattr(self.model, "needs_label", False)
        ):
            batches = [{"x": torch.from_numpy(source[i : i + CHUNK])} for i in range(0, len(source), CHUNK)]
            return self._mapped(what, batches)
        else:
            data = self.open(source)
            items = data.items
        return self._mapped(what, (data.batch(items[i : i + CHUNK]) for i in range(0, len(items), CHUNK)))

    def _mapped(self, what: str, batches: Any) -> np.ndarray:
        parts = []
        with torch.no_grad():
            for batch in batches:
                made = getattr(self.model, what)(batch)
                parts.append((made["x"] if isinstance(made, dict) else made).numpy())
        return np.concatenate(parts)


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
        _positive("--n", n)
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
        _positive("--tokens", tokens)
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
        real = text.Held(**whole, nats={"test": nats, "train": known, "validation": fresh}, context=self.spec.context)
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


def held(data: Dataset, nats: tuple[np.ndarray, np.ndarray] | None = None) -> images.Held:
    """The real images that samples are measured by. What is learned on them once is kept in the cache."""
    train, test, fresh = (images.Images(data.images, data.splits[part]) for part in ("train", "test", "validation"))
    kept = cache_folder() / "features" / f"{data.fingerprint}-{features.LEARNING}.safetensors"
    return images.Held(train, test, fresh, data.labels, data.spec.classes, nats, kept=kept)


# ---- opening a run -------------------------------------------------------------------------------------------------

ASSETS = "data"  # the folder of a run that holds its tokenizer


def built(family: registry.Family, config: Any, spec: Spec, seed: int) -> Any:
    """A model with its initial weights. Raises ValueError when the settings cannot be built."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "init"))
        try:
            return family.Model(config, spec)
        except (RuntimeError, ArithmeticError, IndexError) as error:
            raise ValueError(f"{family.name} cannot be built with {config}: {error}") from None


def family_of(record: dict[str, Any], model_file: str | None) -> registry.Family:
    """The family of a run. Raises ValueError when it is a user's own file and that file is not given."""
    if record["model_sha256"] is None:
        return registry.load(record["model"])
    if model_file is None:
        raise ValueError(f"this run's model is a file of its user's own; give --model-file FILE ({record['model']}.py)")
    return registry.load_file(model_file, record["model_sha256"])


def options_of(path: Path, record: dict[str, Any]) -> Any:
    """How a run's source is read again; text by the run's own tokenizer."""
    options = from_json(OPTIONS[record["spec"]["kind"]], record["data"]["options"])
    return replace(options, tokenizer=str(path / ASSETS)) if isinstance(options, TextOptions) else options


def averaged_weights(path: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of the best checkpoint; where nothing was averaged, its weights."""
    try:
        return checkpoint.read_tensors(path, "best", "ema")
    except RunError:
        return checkpoint.read_tensors(path, "best", "model")


def usable_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights a run is used with: what it ended with, or its best checkpoint's while it is not finished."""
    return checkpoint.read_weights(path) or averaged_weights(path)


def _positive(flag: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{flag} {value}: at least 1")
