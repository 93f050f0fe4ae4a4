"""The main job in miniature: every family on embedded data, offline, and one page a person can look at."""

from __future__ import annotations

import time
from pathlib import Path

from latente import registry
from latente.checkpoint import RunError

SHARE = {"gan": "50s"}
SECONDS = "25s"


def run(out: Path) -> None:
    """Trains each family on `digits` into `out` and writes `out/page.png`."""
    if out.exists():
        raise RunError(f"{out} exists already; choose another --out, or remove it")
    from latente.data.images import contact_sheet
    from latente.data.sources import open_source
    from latente.run import train

    began = time.monotonic()
    data = open_source("digits")
    real = data.images[data.splits["test"][:24]]
    rows = [("real digits, never seen in training", real)]
    for name in registry.names():
        print(f"\n{name}: {registry.summary(name)}")
        trained = train(name, "digits", out=out / name, budget=SHARE.get(name, SECONDS))
        if hasattr(trained.model, "reconstruct"):
            batch = data.batch(data.splits["test"][:24])
            rows.append((f"{name}: the same digits, reconstructed", trained.model.reconstruct(batch)["x"].numpy()))
        rows.append((f"{name}: samples", trained.sample(24)["x"]))
    contact_sheet(rows, out / "page.png", columns=24)
    print(f"""
done in {time.monotonic() - began:.0f} s
look at        {out / "page.png"}
the runs       {", ".join(str(out / name) for name in registry.names())}
try next       latente sample {out / "gan"} --n 1000 --out my-digits
               latente data YOUR-FOLDER
               latente train gan YOUR-FOLDER --budget 10m""")
