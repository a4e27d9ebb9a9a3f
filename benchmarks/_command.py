"""What the benchmarks' commands share: options, one contest after the other, and what is written."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def command_line(module: str, description: str | None) -> argparse.ArgumentParser:
    """The options that every command has."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--runs", type=int, default=5, help="turns of each contender after a warm-up (default 5)")
    parser.add_argument("--small", action="store_true", help="sizes that run in seconds; the times mean nothing")
    parser.add_argument("--threads", type=int, help="cores to run on (Linux); default: all that this process may use")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", metavar="DIR", help="default: docs")
    parser.add_argument("--memory-of", nargs=2, metavar=("CONTEST", "CONTENDER"), help="print one peak in bytes")
    return parser


def run(module: str, page: str, contests: Callable[[bool], Iterator[Any]], options: argparse.Namespace) -> int:
    """Hold the contests and write PAGE.md, PAGE.png and PAGE.json, or measure the one peak that is asked for.

    Args:
        module: the command's.
        page: a key of `_report.PAGES`.
        contests: all of them in order, given whether the sizes are small.
        options: of `command_line`.

    Returns:
        The exit status; what failed has been told.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if options.threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    from benchmarks import _report, _timing  # libraries count the cores when they load

    if options.memory_of:
        key, contender = options.memory_of
        warm_up, measured = (next(c for c in contests(small) if c.key == key) for small in (True, options.small))
        print(_timing.peak_memory(warm_up, measured, contender))
        return 0

    command = shlex.join(["python", "-m", module, *_without_folder(sys.argv[1:])])
    records: list[dict[str, Any]] = []
    report = {"command": command, "small": options.small, **_report.environment(), "contests": records}
    for contest in contests(options.small):
        start = time.perf_counter()
        patience = {"pause": 0.0, "turn": 0.0} if options.small else {}
        record = _timing.race(contest, options.runs, **patience)
        for name, outcome in record["contenders"].items():
            if outcome["seconds"] and not options.no_memory:
                peak, why = memory_in_own_process(module, contest.key, name, small=options.small)
                outcome |= {"peak_bytes": peak, "note": outcome["note"] or why}
        records.append(record)
        print(f"{contest.key}: {_report.one_line(record)} [{time.perf_counter() - start:.0f} s]", flush=True)
        _report.write(report, page, options.out)  # what is there stays there, whatever happens to the next one
    _report.plot(report, options.out / f"{page}.png")

    failures = _report.failures(report)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _without_folder(arguments: list[str]) -> list[str]:
    """What a page says of its command: where the page was first written tells nobody anything."""
    pairs = zip(arguments, ["", *arguments], strict=False)
    return [a for a, before in pairs if before != "--out" and a.split("=")[0] != "--out"]


def memory_in_own_process(module: str, contest: str, contender: str, *, small: bool) -> tuple[int | None, str]:
    """Peak extra bytes of one contender, or None and why not."""
    command = [sys.executable, "-m", module, "--memory-of", contest, contender, *["--small"] * small]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return None, f"memory not measured: {last}"
    return int(done.stdout.split()[-1]), ""
