"""Random numbers by name. A generator is made from what it is for (seed, step, phase ...), never carried along, so that a
resumed run and a run on two processes draw what an uninterrupted run on one process draws."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def key(*parts: int | str) -> int:
    """A 63-bit seed from any words and numbers; the same words give the same seed on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `key(*parts)`."""
    import torch

    return torch.Generator().manual_seed(key(*parts))


def permutation(n: int, *parts: int | str) -> torch.Tensor:
    """A shuffle of 0..n-1, (n,) int64, fixed by its name."""
    import torch

    return torch.randperm(n, generator=keyed(*parts))
