"""`simjax compare RUN RUN ... --out DIR`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from simjax.cli._arguments import parse


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Compare runs on the same data in one table and one figure."""

    runs: Positional[tuple[str, ...]]
    """Folders of two or more finished runs."""
    out: str
    """Folder for compare.md, compare.html and compare.json."""


def compare(arguments: Sequence[str]) -> None:
    """Write a comparison of runs and print its path."""
    parsed = parse(CompareArguments, arguments)
    from simjax import report

    report.compare([Path(run) for run in parsed.runs], Path(parsed.out))
    print(f"comparison: {Path(parsed.out) / 'compare.html'}")
