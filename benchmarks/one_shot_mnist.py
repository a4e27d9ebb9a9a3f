"""One-shot identification of MNIST's digits with unknown ones: `python -m benchmarks.one_shot_mnist`.

A CNN is trained on the digits 0 to 7. One test image of each is enrolled, and the other test images of 0 to 7 are
identified. One of the digits 8 and 9, neither of which the network has seen, sets the threshold by its training images;
the test images of the other one are unknown. Then 8 and 9 change places. Intervals are over images, because the digits
are fixed. Writes one_shot_mnist.md and one_shot_mnist.json. Needs MNIST.
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/one_shot_mnist.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks.one_shot import cell

OBJECTIVES: dict[str, dict[str, Any]] = {
    "triplet": {"objective": "triplet"},
    "supervised_contrastive": {"objective": "supervised_contrastive"},
}
WANTED_FPIR = 0.01
ENROLLED = range(8)
RATES = ("rank_1_rate", "fnir_at_rank_1", "fpir")


def main() -> int:
    """Train what is missing, identify, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_shot_mnist", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--runs", type=Path, default=Path("runs/one_shot_mnist"), help="folder of the trainings")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", metavar="DIR")
    options = parser.parse_args()
    from simjax import load_encoder
    from simjax.train import from_dict, train

    records = []
    for name in options.objectives:
        run = options.runs / name
        if not (run / "report.json").is_file():
            data = {"model": "cnn", "dataset": "mnist[0-7]", "epochs": options.epochs}
            train(from_dict(data | OBJECTIVES[name]), run)
        encoder = load_encoder(run)
        for calibrating, unknown in ((8, 9), (9, 8)):
            record = {"objective": name, "threshold from": calibrating, "unknown": unknown}
            records.append(record | identify(encoder, calibrating, unknown))
            print(records[-1], flush=True)
    report = {"epochs": options.epochs, "runs": records}
    (options.out / "one_shot_mnist.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "one_shot_mnist.md").write_text(page(report))
    return 0


def identify(encoder: Any, calibrating: int, unknown: int) -> dict[str, Any]:
    """Return the rates of the test images, and their 95% intervals over images."""
    from simjax.data import load
    from simjax.evaluate import Calibration, mean_estimate, open_set_metrics

    train, test = load("mnist", "train"), load("mnist", "test")
    enrolled = np.array([np.flatnonzero(test.labels == digit)[0] for digit in ENROLLED])
    is_probe = test.labels < len(ENROLLED)
    is_probe[enrolled] = False
    gallery = encoder.encode(test.images[enrolled])
    # P(same) is not used here; it needs two identities, so that two halves of one digit stand for them.
    embeddings = encoder.encode(train.images[train.labels == calibrating])
    calibration = Calibration.fit(embeddings, np.arange(len(embeddings)) % 2, measure=encoder.measure)
    threshold = calibration.search_threshold(WANTED_FPIR, gallery)
    unknown_embeddings = encoder.encode(test.images[test.labels == unknown])
    metrics = open_set_metrics(
        encoder.encode(test.images[is_probe]),
        test.labels[is_probe],
        unknown_embeddings,
        gallery,
        test.labels[enrolled],
        measure=encoder.measure,
        threshold=threshold.value,
    )
    found: dict[str, Any] = {"threshold": threshold.value, "threshold images": len(embeddings)}
    for name in RATES:
        trials = metrics["unknown_probes" if name == "fpir" else "probes"]
        events = np.arange(trials) < round(metrics[name] * trials)  # an interval over images depends on counts only
        interval = mean_estimate(events, np.arange(trials)).interval()
        found |= {name: metrics[name], f"{name}_interval": interval}
    return found


def page(report: dict[str, Any]) -> str:
    """Return the table of a report in Markdown."""
    rows = [
        f"| {r['objective']} | {r['threshold from']} | {r['unknown']} | {' | '.join(cell(r, name) for name in RATES)} |"
        for r in report["runs"]
    ]
    text = (
        f"`python -m benchmarks.one_shot_mnist`: a CNN is trained {report['epochs']:g} epochs on the digits 0 to 7. "
        "One test image of each is enrolled. The threshold for a false positive identification rate (FPIR) of "
        f"{WANTED_FPIR:g} in this gallery of N = 8 identities comes from training images of a digit that is not "
        "enrolled and that the network has never seen; test images of another such digit are unknown. FNIR: share of "
        "the other test images of 0 to 7 whose digit is not first, or not as close as the threshold. In brackets: 95% "
        "intervals over images. Two unknown digits are not alike, so the threshold of one gives a different FPIR for "
        "the other: a threshold needs many unknown identities."
    )
    if any(r[name] in (0, 1) for r in report["runs"] for name in RATES):
        text += " (No error at all: the rule of 3.)"
    lines = [
        "# One-shot identification of MNIST's digits",
        "",
        textwrap.fill(text, 120),
        "",
        "| objective | threshold from | unknown | rank-1 | FNIR | FPIR |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
