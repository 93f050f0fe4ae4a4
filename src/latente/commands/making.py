"""The commands that make data: `sample` and `translate`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from latente.flags import flags, parsed


@dataclass
class Sample:
    """Make new data with a trained model."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    out: Path | None = None
    """images: a folder of PNG (one sub-folder a class), .npy, .npz or .parquet; text: .txt, .jsonl or .parquet; rows: .csv, .tsv,
    .parquet, .arrow or .xlsx"""
    n: int | None = None
    """how many (default: 64 images, 1 text, 1,000 rows; without --out 10 rows)"""
    seed: int = 0
    """the same seed gives the same data"""
    label: str | None = None
    """images: only this class"""
    given: str | None = None
    """rows: only such, as "age>60, sex=Female" (= != < <= > >=; "age=" is a missing one)"""
    temperature: float | None = None
    """below 1: likelier, plainer (vae, autoencoder, gpt); 0 with gpt: always the likeliest token"""
    truncation: float | None = None
    """gan: below 1: safer, less varied images"""
    prompt: str | None = None
    """text: what it goes on from"""
    tokens: int | None = None
    """text: at most this many tokens each (default: the context, or 300 after a prompt)"""
    stop: list[str] | None = None
    """text: end before any of these strings"""
    top_k: int | None = None
    """text: only the k likeliest tokens"""
    top_p: float | None = None
    """text: only the likeliest tokens that together reach this probability"""
    min_p: float | None = None
    """text: only tokens at least this share as likely as the likeliest"""
    repetition_penalty: float | None = None
    """text: above 1, what was said already becomes less likely"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


def sample(words: list[str], started: float) -> int:
    given = parsed(flags(Sample), words, "latente sample")
    if given.out is not None and given.out.exists():
        raise ValueError(f"--out {given.out} exists already; choose another")
    from latente import provenance, run

    if given.out is not None:
        provenance.check_free(given.out)
    opened = run.load(given.run, model_file=given.model_file)
    if opened.spec.kind == "pair":
        raise ValueError(f'{given.run} makes targets of sources: latente translate {given.run} "..."')
    known = [name for names in provenance.OPTIONS.values() for name in names]
    options = {name: getattr(given, name) for name in known if getattr(given, name) is not None}
    provenance.check_options(opened, options)
    ways = {"image": _sample_images, "text": _sample_texts, "table": _sample_rows}
    return ways[opened.spec.kind](opened, given, options)


def _sample_images(opened: Any, given: Any, options: dict[str, Any]) -> int:
    from latente import provenance
    from latente.data.images import OUTPUTS, check_output

    if given.out is None:
        raise ValueError(f"--out is missing: where the images go; {OUTPUTS}")
    check_output(given.out)
    made = opened.sample(64 if given.n is None else given.n, seed=given.seed, **options)
    print(written(len(made["x"]), "images", provenance.write(opened, made, {"seed": given.seed, **options}, given.out)))
    return 0


def _sample_texts(opened: Any, given: Any, options: dict[str, Any]) -> int:
    from latente import provenance
    from latente.data.text import check_text_output

    count, prompt = 1 if given.n is None else given.n, options.get("prompt", "")
    if prompt:
        options.setdefault("tokens", 300)
    if given.out is not None:
        check_text_output(given.out)
        made = opened.sample(count, seed=given.seed, **options)
        print(written(count, "texts", provenance.write(opened, made, {"seed": given.seed, **options}, given.out)))
        return 0
    if count == 1:
        options.pop("prompt", None)
        options.setdefault("tokens", opened.spec.context)
        print(prompt, end="", flush=True)
        for piece in opened.stream(prompt, seed=given.seed, **options):
            print(piece, end="", flush=True)
        print()
        return 0
    print("\n-----\n".join(prompt + text for text in opened.sample(count, seed=given.seed, **options)["text"]))
    return 0


def _sample_rows(opened: Any, given: Any, options: dict[str, Any]) -> int:
    from latente import provenance
    from latente.data.table_sources import check_table_output

    if given.out is None:
        print(opened.sample(given.n or 10, seed=given.seed, **options).to_string(index=False))
        return 0
    check_table_output(given.out)
    made = opened.made(1_000 if given.n is None else given.n, seed=given.seed, **options)
    print(
        written(len(made["rows"]), "rows", provenance.write(opened, made, {"seed": given.seed, **options}, given.out))
    )
    return 0


@dataclass
class Translate:
    """Make the targets of sources with a model of pairs: of one text, or line by line of a file or standard input."""

    run: Annotated[Path, "positional"]
    """the run directory, of a seq2seq or attention-rnn"""
    text: Annotated[str, "positional"] = ""
    """the text (default: lines of standard input)"""
    file: Path | None = None
    """a file whose lines are translated"""
    out: Path | None = None
    """.txt (a line each), .tsv (source and target) or .jsonl (also the log-probability), with a sidecar; default: the terminal"""
    n: int = 1
    """this many targets of each text, best first; above 1 the log-probability and a tab go before each"""
    beams: int | None = None
    """unfinished targets that are kept while the likeliest is looked for; 1: the likeliest token is always taken (default: 4)"""
    length_penalty: float | None = None
    """above 0: longer targets stand a better chance (default: 0.6)"""
    no_repeat: int | None = None
    """no run of this many tokens comes twice in a target"""
    temperature: float | None = None
    """draw targets instead: below 1 likelier ones, 1 as the model has learned"""
    top_k: int | None = None
    """draw from the k likeliest tokens only"""
    top_p: float | None = None
    """draw from the likeliest tokens that together reach this probability"""
    tokens: int | None = None
    """at most this many tokens each (default: the longest target of training, twice that for longer sources)"""
    seed: int = 0
    """of what is drawn"""
    attention: Path | None = None
    """also draw what each token of the first target looked at, as map.png"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


