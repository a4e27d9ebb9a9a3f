"""Seconds until something happens: `python -m benchmarks.start_up`.

Whole commands in processes of their own: imports, `--help`, one training step with nothing compiled before and with
everything compiled before, whole trainings on the embedded digits; and compiling alone, of each network of
`benchmarks.train_step`. All take turns, a warm-up turn first, which also fills the cache of compiled programs. Writes
start_up.md and start_up.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
if not __package__:  # as `python benchmarks/start_up.py`
    sys.path.insert(0, str(ROOT))

MODELS = ("cnn", "vit", "dnn")


class Task(NamedTuple):
    """A command, and whether the programs it needs were compiled by an earlier turn; None if it needs none.

    Its seconds are those of the whole process, or, where it prints them, what it prints.
    """

    command: list[str]
    compiled: bool | None = None
    prints: bool = False


def tasks(out: Path, *, small: bool) -> dict[str, Task]:
    """All that is timed, by what it is called in the table."""
    from benchmarks.train_step import CASES

    train = [sys.executable, str(ROOT / "train.py"), "--overwrite", "--out", str(out), "--model"]
    length = ["--steps", "2"] if small else []
    found = {
        f"`{code}`": Task([sys.executable, "-c", code])
        for code in ("import flax.nnx", "import simjax", "import simjax.nn, simjax.losses")
    }
    found["`python train.py --help`"] = Task([sys.executable, str(ROOT / "train.py"), "--help"])
    for model in MODELS[:1] if small else MODELS:
        for compiled in (False, True):
            found[f"`python train.py --model {model} --steps 1`{told(compiled)}"] = Task(
                [*train, model, "--steps", "1"], compiled
            )
        found[f"`python train.py --model {model}`{told(True)}"] = Task([*train, model, *length], True)
    for name in CASES[2:3] if small else CASES:
        for compiled in (False, True):
            compile_it = [sys.executable, "-m", "benchmarks.start_up", "--compile", name]
            found[f"compiling the steps of {name}{told(compiled)}"] = Task(compile_it, compiled, prints=True)
    return found


def told(compiled: bool) -> str:
    """In the table."""
    return ", compiled before" if compiled else ""


def seconds(task: Task, cache: Path) -> float:
    """Of one run.

    Raises:
        subprocess.CalledProcessError: if the command fails.
    """
    with tempfile.TemporaryDirectory() as empty:
        where = {"JAX_COMPILATION_CACHE_DIR": str(cache) if task.compiled else empty, "JAX_PLATFORMS": "cpu"}
        start = time.perf_counter()
        done = subprocess.run(
            task.command, cwd=ROOT, env={**os.environ, **where}, capture_output=True, text=True, check=True
        )
        took = time.perf_counter() - start
    return float(done.stdout.split()[-1]) if task.prints else took


def compiling(name: str) -> float:
    """Seconds from the Python function of several steps to a program, in this process."""
    import jax

    from benchmarks import _steps

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # as train.py does
    settings = _steps.networks()[name]
    images = _steps.some_images(_steps.images_in(settings, settings.batch_size))
    steps, state, inputs = _steps.built(settings, *images)
    start = time.perf_counter()
    steps.lower(state, 1, *inputs).compile()
    return time.perf_counter() - start


def markdown(report: dict[str, Any]) -> str:
    """The page."""
    from benchmarks._report import table

    rows = [
        [name, f"{statistics.median(taken):.2f} ({min(taken):.2f}–{max(taken):.2f})"]
        for name, taken in report["seconds"].items()
    ]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    return (
        f"# Start-up\n\n`{report['command']}`, {report['date']}, on {report['machine']}; {versions}.\n\n"
        "Seconds of whole commands, each in a process of its own; of compiling, the seconds from the Python function\n"
        "to the program, tracing included. Medians of the turns after a warm-up (smallest to largest).\n"
        "*Compiled before*: with a cache of compiled programs that an earlier turn has filled, as `train.py` keeps\n"
        "one.\n\n" + table(["", "seconds"], rows)
    )


def main() -> int:
    """Run and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start_up", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="turns after the warm-up (default 3)")
    parser.add_argument("--small", action="store_true", help="a few short commands; the times mean little")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", metavar="DIR", help="default: docs")
    parser.add_argument("--compile", metavar="NETWORK", help="print the seconds that compiling one network takes")
    options = parser.parse_args()
    if options.compile:
        print(compiling(options.compile))
        return 0

    from benchmarks._report import environment

    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        found = tasks(Path(folder) / "run", small=options.small)
        for turn in range(options.runs + 1):
            for name, task in found.items():
                took = seconds(task, Path(folder) / "cache")
                print(f"{'warm-up' if turn == 0 else turn}: {name}: {took:.2f} s", flush=True)
                if turn:
                    taken.setdefault(name, []).append(took)
    report = {"command": "python -m benchmarks.start_up", "runs": options.runs, **environment(), "seconds": taken}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "start_up.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "start_up.md").write_text(markdown(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
