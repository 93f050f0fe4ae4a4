"""The command line: words in, calls to `latente.run` and the data room, one clear line for the user's mistakes.

Nothing heavy is imported before it is needed: `latente --help` reads no torch.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from latente.flags import flags, parsed

if TYPE_CHECKING:
    from latente.run import ImageRun, TableRun

COMMANDS = {
    "train": "train MODEL SOURCE         train a model on your data within a time you choose",
    "resume": "resume RUN                 go on with an interrupted run, exactly; or train it longer",
    "sample": "sample RUN                 make new data: images and rows to files; text to the terminal or a file",
    "translate": "translate RUN [TEXT]       what a model of pairs makes of a text, of lines of a file, or of standard input",
    "fill": "fill RUN SOURCE            draw the empty cells of a table from what the others leave open",
    "predict": "predict RUN SOURCE         probabilities of a column, given the other cells of each row",
    "verify": "verify RUN PATH            make again what was made and say: same bytes, same values, or what differs",
    "evaluate": "evaluate RUN               how good is it, and did it copy: a page with every figure beside its reference",
    "compare": "compare RUN RUN ...        evaluated runs side by side",
    "reconstruct": "reconstruct RUN SOURCE     what the model keeps of your images",
    "denoise": "denoise RUN SOURCE         clean images with an autoencoder trained with --noise",
    "encode": "encode RUN SOURCE          latent vectors, to .npy or .parquet",
    "compress": "compress RUN SOURCE        a data set in one small file: images (pixelcnn, compressor), text (gpt), rows (table-gpt)",
    "decompress": "decompress FILE            what compress wrote: the images, the files byte by byte, or the rows",
    "explore": "explore RUN --out FILE     pictures of the latent space: interpolations, traversals, a plane",
    "data": "data SOURCE                what is in a source and what is wrong with it",
    "demo": "demo                       the main job, offline, in under three minutes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit code (0 done, 1 a check failed, 2 bad input, 130 interrupted)."""
    started = time.monotonic()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from latente import __version__

        print(f"latente {__version__}")
        return 0
    if words[0] not in COMMANDS:
        print(f"latente: no command {words[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    with suppress(ValueError):  # not in the main thread: whoever started us keeps the signals
        signal.signal(signal.SIGTERM, _terminated)
    try:
        return _RUN[words[0]](words[1:], started)
    except SystemExit as error:  # the argument parser has said what is wrong
        return error.code if isinstance(error.code, int) else 2
    except ValueError as error:
        print(f"latente: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("latente: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"latente: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        return 2


def _terminated(number: int, frame: Any) -> None:
    """A SIGTERM ends a command as Ctrl-C does, so that nothing half-written is left behind."""
    raise KeyboardInterrupt


def _overview() -> str:
    from latente import registry

    lines = [f"  {line}" for line in COMMANDS.values()]
    models = [f"  {name:<13}{registry.summary(name)}" for name in registry.names()]
    return "\n".join(
        [
            "usage: latente COMMAND ...   (latente COMMAND --help tells more)",
            "",
            "commands",
            *lines,
            "",
            "models",
            *models,
            "",
            "sources: a folder of images or texts, .npy, .npz, IDX, a text file, .jsonl, .csv, .xlsx, .parquet, hf:NAME, or a name:",
            "         digits, fashion-mnist; shakespeare, pydoc; adult, wine, breast-cancer, diabetes; roman, cmudict",
        ]
    )


# ---- commands ------------------------------------------------------------------------------------------------------


@dataclass
class _Train:
    """Train a model on your data; without a limit, for five minutes."""

    source: Annotated[str, "positional"]
    """a path (a folder of images or texts, .npy, .npz, IDX, a text file, .jsonl, .csv, .tsv, .xlsx, .parquet, .arrow), hf:NAME, or a
    name (digits, fashion-mnist; shakespeare, pydoc; adult, wine, breast-cancer, diabetes; roman, cmudict)"""
    out: Path | None = None
    """the run directory to make (default: runs/MODEL-SOURCE-N)"""
    budget: str | None = None
    """total time, as 60s, 5m or 1h30m: size, precision and number of steps are chosen to fit"""
    steps: int | None = None
    """train this many steps instead"""
    epochs: int | None = None
    """train this many passes over the data instead"""
    seed: int = 0
    """the same command with the same seed gives the same weights (with --steps or --epochs)"""
    size: Literal["tiny", "small", "base"] | None = None
    """how large the model is (default: by the budget, or small)"""
    init: Path | None = None
    """start from the weights of this run"""
    threads: int | None = None
    """processor threads (default: all)"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to train"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: what measures faster within a budget, else float32"""
    shard: bool = False
    """behind torchrun: each process keeps a part of the model (FSDP) instead of a copy of it"""
    compile: bool = False
    """torch.compile the phases without gradient penalty (needs a C++ compiler)"""
    stop: Literal["auto", "judge", "loss", "never"] = "auto"
    """what may end it early: judge (samples can no longer be told apart, or get no better), loss (held-out loss gets no better);
    auto: within a budget, loss, or judge for a model without one (gan)"""
    checkpoint_every: int | None = None
    """steps between checkpoints (default: ten a run)"""
    track: Literal["tensorboard"] | None = None
    """also log there"""
    quiet: bool = False
    """no progress"""


@dataclass
class _Resume:
    """Go on with an interrupted run exactly, or make a finished one longer."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    steps: str | None = None
    """this many more steps, as +1000"""
    budget: str | None = None
    """about this much more time, as +10m"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to train"""
    track: Literal["tensorboard"] | None = None
    """also log there"""
    quiet: bool = False
    """no progress"""


@dataclass
class _Sample:
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


@dataclass
class _Translate:
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


@dataclass
class _Fill:
    """Draw the empty cells of a table from what the other cells of their row leave open. The others stay as they are."""

    run: Annotated[Path, "positional"]
    """the run directory, of a table-gpt"""
    source: Annotated[str, "positional"]
    """the rows; a column that is missing is filled as well"""
    out: Path
    """.csv, .tsv, .parquet, .arrow or .xlsx"""
    seed: int = 0
    """the same seed fills in the same"""


@dataclass
class _Predict:
    """Say how likely each level of a column is, given the other cells of each row."""

    run: Annotated[Path, "positional"]
    """the run directory, of a table-gpt"""
    source: Annotated[str, "positional"]
    """the rows"""
    target: str
    """the column; what stands in it is not looked at"""
    out: Path | None = None
    """.csv, .tsv, .parquet, .arrow or .xlsx (default: the terminal)"""


@dataclass
class _Verify:
    """Make again what was made, by its sidecar (PATH.latente.json), and say whether it is the same. Exit code 1 when it is not."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    path: Annotated[Path, "positional"]
    """what `latente sample`, `translate --out`, `encode`, `reconstruct` or `denoise` wrote"""
    source: str | None = None
    """encode, reconstruct, denoise: the images it was made of; translate: the file of lines, for a .txt; no file says where they are"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


@dataclass
class _Evaluate:
    """Measure a trained model beside data it never saw, and write RUN/report/report.html. Exit code 1 when a --fail-if holds."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    seed: int = 0
    """of the samples that are measured, where any are drawn"""
    json: bool = False
    """print RUN/report/metrics.json instead of a table"""
    fail_if: list[str] | None = None
    """conditions such as "nats_per_char>1.8" that make the exit code 1"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


@dataclass
class _Compare:
    """Runs that were evaluated, side by side: a table here, and a page."""

    runs: Annotated[list[Path], "positional"]
    """the run directories"""
    out: Path = Path("compare.html")
    """the page to write, as compare.html; an older one is replaced"""


@dataclass
class _Apply:
    """Put images through a trained model."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    source: Annotated[str, "positional"]
    """the images: what `latente train` takes"""
    out: Path
    """where the result goes"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


@dataclass
class _Compress:
    """Write a data set into one small file: images without loss (pixelcnn) or with some (compressor), files byte by byte (gpt), rows
    cell by cell (table-gpt)."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    source: Annotated[str, "positional"]
    """the images or rows (what `latente train` takes), or a file or folder of text"""
    out: Path
    """the file to write, as set.latente"""
    psnr: float | None = None
    """compressor: images at least this good, in dB over all their pixels"""
    bytes_per_item: float | None = None
    """compressor: a file of at most this many bytes for each image, the weights counted in"""
    external_model: bool = False
    """leave the model's weights out: the run is then needed to read the file"""
    verify: bool = True
    """decode everything and compare before the file appears"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


@dataclass
class _Decompress:
    """Write again what a .latente file holds. Exit code 1 when a part of it is damaged."""

    file: Annotated[Path, "positional"]
    """what `latente compress` wrote"""
    out: Path
    """images: a folder of PNG, .npy, .npz or .parquet; text: the file, or a folder of the files; rows: .csv or .tsv as
    they were written, .parquet, .arrow, .feather or .xlsx"""
    run: Path | None = None
    """the run it was made with, where its weights were left out"""
    skip_damaged: bool = False
    """write what can be read of a damaged file, and say what cannot"""
    model_file: str | None = None
    """the .py file of a run whose model is your own"""


@dataclass
class _Explore:
    """Draw the latent space of a run: interpolations, traversals, a plane of two latents."""

    run: Annotated[Path, "positional"]
    """the run directory"""
    out: Path
    """the picture to write, as latent.png"""


@dataclass
class _Data:
    """Show what is in a source and what is wrong with it."""

    source: Annotated[str, "positional"]
    """what `latente train` takes"""
    pairs: bool = False
    """look at it as pairs of texts, as `latente train seq2seq` does"""
    sheet: Path | None = None
    """where the contact sheet of images goes (default: SOURCE-sheet.png in the current folder)"""


def _train(words: list[str], started: float) -> int:
    from latente import registry

    if not words or words[0].startswith("-"):
        wanted = "" if words and words[0] in ("-h", "--help") else "latente: which model? "
        print(
            f"{wanted}usage: latente train MODEL SOURCE [flags]; models: {', '.join(registry.names())}", file=sys.stderr
        )
        return 0 if not wanted else 2
    name, rest = words[0], words[1:]
    from latente.config import Recipe
    from latente.data.sources import OPTIONS

    family = registry.load(name)
    settings = (family.Config, Recipe, OPTIONS[family.kind])
    given = vars(parsed(flags(_Train, *settings), rest, f"latente train {name}"))
    from latente import launch
    from latente.training.stopping import Diverged, Interrupted

    try:
        made = launch.train(name, **{k: v for k, v in given.items() if v is not None}, started=started)
    except Interrupted as error:
        return _interrupted(error)
    except Diverged as error:
        print(f"latente: {error}", file=sys.stderr)
        return 1
    _after(made)
    return 0


def _resume(words: list[str], started: float) -> int:
    given = vars(parsed(flags(_Resume), words, "latente resume"))
    from latente import launch
    from latente.training.stopping import Diverged, Interrupted

    path = given.pop("run")
    try:
        made = launch.resume(path, **given)
    except Interrupted as error:
        return _interrupted(error)
    except Diverged as error:
        print(f"latente: {error}", file=sys.stderr)
        return 1
    _after(made)
    return 0


def _after(made: Any) -> None:
    if int(os.environ.get("RANK", "0")) == 0:
        run = shlex.quote(str(made.path))
        following = {
            "image": f"sample {run} --n 1000 --out samples",
            "text": f'sample {run} --prompt "..."',
            "table": f"sample {run} --n 1000 --out rows.csv",
            "pair": f'translate {run} "..."',
        }[made.spec.kind]
        what = "Targets" if made.spec.kind == "pair" else "Samples"
        print(f"{made.path} is ready. {what} so far: {made.path / 'samples'}")
        print(f"next: latente {following}")


def _interrupted(error: Any) -> int:
    path = shlex.quote(str(error.path))
    print(f"latente: interrupted at step {error.step}, saved; go on with: latente resume {path}", file=sys.stderr)
    return 130


def _sample(words: list[str], started: float) -> int:
    given = parsed(flags(_Sample), words, "latente sample")
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
    print(
        _written(len(made["x"]), "images", provenance.write(opened, made, {"seed": given.seed, **options}, given.out))
    )
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
        print(_written(count, "texts", provenance.write(opened, made, {"seed": given.seed, **options}, given.out)))
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
        _written(len(made["rows"]), "rows", provenance.write(opened, made, {"seed": given.seed, **options}, given.out))
    )
    return 0


def _written(count: int, what: str, path: Path) -> str:
    from latente.provenance import sidecar

    return f"{count:,} {what} in {path}; how they were made: {sidecar(path)}"


def _translate(words: list[str], started: float) -> int:
    given = parsed(flags(_Translate), words, "latente translate")
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
        print(_written(len(texts), "texts translated", given.out))
    if given.attention is not None:
        from latente import reports

        reports.attention(opened, texts[0], found[0][0].text, given.attention)
    return 0


def _print_targets(found: list[list[Any]], n: int) -> None:
    for several in found:
        for one in several:
            line = " ".join(one.text.splitlines())
            print(line if n == 1 else f"{one.log_prob:.4f}\t{line}", flush=True)


def _fill(words: list[str], started: float) -> int:
    given = parsed(flags(_Fill), words, "latente fill")
    from latente.data.table_sources import check_table_output

    check_table_output(given.out)
    opened = _rows(given.run, "fill")
    made = opened.filled(given.source, seed=given.seed)
    print(f"{len(made):,} rows, without gaps, in {opened.columns.write(given.out, made)}")
    return 0


def _predict(words: list[str], started: float) -> int:
    given = parsed(flags(_Predict), words, "latente predict")
    import pyarrow as pa

    from latente.data.table_sources import check_table_output, write_table

    if given.out is not None:
        check_table_output(given.out)
    made = _rows(given.run, "chances").predict(given.source, given.target)
    if given.out is None:
        print(made.to_string(index=False, float_format="{:.4g}".format))
    else:
        write_table(given.out, pa.Table.from_pandas(made, preserve_index=False))
        print(f"{len(made):,} rows of {given.target} in {given.out}")
    return 0


def _rows(path: Path, what: str) -> TableRun:
    """A run of rows that can do `what`. Raises ValueError for another."""
    from latente import run

    opened = run.load(path)
    if not isinstance(opened, run.TableRun):
        raise ValueError(f"this is for tables; {path} holds a model of {opened.spec.kind}s")
    opened.require(what)
    return opened


def _verify(words: list[str], started: float) -> int:
    given = parsed(flags(_Verify), words, "latente verify")
    from latente import provenance, run

    provenance.read(given.path)  # what is wrong with it is said before the run is opened
    verdict = provenance.verify(run.load(given.run, model_file=given.model_file), given.path, given.source)
    print("\n".join(verdict.said))
    return 1 if verdict.outcome == "differs" else 0


def _evaluate(words: list[str], started: float) -> int:
    given = parsed(flags(_Evaluate), words, "latente evaluate")
    from rich.console import Console

    from latente import reports, run
    from latente.evaluation import scores as of

    opened = run.load(given.run, model_file=given.model_file)
    with Console(stderr=True).status("the data is opened") as status:
        evaluation = opened.evaluate(seed=given.seed, say=status.update)
    failed = [condition for condition in given.fail_if or () if of.check(evaluation.scores, condition)]
    page = reports.write(opened, evaluation, opened.reopened().describe())
    if given.json:
        print((page.parent / "metrics.json").read_text(encoding="utf-8"), end="")
    else:
        Console().print(of.table(evaluation.scores))
        for finding in evaluation.findings:
            print(f"{finding.question:<10} {finding.answer:<7} {finding.words}")
        for note in evaluation.notes:
            print(note)
        told = reports.verdict(opened, evaluation)
        print(f"verdict    {told['sentence']}\nnext       {told['next']}\nreport     {page}")
    for condition in failed:
        print(f"latente: {condition} holds", file=sys.stderr)
    return 1 if failed else 0


def _compare(words: list[str], started: float) -> int:
    given = parsed(flags(_Compare), words, "latente compare")
    import json

    from rich.console import Console

    from latente import reports, run

    if len(given.runs) < 2:
        raise ValueError("compare needs at least two runs")
    if given.out.suffix != ".html":
        raise ValueError(f"--out {given.out}: a page ends in .html")
    measured = []
    for path in given.runs:
        opened, file = run.load(path), path / "report" / "metrics.json"
        if not file.is_file():
            raise ValueError(f"{path} was not evaluated yet: latente evaluate {shlex.quote(str(path))}")
        measured.append((opened, json.loads(file.read_text(encoding="utf-8"))))
    Console().print(reports.comparison(measured))
    print(f"page       {reports.compare(measured, given.out)}")
    return 0


def _apply(what: str) -> Callable[[list[str], float], int]:
    def command(words: list[str], started: float) -> int:
        given = parsed(flags(_Apply), words, f"latente {what}")
        from latente import provenance

        provenance.check_output(what, given.out)
        opened = _images(given.run, given.model_file, what)
        count = provenance.apply(opened, what, given.source, given.out)
        print(_written(count, "vectors" if what == "encode" else "images", given.out))
        return 0

    return command


def _images(path: Path, model_file: str | None, what: str) -> ImageRun:
    """A run of pictures that can do `what`. Raises ValueError for another."""
    from latente import run

    opened = run.load(path, model_file=model_file)
    opened.require(what)
    if not isinstance(opened, run.ImageRun):
        raise ValueError(f"{what} is for images; {path} holds a model of {opened.spec.kind}s")
    return opened


def _compress(words: list[str], started: float) -> int:
    given = parsed(flags(_Compress), words, "latente compress")
    from rich.console import Console

    from latente import compression, run

    if given.out.exists():
        raise ValueError(f"{given.out} already exists; choose another --out")
    opened = run.load(given.run, model_file=given.model_file)
    with Console(stderr=True).status("the data is opened") as status:
        found = compression.compress(
            opened, given.source, given.out, psnr=given.psnr, bytes_per_item=given.bytes_per_item,
            external_model=given.external_model, verify=given.verify, say=status.update,
        )  # fmt: skip
    print(f"{found.raw:,} bytes in {found.size:,}, one in {found.raw / found.size:.1f}: {found.path}")
    print(f"of these {found.model:,} are the model's weights, {found.coded:,} what it did not expect")
    if found.modelled:
        more = found.modelled / found.expected - 1
        print(f"the model's own likelihood promised {found.expected:,.0f} for that: {more:.2%} more")
    if found.psnr is not None:
        print(f"{found.size / found.items:.1f} bytes an image, {found.psnr:.2f} dB over all of them")
    for note in found.notes:
        print(f"note: {note}")
    came = "the same" if found.psnr is None else "as they were coded, with loss"
    came += ", but for what is noted above" * bool(found.notes)
    print(f"decoded and compared: {came}" if given.verify else "not decoded and compared (--no-verify)")
    print(f"next: latente decompress {shlex.quote(str(found.path))} --out ...")
    return 0


def _decompress(words: list[str], started: float) -> int:
    given = parsed(flags(_Decompress), words, "latente decompress")
    from rich.console import Console

    from latente import compression, run
    from latente.codec.layout import Damaged

    opened = None if given.run is None else run.load(given.run, model_file=given.model_file)
    lost: list[Damaged] | None = [] if given.skip_damaged else None
    try:
        with Console(stderr=True).status("the file is opened") as status:
            path = compression.decompress(given.file, given.out, run=opened, lost=lost, say=status.update)
    except Damaged as error:
        bearable = lost is None and error.part not in ("header", "model", "tokens")
        print(f"latente: {error}" + " (--skip-damaged writes the rest)" * bearable, file=sys.stderr)
        return 1
    for damage in lost or ():
        print(f"latente: {damage}", file=sys.stderr)
    print(f"what {given.file} holds is in {path}" + (", without what is damaged" if lost else ""))
    return 1 if lost else 0


def _explore(words: list[str], started: float) -> int:
    given = parsed(flags(_Explore), words, "latente explore")
    if given.out.exists() or given.out.suffix != ".png":
        raise ValueError(
            f"--out {given.out}: " + ("exists already" if given.out.exists() else "a picture ends in .png")
        )
    from latente.data.images import contact_sheet

    contact_sheet(_images(given.run, None, "explore").explore(), given.out)
    print(f"the latent space is drawn in {given.out}")
    return 0


def _data(words: list[str], started: float) -> int:
    from latente.data.sources import OPTIONS, kind, open_source

    if not words or words[0].startswith("-"):
        parsed(flags(_Data), words, "latente data")  # says what is missing, or helps
    of = "pair" if "--pairs" in words else kind(words[0])
    known = {name: {f"--{f.name.replace('_', '-')}" for f in fields(owner)} for name, owner in OPTIONS.items()}
    for word in words[1:]:
        other = next((name for name, own in known.items() if word in own - known[of]), None)
        if other is not None:
            raise ValueError(f"{word} is for {other} sources; {words[0]} is {of}")
    given = parsed(flags(_Data, OPTIONS[of]), words, "latente data")
    data = open_source(given.source, OPTIONS[of](**{f.name: getattr(given, f.name) for f in fields(OPTIONS[of])}))
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for what, value in data.describe():
        table.add_row(what, escape(value))
    Console().print(table)
    if of == "image":
        print(f"a contact sheet is in {_sheet(data, given.sheet)}")
    return 0


def _sheet(data: Any, sheet: Path | None) -> Path:
    from latente.data.images import contact_sheet

    sheet = sheet or Path(f"{data.name}-sheet.png")
    shown = data.splits["train"][:: max(1, len(data.splits["train"]) // 96)][:96]
    contact_sheet([(f"{data.name}: {len(data.items):,} images", data.images[shown])], sheet)
    return sheet


def _demo(words: list[str], started: float) -> int:
    from latente import demo

    @dataclass
    class Demo:
        """Train every family on embedded data, sample from each, draw one page."""

        out: Path = Path("latente-demo")
        """folder for the runs and the page"""

    demo.run(parsed(Demo, words, "latente demo").out)
    return 0


_RUN: dict[str, Callable[[list[str], float], int]] = {
    "train": _train, "resume": _resume, "sample": _sample, "translate": _translate, "fill": _fill, "predict": _predict, "verify": _verify,
    "evaluate": _evaluate, "compare": _compare,
    "reconstruct": _apply("reconstruct"), "denoise": _apply("denoise"), "encode": _apply("encode"),
    "compress": _compress, "decompress": _decompress, "explore": _explore, "data": _data, "demo": _demo,
}  # fmt: skip
