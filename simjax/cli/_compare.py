"""`simjax compare RUN RUN ... --out DIR`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from simjax.cli._arguments import parse


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """One table and one picture of several runs on the same data."""

    runs: Positional[tuple[str, ...]]
    """folders of finished runs"""
    out: str
    """folder for compare.md and compare.html"""


def compare(arguments: Sequence[str]) -> None:
    """Parse, compare, and print where the comparison is."""
    parsed = parse(CompareArguments, arguments, prog="simjax compare")
    from simjax import report

    report.compare([Path(run) for run in parsed.runs], Path(parsed.out))
    print(f"comparison: {Path(parsed.out) / 'compare.html'}")
