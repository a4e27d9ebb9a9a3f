"""Losses compared fairly: one network, one budget, one optimiser for all, several seeds.

    python -m benchmarks.metric_learning        MNIST, with a constant rate and a falling one; MNIST and CIFAR-10 with
                                                classes never seen
    python -m benchmarks.metric_learning --cases mnist --losses multi_similarity triplet

Embeddings of the test images are searched among themselves. Every run is written when it ends, so that a command that
was broken off goes on where it was. Writes metric_learning.json and metric_learning.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/metric_learning.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import _report

ADAM = {"learning_rate": 1e-3, "weight_decay": 0.0, "warmup": 0.0, "schedule": "constant", "clip_norm": 0.0}
COMMON = {"batch_size": 128, "optimizer": ADAM, "augment": {"enabled": False}}
CLASSIC = {"model": "cnn", "cnn": {"variant": "classic"}, "embedding_size": 64, "epochs": 3.0}
CASES: dict[str, tuple[dict[str, Any], dict[str, list[int]]]] = {
    "mnist": (CLASSIC | {"dataset": "mnist"}, {"all": list(range(10))}),
    "mnist_falling_rate": (
        CLASSIC | {"dataset": "mnist", "optimizer": ADAM | {"schedule": "cosine"}},
        {"all": list(range(10))},
    ),
    "mnist_unseen": (
        CLASSIC | {"dataset": "mnist[0-7]", "test_dataset": "mnist"},
        {"8 and 9": [8, 9], "all ten": list(range(10))},
    ),
    "cifar10_unseen": (
        {"model": "cnn", "embedding_size": 64, "epochs": 5.0, "dataset": "cifar10[0-7]", "test_dataset": "cifar10"},
        {"ship and truck": [8, 9], "all ten": list(range(10))},
    ),
}
"""Of each the settings, and the classes whose test images are searched among themselves."""

SHUFFLED = {"batches": "shuffled"}
LOSSES: dict[str, dict[str, Any]] = {
    "softmax": {"objective": "softmax"},
    "contrastive": {"objective": "contrastive", "loss": SHUFFLED},
    "triplet, semi-hard": {"objective": "triplet", "loss": SHUFFLED, "mining": {"miner": "semi_hard"}},
    "nt_xent": {"objective": "nt_xent", "loss": SHUFFLED},
    "supervised_contrastive": {"objective": "supervised_contrastive", "loss": SHUFFLED},
    "multi_similarity": {"objective": "multi_similarity", "loss": SHUFFLED},
    "circle": {"objective": "circle", "loss": SHUFFLED},
    "nca": {"objective": "nca", "loss": SHUFFLED},
    "fast_ap": {"objective": "fast_ap", "loss": SHUFFLED},
    "smooth_ap": {"objective": "smooth_ap", "loss": SHUFFLED},
    "margin, distance-weighted": {"objective": "margin", "loss": SHUFFLED, "mining": {"miner": "distance_weighted"}},
    "proxy_anchor": {"objective": "proxy_anchor"},
    "cosface": {"objective": "cosface"},
    "cosface, scale 10": {"objective": "cosface", "loss": {"scale": 10.0}},
    "arcface": {"objective": "arcface"},
}


def main() -> int:
    """Train what is missing, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metric_learning", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs of each (default 3)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", metavar="DIR")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "metric_learning.json"
    records = json.loads(path.read_text())["runs"] if path.exists() else []
    for case in options.cases:
        for loss in options.losses:
            for seed in range(options.seeds):
                key = {"case": case, "loss": loss, "seed": seed, "settings": LOSSES[loss]}
                if any(key.items() <= record.items() for record in records):
                    continue
                records = [r for r in records if (r["case"], r["loss"], r["seed"]) != (case, loss, seed)]
                records.append(key | run(case, loss, seed))
                print(one_line(records[-1]), flush=True)
                report = {**_report.environment(), "runs": records}
                path.write_text(json.dumps(report, indent=1) + "\n")
                (options.out / "metric_learning.md").write_text(markdown(report))
    return 0


