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
from simjax.report._metrics import BY_NAME, CARDS, METRICS, interval_of, with_interval
from simjax.report._page import Block, Card, Code, Matrix, Page, Row, Section, Table, Text
from simjax.report._render import shorten
from simjax.report._run import Run
from simjax.report._write import summary_lines

_SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}
LONG_NAMES = {"CNN": "Convolutional network (CNN)", "ViT": "Vision transformer (ViT)"}
SHOWN_MATRIX = 20  # classes of the largest matrix
SHOWN_CLASSES = 20  # classes in the table of many classes
RARE = 0.01  # share of pairs of the same class of the example in which they are rare


def run_page(run: Run, begin: Callable[[str], None], projection: str = "pca") -> Page:
    """Return the report of one run; `begin` is called with the title of each section."""
    arrays = images.Samples(run)
    builders: dict[str, Callable[[], list[Block]]] = {
        "Mistakes": lambda: images.mistakes(run, arrays),
        "Same class or not?": lambda: [*_verification(run, arrays), *images.judged_pairs(run, arrays)],
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
    title = f"{LONG_NAMES.get(run.model_name) or numbers.capitalize(run.model_name)} on {run.data_name}"
    return Page(title, _verdict(run), sections, _cards(run), overview)


def _verdict(run: Run) -> str:
    """Return the main result, and what guessing would reach."""
    guess, verdict = run.value("most_frequent_class_share"), summary_lines(run.report)[1]
    if numbers.number(guess) is None:
        return verdict
    return f"{verdict} Guessing the most frequent class every time would reach {100 * guess:.1f}%."


def _notes(run: Run) -> list[str]:
    """Return the notes of the first screen: a collapse, the training, and the parts that are missing."""
    data = run.part("data")
    train, validation = (numbers.count(data.get(f"{name}_images")) for name in ("train", "validation"))
    objective, steps, seconds, parameters, seed = (
        run.value(name) for name in ("objective", "steps", "train_seconds", "parameters", "seed")
    )
    epochs = run.part("settings").get("epochs")
    length = numbers.quantity(steps, "step")
    length = f"{numbers.quantity(epochs, 'epoch')}, {length}" if epochs else length
    training = (
        f"Trained on {train} images, with {validation} for validation, by the {numbers.text(objective)} objective: "
        f"{length} in {numbers.seconds(seconds)}, {numbers.count(parameters)} parameters, random seed "
        f"{numbers.text(seed)}. Neither the training nor the threshold for pairs used the test images. The numbers are "
        "about this one trained model; another seed gives a somewhat different one."
    )
    collapse, missing = run.value("diagnostics.collapse"), run.value("not_evaluated") or {}
    return [
        *([str(collapse)] if collapse else []),
        training,
        *(f"Not evaluated: {name.replace('_', ' ')}, because {reason}." for name, reason in missing.items()),
    ]


def _cards(run: Run) -> list[Card]:
    cards = []
    for metric in CARDS:
        if numbers.number(run.value(metric.name)) is not None:
            ends = interval_of(metric, run)
            interval = f"{ends[0].removesuffix('%')} to {ends[1]}" if ends else ""
            cards.append(Card(metric.title, metric.show(run.value(metric.name)), interval, metric.meaning))
    return cards


def _verification(run: Run, arrays: images.Samples) -> list[Block]:
    blocks: list[Block] = []
    threshold = numbers.number(run.value("verification.threshold"))
    if run.value("verification"):
        blocks.append(Text(_decisions(run, arrays)))
    scores = arrays.get("score_edges", "score_same", "score_different")
    if scores:
        blocks.append(charts.score_histogram(scores[0], scores[1], scores[2], threshold, run.measure_name))
    point = next(iter(arrays.get("roc_point")), None)
    if rates := arrays.get("roc_false_positive_rate", "roc_true_positive_rate"):
        blocks.append(charts.roc_curve(rates[0], rates[1], point, run.value("verification.roc_auc")))
    if rates := arrays.get("det_fmr", "det_fnmr"):
        blocks.append(charts.det_curve(rates[0], rates[1], point))
    if run.value("calibration"):
        error = run.value("calibration.expected_calibration_error")
        blocks.append(charts.reliability_diagram(run.value("calibration.bins"), error))
    return blocks


def _decisions(run: Run, arrays: images.Samples) -> str:
    """Return how pairs are judged, and how many decisions are wrong."""
    names = ("pairs", "fmr", "fnmr", "threshold_note")
    pairs, fmr, fnmr, note = (run.value(f"verification.{name}") for name in names)
    higher, threshold = bool(run.value("higher_is_closer")), numbers.number(run.value("verification.threshold"))
    text = (
        f"Do two images show the same class? The score of a pair is the {run.measure_name} of its embeddings, "
        f"{'higher' if higher else 'lower'} for similar images. Tested on {numbers.count(pairs)} pairs of test images, "
        "half of them of the same class, the other half drawn at random from pairs of different classes."
    )
    if threshold is not None:
        text += (
            f" A pair is judged the same if its score is at {'least' if higher else 'most'} {threshold:.4g}: "
            f"{with_interval(BY_NAME['verification.accuracy'], run)} of these decisions are right."
        )
    text += f" {numbers.capitalize(note)}." if note else ""
    counts = arrays.get("score_same", "score_different")
    if not counts or None in (numbers.number(fmr), numbers.number(fnmr)):
        return text
    of_same, of_different = (int(count.sum()) for count in counts)
    text += (
        f" {numbers.count(round(fmr * of_different))} of the {numbers.count(of_different)} different pairs are false "
        f"matches ({numbers.percent(fmr)}), {numbers.count(round(fnmr * of_same))} of the {numbers.count(of_same)} "
        f"same pairs are missed matches ({numbers.percent(fnmr)})."
    )
    accepted = RARE * (1 - fnmr) + (1 - RARE) * fmr
    if not accepted:
        return text
    return text + (
        f" Among pairs of which only {RARE:.0%} are of the same class, {(1 - RARE) * fmr / accepted:.0%} of the "
        "matches would be false."
    )


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
    if len(run.value("confusion") or []) > SHOWN_MATRIX:
        blocks += images.confused_images(arrays)
    return blocks


def _main_confusions(confusion: np.ndarray, names: list[str]) -> str:
    """Return a sentence about the classes with the most mistakes and the most frequent confusion."""
    total = confusion.sum(1)
    wrong = confusion - np.diag(np.diag(confusion))
    if not wrong.any():
        return "All test images are classified correctly."
    share = wrong.sum(1) / np.maximum(total, 1)
    lowest = [i for i in np.argsort(-share, kind="stable")[:3] if share[i]]
    worst = ", ".join(f"{shorten(names[i], 40)} ({wrong[i].sum():,} of {total[i]:,} wrong)" for i in lowest)
    is_all = np.count_nonzero(share) == len(lowest)
    worst = f"{'Classes with mistakes' if is_all else 'Classes with the largest share of mistakes'}: {worst}."
    largest = wrong.max()
    if largest == 1:
        return f"{worst} No confusion occurs more than once."
    ties = [f"{shorten(names[i], 40)} taken for {shorten(names[j], 40)}" for i, j in np.argwhere(wrong == largest)]
    most = ", ".join(ties[:3]) + (f" and {numbers.quantity(len(ties) - 3, 'other')}" if len(ties) > 3 else "")
    each = " each" if len(ties) > 1 else ""
    return f"{worst} Most frequent confusion: {most}, {numbers.count(largest)} times{each}."


def _confusion_matrix(confusion: np.ndarray, names: list[str]) -> Matrix:
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    is_wrong = (confusion > 0) & ~np.eye(len(confusion), dtype=bool)
    return Matrix(
        [shorten(name, 24) for name in names],
        [shorten(name, 24) for name in names],
        [[numbers.count(int(cell)) if cell else "" for cell in row] for row in confusion],
        np.where(is_wrong, -(0.4 + 0.6 * share), share).tolist(),
        "true class",
        "predicted class",
        "Number of test images of each true class (row) by predicted class (column): blue is right, orange is wrong, "
        "an empty cell is 0. Colour: share of the row.",
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
    measure, higher = run.measure_name, bool(run.value("higher_is_closer"))
    names = [shorten(name, 24) for name in run.class_names(len(similarity))]
    low, high = float(np.nanmin(similarity)), float(np.nanmax(similarity))
    is_signed = low < 0 and higher  # 0 has a meaning, as for the cosine
    largest = max(abs(low), abs(high)) or 1.0
    shades = similarity / largest if is_signed else (similarity - low) / ((high - low) or 1.0)
    colours = "Blue is above 0, orange below." if is_signed else f"The darker, the {'higher' if higher else 'lower'}."
    return Matrix(
        names,
        names,
        [[f"{cell:.2f}" if np.isfinite(cell) else "" for cell in row] for row in similarity],
        np.nan_to_num(shades if higher else 1 - shades).tolist(),
        "",
        "",
        f"Mean {measure} of the embeddings of the test images of one class (row) and of another one (column), on the "
        f"diagonal within a class; {'higher' if higher else 'lower'} is more similar. If the model separates the "
        f"classes well, the diagonal stands out. {colours}",
    )


def _few_shot(run: Run) -> list[Block]:
    tasks = run.value("few_shot")
    if not tasks:
        return []
    rows: list[Row] = []
    for name, task in tasks.items():
        low, high = map(numbers.percent, task.get("accuracy_interval") or (None, None))
        interval = f" ({low.removesuffix('%')}–{high})" if task.get("accuracy_interval") else ""
        accuracy = f"{numbers.percent(task.get('accuracy'))}{interval}"
        rows.append([name, numbers.count(task.get("ways")), numbers.count(task.get("shots")), accuracy])
    explanation = (
        "Accuracy of classifying images of new classes from a few labelled images per class, averaged over many random "
        "tasks. The 95% intervals are for other random tasks with these images, not for other images."
    )
    return [Text(explanation), Table(["Task", "Classes", "Images per class", "Accuracy"], rows, align="lrrr")]


def _all_numbers(run: Run) -> list[Block]:
    rows: list[Row] = [[metric.title, with_interval(metric, run), metric.meaning] for metric in METRICS]
    note = (
        f"The intervals say where the value may be for other {run.unit}: it is computed again without each of them "
        "(jackknife; Student's t over batches for the loss). If errors are few, their true rate may be several times "
        "as high."
    )
    return [Table(["Metric", "Value (95% interval)", "Meaning"], rows, align="lrl"), Text(note)]


def _how_to_reproduce(run: Run) -> list[Block]:
    """Return the command, facts about the data and the machine, the versions and the settings of the run."""
    data, command = run.part("data"), run.command
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
