"""CNN and vision transformer under one recipe: one-shot classification of characters that they have never seen.

    python -m benchmarks.one_shot_models FOLDER        FOLDER as in benchmarks/one_shot.py

Both models train on 600 characters in 10 fonts with the same objective, optimizer, augmentation and number of epochs.
Then a probe, an image of one of 100 new characters in a new font, is classified by one labelled image of each of 20
characters in another new font. Instead of drawing tasks at random, the accuracy over all tasks is computed: if b of m
other characters are as close to the probe as its own, it is right in C(m - b, 19) / C(m, 19) of its tasks. Finished
trainings are kept in --runs. Writes one_shot_models.md and one_shot_models.json.

References:
    Lake, Salakhutdinov, Tenenbaum (2015), Human-level concept learning through probabilistic program induction.
"""

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/one_shot_models.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import _report

WAYS = 20
MODELS = {"cnn": "CNN", "vit": "vision transformer"}
RECIPE: dict[str, Any] = {
    "embedding_size": 128,
    "objective": "supervised_contrastive",
    "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.05},
}


def main() -> int:
    """Train what is missing, classify, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_shot_models", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="folder with train/, gallery/ and probes/")
    parser.add_argument("--runs", type=Path, default=Path("runs/one_shot_models"), help="folder of the trainings")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", metavar="DIR")
    options = parser.parse_args()
    from simjax import load_encoder
    from simjax.evaluate import compare

    estimates, records = {}, []
    for model, name in MODELS.items():
        estimates[model] = []
        for seed in range(options.seeds):
            run = options.runs / f"{model}-{seed}"
            report = train_once(run, options.folder, RECIPE | {"model": model, "seed": seed, "epochs": options.epochs})
            found = one_shot_accuracy(load_encoder(run), options.folder)
            estimates[model].append(found)
            records.append(
                {
                    "model": name,
                    "seed": seed,
                    "accuracy": found.value,
                    "accuracy_interval": found.interval(),
                    "parameters": report["parameters"],
                    "train_seconds": report["train_seconds"],
                }
            )
            print(records[-1], flush=True)
    found = compare(estimates["cnn"], estimates["vit"])
    difference = {"difference": found.difference, "interval": found.interval, "shown": found.is_shown}
    result = {"epochs": options.epochs, "recipe": RECIPE, "runs": records, "cnn_minus_vit": difference}
    result["environment"] = _report.environment()
    (options.out / "one_shot_models.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "one_shot_models.md").write_text(page(result))
    return 0


def train_once(run: Path, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Train unless the run is finished, and return its report; an interrupted training begins again."""
    from simjax.train import from_dict, train

    if not (run / "report.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        train(from_dict(settings | {"dataset": f"folder:{(folder / 'train').resolve()}"}), run)
    return json.loads((run / "report.json").read_text())


def one_shot_accuracy(encoder: Any, folder: Path) -> Any:
    """Estimate the accuracy of all tasks of `WAYS` characters, with one character left out at a time."""
    from scipy.special import comb

    from simjax.encoder import find_identities
    from simjax.evaluate import estimates_of

    paths, names = find_identities(folder / "gallery")
    probe_paths, probe_names = find_identities(folder / "probes")
    scores = np.asarray(encoder.similarity(probe_paths, paths), np.float64)
    scores = scores if encoder.measure.higher_is_closer else -scores
    own = np.array([names.index(name) for name in probe_names])
    is_as_close = scores >= scores[np.arange(len(own)), own, None]

    def accuracy(mask: np.ndarray) -> dict[str, float | None]:
        present = np.unique(own[mask])
        as_close = is_as_close[mask][:, present].sum(axis=1) - 1  # without the probe's own character
        others = len(present) - 1
        return {"accuracy": float(np.mean(comb(others - as_close, WAYS - 1) / comb(others, WAYS - 1)))}

    return estimates_of(accuracy, own)["accuracy"]


def page(result: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    rows = []
    for name in MODELS.values():
        runs = [run for run in result["runs"] if run["model"] == name]
        ends = [
            f"{run['accuracy']:.4f} ({run['accuracy_interval'][0]:.4f}–{run['accuracy_interval'][1]:.4f})"
            for run in runs
        ]
        mean = statistics.fmean(run["accuracy"] for run in runs)
        seconds = statistics.fmean(run["train_seconds"] for run in runs)
        rows.append([name, f"{runs[0]['parameters']:,}", f"{seconds:.0f} s", f"{mean:.4f}", *ends])
    seeds = len(result["runs"]) // len(MODELS)
    columns = ["model", "parameters", "training", "mean", *(f"seed {seed} (95% interval)" for seed in range(seeds))]
    found = result["cnn_minus_vit"]
    low, high = found["interval"]
    verdict = "the interval excludes 0" if found["shown"] else "no difference is shown"
    text = PAGE.format(ways=WAYS, epochs=result["epochs"], objective=result["recipe"]["objective"])
    difference = f"CNN minus vision transformer: {found['difference']:+.4f} ({low:+.4f} to {high:+.4f}); {verdict}."
    command = f"`python -m benchmarks.one_shot_models FOLDER`, {result['environment']['date']}"
    return f"{text.strip()}\n\n{_report.table(columns, rows)}\n\n{difference}\n\n{command}\n"


PAGE = """\
# One-shot classification by a CNN and a vision transformer

Both train on 600 Chinese characters in 10 fonts for {epochs:g} epochs, with one recipe (objective `{objective}`, the
same optimizer and augmentation). Then each of 400 images of 100 characters in 4 fonts, all of them new, is classified
by one labelled image of each of {ways} new characters, in a fifth new font. The accuracy is that of all such tasks.
Intervals are over characters, those of the difference over characters and seeds.
"""


if __name__ == "__main__":
    sys.exit(main())
