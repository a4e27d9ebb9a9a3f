"""Training steps of simjax against those of PyTorch on one CPU: `python -m benchmarks.train_step`.

The same networks with the same first parameters, batch, loss and optimiser; PyTorch plain, channels last with its
fused optimiser, and compiled. Contenders take turns within one run; the peak memory of each is measured in a process
of its own. Writes train_step.md, train_step.png and train_step.json.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/train_step.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._command import command_line, run

CASES = ("siamese_cnn", "vit", "dnn", "default_cnn", "default_vit")


def main() -> int:
    """Run, write, and tell what failed: the exit status."""
    parser = command_line("benchmarks.train_step", __doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write one line of numbers for each case here")
    options = parser.parse_args()

    def contests(small: bool) -> Iterator[Any]:
        from benchmarks import _steps

        return _steps.contests(options.cases, small=small)

    status = run("benchmarks.train_step", "train_step", contests, options)
    if options.json and not options.memory_of:
        report = json.loads((options.out / "train_step.json").read_text())
        options.json.write_text(json.dumps([summary(c) for c in report["contests"]], indent=1) + "\n")
    return status


def summary(contest: dict[str, Any]) -> dict[str, Any]:
    """A contest in the numbers that are looked at first; torch_ms is that of PyTorch's best form."""
    ours = contest["contenders"]["simjax"]
    best = contest["contenders"].get(contest["best_peer"], {})
    return {
        "name": contest["name"],
        "simjax_ms": 1e3 * ours["median"] if "median" in ours else None,
        "torch_ms": 1e3 * best["median"] if best else None,
        "torch_form": contest["best_peer"],
        "ratio": 1 / contest["ratio"] if contest["ratio"] else None,
        "peak_mb": ours["peak_bytes"] / 1e6 if ours.get("peak_bytes") else None,
        "compile_s": ours.get("compile_seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
