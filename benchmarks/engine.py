"""simjax against SciPy, scikit-learn, PyTorch, FAISS and others on one CPU: `python -m benchmarks.engine`.

Writes benchmarks.md, benchmarks.png and benchmarks.json. Contenders take turns within one run; the peak memory of each
is measured in a process of its own. A peer that is not installed is named and left out; a measure that fails is named,
and the exit status is 1.
"""

import sys
from collections.abc import Iterator
from typing import Any

from benchmarks._command import command_line, run

CASES = ("pairwise", "search", "attention", "logsumexp", "retrieval")


def main() -> int:
    """Run, write, and tell what failed: the exit status."""
    parser = command_line("benchmarks.engine", __doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="default: all")
    parser.add_argument("--measures", nargs="+", metavar="NAME", help="of the case pairwise; default: all")
    options = parser.parse_args()

    def contests(small: bool) -> Iterator[Any]:
        from benchmarks import _cases

        return _cases.contests(options.cases, options.measures, small=small)

    return run("benchmarks.engine", "benchmarks", contests, options)


if __name__ == "__main__":
    sys.exit(main())
