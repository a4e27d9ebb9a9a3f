"""The images on the page of one run: a map, mistakes, judged pairs, confusions, nearest neighbours, attention."""

from pathlib import PurePath

import numpy as np

from simjax.report import _charts as charts
from simjax.report import _numbers as numbers
from simjax.report import _photographs as photographs
from simjax.report._page import Block, Photo, PhotoRow, Photos, Text
from simjax.report._projection import project
from simjax.report._render import shorten
from simjax.report._run import Run

QUERIES, NEIGHBOURS, ATTENTION_HEADS = 8, 6, 6
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
        labels = [", ".join([arrays.name(label[i]), *arrays.file(i)]) for i in rows[order]]
        points = photographs.points_of(sampled[1], labels, order.tolist())
    return [charts.embedding_map(xy[order], label[rows][order], arrays.names, caption, points)]


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
        sure = [f"{100 * confidence:.0f}% sure"] if np.isfinite(confidence) else []
        lines = [f"{arrays.name(predicted)}?", f"It is {arrays.name(label)}", *sure, *arrays.file(index)]
        photos.append(Photo(photographs.source(image), lines, "wrong"))
    order = ", the most certain ones first" if np.isfinite(found[-1]).any() else ""
    text = f"Wrongly classified test images{order}: the predicted class, and the true one."
    return [Photos("mistakes", [PhotoRow(photos)], text)]


def judged_pairs(run: Run, arrays: Samples) -> list[Block]:
    """Show pairs with their score and the decision about them."""
    found = arrays.get("pair_index", "pair_images", "pair_labels", "pair_scores")
    if not found:
        return []
    threshold, measure = numbers.number(run.value("verification.threshold")), numbers.text(run.value("measure"))
    higher = bool(run.value("higher_is_closer"))
    probabilities = next(iter(arrays.get("pair_probability")), np.full(len(found[0]), np.nan))
    rows = []
    for index, images, labels, score, probability in zip(*found, probabilities, strict=True):
        same = labels[0] == labels[1]
        photos = [
            Photo(photographs.source(image), [arrays.name(label), *arrays.file(i)])
            for i, image, label in zip(index, images, labels, strict=True)
        ]
        mark, title = "", ""
        if threshold is not None:
            accepted = score >= threshold if higher else score <= threshold
            mark = "right" if accepted == same else "wrong"
            mistake = "" if mark == "right" else f" ({'false match' if accepted else 'missed match'})"
            title = f"{mark.capitalize()}{mistake}: judged {'the same' if accepted else 'different'}. "
        title += f"Score {score:.2f}"
        title += f", {100 * probability:.0f}% likely the same." if np.isfinite(probability) else "."
        rows.append(PhotoRow(photos, title, mark))
    text = f"Are both images of one class? The score is the {measure}"
    text += f", {'higher' if higher else 'lower'} for similar images."
    if threshold is not None:
        text += (
            f" A pair passes as one class if its score is at {'least' if higher else 'most'} "
            f"{numbers.decimal(threshold)}. The worst mistakes of each kind come first, then random pairs, half of "
            "them of one class."
        )
    return [Text(text), Photos("pairs", rows, "", size=5.0)]


def confused_images(run: Run, arrays: Samples) -> list[Block]:
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
    return [Photos("confusions", rows, caption, size=5.0)] if rows else []


def nearest_neighbours(run: Run, arrays: Samples) -> list[Block]:
    """Show test images with the most similar other ones."""
    found = arrays.get("query_images", "query_labels", "neighbour_images", "neighbour_labels", "neighbour_scores")
    if not found:
        return []
    index = arrays.get("query_index", "neighbour_index")
    rows = []
    for i, (image, label, images, labels, scores) in enumerate(zip(*(a[:QUERIES] for a in found), strict=True)):
        photos = [
            Photo(
                photographs.source(image), [arrays.name(label), *(arrays.file(index[0][i]) if index else [])], "query"
            )
        ]
        for j in range(min(NEIGHBOURS, len(labels))):
            lines = [arrays.name(labels[j]), f"{scores[j]:.2f}", *(arrays.file(index[1][i, j]) if index else [])]
            photos.append(Photo(photographs.source(images[j]), lines, "right" if labels[j] == label else "wrong"))
        rows.append(PhotoRow(photos))
    caption = (
        "Each row: a test image and the most similar other test images, with their class and score "
        f"({numbers.text(run.value('measure'))}). ✓ marks the class of the first image, ✗ another class."
    )
    return [Photos("neighbours", rows, caption)]


def attention_maps(arrays: Samples) -> list[Block]:
    """Show the attention of a vision transformer."""
    found = arrays.get("attention_images", "attention", "attention_labels")
    rows = []
    for image, attention, label in zip(*found, strict=True) if found else ():
        shown = attention[:ATTENTION_HEADS]
        maps = {"all heads": attention.mean(0)} if len(attention) > 1 else {}
        maps |= {f"head {h + 1}": head for h, head in enumerate(shown)}
        photos = [Photo(photographs.source(image), [arrays.name(label)], "query")]
        for title, weights in maps.items():
            weights = weights - weights.min()
            photos.append(Photo(photographs.heat_map(image, weights, float(weights.max())), [title]))
        rows.append(PhotoRow(photos))
    caption = (
        "Attention of the last transformer block to each patch, in orange, each map on its own scale. Heads may attend "
        "to different patches."
    )
    return [Photos("attention", rows, caption)] if rows else []
