"""Training throughput and memory of the GPT against its size and its context.

    python benchmarks/text_scale.py [--threads 2] [--plot docs/gpt-scale.png]

Every point is a process of its own: a few steps of the engine on random tokens, 8,192 tokens a step, after two to warm up;
the fastest step counts, as what the machine can do. FLOPs of a step: 6 x parameters x tokens (embeddings left out, the head
in) + attention, 6 x layers x width x context x tokens; Muon's own multiplications are not counted, they are overhead. The
peak is the fastest square matrix product of the machine, in float32 and in bfloat16; training uses the faster of the two.
Memory is the largest resident set less what a process has after its imports.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

VOCABULARY, TOKENS = 65, 8192
SIZES = {  # layers, heads, width
    "0.5M": (3, 2, 116),
    "0.8M": (4, 2, 128),
    "1.8M": (4, 3, 192),
    "4.8M": (6, 4, 256),
    "10.7M": (6, 6, 384),
    "25M": (8, 8, 512),
    "50M": (10, 10, 640),
}
CONTEXTS = (64, 128, 256, 512, 1024, 2048)


def peak(precision: str, threads: int) -> float:
    """GFLOP/s of the best square matrix product found within ten seconds."""
    import torch

    torch.set_num_threads(threads)
    best, end = 0.0, time.perf_counter() + 10
    for n in (256, 512, 1024, 2048):
        a = torch.randn(n, n, dtype=getattr(torch, precision))
        for _ in range(9):
            began = time.perf_counter()
            if began > end:
                return best
            a @ a
            best = max(best, 2 * n**3 / (time.perf_counter() - began) / 1e9)
    return best


def point(layers: int, heads: int, width: int, context: int, precision: str, threads: int, steps: int) -> None:
    """Prints the measurement of one size and context as JSON."""
    import numpy as np
    import torch

    from latente.models.gpt import Config, Model
    from latente.rng import keyed
    from latente.spec import TextSpec
    from latente.training import budget, devices, engine

    torch.set_num_threads(threads)
    spec = TextSpec(VOCABULARY, context)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.manual_seed(0)
    model = Model(Config(layers=layers, heads=heads, width=width), spec)
    recipe = type(model.recipe)(**{**vars(model.recipe), "batch_size": max(1, TOKENS // context)})

    class Random:
        splits = {"train": np.arange(1 << 16), "validation": np.arange(0)}  # noqa: RUF012
        order = staticmethod(lambda seed, epoch: np.arange(1 << 16))
        batch = staticmethod(lambda indices: spec.example(len(indices), keyed(int(indices[0]))))

    plan = budget.plan(1000, recipe, precision=precision, threads=threads, processes=1, compile=False, checkpoint_every=None,
                       validation_items=1)  # fmt: skip
    trainer = engine.Trainer(devices.fabric("cpu", 1), model, Random(), recipe, plan, 0)
    best = float("inf")
    for number, batch in enumerate(trainer.batches(0, steps + 2)):
        began = time.perf_counter()
        trainer.train_step(batch)
        if number >= 2:
            best = min(best, time.perf_counter() - began)
    tokens = recipe.batch_size * context
    counted = sum(p.numel() for name, p in model.named_parameters() if name != "embedding.weight")
    flops = 6 * counted * tokens + 6 * layers * width * context * tokens
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        json.dumps(
            {"parameters": counted, "tokens_per_s": tokens / best, "gflops": flops / best / 1e9, "mb": memory / 1e3}
        )
    )


def measured(size: str, context: int, precision: str, given: argparse.Namespace) -> dict[str, float]:
    words = [*map(str, SIZES[size]), str(context), precision, str(given.threads), str(given.steps)]
    ended = subprocess.run([sys.executable, __file__, "--point", *words], capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)


def plot(by_size: dict[str, dict[str, float]], by_context: dict[int, dict[str, float]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    def ticks(axis, marks) -> None:
        axis.set_major_locator(FixedLocator(marks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), constrained_layout=True)
    sizes = [found["parameters"] / 1e6 for found in by_size.values()]
    for axis, key, label in ((axes[0], "tokens_per_s", "tokens/s"), (axes[1], "mb", "memory, MB")):
        axis.loglog(sizes, [found[key] for found in by_size.values()], "o-", color="#2b6cb0")
        axis.set(xlabel="million parameters", ylabel=label)
        ticks(axis.xaxis, (0.5, 1, 2, 5, 10, 20, 50))
        ticks(axis.yaxis, (100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000))
    axes[0].set_title("context 256")
    axes[1].set_title("context 256, 8,192 tokens a step")
    axes[2].semilogx(
        list(by_context), [found["tokens_per_s"] for found in by_context.values()], "o-", color="#2b6cb0", base=2
    )
    axes[2].set(xlabel="context", ylabel="tokens/s", title="4.8 M parameters", ylim=(0, None))
    ticks(axes[2].xaxis, list(by_context))
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--plot")
    parser.add_argument("--point", nargs=7, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.point:
        layers, heads, width, context, precision, threads, steps = given.point
        point(int(layers), int(heads), int(width), int(context), precision, int(threads), int(steps))
        return
    peaks = {precision: peak(precision, given.threads) for precision in ("float32", "bfloat16")}
    precision = max(peaks, key=lambda name: peaks[name])
    print("matrix product peak: " + ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in peaks.items()))
    print(f"training in {precision}, {given.threads} threads\n")
    print(f"{'size':<8}{'context':>8}{'tokens/s':>10}{'GFLOP/s':>9}{'of peak':>9}{'MB':>7}", flush=True)
    rows = [(size, 256) for size in SIZES] + [("4.8M", context) for context in CONTEXTS if context != 256]
    found = {}
    for size, context in rows:
        got = found[size, context] = measured(size, context, precision, given)
        share = got["gflops"] / peaks[precision]
        print(
            f"{size:<8}{context:>8}{got['tokens_per_s']:>10,.0f}{got['gflops']:>9.0f}{share:>9.0%}{got['mb']:>7.0f}",
            flush=True,
        )
    if given.plot:
        plot({s: found[s, 256] for s in SIZES}, {c: found["4.8M", c] for c in CONTEXTS}, given.plot)


if __name__ == "__main__":
    main()
