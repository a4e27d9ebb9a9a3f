"""The page of one run: the verdict, the mistakes, pairs, verification, classes, neighbours, training, all numbers.

`Run.part` and `Run.config` read config.json, `Run.value` reads report.json, and `Run.arrays` reads arrays. A section
without content is omitted. `_numbers` formats a missing value as a dash.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import PurePath

import numpy as np

from simjax.report import _charts as charts
from simjax.report import _numbers as numbers
from simjax.report import _photographs as photographs
from simjax.report._metrics import HEADLINE, METRICS, interval_of, with_interval
from simjax.report._page import Block, Card, Code, Matrix, Page, Photo, PhotoRow, Photos, Row, Section, Table, Text
from simjax.report._projection import project
from simjax.report._render import shorten
from simjax.report._run import Run
from simjax.report._write import summary_lines

Arrays = Mapping[str, np.ndarray]
_SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}
SHOWN_MATRIX = 20  # classes of the largest matrix
SHOWN_CLASSES = 20  # classes in the table of many classes
QUERIES, NEIGHBOURS, ATTENTION_HEADS = 8, 6, 6


class _Samples:
    """The arrays of a run, and the names of its classes and files."""

    def __init__(self, run: Run):
        self.predictions, self.samples = run.arrays("predictions.npz"), run.arrays("samples.npz")
        labels = [array for name, array in (self.predictions | self.samples).items() if name.endswith(_LABELS)]
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


_LABELS = ("label", "labels", "predicted", "confusion_true")


def run_page(run: Run, begin: Callable[[str], None], projection: str = "pca") -> Page:
    """Return the report of one run; `begin` is called with the title of each section."""
    arrays = _Samples(run)
    builders: dict[str, Callable[[], list[Block]]] = {
        "Mistakes": lambda: _mistakes(run, arrays),
        "Pairs": lambda: _pairs(run, arrays),
        "Verification": lambda: _verification(run, arrays),
        "Classes": lambda: _classes(run, arrays),
        "Nearest neighbours": lambda: _neighbours(run, arrays),
        "Attention": lambda: _attention(arrays),
        "New classes from few images": lambda: _few_shot(run),
        "Training": lambda: [*charts.training_curves(run)],
        "All numbers": lambda: _all_numbers(run),
        "How to reproduce": lambda: _how_to_reproduce(run),
    }
    sections = []
    for title, build in builders.items():
        begin(title)
        sections.append(Section(title, build()))
    begin("Map")
    overview: list[Block] = [Text(note) for note in _notes(run)]
    overview += _map(arrays, projection)
    title = f"{run.model_name} on {run.data_name}"
    return Page(title, _verdict(run), sections, _cards(run), overview)


def _verdict(run: Run) -> str:
    """Return the main result, and what guessing would reach."""
    guess, verdict = run.value("most_frequent_class_share"), summary_lines(run.report)[1]
    if numbers.number(guess) is None:
        return verdict
    return f"{verdict} Always guessing the most frequent class would be right for {100 * guess:.1f}%."


def _notes(run: Run) -> list[str]:
    """Return what a reader should know before the figures: how the model was trained, and what is missing."""
    collapse, missing = run.value("diagnostics.collapse"), run.value("not_evaluated") or {}
    return [
        *([str(collapse)] if collapse else []),
        summary_lines(run.report)[0],
        *(f"Not evaluated: {name.replace('_', ' ')}, because {reason}." for name, reason in missing.items()),
    ]


def _cards(run: Run) -> list[Card]:
    cards = []
    for metric in HEADLINE:
        if numbers.number(run.value(metric.name)) is not None:
            ends = interval_of(metric, run)
            interval = f"{ends[0].removesuffix('%')} to {ends[1]}" if ends else ""
            cards.append(Card(metric.title, metric.show(run.value(metric.name)), interval, metric.meaning))
    return cards


def _map(arrays: _Samples, projection: str) -> list[Block]:
    embedding, label = (arrays.predictions.get(name, np.empty(0)) for name in ("embedding", "label"))
    if embedding.ndim != 2 or embedding.shape[0] < 3:
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


def _mistakes(run: Run, arrays: _Samples) -> list[Block]:
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


def _pairs(run: Run, arrays: _Samples) -> list[Block]:
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


def _verification(run: Run, arrays: _Samples) -> list[Block]:
    blocks: list[Block] = []
    threshold = numbers.number(run.value("verification.threshold"))
    if run.value("verification"):
        pairs, accuracy, note = (run.value(f"verification.{name}") for name in ("pairs", "accuracy", "threshold_note"))
        text = f"Whether two images are of one class, decided for {numbers.count(pairs)} pairs of test images"
        if threshold is not None:
            text += f": {numbers.percent(accuracy)} of the decisions are right, at the threshold "
            text += numbers.decimal(threshold)
        blocks.append(Text(f"{text}.{f' {note[:1].upper()}{note[1:]}.' if note else ''}"))
    if scores := arrays.get("score_edges", "score_same", "score_different"):
        blocks.append(charts.score_histogram(*scores, threshold, numbers.text(run.value("measure"))))
    point = next(iter(arrays.get("roc_point")), None)
    if rates := arrays.get("roc_false_positive_rate", "roc_true_positive_rate"):
        blocks.append(charts.roc_curve(rates[0], rates[1], point, run.value("verification.roc_auc")))
    if rates := arrays.get("det_fmr", "det_fnmr"):
        blocks.append(charts.det_curve(*rates, point))
    if run.value("calibration"):
        error = run.value("calibration.expected_calibration_error")
        blocks.append(charts.reliability_diagram(run.value("calibration.bins"), error))
    return blocks


def _classes(run: Run, arrays: _Samples) -> list[Block]:
    blocks: list[Block] = []
    if run.value("confusion"):
        confusion = np.asarray(run.value("confusion"))
        names = run.class_names(len(confusion))
        blocks.append(Text(_main_confusions(confusion, names)))
        is_small = len(names) <= SHOWN_MATRIX
        blocks.append(_confusion_matrix(confusion, names) if is_small else _lowest_classes(run, names))
    blocks += _confused_images(run, arrays)
    for similarity in arrays.get("class_similarity"):
        if len(similarity) <= SHOWN_MATRIX:
            blocks.append(_class_similarity(run, similarity))
    return blocks


def _main_confusions(confusion: np.ndarray, names: list[str]) -> str:
    """Return a sentence about the classes with the lowest accuracy and the most frequent confusion."""
    total = confusion.sum(1)
    present = np.flatnonzero(total)
    recall = np.diag(confusion)[present] / total[present]
    wrong = confusion - np.diag(np.diag(confusion))
    if not wrong.any():
        return "All test images are classified correctly."
    lowest = np.argsort(recall, kind="stable")[:3]
    worst = ", ".join(f"{shorten(names[present[i]], 40)} ({numbers.percent(float(recall[i]))})" for i in lowest)
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    return (
        f"Lowest accuracy: {worst}. Most frequent confusion: {shorten(names[true], 40)} taken for "
        f"{shorten(names[predicted], 40)}, {numbers.count(int(wrong[true, predicted]))} of "
        f"{numbers.count(int(total[true]))} times."
    )


def _confusion_matrix(confusion: np.ndarray, names: list[str]) -> Matrix:
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    return Matrix(
        "confusion",
        [shorten(name, 24) for name in names],
        [shorten(name, 24) for name in names],
        [[numbers.count(int(cell)) if cell else "" for cell in row] for row in confusion],
        share.tolist(),
        "true class",
        "predicted class",
        "Number of test images of each true class (row) by predicted class (column). Those on the diagonal are "
        "classified correctly. Colour: share of the row.",
    )


def _lowest_classes(run: Run, names: list[str]) -> Table:
    """Tabulate the classes with the lowest accuracy."""
    accuracy = np.array([np.nan if value is None else value for value in run.value("per_class_accuracy")], float)
    intervals = run.value("per_class_accuracy_interval") or [None] * len(names)
    total = np.asarray(run.value("confusion")).sum(1)
    rows: list[Row] = []
    for i in np.argsort(accuracy, kind="stable")[:SHOWN_CLASSES]:
        low, high = map(numbers.percent, intervals[i] or (None, None))
        interval = f"{low} to {high}" if intervals[i] else numbers.DASH
        rows.append([names[i], numbers.count(int(total[i])), numbers.percent(float(accuracy[i])), interval])
    summary = f"The {len(rows)} classes with the lowest accuracy, of {numbers.count(len(names))}"
    return Table(["Class", "Test images", "Accuracy", "95% interval"], rows, "lrrr", summary)


def _confused_images(run: Run, arrays: _Samples) -> list[Block]:
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


def _class_similarity(run: Run, similarity: np.ndarray) -> Matrix:
    measure, higher = numbers.text(run.value("measure")), bool(run.value("higher_is_closer"))
    names = [shorten(name, 24) for name in run.class_names(len(similarity))]
    low, high = float(np.nanmin(similarity)), float(np.nanmax(similarity))
    is_signed = low < 0 and higher  # 0 has a meaning, as for the cosine
    largest = max(abs(low), abs(high)) or 1.0
    shades = similarity / largest if is_signed else (similarity - low) / ((high - low) or 1.0)
    colours = "Blue is above 0, orange below." if is_signed else f"The darker, the {'higher' if higher else 'lower'}."
    return Matrix(
        "class_similarity",
        names,
        names,
        [[f"{cell:.2f}" if np.isfinite(cell) else "" for cell in row] for row in similarity],
        np.nan_to_num(shades if higher else 1 - shades).tolist(),
        "class",
        "class",
        f"Mean {measure} of the test images of two classes, and on the diagonal of one class; it is "
        f"{'higher' if higher else 'lower'} for similar images. If the model separates the classes well, the diagonal "
        f"stands out. {colours}",
    )


def _neighbours(run: Run, arrays: _Samples) -> list[Block]:
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


def _attention(arrays: _Samples) -> list[Block]:
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


def _few_shot(run: Run) -> list[Block]:
    tasks = run.value("few_shot")
    if not tasks:
        return []
    rows: list[Row] = []
    for name, task in tasks.items():
        low, high = map(numbers.percent, task.get("accuracy_interval") or (None, None))
        accuracy = f"{numbers.percent(task.get('accuracy'))} ({low.removesuffix('%')}–{high})"
        rows.append([name, numbers.count(task.get("ways")), numbers.count(task.get("shots")), accuracy])
    explanation = (
        "Accuracy of classifying images of new classes from a few labelled images per class, averaged over many random "
        "tasks, with its 95% confidence interval."
    )
    return [Text(explanation), Table(["Task", "Classes", "Images per class", "Accuracy"], rows, align="lrrr")]


def _all_numbers(run: Run) -> list[Block]:
    rows: list[Row] = [[metric.title, with_interval(metric, run), metric.meaning] for metric in METRICS]
    return [Table(["Metric", "Value (95% interval)", "Meaning"], rows, align="lrl")]


def _how_to_reproduce(run: Run) -> list[Block]:
    """Return the command, facts about the data and the machine, the versions and the settings of the run."""
    data, command = run.part("data"), run.config.get("command")
    shape = data.get("image_shape")
    facts = {f"{name} images": numbers.count(data.get(f"{key}_images")) for key, name in _SPLITS.items()}
    facts["Image shape"] = " x ".join(map(str, shape)) if isinstance(shape, list) else numbers.text(shape)
    facts["Data set"] = numbers.text(run.value("dataset"))
    facts["Hash of the images and labels"] = numbers.text(data.get("fingerprint"))
    machine = run.value("environment") or {}
    facts |= {f"Machine: {key}": numbers.text(value) for key, value in machine.items() if key != "versions"}
    blocks: list[Block] = [Code(str(command))] if command else []
    blocks.append(Table(["Property", "Value"], [[key, value] for key, value in facts.items()], align="ll"))
    for name in ("versions", "settings"):
        if part := run.part(name):
            blocks.append(Code(json.dumps(part, indent=2, ensure_ascii=False), summary=name.capitalize()))
    return blocks
