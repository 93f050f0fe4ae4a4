"""From pairs as they were read to a dataset: what is left out, the splits, the vocabularies of the training pairs, the tokens.

Pairs --empty ones out--> splits by source --> tokenizers --> tokens --long ones out--> PairDataset
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from latente.data.cache import Progress, digest
from latente.data.errors import DataError
from latente.data.pair_audit import PairAudit
from latente.data.pair_sources import Pairs, sniff
from latente.data.pairs import SIDES, PairDataset, PairOptions, Side
from latente.data.splits import split
from latente.data.tokenizer import Tokenizer, check_kind
from latente.spec import PairSpec

_NAMED = ("char", "byte", "word")


def open_pairs(source: Any, options: PairOptions, tell: Progress) -> PairDataset:
    """The dataset a source of pairs stands for. Raises DataError, one line, when it cannot be learned."""
    tell("reading", 0, 1)
    pairs, audit = _filled(sniff(source, options))
    hashes = _hashes(pairs.source)
    parts = split(hashes, pairs.test, options.validation, options.test, pairs.name, "sources")
    tell("making the vocabulary", 0, 1)
    tokenizers = _tokenizers(pairs, parts["train"], options)
    sides = {}
    for side, tokenizer in zip(SIDES, tokenizers):
        tell("encoding", 0, 1)
        ids, sizes = tokenizer.encode_each(getattr(pairs, side))
        sides[side] = Side(tokenizer, ids, np.concatenate([[0], np.cumsum(sizes)]))
    fits = np.all([side.lengths <= options.longest for side in sides.values()], 0)
    audit.long = int((~fits).sum())
    audit.first_long = pairs.where(int(fits.argmin())) if audit.long else ""
    # In the order of their hashes, for a source is often sorted and a part of validation is to be like the whole.
    splits = {name: rows[fits[rows]] for name, rows in parts.items()}
    for name in ("validation", "test"):
        splits[name] = splits[name][np.argsort(hashes[splits[name]], kind="stable")]
    for name in ("train", "validation"):
        if not len(splits[name]):
            raise DataError(f"{pairs.name}: no {name} pair is within --longest {options.longest}; raise it")
    audit.unknown = {name: _unknown(side, splits) for name, side in sides.items()}
    texts = {side: getattr(pairs, side) for side in SIDES}
    spec = _spec(sides, fits, splits["train"], options.shared_vocabulary)
    told = [
        hashlib.blake2b("\x1f".join(texts[side]).encode("utf-8", "replace"), digest_size=16).digest() for side in SIDES
    ]
    kinds = [tokenizer.digest() for tokenizer in tokenizers]
    fingerprint = digest(told, len(hashes), kinds, options.longest, options.validation, options.test, pairs.test)
    return PairDataset(pairs.name, spec, fingerprint, texts, sides, splits, audit)


def _filled(pairs: Pairs) -> tuple[Pairs, PairAudit]:
    """The pairs that have both sides. Raises DataError when there are none."""
    there = [bool(a.strip() and b.strip()) for a, b in zip(pairs.source, pairs.target)]
    kept = [number for number, full in enumerate(there) if full]
    if not kept:
        raise DataError(f"{pairs.name} holds no pair with a source and a target")
    audit = PairAudit(len(there), len(there) - len(kept), notes=pairs.notes)
    source, target = ([side[number] for number in kept] for side in (pairs.source, pairs.target))
    audit.duplicates, audit.sources = len(kept) - len(set(zip(source, target))), len(set(source))
    where, test = pairs.where, None if pairs.test is None else sum(there[: pairs.test])
    found = replace(pairs, source=source, target=target, where=lambda n: where(kept[n]), test=test)
    return found, audit


def _hashes(texts: Sequence[str]) -> np.ndarray:
    """A 64-bit hash of each text, (N,) uint64."""
    made = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(made), "<u8")


def _tokenizers(pairs: Pairs, train: np.ndarray, options: PairOptions) -> tuple[Tokenizer, Tokenizer]:
    """Of sources and targets: loaded, or made from the training pairs."""
    texts = [[getattr(pairs, side)[row] for row in train] for side in SIDES]
    asked = [
        own or options.tokenizer or usual
        for own, usual in zip((options.source_tokenizer, options.target_tokenizer), pairs.tokenizers)
    ]
    if options.shared_vocabulary:
        if options.tokenizer is None and asked[0] != asked[1]:
            raise DataError(
                f"--shared-vocabulary: sides of {pairs.name} are {' and '.join(asked)}; name one --tokenizer"
            )
        made = _tokenizer(asked[0], chain(*texts))
        return made, made
    return _tokenizer(asked[0], texts[0]), _tokenizer(asked[1], texts[1])


def _tokenizer(asked: str, texts: Any) -> Tokenizer:
    if asked not in _NAMED and Path(asked).expanduser().exists():
        return Tokenizer.load(asked)
    return Tokenizer.train(check_kind(asked, words=True), texts)


def _unknown(side: Side, splits: dict[str, np.ndarray]) -> int:
    """How many held-out tokens are none of the vocabulary."""
    if side.tokenizer.unknown is None:
        return 0
    marks = np.concatenate([[0], np.cumsum(side.ids == side.tokenizer.unknown)])
    rows = np.concatenate([splits["validation"], splits["test"]])
    return int((marks[side.starts[rows + 1]] - marks[side.starts[rows]]).sum())


def _spec(sides: dict[str, Side], fits: np.ndarray, train: np.ndarray, shared: bool) -> PairSpec:
    sizes = [side.tokenizer.size + PairSpec.special for side in sides.values()]
    longest = [int(side.lengths[fits].max()) + 1 for side in sides.values()]
    usual = round(float(sides["target"].lengths[train].mean()) + 1, 2)
    return PairSpec(*sizes, *longest, usual_target=usual, shared=shared)
