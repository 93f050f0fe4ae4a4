"""One page a person can read and trust: `report` evaluates and writes it, `write` for what was evaluated, `compare` for several runs,
`comparison` for a terminal; `verdict` is what stands on top of a page; `attention` draws what a model of pairs looked at."""

from latente.reports.answers import verdict
from latente.reports.attention import attention
from latente.reports.build import report, write
from latente.reports.comparing import compare, comparison

__all__ = ["attention", "compare", "comparison", "report", "verdict", "write"]
