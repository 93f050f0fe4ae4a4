"""Tiny Shakespeare, character by character: latente beside nanoGPT, both on this machine in one go.

    LATENTE_DATA=... python benchmarks/text_nanogpt.py NANOGPT [--steps 76] [--skip-equal-time] [flags of latente train gpt]

NANOGPT is a checkout of nanoGPT. Its side is its README's recipe for the CPU (4 layers, 128 wide, context 64, batch 12, 2,000
steps); ours is `latente train gpt shakespeare`. Wall time is that of the whole process, start-up and the final save included.
The loss is the mean cross-entropy in nats over the whole last tenth, in consecutive windows of each model's own context.
Then latente once more with the wall time nanoGPT took as its budget; then characters per second of generation: one stream of
each, and 64 of ours together (ours at nanoGPT's sizes: 4 layers, 128 wide, context 64).
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import latente
from latente.data import named
from latente.evaluation.text import token_nats

RECIPE = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=100 --block_size=64 --batch_size=12 "
    "--n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
)
OURS = "--size tiny --layers 2 --context 64 --batch-size 32 --ngrams 5 --ngram-rows 16384 --ngram-dropout 0"
LONGER = "--size tiny --context 128 --batch-size 32 --ngrams 5"


def prepared(nanogpt: Path, characters: str) -> None:
    """What nanoGPT's own prepare.py writes, without its download."""
    folder = nanogpt / "data" / "shakespeare_char"
    symbols = sorted(set(characters))
    ids = np.array([symbols.index(c) for c in characters], np.uint16)
    cut = int(len(ids) * 0.9)
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    meta = {"vocab_size": len(symbols), "itos": dict(enumerate(symbols)), "stoi": {c: i for i, c in enumerate(symbols)}}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def timed(*words: str, folder: Path | None = None) -> float:
    began = time.monotonic()
    ended = subprocess.run([sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(ended.stderr[-2000:])
    return time.monotonic() - began


def theirs(nanogpt: Path, folder: Path):
    """(wall seconds, model, held-out ids) of nanoGPT's recipe."""
    took = timed("train.py", *RECIPE.split(), f"--out_dir={folder}", folder=nanogpt)
    sys.path.insert(0, str(nanogpt))
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    saved = torch.load(folder / "ckpt.pt", map_location="cpu", weights_only=False)
    model = GPT(GPTConfig(**saved["model_args"]))
    model.load_state_dict(saved["model"])
    return (
        took,
        model.eval(),
        np.fromfile(nanogpt / "data" / "shakespeare_char" / "val.bin", np.uint16).astype(np.int64),
    )


@torch.no_grad()
def their_loss(model, held: np.ndarray) -> float:
    def logits(tokens: torch.Tensor) -> torch.Tensor:
        return model(tokens, tokens)[0]  # with targets it gives the logits of every place

    return float(token_nats(logits, held, model.config.block_size).mean())


@torch.no_grad()
def our_loss(run: latente.Run) -> float:
    data = run.reopened()
    start, stop = data.ranges["test"]
    return float(token_nats(run.model.logits, np.asarray(data.tokens[start:stop], np.int64), run.spec.context).mean())


def trained(folder: Path, name: str, *flags: str) -> tuple[float, latente.Run]:
    out = folder / name
    took = timed("-m", "latente", "train", "gpt", "shakespeare", "--out", str(out), "--quiet", *flags)
    return took, latente.load(out)


def generation(nanogpt_model, folder: Path) -> None:
    """Characters per second, the median of five."""
    _, run = trained(
        folder, "same-sizes", "--steps", "20", "--layers", "4", "--heads", "4", "--width", "128", "--context", "64"
    )
    start = torch.zeros(1, 1, dtype=torch.int64)
    model: torch.nn.Module = nanogpt_model

    def once(write, characters: int) -> float:
        began = time.perf_counter()
        write()
        return characters / (time.perf_counter() - began)

    rates = {"nanoGPT, 1 stream": [], "latente, 1 stream": [], "latente, 64 streams": []}
    for _ in range(5):
        with torch.no_grad():
            rates["nanoGPT, 1 stream"].append(once(lambda: model.generate(start, 500), 500))
        rates["latente, 1 stream"].append(once(lambda: list(run.stream("\n", 500)), 500))
        rates["latente, 64 streams"].append(once(lambda: run.complete(["\n"] * 64, 200), 64 * 200))
    base = float(np.median(rates["nanoGPT, 1 stream"]))
    print(f"\n{'generation':<24}{'characters/s':>14}{'':>4}against nanoGPT")
    for name, found in rates.items():
        print(f"{name:<24}{np.median(found):>14,.0f}{'':>4}{np.median(found) / base:.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nanogpt", type=Path)
    parser.add_argument("--steps", default="76")
    parser.add_argument("--skip-equal-time", action="store_true")
    given, flags = parser.parse_known_args()
    os.environ.setdefault("LATENTE_CACHE", tempfile.mkdtemp())
    prepared(given.nanogpt, named.shakespeare().read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        took, model, held = theirs(given.nanogpt.resolve(), folder / "nanogpt")
        rows = [("nanoGPT, its CPU recipe", took, their_loss(model, held), sum(p.numel() for p in model.parameters()))]
        own = ["--steps", given.steps, "--checkpoint-every", "100000", *OURS.split(), *flags]
        for number in range(3):
            seconds, run = trained(folder, f"quick-{number}", "--seed", str(number), *own)
            rows.append(
                (f"latente, seed {number}", seconds, our_loss(run), sum(p.numel() for p in run.model.parameters()))
            )
        if not given.skip_equal_time:
            seconds, run = trained(folder, "equal", "--budget", f"{took:.0f}s", *LONGER.split(), *flags)
            rows.append(("latente, equal time", seconds, our_loss(run), sum(p.numel() for p in run.model.parameters())))
        print(f"{'':<26}{'wall s':>8}{'of nanoGPT':>12}{'nats/char':>11}{'parameters':>12}")
        for name, seconds, loss, count in rows:
            print(f"{name:<26}{seconds:>8.1f}{seconds / took:>12.3f}{loss:>11.4f}{count:>12,}")
        generation(model, folder)


if __name__ == "__main__":
    main()