def translate(words: list[str], started: float) -> int:
    given = parsed(flags(Translate), words, "latente translate")
    if given.text and given.file is not None:
        raise ValueError("give a text or a --file of lines, not both")
    from latente import provenance, run
    from latente.data.pair_outputs import check_pair_output, read_lines
    from latente.reports.attention import check_picture

    if given.out is not None:
        check_pair_output(given.out, given.n)
        provenance.check_free(given.out)
    if given.attention is not None:
        check_picture(given.attention)
    opened = run.load(given.run, model_file=given.model_file)
    if not isinstance(opened, run.PairRun):
        raise ValueError(f"translate is for pairs; {given.run} holds a model of {opened.spec.kind}s")
    names = ("beams", "length_penalty", "no_repeat", "temperature", "top_k", "top_p", "tokens")
    asked = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    asked |= {"n": given.n, "seed": given.seed}

    def made(texts: list[str]) -> list[list[Any]]:
        return opened.hypotheses(texts, **asked)

    if given.out is None and not given.text and given.file is None and sys.stdin.isatty():
        for line in sys.stdin:  # a person waits for each
            _print_targets(made([line.rstrip("\n")]), given.n)
        return 0
    texts = [given.text]
    if not given.text:
        texts = read_lines(given.file) if given.file else sys.stdin.read().removesuffix("\n").split("\n")
    if not texts:
        raise ValueError(f"--file {given.file} has no lines")
    found = made(texts)
    if given.out is None:
        _print_targets(found, given.n)
    else:
        name = None if given.file is None else given.file.name
        provenance.write_targets(opened, texts, found, asked, given.out, name)
        print(written(len(texts), "texts translated", given.out))
    if given.attention is not None:
        from latente import reports

        reports.attention(opened, texts[0], found[0][0].text, given.attention)
    return 0


def _print_targets(found: list[list[Any]], n: int) -> None:
    for several in found:
        for one in several:
            line = " ".join(one.text.splitlines())
            print(line if n == 1 else f"{one.log_prob:.4f}\t{line}", flush=True)


def written(count: int, what: str, path: Path) -> str:
    from latente.provenance import sidecar

    return f"{count:,} {what} in {path}; how they were made: {sidecar(path)}"