def run(case: str, loss: str, seed: int) -> dict[str, Any]:
    """Train once and search: retrieval by groups of classes."""
    from simjax.evaluate import retrieval_metrics
    from simjax.train import from_dict, train

    settings, groups = CASES[case]
    values = {**COMMON, **settings, **LOSSES[loss], "seed": seed}
    values["data"] = {"validation_fraction": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        train(from_dict(values), Path(folder) / "run")
        found = np.load(Path(folder) / "run" / "predictions.npz")
        embeddings, labels = found["embedding"], found["label"]
    retrieval = {}
    for name, classes in groups.items():
        rows = np.isin(labels, classes)
        metrics = retrieval_metrics(embeddings[rows], labels[rows])
        retrieval[name] = {k: metrics[k] for k in ("precision_at_1", "mean_average_precision_at_r")}
    return {"retrieval": retrieval}


def one_line(record: dict[str, Any]) -> str:
    """A run, for who waits."""
    parts = [
        f"{name}: P@1 {r['precision_at_1']:.4f}, MAP@R {r['mean_average_precision_at_r']:.4f}"
        for name, r in record["retrieval"].items()
    ]
    return f"{record['case']}, {record['loss']}, seed {record['seed']}: {'; '.join(parts)}"


def markdown(report: dict[str, Any]) -> str:
    """The page: a table for each case, losses by their mean MAP@R."""
    parts = [
        "# Losses compared",
        f"`python -m benchmarks.metric_learning`, {report['date']}, on {report['machine']}.",
        PAGE,
    ]
    for case, (settings, groups) in CASES.items():
        runs = [r for r in report["runs"] if r["case"] == case]
        if not runs:
            continue
        head = ["loss", *(f"{name}: {metric}" for name in groups for metric in METRICS), "runs"]
        rows = {}
        for loss in dict.fromkeys(r["loss"] for r in runs):
            of_loss = [r for r in runs if r["loss"] == loss]
            cells = [
                interval([r["retrieval"][name][key] for r in of_loss]) for name in groups for key in METRICS.values()
            ]
            last = list(groups)[0]
            order = np.mean([r["retrieval"][last]["mean_average_precision_at_r"] for r in of_loss])
            rows[loss] = (order, [loss, *cells, str(len(of_loss))])
        best_first = [row for _, row in sorted(rows.values(), key=lambda pair: -pair[0])]
        rate = f"a {settings.get('optimizer', ADAM)['schedule']} rate"
        trained_on = f"Trained on `{settings['dataset']}`, {settings['epochs']:g} epochs, {rate}."
        parts += [f"## {case.replace('_', ' ')}", trained_on, _report.table(head, best_first)]
    compared = {r["loss"] for r in report["runs"]}
    settings = [[name, f"`{json.dumps(v)}`"] for name, v in LOSSES.items() if name in compared]
    parts += ["## Settings", _report.table(["loss", "settings"], settings)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def interval(values: list[float]) -> str:
    """The mean and, of several runs, half of its 95% confidence interval (Student's t)."""
    from scipy.stats import t

    n = len(values)
    mean = f"{np.mean(values):.4f}"
    return mean if n < 2 else f"{mean} ± {t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5:.4f}"


METRICS = {"precision@1": "precision_at_1", "MAP@R": "mean_average_precision_at_r"}
PAGE = """\
One network, one budget, one optimiser for all: batches of 128 images, Adam with rate 1e-3, no augmentation, no choice
made on test images, several seeds. The rate is constant, but in one case it falls to 0 along half a cosine. On MNIST
the classic network with a 64-d embedding, three epochs; on CIFAR-10 the default CNN. All losses see batches in random
order, which have positives since classes are few. Settings are those of `train.py` without flags, but for the ones
named below, which were found on training images kept aside. The test images of the classes named are searched among
themselves by cosine similarity: precision at 1 and mean average precision at R, the mean of the runs ± half of its 95%
confidence interval."""


if __name__ == "__main__":
    sys.exit(main())
