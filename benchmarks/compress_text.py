"""The last tenth of Tiny Shakespeare in fewer bytes: latente's file beside xz, bz2 and zstd, all given the other nine tenths.

    latente train gpt shakespeare --steps 1800 --size tiny --layers 4 --heads 3 --width 192 --context 256 --batch-size 16 --ngrams 5 \
        --ngram-dropout 0.4 --dropout 0.1 --weight-decay 0.1 --validation 0.02 --precision bfloat16 --threads 1 --out BARD
    LATENTE_DATA=... python benchmarks/compress_text.py BARD

latente: `compress --external-model`, decoded and compared; and what the file takes with the weights in it. zstd -19 with a
dictionary trained on the nine tenths (Debian: zstd), which is no part of its size either; xz and bz2 alone, and what they add to
the compressed nine tenths.
"""

import argparse
import bz2
import lzma
import math
import subprocess
import tempfile
import time
from pathlib import Path

import torch

import latente
from latente.data import named
from latente.evaluation.text import token_nats

DICTIONARY = 110 << 10  # bytes of zstd's


def zstd(train: bytes, held: bytes, folder: Path) -> int:
    for name, content in (("train", train), ("held", held)):
        (folder / name).write_bytes(content)
    dictionary, out = folder / "dictionary", folder / "out"
    words = ["zstd", "-q", "--train", "-B4096", folder / "train", "-o", dictionary, f"--maxdict={DICTIONARY}"]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["zstd", "-q", "-19", "--ultra", "-D", dictionary, folder / "held", "-o", out], check=True)
    return out.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    given = parser.parse_args()
    run = latente.load(given.run)
    content = named.shakespeare().read_bytes()
    cut = len(content) * 9 // 10
    train, held = content[:cut], content[cut:]
    with torch.inference_mode():
        nats = token_nats(run.model.logits, run.tokenizer.encode(held), run.spec.context).mean()
    promised = nats * len(held) / math.log(2) / 8
    print(f"{len(held):,} bytes; {nats:.4f} nats a character in windows of {run.spec.context}: {promised:,.0f} bytes")

    def row(name: str, size: float) -> None:
        print(f"  {name:<44}{size:>10,.0f}{8 * size / len(held):>8.3f} bits a byte", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        found = latente.compress(run, held, folder / "a.latente", external_model=True, verify=False)
        coded = time.monotonic()
        latente.decompress(found.path, folder / "again", run=run)
        decoded = time.monotonic()
        assert (folder / "again").read_bytes() == held
        row("latente, weights apart", found.size)
        print(f"  {'':<44}{found.size / promised - 1:>+10.2%} of nats a character; {found.coded:,} are the text; "
              f"coded in {coded - began:.0f} s, decoded in {decoded - coded:.0f} s")  # fmt: skip
        row("latente, weights in it", latente.compress(run, held, folder / "b.latente", verify=False).size)
        row("zstd -19, a dictionary apart", zstd(train, held, folder))
    for kind, compress in (
        ("xz -9e", lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
        ("bz2 -9", bz2.compress),
    ):
        row(f"{kind} alone", len(compress(held)))
        row(f"{kind}, added to the compressed nine tenths", len(compress(content)) - len(compress(train)))


if __name__ == "__main__":
    main()
