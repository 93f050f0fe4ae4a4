"""What rows must satisfy, in words: conditions on one column ("age>60, sex=Female"), and rules between columns.

a condition   COLUMN OPERATOR VALUE, operators = != < <= > >=; several are joined by commas; "sex=" is a missing value
a rule        "start <= end"          one column beside another (also = != <); rows with a missing value satisfy it
              "unique(id, year)"      no two rows are alike in these columns
              "known(city, country)"  only combinations that the training rows have
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latente.data.errors import DataError

OPERATORS = ("<=", ">=", "!=", "==", "=", "<", ">")


@dataclass(frozen=True)
class Condition:
    """`column operator value`: the value as written, "" for a missing one."""

    column: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{self.value}"


@dataclass(frozen=True)
class Rule:
    """`kind` is an operator between two columns, "unique" or "known"."""

    kind: str
    columns: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f" {self.kind} ".join(self.columns) if self.kind in OPERATORS else f"{self.kind}({', '.join(self.columns)})"
        )


def conditions(given: str | Mapping[str, Any] | Sequence[str], names: Sequence[str]) -> list[Condition]:
    """The conditions in a line, a list of lines, or {column: value or "operator value"}. Raises DataError for what cannot be read."""
    if isinstance(given, Mapping):
        return [_of_pair(str(name), value, names) for name, value in given.items()]
    lines = [given] if isinstance(given, str) else list(given)
    return [_condition(part, names) for line in lines for part in _parts(line) if part.strip()]


def _of_pair(name: str, value: Any, names: Sequence[str]) -> Condition:
    _known(name, names, name)
    text = "" if value is None or type(value).__name__ == "NAType" or value != value else str(value).strip()
    text = text.lower() if isinstance(value, bool) or type(value).__name__ == "bool" else text
    for operator in OPERATORS:
        if isinstance(value, str) and text.startswith(operator):
            return Condition(name, operator.replace("==", "="), text.removeprefix(operator).strip())
    return Condition(name, "=", text)


def _parts(line: str) -> list[str]:
    """Cut at commas, but for those in a value that stands in quotes."""
    return re.findall(r"""(?:(?<=[=<>])\s*(?:"[^"]*"|'[^']*')|[^,])+""", line)


def _condition(text: str, names: Sequence[str]) -> Condition:
    text = text.strip()
    for name in sorted(names, key=len, reverse=True):  # a name may hold what looks like an operator
        rest = text.removeprefix(name).lstrip() if text.startswith(name) else ""
        for operator in OPERATORS:
            if rest.startswith(operator):
                value = rest.removeprefix(operator).strip()
                if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                    value = value[1:-1]
                return Condition(name, operator.replace("==", "="), value)
    found = re.match(r"\s*(.*?)\s*(<=|>=|!=|==|=|<|>)", text)
    if found:
        _known(found[1].strip("\"'"), names, text)
    raise DataError(f'cannot read {text!r}: write COLUMN=VALUE (or != < <= > >=), as "age>60, sex=Female"')


def rules(lines: Sequence[str], names: Sequence[str]) -> list[Rule]:
    """The rules in some lines. Raises DataError for what cannot be read."""
    return [_rule(line.strip(), names) for line in lines]


def _rule(line: str, names: Sequence[str]) -> Rule:
    called = re.fullmatch(r"(unique|known)\s*\((.*)\)", line)
    if called:
        columns = tuple(part.strip() for part in called[2].split(","))
        for column in columns:
            _known(column, names, line)
        return Rule(called[1], columns)
    for operator in OPERATORS:
        left, found, right = line.partition(operator)
        if found:
            columns = left.strip(), right.strip()
            for column in columns:
                _known(column, names, line)
            return _turned(operator.replace("==", "="), columns)
    raise DataError(f'cannot read the rule {line!r}: write "start <= end", "unique(id)" or "known(city, country)"')


def _turned(operator: str, columns: tuple[str, str]) -> Rule:
    """a >= b is b <= a."""
    if operator in (">", ">="):
        return Rule(operator.replace(">", "<"), columns[::-1])
    return Rule(operator, columns)


def _known(column: str, names: Sequence[str], where: str) -> None:
    if column not in names:
        raise DataError(f"no column {column!r} (in {where!r}); there are {', '.join(names)}")
