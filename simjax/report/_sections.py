"""A run's report, section by section; a section whose data are missing is left out."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from simjax.report import _matrices as matrices
from simjax.report import _numbers as numbers
from simjax.report import _pictures as pictures
from simjax.report import _points as points
from simjax.report import _style as style
from simjax.report._curves import curves
from simjax.report._metrics import METRICS
from simjax.report._page import Block, Cell, Code, Folded, Page, Section, Table, Text
from simjax.report._run import Run
from simjax.report._summary import summary_lines


def run_page(run: Run) -> Page:
    """The whole report of one run."""
    predictions, samples = run.arrays("predictions.npz"), run.arrays("samples.npz")
    title = f"{numbers.text(run.value('model'))} on {numbers.text(run.value('dataset'))}"
    sections = [
        ("Headline numbers", _headline(run)),
        ("Training", list(curves(run))),
        ("Classes", _classes(run, samples)),
        ("Nearest neighbours", _neighbours(run, samples)),
        ("Pairs", _pairs(run, samples)),
        ("Verification", _verification(run, samples)),
        ("Embeddings", _embeddings(run, predictions)),
        ("Attention", _attention(run, samples)),
        ("Few-shot classification", _few_shot(run)),
        ("How to reproduce", _reproduce(run)),
    ]
    lead = " ".join(summary_lines(run.report)[:2])
    return Page(title, lead, [Section(title, blocks) for title, blocks in sections if blocks])


def _headline(run: Run) -> list[Block]:
    rows: list[list[str | Cell]] = []
    for metric in METRICS:
        meaning = metric.meaning
        if metric.name == "accuracy" and run.value("accuracy_of") == "classifier":
            meaning += " Judged by the model's own classifier."
        if metric.name == "accuracy" and run.value("accuracy_of") == "knn":
            meaning += " There is no classifier for these classes: the nearest labelled images vote."
        rows.append([metric.title, metric.show(run.value(*metric.keys)), meaning])
    missing = run.value("not_evaluated")
    reasons = missing.items() if isinstance(missing, Mapping) else ()
    table = Table(["Number", "Value", "What it says"], rows, "lrl")
    return [table, *(Text(f"Not evaluated: {name}, because {reason}.") for name, reason in reasons)]


def _names(run: Run, *labels: np.ndarray) -> list[str]:
    """The names of all classes that the labels count."""
    return run.class_names(1 + max(int(label.max(initial=0)) for label in labels))


def _have(arrays: Mapping[str, np.ndarray], *names: str) -> bool:
    return all(name in arrays and arrays[name].size for name in names)


def _classes(run: Run, samples: Mapping[str, np.ndarray]) -> list[Block]:
    blocks: list[Block] = []
    confusion = run.value("confusion")
    if confusion:
        counts = np.asarray(confusion)
        names = run.class_names(len(counts))
        blocks += [Text(_hardest(counts, names)), *_key(names), matrices.confusion_matrix(counts, names)]
    if _have(samples, "class_similarity"):
        similarity = samples["class_similarity"]
        names = run.class_names(len(similarity))
        blocks += [*([] if blocks else _key(names)), matrices.class_similarity(similarity, names)]
    return blocks


def _hardest(confusion: np.ndarray, names: list[str]) -> str:
    """A sentence on the classes that went worst and the confusion that is met most often."""
    total = confusion.sum(1)
    met = np.flatnonzero(total)
    recall = np.diag(confusion)[met] / total[met]
    wrong = confusion - np.diag(np.diag(confusion))
    if not wrong.any():
        return "Every test image was classified right."
    worst = (f"{names[met[i]]} ({numbers.percent(float(recall[i]))})" for i in np.argsort(recall, kind="stable")[:3])
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    return (
        f"Lowest accuracy: {', '.join(worst)}. Most frequent confusion: {names[true]} taken for {names[predicted]}, "
        f"{numbers.count(int(wrong[true, predicted]))} of {numbers.count(int(total[true]))} times."
    )


def _key(names: list[str]) -> list[Block]:
    """Which class a number stands for, where figures cannot write the name."""
    drawn = style.labels(names)
    numbered = [f"{label} is {name}" for label, name in zip(drawn, names, strict=True) if label.startswith("#")]
    return [Text(f"In figures {', '.join(numbered)}.")] if numbered else []


def _neighbours(run: Run, samples: Mapping[str, np.ndarray]) -> list[Block]:
    keys = ("query_images", "query_labels", "neighbour_images", "neighbour_labels", "neighbour_scores")
    if not _have(samples, *keys):
        return []
    query, query_label, image, label, score = (samples[key] for key in keys)
    names = _names(run, query_label, label)
    measure = numbers.text(run.value("measure") or "similarity")
    return [pictures.neighbour_strips(query, query_label, image, label, score, names, measure)]


def _pairs(run: Run, samples: Mapping[str, np.ndarray]) -> list[Block]:
    keys = ("pair_images", "pair_labels", "pair_dissimilarity")
    if not _have(samples, *keys):
        return []
    image, label, dissimilarity = (samples[key] for key in keys)
    return [pictures.pair_pictures(image, label, dissimilarity, _names(run, label))]


def _verification(run: Run, samples: Mapping[str, np.ndarray]) -> list[Block]:
    blocks: list[Block] = []
    if run.value("verification"):
        source, note = (run.value("verification", name) for name in ("threshold_from", "threshold_note"))
        blocks.append(
            Text(
                f"Whether two images are of one class, decided for {numbers.count(run.value('verification', 'pairs'))} "
                f"pairs of test images: {numbers.percent(run.value('verification', 'accuracy'))} are decided right at "
                f"the threshold {numbers.decimal(run.value('verification', 'threshold'))}"
                f"{f', chosen on {source}' if source else ''}."
                f"{f' {note[:1].upper()}{note[1:]}.' if note else ''}"
            )
        )
    if _have(samples, "roc_false_positive_rate", "roc_true_positive_rate"):
        rates = samples["roc_false_positive_rate"], samples["roc_true_positive_rate"]
        point = samples["roc_point"] if _have(samples, "roc_point") else None
        blocks.append(points.roc_curve(*rates, point, run.value("verification", "roc_auc")))
    return blocks


def _embeddings(run: Run, predictions: Mapping[str, np.ndarray]) -> list[Block]:
    if not _have(predictions, "embedding", "label") or predictions["embedding"].shape[1] != 2:
        return []
    label = predictions["label"]
    return [points.embedding_scatter(predictions["embedding"], label, _names(run, label))]


def _attention(run: Run, samples: Mapping[str, np.ndarray]) -> list[Block]:
    keys = ("attention_images", "attention", "attention_labels")
    if not _have(samples, *keys):
        return []
    image, attention, label = (samples[key] for key in keys)
    return [pictures.attention_maps(image, attention, label, _names(run, label))]


def _few_shot(run: Run) -> list[Block]:
    tasks = run.value("few_shot")
    if not isinstance(tasks, Mapping) or not tasks:
        return []
    rows: list[list[str | Cell]] = [
        [name, *(show(run.value("few_shot", name, key)) for key, show in _FEW_SHOT.items())] for name in tasks
    ]
    explained = (
        "How well new classes are told apart that are known from a few images each, over many random tasks. The true "
        "mean lies within ± the interval with 95% probability."
    )
    return [Text(explained), Table(["Task", "Classes", "Images of each", "Accuracy", "±"], rows, "lrrrr")]


_FEW_SHOT = {
    "ways": numbers.count,
    "shots": numbers.count,
    "accuracy": numbers.percent,
    "interval": numbers.percent,
}


def _reproduce(run: Run) -> list[Block]:
    data, machine = run.part("data"), run.value("environment")
    blocks: list[Block] = []
    if run.config.get("command"):
        blocks.append(Code(str(run.config["command"])))
    facts = {
        "Training images": numbers.count(data.get("train_images")),
        "Validation images": numbers.count(data.get("validation_images")),
        "Test images": numbers.count(data.get("test_images")),
        "Image shape": _joined(data.get("image_shape"), " x "),
        "Fingerprint of the data": numbers.text(data.get("fingerprint")),
        **(
            {f"Machine: {key}": numbers.text(value) for key, value in machine.items() if not isinstance(value, Mapping)}
            if isinstance(machine, Mapping)
            else {}
        ),
    }
    blocks.append(Table(["Fact", "Value"], [[key, value] for key, value in facts.items()], "ll"))
    for part in ("versions", "settings"):
        if run.part(part):
            written = json.dumps(run.part(part), indent=2, ensure_ascii=False)
            blocks.append(Folded(part.capitalize(), written))
    return blocks


def _joined(value: Any, between: str) -> str:
    return between.join(map(str, value)) if isinstance(value, list) else numbers.text(value)
