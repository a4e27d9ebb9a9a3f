"""Contenders side by side: they take turns within one run, so that whatever else the machine does meets all of them."""

import ctypes
import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._agreement import LIMITS, within_limit

SLOW = 10.0  # seconds: who needs longer in the warm-up gets no further turn, and the warm-up counts
PAUSE = 0.05  # seconds between turns: threads of the one before stop spinning
TURN = 0.3  # seconds: a shorter task is repeated until its turn has lasted so long
OURS = "simjax"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class NotPossible(Exception):
    """A contender cannot take part on this machine; the message says why."""


@dataclass
class Ready:
    """A contender that has its inputs: `run` does the task `times` times and returns when the result is there."""

    run: Callable[[], Any]
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    times: int = 1


@dataclass
class Contest:
    """One task, and those who do it.

    Args:
        case: the group it belongs to.
        name: within the case.
        size: of the inputs, for the reader.
        inputs: makes them; always the same.
        contenders: makes each of them ready, given the inputs.
        agreement: one number that compares our result with another; a key of `LIMITS`.
    """

    case: str
    name: str
    size: str
    inputs: Callable[[], tuple[Any, ...]]
    contenders: dict[str, Callable[..., Ready]]
    agreement: str

    @property
    def key(self) -> str:
        """What `--memory-of` calls it."""
        return f"{self.case}/{self.name}"


def compiled(function: Callable[..., Any], *arguments: Any) -> Ready:
    """A JAX function, compiled ahead of time: XLA says what memory it sets aside."""
    import jax
    import jax.numpy as jnp

    arguments = tuple(jnp.asarray(a) for a in arguments)
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    temporary = None if memory is None else memory.temp_size_in_bytes
    return Ready(lambda: jax.block_until_ready(program(*arguments)), seconds, temporary)


def race(contest: Contest, runs: int, pause: float = PAUSE, turn: float = TURN) -> dict[str, Any]:
    """Times of every contender of a contest, what XLA says of memory, and whether results agree."""
    outcomes = {name: {"seconds": [], "note": "", "failed": False} for name in contest.contenders}
    inputs, ready, results = contest.inputs(), {}, {}
    for name, build in contest.contenders.items():
        with trouble(outcomes[name], name):
            made = build(*inputs)
            outcomes[name] |= {"compile_seconds": made.compile_seconds, "temporary_bytes": made.temporary_bytes}
            require_memory(made.temporary_bytes or 0)
            seconds, results[name] = timed(made, pause, turn)
            if seconds > SLOW:
                outcomes[name]["seconds"].append(seconds)
            else:
                ready[name] = made
    agreement = compare(contest, results)
    results.clear()
    if agreement and not within_limit(**agreement):
        outcomes[OURS] |= {"note": f"the result is not that of {agreement['with']}", "failed": True}

    for number in range(runs):
        for name in random.Random(number).sample(list(ready), len(ready)):  # nobody always follows the same one
            with trouble(outcomes[name], name):
                outcomes[name]["seconds"].append(timed(ready[name], pause, turn)[0])
    for outcome in outcomes.values():
        if outcome["seconds"]:
            outcome["median"] = statistics.median(outcome["seconds"])
    named = {"case": contest.case, "name": contest.name, "size": contest.size}
    return {**named, "contenders": outcomes, "agreement": agreement, **best_peer(outcomes)}


def timed(contender: Ready, pause: float, turn: float) -> tuple[float, Any]:
    """Seconds that the task takes, the mean of as many runs as fit in a turn, and the result."""
    time.sleep(pause)
    start, runs, elapsed, result = time.perf_counter(), 0, 0.0, None
    while not runs or elapsed < turn:
        result = contender.run()
        runs, elapsed = runs + 1, time.perf_counter() - start
    return elapsed / runs / contender.times, result


def compare(contest: Contest, results: dict[str, Any]) -> dict[str, Any] | None:
    """Our result beside the peer's that agrees least; None where one side is missing."""
    if OURS not in results or len(results) == 1:
        return None
    agreement, worst, _ = LIMITS[contest.agreement]
    values = {name: agreement(results[OURS], result) for name, result in results.items() if name != OURS}
    name = worst(values, key=values.__getitem__)
    return {"kind": contest.agreement, "value": values[name], "with": name}


def best_peer(outcomes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The fastest peer and its median over ours."""
    peers = {name: o["median"] for name, o in outcomes.items() if name != OURS and o["seconds"]}
    if not peers or not outcomes[OURS]["seconds"]:
        return {"best_peer": None, "ratio": None}
    best = min(peers, key=peers.__getitem__)
    return {"best_peer": best, "ratio": peers[best] / outcomes[OURS]["median"]}


@contextmanager
def trouble(outcome: dict[str, Any], name: str) -> Iterator[None]:
    """What goes wrong with one contender is noted, and the others go on."""
    try:
        yield
    except ModuleNotFoundError as error:
        outcome |= {"note": f"{error.name} is not installed", "failed": name == OURS}
    except NotPossible as error:
        outcome |= {"note": str(error), "failed": name == OURS}
    except Exception as error:  # hours of measurements do not end with one error; the exit status tells
        outcome |= {"note": f"{type(error).__name__}: {error}", "failed": True}


def require_memory(needed: int) -> None:
    """Stop a contender before the kernel stops the program.

    Raises:
        NotPossible: if it needs more than seven tenths of the free memory.
    """
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    available = 1024 * int(lines["MemAvailable"].split()[0])
    if needed > 0.7 * available:
        raise NotPossible(
            f"needs {needed / 1e9:.1f} GB of the {available / 1e9:.1f} GB free; 30% of those are kept back"
        )


def peak_memory(warm_up: Contest, measured: Contest, contender: str) -> int:
    """Peak resident bytes of this process while a contender runs, less those before: its result counts, inputs not.

    It runs at a small size first, so that what a library loads and starts once does not count.
    """
    warm_up.contenders[contender](*warm_up.inputs()).run()
    ready = measured.contenders[contender](*measured.inputs())
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what compiling left behind would be used again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    result = ready.run()
    peak = resident("VmHWM")
    del result
    return max(0, peak - before)


def resident(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))
