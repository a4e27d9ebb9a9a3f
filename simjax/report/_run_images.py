"""The images on the page of one run: a map, mistakes, judged pairs, confusions, nearest neighbours, attention."""

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from simjax.report import _charts as charts
from simjax.report import _numbers as numbers
from simjax.report import _photographs as photographs
from simjax.report._page import Block, Photo, PhotoRow, Photos, Text
from simjax.report._projection import project
from simjax.report._render import NO_BREAK, shorten
from simjax.report._run import Run

MISTAKES, NEIGHBOURS, ATTENTION_IMAGES, ATTENTION_HEADS = 24, 6, 4, 6
LABELS = ("label", "labels", "predicted", "confusion_true")  # ends of the names of arrays of class ids


class Samples:
    """The arrays of a run, and the names of its classes and files."""

    def __init__(self, run: Run):
        self.predictions, self.samples = run.arrays("predictions.npz"), run.arrays("samples.npz")
        labels = [array for name, array in (self.predictions | self.samples).items() if name.endswith(LABELS)]
        self.names = run.class_names(1 + max((int(array.max()) for array in labels if array.size), default=0))
        self.paths = self.predictions.get("path")

    def get(self, *names: str) -> list[np.ndarray]:
        """Return arrays of samples.npz by name, or no arrays if one of them is missing or empty."""
        arrays = self.samples
        return [arrays[name] for name in names] if all(name in arrays and arrays[name].size for name in names) else []

    def file(self, index: int) -> list[str]:
        """Return a line with the folder and name of the file of a test image, or no line if it has none."""
        if self.paths is None:
            return []
        return ["/".join(PurePath(str(self.paths[index])).parts[-2:])]

    def name(self, label: int) -> str:
        return shorten(self.names[label], 40)


def embedding_map(arrays: Samples, projection: str) -> list[Block]:
    """Draw the map of the embeddings, with the images of its points."""
    embedding, label = (arrays.predictions.get(name, np.empty(0)) for name in ("embedding", "label"))
    if embedding.ndim != 2 or len(embedding) < 3 or not np.isfinite(embedding).all():
        return []
    sampled = arrays.get("map_index", "map_images")
    rows = sampled[0] if sampled else np.arange(min(len(label), 1000))
    xy, caption = project(embedding, rows, projection)
    order = np.argsort(label[rows], kind="stable")
    points = None
    if sampled:
        labels = [", ".join([arrays.name(int(label[i])), *arrays.file(i)]) for i in rows[order].tolist()]
        points = photographs.points_of(sampled[1], labels, order.tolist())
    predicted = arrays.predictions.get("predicted", label)
    is_wrong = (predicted != label)[rows][order]
    return [charts.embedding_map(xy[order], label[rows][order], is_wrong, arrays.names, caption, points)]


def mistakes(run: Run, arrays: Samples) -> list[Block]:
    """Show wrongly classified images."""
    names = ("mistake_index", "mistake_images", "mistake_labels", "mistake_predicted", "mistake_confidence")
    found = arrays.get(*names)
    if not found:
        confusion = np.asarray(run.value("confusion") or [])
        is_perfect = confusion.size and not (confusion - np.diag(np.diag(confusion))).any()
        return [Text("All test images are classified correctly.")] if is_perfect else []
    photos = []
    for index, image, label, predicted, confidence in zip(*found, strict=True):
        probability = f"{NO_BREAK}({100 * confidence:.0f}%)" if np.isfinite(confidence) else ""
        lines = [f"predicted {arrays.name(predicted)}{probability}", f"true {arrays.name(label)}", *arrays.file(index)]
        photos.append(Photo(photographs.source(image), lines, "wrong"))
    order = ", those with the highest predicted probability first" if np.isfinite(found[-1]).any() else ""
    confusion = np.asarray(run.value("confusion") or [])
    wrong = int(confusion.sum() - np.trace(confusion)) if confusion.size else len(photos)
    which = f"{len(photos)} of {wrong:,} wrongly" if wrong > len(photos) else "Wrongly"
    return [Photos([PhotoRow(photos)], f"{which} classified test images{order}.", size=7.0)]


