"""What was measured, as Markdown and as a plot: functions of the record that is also written as JSON."""

import importlib.metadata
import itertools
import json
import platform
import time
from pathlib import Path
from typing import Any

from benchmarks._timing import CORES, OURS, SLOW, TURN

PACKAGES = (
    "simjax",
    "jax",
    "jaxlib",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "faiss-cpu",
    "pytorch-metric-learning",
)
LIBRARIES = (OURS, "SciPy", "FAISS", "scikit-learn", "PyTorch", "pytorch-metric-learning", "JAX")  # order of columns
COLOURS = {
    "pairwise": "#4477aa",
    "search": "#ee6677",
    "attention": "#228833",
    "logsumexp": "#ccbb44",
    "retrieval": "#66ccee",
    "step": "#aa3377",
    "batch": "#4477aa",
    "large": "#ee6677",
}

TURNS = f"""\
They take turns in one process: a warm-up turn, then the ones that count. A turn repeats the task until {TURN:g} s have
passed and gives the mean; who needs more than {SLOW:.0f} s in the warm-up gets no further turn, its cell says *once*.
Cells are the median of the turns (smallest to largest). Inputs are made before the clock starts, the result is there
when it stops. `ratio` is the median of the best peer over that of simjax: above 1, simjax is faster."""

MEMORY = """\
Memory is what a contender adds to the resident memory of a process of its own at the peak of one run, its result
included, its inputs not, after a run at a small size; the peak is the kernel's count (VmHWM), not a sample. *XLA* is
what the compiled program sets aside for intermediates, without inputs and result."""

PAGES = {
    "benchmarks": f"""\
All contenders run on the CPU and on all of these cores (SciPy has one thread; scikit-learn runs it in several jobs).
{TURNS}
SciPy computes in float64 and gives float64, twice the bytes; simjax, PyTorch, FAISS and JAX compute in float32;
scikit-learn does either, by function. simjax and JAX are compiled before the warm-up; what that takes is in the tables
of memory.

{MEMORY}

Results are compared after the warm-up, with the peer in brackets, which agrees least: the largest difference relative
to the largest value of the array, or the share of equal places in the lists of neighbours.
""",
    "train_step": f"""\
One training step: uint8 images to float, forward, loss, backward, update of the parameters, in float32. simjax runs
the compiled steps of `train.py`, as many in one call as training takes, without augmentation and on the same images;
PyTorch runs the same network, layer by layer, with the same first parameters, loss and optimiser: as one writes it
first; with images channels last and the fused AdamW; and that compiled by `torch.compile`. All contenders run on all
of these cores.
{TURNS}
simjax is compiled before the warm-up; what that takes is in the table of memory.

{MEMORY}

Compared are the losses of the first three steps, with the form of PyTorch that agrees least: the largest difference
relative to the largest loss. Adam turns gradients that are next to 0 into whole steps, so rounding shows in them.
""",
    "loss_speed": f"""\
Value and gradient by the embeddings, in float32; labels are arguments of the programs. pytorch-metric-learning runs
eagerly, its loss with the defaults and, where one is named, its miner with the defaults; simjax runs the same loss and
the same miner, compiled. All contenders run on all of these cores.
{TURNS}
simjax is compiled before the warm-up; what that takes is in the tables of memory. The case *large* has batches for
which an array of all pairs would be 4.3 GB (32,768 rows), or which have 16.6 billion triplets (8,192 rows): simjax
alone.

{MEMORY}

Compared are value and gradient after the warm-up: the largest difference relative to the largest value of the array.
""",
}
"""What each page says of how it was measured."""


