"""The page of one run: the verdict, the mistakes, pairs, verification, classes, neighbours, training, all numbers.

`Run.part` and `Run.config` read config.json, `Run.value` reads report.json, and `Run.arrays` reads arrays. A section
without content is omitted. `_numbers` formats a missing value as a dash.
"""

import json
from collections.abc import Callable

import numpy as np

from simjax.report import _charts as charts
from simjax.report import _numbers as numbers
from simjax.report import _run_images as images
from simjax.report._metrics import HEADLINE, METRICS, interval_of, with_interval
from simjax.report._page import Block, Card, Code, Matrix, Page, Row, Section, Table, Text
from simjax.report._render import shorten
from simjax.report._run import Run
from simjax.report._write import summary_lines

_SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}
SHOWN_MATRIX = 20  # classes of the largest matrix
SHOWN_CLASSES = 20  # classes in the table of many classes


def run_page(run: Run, begin: Callable[[str], None], projection: str = "pca") -> Page:
    """Return the report of one run; `begin` is called with the title of each section."""
    arrays = images.Samples(run)
    builders: dict[str, Callable[[], list[Block]]] = {
        "Mistakes": lambda: images.mistakes(run, arrays),
        "Pairs": lambda: images.judged_pairs(run, arrays),
        "Verification": lambda: _verification(run, arrays),
        "Classes": lambda: _classes(run, arrays),
        "Nearest neighbours": lambda: images.nearest_neighbours(run, arrays),
        "Attention": lambda: images.attention_maps(arrays),
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
    overview += images.embedding_map(arrays, projection)
    title = numbers.capitalize(f"{run.model_name} on {run.data_name}")
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


def _verification(run: Run, arrays: images.Samples) -> list[Block]:
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


def _classes(run: Run, arrays: images.Samples) -> list[Block]:
    blocks: list[Block] = []
    if run.value("confusion"):
        confusion = np.asarray(run.value("confusion"))
        names = run.class_names(len(confusion))
        blocks.append(Text(_main_confusions(confusion, names)))
        is_small = len(names) <= SHOWN_MATRIX
        blocks.append(_confusion_matrix(confusion, names) if is_small else _lowest_classes(run, names))
    for similarity in arrays.get("class_similarity"):
        if len(similarity) <= SHOWN_MATRIX:
            blocks.append(_class_similarity(run, similarity))
    return [*blocks, *images.confused_images(run, arrays)]


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
