"""simjax against SciPy, scikit-learn, PyTorch and FAISS on one CPU: `python -m benchmarks.engine`.

Writes benchmarks.md, benchmarks.png and benchmarks.json. Contenders take turns within one run; the peak memory of each
is measured in a process of its own. A peer that is not installed is named and left out; a measure that fails is named,
and the exit status is 1.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CASES = ("pairwise", "search", "attention", "logsumexp")


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="default: all")
    parser.add_argument("--measures", nargs="+", metavar="NAME", help="of the case pairwise; default: all")
    parser.add_argument("--runs", type=int, default=5, help="turns of each contender after a warm-up (default 5)")
    parser.add_argument("--small", action="store_true", help="sizes that run in seconds; the times mean nothing")
    parser.add_argument("--threads", type=int, help="cores to run on (Linux); default: all that this process may use")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", metavar="DIR", help="default: docs")
    parser.add_argument("--memory-of", nargs=2, metavar=("CONTEST", "CONTENDER"), help="print one peak in bytes")
    return parser


def memory_in_own_process(contest: str, contender: str, *, small: bool) -> tuple[int | None, str]:
    """Peak extra bytes of one contender, or None and why not."""
    command = [sys.executable, "-m", "benchmarks.engine", "--memory-of", contest, contender, *["--small"] * small]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return None, f"memory not measured: {last}"
    return int(done.stdout.split()[-1]), ""


def main(arguments: list[str] | None = None) -> int:
    """Run, write, and tell what failed: the exit status."""
    options = command_line().parse_args(arguments)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if options.threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    from benchmarks import _cases, _report, _timing  # libraries count the cores when they load

    if options.memory_of:
        contest, contender = options.memory_of
        warm_up, measured = (_cases.find(contest, small=small) for small in (True, options.small))
        print(_timing.peak_memory(warm_up, measured, contender))
        return 0

    command = shlex.join(["python", "-m", "benchmarks.engine", *(sys.argv[1:] if arguments is None else arguments)])
    contests: list[dict[str, Any]] = []
    report = {"command": command, "small": options.small, **_report.environment(), "contests": contests}
    for contest in _cases.contests(options.cases, options.measures, small=options.small):
        start = time.perf_counter()
        patience = {"pause": 0.0, "turn": 0.0} if options.small else {}
        record = _timing.race(contest, options.runs, **patience)
        for name, outcome in record["contenders"].items():
            if outcome["seconds"] and not options.no_memory:
                peak, why = memory_in_own_process(contest.key, name, small=options.small)
                outcome |= {"peak_bytes": peak, "note": outcome["note"] or why}
        contests.append(record)
        print(f"{contest.key}: {_report.one_line(record)} [{time.perf_counter() - start:.0f} s]", flush=True)
        _report.write(report, options.out)  # what is there stays there, whatever happens to the next one
    _report.plot(report, options.out / "benchmarks.png")

    failures = _report.failures(report)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
