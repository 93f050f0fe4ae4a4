"""Values coded one after another for many items at once, each with what an exact network expects of it after all before it.

    items, cut into chunks -> walks over some chunks each, side by side --frequencies--> a range coder a chunk -> bytes

A walk is an object whose `through(choose)` asks for the values in order: `choose` maps logits (N,K) to values (N,). The decoder takes
the steps of the encoder, and what is expected is exact, so it makes no difference which items go together. Torch leaves other threads
to themselves while it computes, so walks by threads of one process are as fast as those of several. N items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from latente.codec.coding import TOTAL, Decoder, Encoder, frequencies

T = TypeVar("T")


def encoded(
    walk: Callable[[slice], Any],
    values: Callable[[slice], Iterable[np.ndarray]],
    coders: Sequence[Encoder],
    counts: Sequence[int],
) -> np.ndarray:
    """Adds the values of N items to the coders of chunks of so many items; what each item costs, in bits (N,). `walk` makes the walk of
    some of the items, `values` gives theirs, (n,) each, in its order."""

    def work(share: slice, items: slice, stopped: Event) -> np.ndarray:
        parts, known, total = _parts(counts[share]), iter(values(items)), np.zeros(items.stop - items.start)
        rows = np.arange(len(total))

        def told(logits: Tensor) -> Tensor:
            go_on(stopped)
            here, expected = next(known), frequencies(logits)
            for part, coder in zip(parts, coders[share]):
                coder.add(here[part], expected[part])
            total[:] -= np.log2((expected[rows, here] + 1) / TOTAL)
            return torch.from_numpy(here).long()

        walk(items).through(told)
        return total

    return np.concatenate(side_by_side(work, counts))


def decoded(walk: Callable[[slice], Any], coders: Sequence[Decoder], counts: Sequence[int]) -> Tensor:
    """What walks give at their end, from chunks of so many items each; `walk` makes the walk of some of the items."""

    def work(share: slice, items: slice, stopped: Event) -> Tensor:
        parts = _parts(counts[share])

        def taken(logits: Tensor) -> Tensor:
            go_on(stopped)
            expected = frequencies(logits)
            found = [coder.take(expected[part]) for part, coder in zip(parts, coders[share])]
            return torch.from_numpy(np.concatenate(found)).long()

        return walk(items).through(taken)

    return torch.cat(side_by_side(work, counts))


def side_by_side(work: Callable[[slice, slice, Event], T], counts: Sequence[int]) -> list[T]:
    """`work` on chunks of so many items, given which chunks and which items, by as many threads as torch has. What goes wrong in one
    stops all, and so does Ctrl-C."""
    ends, threads = np.cumsum([0, *counts]).tolist(), torch.get_num_threads()
    workers = max(1, min(threads, len(counts)))
    cuts = [len(counts) * worker // workers for worker in range(workers + 1)]
    shares = [(slice(a, b), slice(ends[a], ends[b])) for a, b in zip(cuts, cuts[1:])]
    stopped = Event()
    if workers == 1:
        return [work(*shares[0], stopped)]
    torch.set_num_threads(threads // workers)
    try:
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(work, *share, stopped) for share in shares]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stopped.set()
            for future in done:
                future.result()  # raises what went wrong first, not that others were stopped
            return [future.result() for future in futures]
    finally:
        torch.set_num_threads(threads)


def go_on(stopped: Event) -> None:
    """To be called often by what `side_by_side` does: raises InterruptedError where another thread has failed."""
    if stopped.is_set():
        raise InterruptedError


def _parts(counts: Sequence[int]) -> list[slice]:
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts)]
