"""The main job in miniature: every family on embedded data, offline, and one page a person can look at."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import Any

from latente import registry
from latente.checkpoint import RunError
from latente.data.named import EMBEDDED

SECONDS = "10s"
SETTINGS: dict[str, dict[str, Any]] = {"gan": {"budget": "34s"}, "gpt": {"budget": "36s", "ngrams": 5, "context": 128}}
SETTINGS |= {name: {"budget": "5s", "size": "tiny"} for name in ("table-gan", "table-gpt", "table-vae")}
SETTINGS |= {name: {"budget": "15s", "size": "tiny"} for name in ("attention-rnn", "seq2seq")}


def run(out: Path) -> None:
    """Trains each family on the embedded source of its kind, into `out`; writes `out/page.png` and prints a passage of text."""
    if out.exists():
        raise RunError(f"{out} exists already; choose another --out, or remove it")
    from latente.compression import compress
    from latente.data.images import contact_sheet
    from latente.data.sources import open_source
    from latente.launch import train
    from latente.reports import write
    from latente.run import load

    began = time.monotonic()
    data = open_source("digits")
    rows = [("real digits, never seen in training", data.images[data.splits["test"][:24]])]
    passages, tables, translations = [], [], []
    for name in registry.names():
        print(f"\n{name}: {registry.summary(name)}")
        trained: Any = train(
            name, EMBEDDED[registry.load(name).kind], out=out / name, **{"budget": SECONDS, **SETTINGS.get(name, {})}
        )
        if trained.spec.kind == "text":
            passages.append((name, trained.complete("The ", 400, temperature=0.7)))
            continue
        if trained.spec.kind == "table":
            tables.append((name, trained.sample(4)))
            continue
        if trained.spec.kind == "pair":
            numbers = ["4", "49", "1984", "2026"]
            translations.append((name, zip(numbers, trained.translate(numbers))))
            continue
        if hasattr(trained.model, "reconstruct"):
            batch = data.batch(data.splits["test"][:24])
            rows.append((f"{name}: the same digits, reconstructed", trained.model.reconstruct(batch)["x"].numpy()))
        rows.append((f"{name}: samples", trained.sample(24)["x"]))
    contact_sheet(rows, out / "page.png", columns=24)
    small = compress(load(out / "pixelcnn"), data, out / "digits.latente")
    print(
        f"\nAll {small.items:,} digits without loss, by the pixelcnn: {small.raw:,} bytes in {small.size:,}, its weights in it"
    )
    print("\nHow good is the gan, and did it copy? Its samples are judged beside digits it never saw.")
    judged = load(out / "gan")
    found = judged.evaluate()
    page = write(judged, found, data.describe())
    for finding in found.findings:
        print(
            textwrap.fill(
                f"{finding.question + '?':<11}{finding.answer}: {finding.words}", 100, subsequent_indent=" " * 11
            )
        )
    for name, frame in tables:
        print(f"\n{name}: patients that do not exist\n")
        print(textwrap.indent(frame.to_string(index=False), "    "))
    for name, pairs in translations:
        print(f"\n{name} writes as the Romans did: {', '.join(f'{number} {made}' for number, made in pairs)}")
    for name, passage in passages:
        print(f"\n{name} goes on from 'The ', after Python's language reference:\n")
        print(textwrap.indent(f"The {passage}", "    "))
    print(f"""
done in {time.monotonic() - began:.0f} s
look at        {page}
               {out / "page.png"}
               {small.path}
the runs       {", ".join(str(out / name) for name in registry.names())}
try next       latente sample {out / "gan"} --n 1000 --out my-digits
               latente sample {out / "gpt"} --prompt "A function "
               latente sample {out / "table-gpt"} --given "age>60" --n 100 --out patients.csv
               latente decompress {small.path} --out digits.npz
               latente data YOUR-FOLDER
               latente train gan YOUR-FOLDER --budget 10m
               latente train gpt YOUR.txt --budget 10m
               latente train table-gpt YOUR.csv --budget 5m""")
