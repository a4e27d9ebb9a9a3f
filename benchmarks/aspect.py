"""Compare ways to resize images that are not square, by the accuracy of a network trained on them.

    python -m benchmarks.aspect         needs CIFAR-10 and MNIST in $TFDS_DATA_DIR

Folders of images are made from data sets; each way reads the same files, and the same network is trained for the same
number of steps. Every size has about 32 * 32 pixels. Every run is saved when it ends, so that an interrupted command
resumes. Writes aspect.json and aspect.md.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/aspect.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import _report
from benchmarks.metric_learning import interval

IMAGES = {"train": 3000, "test": 2000}
ENLARGED = 3  # like photographs, files are larger than the images that a network gets
WAYS: dict[str, dict[str, Any]] = {
    "square, cropped": {"image_size": 32, "aspect": "crop"},
    "square, padded": {"image_size": 32, "aspect": "pad"},
    "median aspect ratio, cropped": {"aspect": "crop"},
    "median aspect ratio, padded": {"aspect": "pad"},
}


def one_shape(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Crop a photograph of 32x32 to 32x26, the aspect ratio of 112x92."""
    return image[:, 3:29]


def mixed_shapes(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Crop the shorter side of a photograph to a random aspect ratio from 9:16 to 16:9."""
    ratio = np.exp(random.uniform(-1, 1) * np.log(16 / 9))
    height, width = round(32 * min(ratio, 1)), round(32 * min(1 / ratio, 1))
    top, left = (32 - height) // 2, (32 - width) // 2
    return image[top : top + height, left : left + width]


def ink_box(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Crop a digit to the bounding box of its ink."""
    rows, columns = np.nonzero(image[..., 0] > 64)
    return image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


CASES: dict[str, tuple[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]]] = {
    "photographs of one shape": ("cifar10", one_shape),
    "photographs of mixed shapes": ("cifar10", mixed_shapes),
    "digits cut to their ink": ("mnist", ink_box),
}


def main() -> int:
    """Train the missing runs, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aspect", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=3, help="number of runs of each way (default 3)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", metavar="DIR")
    options = parser.parse_args()
    path = options.out / "aspect.json"
    records = json.loads(path.read_text())["runs"] if path.exists() else []
    with tempfile.TemporaryDirectory() as work:
        for case in CASES:
            folder = Path(work) / case
            for seed in range(options.seeds):
                for way in WAYS:
                    key = {"case": case, "way": way, "seed": seed}
                    if any(key.items() <= record.items() for record in records):
                        continue
                    if not folder.exists():
                        write_images(folder, case)
                    records.append(key | run(folder, way, seed))
                    print(json.dumps(records[-1]), flush=True)
                    report = {**_report.environment(), "runs": records}
                    path.write_text(json.dumps(report, indent=1) + "\n")
                    (options.out / "aspect.md").write_text(markdown(report))
    return 0


def write_images(folder: Path, case: str) -> None:
    """Write the images of a case as PNG files in train/CLASS and test/CLASS."""
    from PIL import Image

    from simjax.data import load

    name, crop = CASES[case]
    random = np.random.default_rng(0)
    for split, count in IMAGES.items():
        images, labels, names, _ = load(name, split)
        for index in random.permutation(len(images))[:count]:
            image = crop(images[index], random)
            whole = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
            large = whole.resize((ENLARGED * whole.width, ENLARGED * whole.height), Image.Resampling.BICUBIC)
            target = folder / split / names[labels[index]] / f"{index}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            large.save(target)


def run(folder: Path, way: str, seed: int) -> dict[str, Any]:
    """Train once and evaluate on the test images."""
    from simjax.train import from_dict, train

    data = {**WAYS[way], "validation_fraction": 0.0}
    network = {"model": "cnn", "cnn": {"widths": [8, 16, 32]}}
    settings = from_dict({"dataset": f"folder:{folder}", "data": data, "epochs": 10.0, "seed": seed, **network})
    with tempfile.TemporaryDirectory() as out:
        report = train(settings, Path(out) / "run").report
        shape = json.loads((Path(out) / "run" / "config.json").read_text())["data"]["image_shape"]
    retrieval = report["retrieval"]["mean_average_precision_at_r"]
    return {"size": shape[:2], "accuracy": report["accuracy"], "mean_average_precision_at_r": retrieval}


def markdown(report: dict[str, Any]) -> str:
    """Return the page, with a table for each case."""
    parts = [
        "# Images that are not square",
        f"`python -m benchmarks.aspect`, {report['date']}, on {report['machine']}.",
        PAGE,
    ]
    for case in CASES:
        rows = []
        for way in WAYS:
            runs = [r for r in report["runs"] if (r["case"], r["way"]) == (case, way)]
            if runs:
                metrics = [interval([r[key] for r in runs]) for key in ("accuracy", "mean_average_precision_at_r")]
                rows.append([way, "x".join(map(str, runs[0]["size"])), *metrics, str(len(runs))])
        if rows:
            head = ["way", "height x width", "accuracy", "MAP@R", "runs"]
            parts += [f"## {case.capitalize()}", _report.table(head, rows)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


PAGE = f"""\
This page compares ways to resize the images of a folder to one size of about 32 * 32 pixels: a square, or the
median aspect ratio of the training images; images of another aspect ratio are cropped at their centre, or padded by
repeating their border pixels. There are {IMAGES["train"]:,} training and {IMAGES["test"]:,} test images.

Photographs are images of CIFAR-10, cropped to one shape (the aspect ratio of 112x92) or to random shapes from 9:16 to
16:9; digits are images of MNIST, cropped to their ink. All are enlarged by {ENLARGED} before they are stored. The
settings are those of `train.py` without flags (softmax), except for a CNN of half the default widths, 10 epochs and no
validation images. The tables show accuracy and mean average precision at R on the test images, as the mean of the runs
± half of its 95% confidence interval.

Cropping is worst in every case. Padding to the median aspect ratio is the default: within the intervals it is as good
as padding to a square, and it needs no padding if all images have one shape."""


if __name__ == "__main__":
    sys.exit(main())
