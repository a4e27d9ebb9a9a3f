"""Draw the decision regions of classical models, and measure their accuracy on digits: docs/classical.md and .png.

python -m benchmarks.classical        a minute
"""

import argparse
import io
import sys
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/classical.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import _report
from simjax import classical, data
from simjax.evaluate import mean_estimate
from simjax.similarity import measure

MODELS: dict[str, Any] = {
    "k-NN, euclidean": classical.fit_k_nearest_neighbors,
    "k-NN, manhattan": partial(classical.fit_k_nearest_neighbors, measure="manhattan"),
    "k-NN, cosine": partial(classical.fit_k_nearest_neighbors, measure="cosine"),
    "nearest prototype": classical.fit_nearest_prototype,
    "logistic regression": classical.fit_logistic_regression,
    "kernel ridge, rbf": classical.fit_kernel_ridge_classifier,
}
GAMMA = 2.0  # of rbf in the plane


def main() -> int:
    """Fit all models, draw the figure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classical", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--points", type=int, default=150, help="points of each data set of the figure (default 150)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", metavar="DIR")
    options = parser.parse_args()
    draw(options.points, options.out / "classical.png")
    (options.out / "classical.md").write_text(page(accuracies(), _report.environment()["date"]))
    return 0


def draw(points: int, path: Path) -> None:
    """Draw the regions of all models for two data sets of scikit-learn."""
    from matplotlib.figure import Figure
    from PIL import Image
    from sklearn.datasets import make_blobs, make_moons

    from simjax.report import _style as style
    from simjax.report import draw_regions

    centers = [(-1.0, -0.8), (1.2, -0.6), (0.3, 1.2)]
    sets = {
        "moons": make_moons(points, noise=0.2, random_state=0),
        "blobs": make_blobs(points, centers=centers, cluster_std=0.6, random_state=0)[:2],
    }
    figure = Figure(figsize=(10.8, 3.9), dpi=150, facecolor="white", layout="constrained")
    grid: Any = figure.subplots(len(sets), len(MODELS))
    for row, (x, labels) in zip(grid, sets.values(), strict=True):
        for axes, (name, fit) in zip(row, MODELS.items(), strict=True):
            options = {"measure": measure("rbf", gamma=GAMMA)} if "rbf" in name else {}
            draw_regions(axes, fit(x, labels, **options).predict, x, labels)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color(style.LINE)
    for axes, name in zip(grid[0], MODELS, strict=True):
        axes.set_title(name, fontsize=9, color=style.INK)
    for axes, name in zip(grid[:, 0], sets, strict=True):
        axes.set_ylabel(name, fontsize=9, color=style.INK)
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png")
        Image.open(buffer).convert("RGB").quantize().save(path)  # 256 colours, a quarter of the size


def accuracies() -> list[list[str]]:
    """Return the rows of the table: the test accuracy of each model on digits, with its 95% interval."""
    train, test = (data.load("digits", split) for split in ("train", "test"))
    mean, std = train.images.mean(), train.images.std()
    x, queries = ((split.images.reshape(len(split.labels), -1) - mean) / std for split in (train, test))
    rows = []
    for name, fit in MODELS.items():
        correct = np.asarray(fit(x, train.labels).predict(queries)) == test.labels
        estimate = mean_estimate(correct, np.arange(len(correct)))
        interval = estimate.interval()
        assert estimate.value is not None
        assert interval is not None
        rows.append([name, f"{estimate.value:.3f} ({interval[0]:.3f}–{interval[1]:.3f})"])
    return rows


def page(rows: list[list[str]], date: str) -> str:
    """Return the page."""
    table = _report.table(["model", "test accuracy on digits (95% interval)"], rows)
    return f"{PAGE.strip()}\n\n{table}\n\n`python -m benchmarks.classical`, {date}\n"


PAGE = """\
# Classical models as similarity

Each of these models compares an image with some stored vectors, and so computes a row of one similarity matrix. The
models differ in what is stored, in the measure, and in how the row is reduced to a class.

| model of `simjax.classical` | stored vectors | measure | reduction of a row |
|---|---|---|---|
| `fit_k_nearest_neighbors` | all training rows | any | keep the k closest, and let their classes vote |
| `fit_nearest_prototype` | the mean of each class | any | take the closest |
| `fit_linear_regression` | one learned vector | dot product | add a number |
| `fit_logistic_regression` | a learned vector for each class | dot product | add a number for each class; softmax |
| `fit_kernel_ridge_classifier` | all training rows | a kernel, such as rbf | learned weighted sum for each class |

Nearest neighbours learn nothing and compare with everything. A prototype summarizes a class in one vector. Logistic
regression learns that vector instead of taking the mean. The last layer of a classifying network is a logistic
regression, too, on features that the network learns. A dense layer is a row of such dot products, a convolution is the
same row at every place of an image, and attention computes the stored vectors from the image itself.

All classifiers have `scores(x)`, a number for each row and class, and `predict(x)`, the class with the largest one.
Nearest neighbours and logistic regression also have `probabilities(x)`.

```python
import numpy as np
from simjax import classical

x, labels = np.array([[0.0, 0.1], [0.2, 0.0], [1.0, 0.9], [0.8, 1.0]]), np.array([3, 3, 8, 8])
model = classical.fit_logistic_regression(x, labels, penalty=1.0)
model.predict(x)  # 3, 3, 8, 8
model.probabilities(x)  # [n, classes], in the order of model.classes
classical.fit_k_nearest_neighbors(x, labels, k=3, measure="manhattan").predict(x)
```

![Decision regions of six models on two data sets](classical.png)

*Points are training data; a region has the colour of the class that is predicted there. Markers and colours show the
class. k = 5 neighbours; gamma of rbf is 2.*

- Manhattan and Euclidean neighbours give nearly the same regions. The cosine ignores lengths, so that its regions are
  sectors around the origin.
- The boundary between two prototypes is a straight line by the Euclidean distance, as that of logistic regression,
  which places it where the training points are separated best.
- A sum of rbf similarities bends, because a training row matters only in its neighbourhood.

`python train.py --model logistic` trains a logistic regression of images step by step, as the networks are trained, but
without augmentation by default, because a linear classifier of pixels cannot follow images that are moved.

## Accuracy

The 1,347 training and 450 test images of digits, all pixels scaled by one mean and one standard deviation; k = 5, and
the default penalties and gamma. Nothing was tuned.
"""


if __name__ == "__main__":
    sys.exit(main())
