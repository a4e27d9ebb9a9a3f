"""Coverage of the intervals of `simjax.evaluate` on simulated identities, and how often noise is called a difference.

    python -m benchmarks.coverage        about 20 minutes on one core

Every repetition draws new identities, computes all intervals, and compares them with the true value. Finished parts are
saved, so that an interrupted command resumes; they are kept as long as the code that they measure is the same. Writes
coverage.md and coverage.json.
"""

import argparse
import hashlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/coverage.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import _report
from benchmarks._simulation import (
    CLASSES,
    IMAGES,
    IMAGES_OF_CLASS,
    MODELS,
    NUMBERS,
    Interval,
    Model,
    Result,
    compare_one_recipe,
    evaluate_classes,
    evaluate_identities,
    population,
    realized_fpir,
    unequal_numbers,
)

IDENTITIES = {"usual": (20, 50, 200), "few hard identities": (20, 50)}
COMPARED_IDENTITIES = (20, 50)
RUNS = (2, 3, 5)
SPREADS = {"runs alike": 0.04, "runs that differ": 0.25}  # of the noise of the runs of a recipe
CALIBRATIONS = ((20, 10, 0.01), (50, 10, 0.01), (100, 15, 0.01), (200, 5, 0.001))  # identities, images, wanted FPIR
UNEQUAL = tuple((n, rate) for rate in (0.5, 0.1, 0.02) for n in (5, 10, 20, 50))  # identities and mean rate
WITHIN = (1.0, 0.3, 0.05)  # share of the variance of scores within an identity


