"""One-shot identification with unknown people, here characters: train, choose, calibrate, enrol, identify.

    python -m benchmarks.one_shot FOLDER        FOLDER has train/, calibration/, gallery/, probes/ and unknown/, each
                                                with one sub-folder for each character

Every objective trains on train/. The characters of calibration/ are divided in two halves: the objective is chosen on
the first half, and the threshold for the wanted FPIR is set on the second one. Then gallery/ is enrolled, one image for
each character, and the images of probes/ (enrolled characters) and of unknown/ (characters that nobody enrolled) are
identified. Finished trainings are kept in --runs, so that a command that was interrupted continues. Writes one_shot.md
and one_shot.json.
"""

import argparse
import json
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/one_shot.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

COMMON: dict[str, Any] = {"model": "cnn", "embedding_size": 128}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "supervised_contrastive": {"objective": "supervised_contrastive"},
    "multi_similarity": {"objective": "multi_similarity"},
    "triplet, semi-hard": {"objective": "triplet", "mining": {"miner": "semi_hard"}},
    "proxy_anchor": {"objective": "proxy_anchor"},
    "arcface": {"objective": "arcface"},
}
ENROLLED_FONT = "uming"
WANTED_FPIR = 0.01


def main() -> int:
    """Train what is missing, choose, identify, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_shot", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="folder with the five parts")
    parser.add_argument("--runs", type=Path, default=Path("runs/one_shot"), help="folder of the trainings")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--epochs", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", metavar="DIR")
    options = parser.parse_args()
    from simjax import load_encoder

    records = []
    with tempfile.TemporaryDirectory() as folder:
        selection, thresholds = split_calibration(options.folder / "calibration", Path(folder))
        for name in options.objectives:
            run = options.runs / name.replace(", ", "-")
            train_once(run, options.folder / "train", selection, name, options.epochs)
            encoder = load_encoder(run)
            record = {"objective": name, "selection_fnir": selection_error(encoder, selection)}
            record |= identify(encoder, thresholds, options.folder)
            print(f"{name}: {record}", flush=True)
            records.append(record)
    best = min(records, key=lambda record: record["selection_fnir"])
    report = {"epochs": options.epochs, "common": COMMON, "chosen": best["objective"], "runs": records}
    (options.out / "one_shot.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "one_shot.md").write_text(page(report))
    return 0


def split_calibration(folder: Path, out: Path) -> tuple[Path, Path]:
    """Copy the characters of a folder to two new folders, alternating."""
    halves = out / "selection", out / "thresholds"
    for index, character in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        shutil.copytree(character, halves[index % 2] / character.name)
    return halves


def train_once(run: Path, images: Path, selection: Path, name: str, epochs: float) -> None:
    """Train with an objective unless the run is finished; an interrupted training is resumed."""
    from simjax.train import from_dict, train

    if (run / "report.json").is_file():
        return
    data = {"dataset": f"folder:{images.resolve()}", "test_dataset": f"folder:{selection.resolve()}"}
    settings = from_dict(COMMON | data | {"epochs": epochs} | OBJECTIVES[name])
    if (run / "config.json").is_file():
        shutil.rmtree(run)
    train(settings, run)


def selection_error(encoder: Any, folder: Path) -> float:
    """Return the FNIR at the wanted FPIR on the characters for the choice of an objective.

    Half of them are enrolled by one font and the others are unknown, then the other way round; the threshold is set on
    the same unknown images, which is why this number is used for the choice only.
    """
    from simjax.encoder import find_identities
    from simjax.evaluate import Calibration, open_set_metrics

    paths, names = find_identities(folder)
    embeddings, ids = encoder.encode(paths), np.unique(names, return_inverse=True)[1]
    is_enrolled_font = np.array([path.stem == ENROLLED_FONT for path in paths])
    errors = []
    for half in (0, 1):
        known = ids % 2 == half
        enrolled, probes, unknown = known & is_enrolled_font, known & ~is_enrolled_font, ~known & ~is_enrolled_font
        calibration = Calibration.fit(embeddings[unknown], ids[unknown], measure=encoder.measure)
        threshold = calibration.search_threshold(WANTED_FPIR, embeddings[enrolled], ids[enrolled])
        metrics = open_set_metrics(
            embeddings[probes],
            ids[probes],
            embeddings[unknown],
            embeddings[enrolled],
            ids[enrolled],
            measure=encoder.measure,
            threshold=threshold.value,
        )
        errors.append(metrics["fnir_at_rank_1"])
    return float(np.mean(errors))


def identify(encoder: Any, thresholds: Path, folder: Path) -> dict[str, Any]:
    """Enrol the gallery, set the threshold on other characters, and identify the probes and the unknown characters."""
    from simjax.encoder import find_identities
    from simjax.evaluate import Calibration, open_set_estimates

    def encode(part: Path) -> tuple[np.ndarray, list[str]]:
        paths, names = find_identities(part)
        return encoder.encode(paths), names

    enrolled, enrolled_names = encode(folder / "gallery")
    calibration = Calibration.fit(*encode(thresholds), measure=encoder.measure)
    threshold = calibration.search_threshold(WANTED_FPIR, enrolled, enrolled_names)
    unknown, unknown_names = encode(folder / "unknown")
    estimates = open_set_estimates(
        *encode(folder / "probes"),
        unknown,
        enrolled,
        enrolled_names,
        measure=encoder.measure,
        threshold=threshold.value,
        unknown_identities=unknown_names,
    )
    found: dict[str, Any] = {"threshold": threshold.value}
    for name in ("rank_1_rate", "fnir_at_rank_1", "fpir"):
        found |= {name: estimates[name].value, f"{name}_interval": estimates[name].interval()}
    return found


def cell(record: dict[str, Any], name: str) -> str:
    """Return a rate of a record with its interval, as text."""
    low, high = record[f"{name}_interval"]
    return f"{record[name]:.4f} ({low:.4f} to {high:.4f})"


def page(report: dict[str, Any]) -> str:
    """Return the table of a report in Markdown."""
    chosen = report["chosen"]
    rows = [
        f"| {'**' if r['objective'] == chosen else ''}{r['objective']}{'**' if r['objective'] == chosen else ''} "
        f"| {r['selection_fnir']:.3f} | {cell(r, 'rank_1_rate')} | {cell(r, 'fnir_at_rank_1')} | {cell(r, 'fpir')} |"
        for r in sorted(report["runs"], key=lambda r: r["selection_fnir"])
    ]
    text = (
        f"`python -m benchmarks.one_shot FOLDER`: a CNN is trained for {report['epochs']:g} epochs on 600 characters "
        "in 10 fonts. 100 characters that it has never seen are enrolled with one image each, in a font that it has "
        "never seen, and searched with their images in 4 other fonts (probes) and with 100 characters that nobody "
        f"enrolled. The wanted false positive identification rate (FPIR) is {WANTED_FPIR:g}, in a gallery of N = 100 "
        "identities. "
        "The objective is chosen by the false negative identification rate (FNIR: the enrolled character is not first, "
        "or not as close as the threshold) on 100 characters for this choice; the threshold comes from 100 others. The "
        "chosen objective is in bold. In brackets: 95% intervals over characters."
    )
    lines = [
        "# One-shot identification of characters",
        "",
        textwrap.fill(text, 120),
        "",
        "| objective | FNIR in the choice | rank-1 | FNIR | FPIR |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
