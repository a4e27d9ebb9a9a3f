"""The sections of the report of one run. A section without content is omitted.

`Run.part` and `Run.config` read config.json, `Run.value` reads report.json, and `Run.arrays` reads arrays. `_numbers`
formats a missing value as a dash.
"""

import functools
import json
from collections.abc import Callable, Mapping

import numpy as np

from simjax.report import _charts as charts
from simjax.report import _numbers as numbers
from simjax.report import _photographs as photographs
from simjax.report._metrics import METRICS, with_interval
from simjax.report._page import Block, Code, Page, Picture, Row, Table, Text
from simjax.report._run import Run
from simjax.report._style import class_labels
from simjax.report._write import summary_lines

Arrays = Mapping[str, np.ndarray]
_SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}


def run_page(run: Run, begin: Callable[[str], None]) -> Page:
    """Return the report of one run; `begin` is called with the title of each section."""
    predictions, samples = run.arrays("predictions.npz"), run.arrays("samples.npz")
    embedding = predictions.get("embedding", np.empty((0, 0)))
    nearest = functools.partial(
        photographs.nearest_neighbours, measure=numbers.text(run.value("measure") or "similarity")
    )
    neighbours = ("query_images", "query_labels", "neighbour_images", "neighbour_labels", "neighbour_scores")
    attention = ("attention_images", "attention", "attention_labels")
    builders: dict[str, Callable[[], list[Block]]] = {
        "Headline numbers": lambda: _headline(run),
        "Training": lambda: [*charts.training_curves(run)],
        "Classes": lambda: _classes(run, samples),
        "Nearest neighbours": lambda: _figure(nearest, run, samples, *neighbours),
        "Pairs": lambda: _figure(photographs.pairs, run, samples, "pair_images", "pair_labels", "pair_dissimilarity"),
        "Verification": lambda: _verification(run, samples),
        "Embeddings": lambda: (
            _figure(charts.embedding_scatter, run, predictions, "embedding", "label") if embedding.shape[1] == 2 else []
        ),
        "Attention": lambda: _figure(photographs.attention_maps, run, samples, *attention),
        "Few-shot classification": lambda: _few_shot(run),
        "How to reproduce": lambda: _how_to_reproduce(run),
    }
    sections = []
    for title, build in builders.items():
        begin(title)
        sections.append((title, build()))
    title = f"{numbers.text(run.value('model'))} on {numbers.text(run.value('dataset'))}"
    lead = " ".join(summary_lines(run.report)[:2])
    return Page(title, lead, [(title, blocks) for title, blocks in sections if blocks])


def _headline(run: Run) -> list[Block]:
    methods = {
        "classifier": " Predicted by the model's own classifier.",
        "knn": " There is no classifier for these classes: predicted by the nearest labelled images.",
    }
    rows: list[Row] = []
    for metric in METRICS:
        note = methods.get(str(run.value("accuracy_of")), "") if metric.name == "accuracy" else ""
        rows.append([metric.title, with_interval(metric, run), metric.meaning + note])
    missing = run.value("not_evaluated") or {}
    notes = [Text(f"Not evaluated: {name}, because {reason}.") for name, reason in missing.items()]
    return [Table(["Metric", "Value", "Meaning"], rows, align="lrl"), *notes]


def _get(arrays: Arrays, *names: str) -> list[np.ndarray]:
    """Return arrays by name, or no arrays if one of them is missing or empty."""
    return [arrays[name] for name in names] if all(name in arrays and arrays[name].size for name in names) else []


def _figure(draw: Callable[..., Picture], run: Run, arrays: Arrays, *names: str) -> list[Block]:
    """Return the figure `draw(*arrays, class names)`, or no block if one of the named arrays is missing or empty."""
    selected = _get(arrays, *names)
    if not selected:
        return []
    labels = [array for array, name in zip(selected, names, strict=True) if name.endswith(("label", "labels"))]
    return [draw(*selected, run.class_names(1 + max(int(label.max()) for label in labels)))]


def _classes(run: Run, samples: Arrays) -> list[Block]:
    blocks: list[Block] = []
    if run.value("confusion"):
        confusion = np.asarray(run.value("confusion"))
        names = run.class_names(len(confusion))
        blocks += [Text(_main_confusions(confusion, names)), *_numbered_classes(names)]
        blocks += [charts.confusion_matrix(confusion, names)]
    for similarity in _get(samples, "class_similarity"):
        names = run.class_names(len(similarity))
        blocks += [*([] if blocks else _numbered_classes(names)), charts.class_similarity(similarity, names)]
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
    worst = ", ".join(f"{names[present[i]]} ({numbers.percent(float(recall[i]))})" for i in lowest)
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    return (
        f"Lowest accuracy: {worst}. Most frequent confusion: {names[true]} taken for {names[predicted]}, "
        f"{numbers.count(int(wrong[true, predicted]))} of {numbers.count(int(total[true]))} times."
    )


def _numbered_classes(names: list[str]) -> list[Block]:
    """Return a legend of the classes whose names have letters that the font of the figures lacks."""
    labels = zip(class_labels(names), names, strict=True)
    numbered = [f"{label} is {name}" for label, name in labels if label.startswith("#")]
    return [Text(f"In figures {', '.join(numbered)}.")] if numbered else []


def _verification(run: Run, samples: Arrays) -> list[Block]:
    blocks: list[Block] = []
    if run.value("verification"):
        pairs, accuracy, threshold, source, note = (
            run.value(f"verification.{name}")
            for name in ("pairs", "accuracy", "threshold", "threshold_from", "threshold_note")
        )
        text = (
            f"Whether two images are of one class, predicted for {numbers.count(pairs)} pairs of test images: "
            f"{numbers.percent(accuracy)} are classified correctly at the threshold {numbers.decimal(threshold)}"
        )
        text += f"{f', chosen on {source}' if source else ''}.{f' {note[:1].upper()}{note[1:]}.' if note else ''}"
        blocks.append(Text(text))
    if rates := _get(samples, "roc_false_positive_rate", "roc_true_positive_rate"):
        point = next(iter(_get(samples, "roc_point")), None)
        blocks.append(charts.roc_curve(rates[0], rates[1], point, run.value("verification.roc_auc")))
    if run.value("calibration"):
        error = run.value("calibration.expected_calibration_error")
        blocks.append(charts.reliability_diagram(run.value("calibration.bins"), error))
    return blocks


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


def _how_to_reproduce(run: Run) -> list[Block]:
    """Return the command, facts about the data and the machine, the versions and the settings of the run."""
    data, command = run.part("data"), run.config.get("command")
    shape = data.get("image_shape")
    facts = {f"{name} images": numbers.count(data.get(f"{key}_images")) for key, name in _SPLITS.items()}
    facts["Image shape"] = " x ".join(map(str, shape)) if isinstance(shape, list) else numbers.text(shape)
    facts["Hash of the images and labels"] = numbers.text(data.get("fingerprint"))
    machine = run.value("environment") or {}
    facts |= {f"Machine: {key}": numbers.text(value) for key, value in machine.items() if key != "versions"}
    blocks: list[Block] = [Code(str(command))] if command else []
    blocks.append(Table(["Property", "Value"], [[key, value] for key, value in facts.items()], align="ll"))
    for name in ("versions", "settings"):
        if part := run.part(name):
            blocks.append(Code(json.dumps(part, indent=2, ensure_ascii=False), summary=name.capitalize()))
    return blocks
