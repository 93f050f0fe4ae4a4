"""One page a person can read and trust: `report` evaluates and writes it, `write` for what was evaluated, `compare` for several runs,
`comparison` for a terminal."""

from latente.reports.build import report, write
from latente.reports.comparing import compare, comparison

__all__ = ["compare", "comparison", "report", "write"]
