"""Measure how faithful heat maps are to an encoder, by deletion and insertion curves, compared with random regions.

    python -m benchmarks.explain --glyphs FOLDER        a few minutes; needs MNIST in $TFDS_DATA_DIR

A pair shows one class: two test images of a digit, one character in two fonts (FOLDER has a sub-folder for each
character), or two overlapping crops of a photograph of scikit-learn or scikit-image. A case whose images or encoder are
missing is left out. Writes explain.md, docs/explain.md with new tables, and explain.png.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/explain.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import _report
from simjax import explain, load_encoder
from simjax.core import InputError

Pairs = tuple[list[Any], list[Any]]
ORDERS = 5  # random orders for each image
PAGE = Path(__file__).parents[1] / "docs" / "explain.md"
COMMAND = "`python -m benchmarks.explain"  # the beginning of the results in the page


def main() -> int:
    """Measure all cases and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explain", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pairs", type=int, default=100, help="largest number of pairs of a case (default 100)")
    parser.add_argument(
        "--glyphs", type=Path, help="folder of images for glyphs-cnn, one sub-folder for each character"
    )
    parser.add_argument(
        "--photographs", default="efficientnet-lite0:160", help="encoder (default efficientnet-lite0:160)"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", metavar="DIR")
    options = parser.parse_args()
    records, examples = [], []
    for name, pairs_of in cases(options):
        try:
            encoder, (images, others) = load_encoder(name), pairs_of(options.pairs)
        except (InputError, ImportError) as error:
            print(f"{name}: left out ({error})", flush=True)
            continue
        for fill in ("mean", "blur"):
            maps = methods(encoder, images, others, fill)
            records += measure(name, encoder, images, others, maps, fill)
            if fill == "mean":
                examples.append((name, encoder.pixels(images[:1])[0], encoder.pixels(others[:1])[0], maps))
            print(
                name, fill, {r["method"]: r["insertion"]["value"] for r in records if r["encoder"] == name}, flush=True
            )
    (options.out / "explain.md").write_text(page(records, _report.environment()["date"]))
    draw(examples, options.out / "explain.png")
    return 0


def cases(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[int], Pairs]]]:
    """Yield the encoder of each case and a function that returns at most n pairs of images."""
    yield "mnist-cnn", digits
    yield "mnist-vit", digits
    if options.glyphs is not None:
        yield "glyphs-cnn", lambda n: characters(options.glyphs, n)
    yield options.photographs, photographs