def main() -> int:
    """Simulate the missing parts, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repetitions", type=int, default=1000, help="simulated data sets (default 1000)")
    parser.add_argument("--claims", type=int, default=300, help="simulated comparisons of one recipe (default 300)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", metavar="DIR")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "coverage.json"
    numbers = {"repetitions": options.repetitions, "claims": options.claims, "runs": RUNS, "spreads": SPREADS}
    cases = {"identities": IDENTITIES, "calibrations": CALIBRATIONS, "unequal": UNEQUAL, "within": WITHIN}
    asked = json.loads(json.dumps({**numbers, **cases, "code": hash_of_code()}))
    parts: dict[str, Any] = {}
    if path.exists() and (before := json.loads(path.read_text()))["asked"] == asked:
        parts = before["parts"]

    def finish(name: str, simulate: Callable[..., Any], *arguments: Any) -> Any:
        if name not in parts:
            start = time.perf_counter()
            parts[name] = simulate(*arguments)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
            report = {**_report.environment(), "asked": asked, "parts": parts}
            path.write_text(json.dumps(report, indent=1) + "\n")
        return parts[name]

    finish("fixed classes", coverage, evaluate_classes, options.repetitions)
    finish("chosen thresholds", chosen_thresholds, options.repetitions)
    finish("unequal numbers", unequal, options.repetitions)
    for kind, spread in SPREADS.items():
        for n in COMPARED_IDENTITIES:
            finish(f"{kind}, {n} identities", claims, n, spread, options.claims)
    for name, model in MODELS.items():
        truth = finish(f"{name}: true rates", population, model)
        for n in IDENTITIES[name]:
            finish(f"{name}: {n} identities", coverage_of_identities, model, n, truth, options.repetitions)
    (options.out / "coverage.md").write_text(markdown(json.loads(path.read_text())))
    return 0


def hash_of_code() -> str:
    """Return the SHA-256 of the files that compute and simulate intervals."""
    root = Path(__file__).parents[1]
    files = [*sorted((root / "simjax" / "evaluate").glob("*.py")), Path(__file__).with_name("_simulation.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def coverage_of_identities(model: Model, n: int, truth: list[dict[str, Any]], repetitions: int) -> dict[str, Any]:
    """Repeat an evaluation of n identities; `truth` has the true rates of both encoders."""
    true = dict(truth[0]) | {f"difference of {name}": rate - truth[1][name] for name, rate in truth[0].items()}
    return coverage(lambda random: evaluate_identities(random, model, n, truth), repetitions, true)


def coverage(
    evaluate: Callable[[np.random.Generator], dict[str, Result]], repetitions: int, true: dict[str, float] | None = None
) -> dict[str, Any]:
    """Repeat an evaluation and count the intervals that contain the true value.

    The true value of a rate that is not in `true`, as it depends on the number of identities, is its mean over the
    repetitions.
    """
    random = np.random.default_rng(1)
    found: dict[str, list[Result]] = defaultdict(list)
    for repetition in range(1, repetitions + 1):
        for name, result in evaluate(random).items():
            found[name].append(result)
        if repetition % 100 == 0:
            print(f"{repetition} of {repetitions} repetitions", flush=True)
    records = {}
    for name, results in found.items():
        values = np.array([result.value for result in results])
        of_all = (true or {}).get(name, float(values.mean()))
        value = np.array([of_all if result.true is None else result.true for result in results])
        low, high = np.quantile(values - value, [0.025, 0.975])
        records[name] = {
            "true": float(value.mean()),
            "mean": float(values.mean()),
            "range": float(high - low),
            **summary([result.interval for result in results], value),
            "others": {o: summary([result.others[o] for result in results], value) for o in results[0].others},
        }
    return records


def summary(intervals: list[Interval], true: np.ndarray) -> dict[str, float]:
    """Return the share of intervals that contain the true values, and their median width; None contains nothing."""
    ends = np.array([(np.nan, np.nan) if interval is None else interval for interval in intervals])
    inside = (ends[:, 0] <= true) & (true <= ends[:, 1])
    return {"coverage": float(inside.mean()), "width": float(np.nanmedian(ends[:, 1] - ends[:, 0]))}


def chosen_thresholds(repetitions: int) -> list[list[float]]:
    """Return the mean FPIR of thresholds that are chosen for a wanted one, for each of CALIBRATIONS and WITHIN."""
    random = np.random.default_rng(3)
    return [
        [realized_fpir(random, identities, images, within, wanted, repetitions) for within in WITHIN]
        for identities, images, wanted in CALIBRATIONS
    ]


def unequal(repetitions: int) -> list[list[float]]:
    """Return the coverage of a mean over images for each of UNEQUAL and NUMBERS."""
    random = np.random.default_rng(4)
    return [[unequal_numbers(random, n, kind, rate, repetitions) for kind in NUMBERS] for n, rate in UNEQUAL]


def claims(n: int, spread: float, comparisons: int) -> dict[str, dict[str, float]]:
    """Return the share of comparisons of one recipe with itself in which a difference is shown."""
    random = np.random.default_rng(2)
    found = [compare_one_recipe(random, MODELS["usual"], n, RUNS, spread) for _ in range(comparisons)]
    return {
        name: {method: float(np.mean([shown[name][method] for shown in found])) for method in methods}
        for name, methods in found[0].items()
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the page."""
    parts, asked = report["parts"], report["asked"]
    head = ["rate", "identities", "true value", "coverage", "width / range", "coverage, trials independent"]
    sections = [
        "# Coverage of intervals",
        f"`python -m benchmarks.coverage`, {report['date']}, {asked['repetitions']:,} repetitions.",
        PAGE.format(error=(0.95 * 0.05 / asked["repetitions"]) ** 0.5),
    ]
    other_rows = []
    for model, text in (("usual", USUAL), ("few hard identities", HARD)):
        records = {n: parts[f"{model}: {n} identities"] for n in IDENTITIES[model]}
        rows = [
            [name, str(n), *cells(records[n][name])]
            for name in records[IDENTITIES[model][0]]
            for n in IDENTITIES[model]
        ]
        sections += [f"## {model.capitalize()}", text, _report.table(head, rows)]
        other_rows += [
            [model, name, str(n), *row]
            for name in records[IDENTITIES[model][0]]
            for n in IDENTITIES[model]
            for row in other_cells(records[n][name])
        ]
    fixed = parts["fixed classes"]
    other_rows += [["fixed classes", "MAP@R", "", *row] for row in other_cells(fixed["MAP@R"])]
    by_kind = [parts[f"{kind}, {n} identities"] for kind in SPREADS for n in COMPARED_IDENTITIES]
    shown = [
        [name, method, *(f"{found[name][method]:.3f}" for found in by_kind)]
        for name, methods in by_kind[0].items()
        for method in methods
    ]
    thresholds = [
        [str(identities), str(images), f"{wanted:g}", *(f"{rate:.4f}" for rate in rates)]
        for (identities, images, wanted), rates in zip(CALIBRATIONS, parts["chosen thresholds"], strict=True)
    ]
    sections += [
        "## Fixed classes",
        FIXED,
        _report.table([head[0], *head[2:]], [[name, *cells(record)] for name, record in fixed.items()]),
        "## Other methods",
        OTHERS,
        _report.table(["model", "rate", "identities", "method", "coverage", "width / range"], other_rows),
        "## One recipe compared with itself",
        ONE_RECIPE.format(claims=asked["claims"]),
        _report.table(
            ["rate", "interval over", *(f"{kind}, {n} identities" for kind in SPREADS for n in COMPARED_IDENTITIES)],
            shown,
        ),
        "## Few identities, and numbers of images",
        UNEQUAL_TEXT,
        _report.table(
            ["rate", "identities", *NUMBERS],
            [
                [f"{rate:g}", str(n), *(f"{found:.3f}" for found in row)]
                for (n, rate), row in zip(UNEQUAL, parts["unequal numbers"], strict=True)
            ],
        ),
        "## Thresholds chosen for a wanted FPIR",
        THRESHOLDS,
        _report.table(
            ["identities", "images of each", "wanted", *(f"{100 * within:g}% within" for within in WITHIN)], thresholds
        ),
    ]
    return "\n\n".join(part.strip() for part in sections) + "\n"