def environment() -> dict[str, Any]:
    """Date, machine and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{cpu}, {CORES} cores, {platform.system()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def version(package: str) -> str:
    """Of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write(report: dict[str, Any], page: str, folder: Path) -> None:
    """Markdown and JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{page}.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / f"{page}.md").write_text(markdown(report, page))


def failures(report: dict[str, Any]) -> list[str]:
    """What went wrong, a line each."""
    return [
        f"{contest['case']}/{contest['name']}, {name}: {outcome['note']}"
        for contest in report["contests"]
        for name, outcome in contest["contenders"].items()
        if outcome["failed"]
    ]


def one_line(contest: dict[str, Any]) -> str:
    """A contest, for who waits."""
    times = ", ".join(f"{name} {seconds(outcome)}" for name, outcome in contest["contenders"].items())
    return times + (f"; ratio {contest['ratio']:.2f}" if contest["ratio"] else "")


def seconds(outcome: dict[str, Any]) -> str:
    """Median (smallest to largest)."""
    taken = outcome["seconds"]
    if not taken:
        return "–"
    if len(taken) == 1:
        return f"{taken[0]:.3g} *once*"
    return f"{outcome['median']:.3g} ({min(taken):.3g}–{max(taken):.3g})"


def megabytes(count: int | None) -> str:
    """In 10^6 bytes."""
    if count is None:
        return "–"
    return f"{count / 1e6:,.0f}" if count >= 1e7 else f"{count / 1e6:.1f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; all columns but the first are set to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def markdown(report: dict[str, Any], page: str) -> str:
    """The whole page."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    parts = [
        f"# {page.replace('_', ' ').capitalize()}",
        f"`{report['command']}`, {report['date']}, on {report['machine']}; {versions}.",
        "**Small sizes, to try the program: the times mean nothing.**" if report["small"] else "",
        PAGES[page],
        f"![How many times faster than the best peer]({page}.png)",
    ]
    for case, contests in itertools.groupby(report["contests"], key=lambda contest: contest["case"]):
        parts += section(case, list(contests))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def section(case: str, contests: list[dict[str, Any]]) -> list[str]:
    """Tables of times and of memory of one case, and what there is to say about single cells."""
    present = {name for contest in contests for name in contest["contenders"]}
    names = sorted(present, key=lambda name: (LIBRARIES.index(name.split(",")[0]), name))
    none = {"seconds": []}
    times, memory, notes = [], [], []
    for contest in contests:
        outcomes = contest["contenders"]
        best = [contest["best_peer"] or "–", f"{contest['ratio']:.2f}" if contest["ratio"] else "–"]
        taken = [seconds(outcomes.get(name, none)) for name in names]
        times.append([contest["name"], contest["size"], *taken, *best, agreement(contest)])
        ours = outcomes[OURS]
        peaks = [megabytes(outcomes.get(name, none).get("peak_bytes")) for name in names]
        compiling = "–" if ours.get("compile_seconds") is None else f"{ours['compile_seconds']:.2f}"
        memory.append([contest["name"], *peaks, megabytes(ours.get("temporary_bytes")), compiling])
        notes += [f"- {contest['name']}, {name}: {o['note']}." for name, o in outcomes.items() if o["note"]]
    kind = next((contest["agreement"]["kind"] for contest in contests if contest["agreement"]), "agreement")
    return [
        f"## {case}: seconds",
        table(["", "size", *names, "best peer", "ratio", kind], times),
        f"## {case}: memory in MB, and compiling in s",
        table(["", *names, f"{OURS}: XLA", f"{OURS}: compiling"], memory),
        "\n".join(notes),
    ]


def agreement(contest: dict[str, Any]) -> str:
    """The number, and the peer that agrees least."""
    found = contest["agreement"]
    if found is None:
        return "–"
    value = f"{found['value']:.1e}" if found["kind"] == "largest difference" else f"{100 * found['value']:.2f}%"
    return f"{value} ({found['with']})"


def plot(report: dict[str, Any], path: Path) -> None:
    """Bars of the ratios on a logarithmic axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    contests = [contest for contest in report["contests"] if contest["ratio"]]
    figure = Figure(figsize=(8, 1.4 + 0.27 * len(contests)), layout="constrained")
    axes = figure.subplots()
    places = range(len(contests))
    ratios = [contest["ratio"] for contest in contests]
    # A bar starts at 1, where both are equally fast, and goes the way of the faster one.
    axes.barh(places, [r - 1 for r in ratios], left=1, color=[COLOURS[c["case"]] for c in contests])
    for place, contest, ratio in zip(places, contests, ratios, strict=True):
        text = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"
        label = f"{text} ({contest['best_peer']})"
        axes.annotate(label, (max(ratio, 1), place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [f"{c['case']}: {c['name'].replace('_', ' ')}" for c in contests])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min([1, *ratios]) / 1.5, max([1, *ratios]) * 4)  # room for the labels
    axes.margins(y=0.01)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axvline(1, color="black", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(f"times as fast as the best peer (in brackets)\n{report['machine']}, {report['date']}", fontsize=8)
    figure.savefig(path, dpi=120)