def digits(n: int) -> Pairs:
    """Return pairs of test images of MNIST with one digit; no image is in two pairs."""
    from simjax.data import load

    test = load("mnist", "test")
    order = np.random.default_rng(0).permutation(len(test.images))
    of_digit = [order[test.labels[order] == digit] for digit in range(10)]
    first, second = (np.concatenate([rows[side : 2 * (n // 10) : 2] for rows in of_digit]) for side in (0, 1))
    return list(test.images[first]), list(test.images[second])


def characters(folder: Path, n: int) -> Pairs:
    """Return the first two images of each character."""
    from simjax.encoder import find_identities

    paths, names = find_identities(folder)
    of_name = [[p for p, name in zip(paths, names, strict=True) if name == wanted] for wanted in dict.fromkeys(names)]
    return [files[0] for files in of_name[:n]], [files[1] for files in of_name[:n]]


def photographs(n: int) -> Pairs:
    """Return two crops of each photograph, 80% of its sides: the upper left, and the lower right as a mirror image."""
    from PIL import ImageOps

    from benchmarks.photographs import sample_photographs

    first, second = [], []
    for image in sample_photographs()[:n]:
        width, height = image.width * 4 // 5, image.height * 4 // 5
        first.append(image.crop((0, 0, width, height)))
        second.append(ImageOps.mirror(image.crop((image.width - width, image.height - height, *image.size))))
    return first, second


def methods(encoder: Any, images: list[Any], others: list[Any], fill: Any) -> dict[str, np.ndarray]:
    """Compute the heat maps of the images and then of the others by all methods, [2 n, h, w]."""
    both, opposite = [*images, *others], [*others, *images]
    maps = explain.heat_maps(encoder, both, explain.similarity_to(encoder, opposite), fill=fill)
    if "grad_cam" in maps:
        full = explain.similarity_to(encoder, opposite, constant_norm=False)
        maps["grad_cam, full gradient"] = explain.grad_cam(encoder, both, full)
    return maps


def measure(
    name: str, encoder: Any, images: list[Any], others: list[Any], maps: dict[str, np.ndarray], fill: Any
) -> list[dict[str, Any]]:
    """Return the areas of each method and their difference from random regions, with 95% intervals over pairs."""
    both, n = [*images, *others], len(images)
    target = explain.similarity_to(encoder, [*others, *images])

    def areas(heat_maps: np.ndarray, seed: int = 0) -> np.ndarray:
        found = explain.faithfulness(encoder, both, target, heat_maps, fill=fill, seed=seed)
        return np.stack([found.deletion_area, found.insertion_area]).reshape(2, 2, n).mean(axis=1)  # [curve, pair]

    random = np.mean([areas(explain.random_regions(encoder, both, seed=i), i) for i in range(ORDERS)], axis=0)
    records = []
    for method, values in [*((method, areas(heat_maps)) for method, heat_maps in maps.items()), ("random", random)]:
        record: dict[str, Any] = {"encoder": name, "fill": fill, "method": method, "pairs": n}
        for curve, value, baseline in zip(("deletion", "insertion"), values, random, strict=True):
            record[curve] = {"value": float(value.mean()), "minus_random": interval(value - baseline)}
        records.append(record)
    return records


def interval(values: np.ndarray) -> list[float]:
    """Return the mean and half of its 95% interval over pairs (Student's t)."""
    from scipy.stats import t

    n = len(values)
    return [float(np.mean(values)), float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5)]


def draw(examples: list[tuple[str, np.ndarray, np.ndarray, dict[str, np.ndarray]]], path: Path) -> None:
    """Draw the first image of each case with its heat maps, and the image that it is compared with."""
    from matplotlib.figure import Figure
    from PIL import Image

    from simjax.report._photographs import blend

    columns = 2 + max(len(maps) for *_, maps in examples)
    figure = Figure(figsize=(1.25 * columns, 1.4 * len(examples)), dpi=150, layout="constrained")
    grid: Any = figure.subplots(len(examples), columns, squeeze=False)
    for row, (name, image, other, maps) in zip(grid, examples, strict=True):
        pictures = {name.partition(":")[0]: other, "image": image}
        for method, heat_maps in maps.items():
            title = method.removeprefix("grad_cam, ")
            pictures[title] = blend(image, heat_maps[0], float(np.abs(heat_maps[0]).max()))
        for axes in row:
            axes.axis("off")
        for axes, (title, picture) in zip(row, pictures.items(), strict=False):  # a case may have fewer methods
            axes.set_title(title, fontsize=8)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png")
        Image.open(buffer).convert("RGB").quantize().save(path)  # 256 colours, a quarter of the size


def page(records: list[dict[str, Any]], date: str) -> str:
    """Return docs/explain.md with a new table for each fill."""
    text, _, _ = PAGE.read_text().partition(COMMAND)
    parts = [text, f"{COMMAND} --glyphs FOLDER`, {date}"]
    for fill, title in (
        ("mean", "Replaced by the mean of the preprocessing"),
        ("blur", "Replaced by the blurred image"),
    ):
        rows = []
        for r in records:
            if r["fill"] == fill:
                cells = [f"{r[curve]['value']:.3f}" for curve in ("deletion", "insertion")]
                if r["method"] != "random":
                    values = [r[curve]["minus_random"] for curve in ("deletion", "insertion")]
                    cells = [f"{c} ({m:+.3f} ± {h:.3f})" for c, (m, h) in zip(cells, values, strict=True)]
                rows.append([r["encoder"], r["method"], *cells, str(r["pairs"])])
        head = ["encoder", "heat map", "deletion (minus random)", "insertion (minus random)", "pairs"]
        parts += [f"### {title}", _report.table(head, rows)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
