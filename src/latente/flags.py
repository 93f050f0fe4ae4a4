"""Flags of a command from typed dataclasses: one default, one help text, in the place that owns the setting."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, field, fields, make_dataclass
from itertools import chain
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

_SEVERAL = "several"


def parsed(kind: Any, words: list[str], program: str) -> Any:
    """The dataclass `kind` filled from the words of a command line; SystemExit after help or a message about bad ones."""
    import tyro

    given = tyro.cli(kind, args=words, prog=program)
    for f in fields(kind):
        if _SEVERAL in getattr(f.type, "__metadata__", ()):
            setattr(given, f.name, list(chain.from_iterable(getattr(given, f.name))) or None)
    return given


def flags(command: Any, *settings: Any) -> Any:
    """A dataclass of a command's own flags and of every field of `settings`, with their help.

    What a size or a model decides stays None unless given.
    """
    made: list[Any] = []
    hints, help_ = get_type_hints(command, include_extras=True), field_docs(command)
    for f in fields(command):
        name = f.name.upper() if f.default is MISSING else f"[{f.name.upper()}]"
        kind = _flag(hints[f.name], help_[f.name], None, name)
        default = field(default_factory=list) if _SEVERAL in kind.__metadata__ else f
        made.append((f.name, kind, default) if f.default is not MISSING else (f.name, kind))
    for owner in settings:
        hints, help_ = get_type_hints(owner), field_docs(owner)
        decided = {"Config": "(default: by size and data)", "Recipe": "(default: by model)"}.get(owner.__name__)
        for f in fields(owner):
            if any(f.name == known[0] for known in made):
                raise ValueError(
                    f"{owner.__module__}.{owner.__name__}.{f.name} has the name of a flag of ours; rename it"
                )
            kind = hints[f.name] | None if decided else hints[f.name]
            made.append((f.name, _flag(kind, help_[f.name], decided), None if decided else f))
    kind = make_dataclass(f"{command.__name__}Flags", made)
    kind.__doc__ = command.__doc__
    return kind


def _flag(hint: Any, help_: str, decided: str | None, name: str = "") -> Any:
    """The type of one flag as the parser wants it; an optional one shows neither None nor an empty default, a positional one its
    `name`."""
    import tyro

    if "positional" in getattr(hint, "__metadata__", ()):
        shown = f"{name.removesuffix('S')} ..." if get_origin(hint.__origin__) is list else name
        return Annotated[tyro.conf.Positional[hint.__origin__], tyro.conf.arg(help=help_, metavar=shown)]
    if type(None) not in get_args(hint):
        return Annotated[hint, tyro.conf.arg(help=help_)]
    # What only Python can give, a mapping, is no word of a command line.
    (inner,) = (kind for kind in get_args(hint) if kind is not type(None) and get_origin(kind) is not Mapping)
    if get_origin(inner) is list:  # `--flag A B` and `--flag A --flag B`
        append = tyro.conf.UseAppendAction[list[tuple[str, ...]]]
        return Annotated[append, _SEVERAL, tyro.conf.arg(help=help_, metavar="TEXT ...", help_behavior_hint="")]
    choices = ("True", "False") if inner is bool else get_args(inner) if get_origin(inner) is Literal else ()
    named = "TEXT" if inner is str else inner.__name__.upper()
    shown = "{" + ",".join(choices) + "}" if choices else named
    return Annotated[hint, tyro.conf.arg(help=help_, metavar=shown, help_behavior_hint=decided or "")]


def field_docs(kind: Any) -> dict[str, str]:
    """The string below each field of a dataclass: help and documentation in one place. Raises ValueError for a field without."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except OSError:  # a user's own file, run from memory
        return {f.name: "" for f in fields(kind)}
    body = tree.body[0].body  # type: ignore[attr-defined]
    docs = {}
    for here, after in zip(body, body[1:]):
        if isinstance(here, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            docs[here.target.id] = " ".join(str(after.value.value).split())  # type: ignore[union-attr]
    missing = [f.name for f in fields(kind) if f.name not in docs]
    if missing:
        raise ValueError(
            f"{kind.__module__}.{kind.__name__}: document the field {', '.join(missing)} with a string below it"
        )
    return docs
