"""Losses of simjax against those of pytorch-metric-learning on one CPU: `python -m benchmarks.losses`.

Value and gradient by the embeddings, the same miner on both sides; and what large batches take, of every loss of pairs
and triplets. Contenders take turns within one run; the peak memory of each is measured in a process of its own. Writes
loss_speed.md, loss_speed.png and loss_speed.json.
"""

import sys
from collections.abc import Iterator
from typing import Any

from benchmarks._command import command_line, run

CASES = ("batch", "large")


def main() -> int:
    """Run, write, and tell what failed: the exit status."""
    parser = command_line("benchmarks.losses", __doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="default: both")
    parser.add_argument("--losses", nargs="+", metavar="NAME", help="default: all")
    options = parser.parse_args()

    def contests(small: bool) -> Iterator[Any]:
        from benchmarks import _losses

        known = dict.fromkeys(contest.name for contest in _losses.contests(options.cases))
        unknown = [name for name in options.losses or () if name not in known]
        if unknown:
            parser.error(f"--losses: no contest {', '.join(unknown)}; there are {'; '.join(known)}")
        return _losses.contests(options.cases, options.losses, small=small)

    return run("benchmarks.losses", "loss_speed", contests, options)


if __name__ == "__main__":
    sys.exit(main())
