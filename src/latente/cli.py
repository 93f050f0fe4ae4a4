"""The command line: words in, a call of one of the commands, one clear line for the user's mistakes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from latente.commands import checking, looking, making, packing, training, using
from latente.data.errors import one_line

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
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not behind nohup
            signal.signal(signal.SIGHUP, _terminated)
    try:
        return _RUN[words[0]](words[1:], started)
    except SystemExit as error:  # the argument parser has said what is wrong
        return error.code if isinstance(error.code, int) else 2
    except ValueError as error:
        print(f"latente: {one_line(error)}", file=sys.stderr)
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
    """A SIGTERM, or the end of its terminal, ends a command as Ctrl-C does, so that nothing half-written is left behind."""
    raise KeyboardInterrupt


def _overview() -> str:
    from latente import registry

    lines = [f"  {line}" for line in COMMANDS.values()]
    width = 2 + max(map(len, registry.names()))
    models = [f"  {name:<{width}}{registry.summary(name)}" for name in registry.names()]
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


_RUN: dict[str, Callable[[list[str], float], int]] = {
    "train": training.train, "resume": training.resume, "sample": making.sample, "translate": making.translate, "fill": using.fill,
    "predict": using.predict, "verify": checking.verify, "evaluate": checking.evaluate, "compare": checking.compare,
    "reconstruct": using.apply("reconstruct"), "denoise": using.apply("denoise"), "encode": using.apply("encode"),
    "compress": packing.compress, "decompress": packing.decompress, "explore": using.explore, "data": looking.data, "demo": looking.demo,
}  # fmt: skip