def other_cells(record: dict[str, Any]) -> list[list[str]]:
    """Return name, coverage and relative width of the other intervals of a record that know of identities, as text."""
    others = {name: found for name, found in record["others"].items() if name != "naive"}
    return [[name, f"{o['coverage']:.3f}", f"{o['width'] / record['range']:.2f}"] for name, o in others.items()]


def cells(record: dict[str, Any]) -> list[str]:
    """Return the true value, coverage, relative width and naive coverage of a record, as text."""
    ratio = record["width"] / record["range"] if record["range"] else float("nan")
    naive = record["others"]["naive"]["coverage"]
    return [f"{record['true']:.4g}", f"{record['coverage']:.3f}", f"{ratio:.2f}", f"{naive:.3f}"]


PAGE = f"""\
Every identity has a random mean vector and a random difficulty, which scales the noise of its {IMAGES} images.
A repetition draws new identities, evaluates an encoder on all pairs of their images or on all searches, and computes
95% intervals. *Coverage* is the share of repetitions whose interval contains the true value; its own standard error is
{{error:.3f}} near 0.95. *Width / range* is the median width of the intervals, divided by the width of the range of
the central 95% of the estimates: 1 for an ideal interval. *Trials independent* is the coverage of intervals that take
all pairs or all searches as independent: Wilson's (the EER as a rate of the pairs of one identity), Hanley and McNeil's
for the AUC, the normal one for means and differences.

FMR and FNMR are those of thresholds fixed in advance, at which the true FMR is 0.01 or 0.001; FNIR and FPIR use the
same thresholds. The gallery has the first image of each identity, the other images are mated probes, and as many other
identities are unknown. The true value of a rate that depends on the number of identities (FNIR, rank-1, MAP@R) is
its mean over the repetitions; the FPIR is that of each gallery. A difference is one of two encoders on the same images.
"""

USUAL = f"""\
The noise of 95% of the identities is within a factor of {np.exp(1.96 * MODELS["usual"].difficulty):.1f} of the median.
"""

HARD = """\
Images have less noise, but 2.5% of the identities have more than twice the median. A few identities cause most errors,
and a sample without any of them does not tell that they exist."""

OTHERS = """\
Adjusted Wilson: Wilson's formula with the number of independent trials that has the variance of the correlated ones
(Fogliato, Patil, Perona 2024). Bootstrap: percentiles of 500 resamples of the identities. Queries only: the jackknife
of the queries' average precisions, without leaving out gallery rows."""

FIXED = f"""\
{CLASSES} classes with {IMAGES_OF_CLASS} images each; only the images are random. The intervals are
the jackknife over single images, with 10,000 sampled pairs for verification."""

ONE_RECIPE = f"""\
The noise of a run is random, and so is a part of its embeddings. Runs of one recipe are compared {{claims}} times on
the same identities; the table has the share of comparisons in which a difference is shown. Every one is a false claim
about recipes: 5% are expected of 95% intervals. Two single runs do differ as encoders, which an interval over
identities shows correctly and which says nothing about the recipe. The interval over seeds is that of the paired
t-test. The noise of the runs has a standard deviation of {100 * SPREADS["runs alike"]:g}% (runs alike) or
{100 * SPREADS["runs that differ"]:g}% (runs that differ)."""

UNEQUAL_TEXT = """\
Coverage of the interval of a mean over images, such as an accuracy or an FNMR. Each identity has a rate of its own, and
30% of the variance of an image is between identities: most errors of a rate of 0.02 are of a few identities. Where
these are rare, or one identity has most of the images, intervals can be too short: such a sample does not tell how much
identities differ, and more images of each identity do not help."""

THRESHOLDS = f"""\
A calibration chooses the most lenient threshold at which at most the wanted share of its images finds a match
(`Calibration.search_threshold`). The table has the FPIR of that threshold for new unknown identities, on average over
calibrations. The columns are the share of the variance of the scores within an identity: {100 * WITHIN[0]:g}% if the
images of an identity are as different as those of two. The more alike the images of an identity are, the more often
images of others pass: the number of identities counts, not that of images."""


if __name__ == "__main__":
    sys.exit(main())