def mistakes_of_both(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    """Show the mistakes of two runs on the same test images, with the predictions of both."""
    first, second = map(Samples, runs)
    shown: dict[int, np.ndarray] = {}
    for arrays in (first, second):
        for index, image in zip(*arrays.get("mistake_index", "mistake_images"), strict=False):
            shown.setdefault(int(index), image)
    photos = []
    for index, image in sorted(shown.items())[:MISTAKES]:
        predicted = [arrays.name(int(arrays.predictions["predicted"][index])) for arrays in (first, second)]
        true = first.name(int(first.predictions["label"][index]))
        lines = [f"true {true}", *(f"{name}: {one}" for name, one in zip(names, predicted, strict=True))]
        photos.append(Photo(photographs.source(image), [*lines, *first.file(index)]))
    which = f"{len(photos)} of the test images" if len(shown) > len(photos) else "Test images"
    caption = f"{which} that at least one of these runs classifies wrongly, with the predictions of both."
    return [Photos([PhotoRow(photos)], caption, size=8.0)] if photos else []


def judged_pairs(run: Run, arrays: Samples) -> list[Block]:
    """Show pairs with their score and the decision about them."""
    found = arrays.get("pair_index", "pair_images", "pair_labels", "pair_scores")
    if not found:
        return []
    threshold, higher = numbers.number(run.value("verification.threshold")), bool(run.value("higher_is_closer"))
    probabilities = next(iter(arrays.get("pair_probability")), np.full(len(found[0]), np.nan))
    rows = []
    for index, images, labels, score, probability in zip(*found, probabilities, strict=True):
        same = labels[0] == labels[1]
        photos = [
            Photo(photographs.source(image), [arrays.name(label), *arrays.file(i)])
            for i, image, label in zip(index, images, labels, strict=True)
        ]
        mark, decision = "", ""
        if threshold is not None:
            # float32 would round the threshold.
            accepted = float(score) >= threshold if higher else float(score) <= threshold
            mark = "right" if accepted == same else "wrong"
            mistake = "false match" if accepted else "missed match"
            decision = f"Judged {'same' if accepted else 'different'}: {'right' if mark == 'right' else mistake}. "
        likely = f", P(same){NO_BREAK}{_probability(probability)}" if np.isfinite(probability) else ""
        rows.append(PhotoRow(photos, f"{decision}Score{NO_BREAK}{score:.2f}{likely}", mark))
    caption = (
        "The worst false matches and the worst missed matches, an image once in each, then random other pairs, half of "
        "them of the same class. P(same): the predicted probability of the same class, if half of all pairs are of the "
        "same class."
    )
    return [Photos(rows, caption if threshold is not None else "Random pairs of test images.")]


def _probability(value: float) -> str:
    """Return a probability in percent, never rounded to 0 or 100."""
    return "below 1%" if value < 0.01 else "above 99%" if value > 0.99 else f"{100 * value:.0f}%"


def confused_images(arrays: Samples) -> list[Block]:
    """Show the most frequent confusions as pairs of images."""
    found = arrays.get(
        *("confusion_true", "confusion_predicted", "confusion_count", "confusion_images", "confusion_index")
    )
    rows = []
    for true, predicted, count, images, index in zip(*found, strict=True) if found else ():
        photos = [
            Photo(photographs.source(image), [name, *arrays.file(i)])
            for image, name, i in zip(images, map(arrays.name, (true, predicted)), index, strict=True)
        ]
        times = f"{count} times" if count > 1 else "once"
        rows.append(PhotoRow(photos, f"{arrays.name(true)} taken for {arrays.name(predicted)}, {times}"))
    caption = "The most frequent confusions: such a test image, and an image of the class that it was taken for."
    return [Photos(rows, caption)] if rows else []


def nearest_neighbours(run: Run, arrays: Samples) -> list[Block]:
    """Show test images with the most similar other ones."""
    found = arrays.get("query_images", "query_labels", "neighbour_images", "neighbour_labels", "neighbour_scores")
    if not found:
        return []
    index = arrays.get("query_index", "neighbour_index")
    files = [[arrays.file(i) for i in row] for row in np.column_stack(index)] if index else []
    is_right = found[3][:, :NEIGHBOURS] == found[1][:, None]
    rows = []
    for i in np.argsort(is_right.all(axis=1), kind="stable"):  # rows with another class first
        names = files[i] if files else [[]] * (1 + len(found[3][i]))
        photos = [Photo(photographs.source(found[0][i]), [arrays.name(int(found[1][i])), *names[0]], "query")]
        for image, label, score, name in zip(*(array[i, :NEIGHBOURS] for array in found[2:]), names[1:], strict=False):
            mark = "right" if label == found[1][i] else "wrong"
            photos.append(Photo(photographs.source(image), [arrays.name(label), f"{score:.2f}", *name], mark))
        rows.append(PhotoRow(photos))
    caption = (
        "Each row: a test image and the most similar other test images, with their class and score "
        f"({run.measure_name}); ✓ marks the class of the first image, ✗ another class. Images of as many classes as "
        "possible, after at most five whose nearest neighbour is of another class."
    )
    precision, queries = (numbers.number(run.value(f"retrieval.{name}")) for name in ("precision_at_1", "queries"))
    if precision is not None and queries is not None:
        caption += f" That is so for {numbers.percent(1 - precision)} of {queries:,.0f} images."
    return [Photos(rows, caption, size=5.0)]


def attention_maps(arrays: Samples) -> list[Block]:
    """Show the attention of a vision transformer."""
    found = arrays.get("attention_images", "attention", "attention_labels")
    rows = []
    for image, attention, label in zip(*(a[:ATTENTION_IMAGES] for a in found), strict=True) if found else ():
        shown = attention[:ATTENTION_HEADS]
        maps = {"all heads": attention.mean(0)} if len(attention) > 1 else {}
        maps |= {f"head {h + 1}": head for h, head in enumerate(shown)}
        photos = [Photo(photographs.source(image), [arrays.name(label)], "query")]
        for title, weights in maps.items():
            weights = weights - weights.min()
            photos.append(Photo(photographs.heat_map(image, weights, float(weights.max())), [title]))
        rows.append(PhotoRow(photos))
    caption = (
        "Attention of the last transformer block: from which patches of the image it gathers information, in orange. "
        "Each map has its own scale, so that even weak attention is visible. It is not the reason for a decision; "
        "the command simjax explain shows which regions matter for one."
    )
    return [Photos(rows, caption)] if rows else []
