"""Comparisons of the trained networks of a study beyond their accuracy: layers, probes, attention, classifiers."""

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simjax._files import write_file
from simjax.data import Dataset
from simjax.encoder import Encoder, load_encoder
from simjax.explain import mean_attention_distance
from simjax.study._classifiers import Classifications, calibration, classify, robustness
from simjax.study._inside import look_inside
from simjax.study._plan import Plan
from simjax.study._probes import linear_probes
from simjax.study._representations import layer_similarity, shuffle_images
from simjax.study._run import CellState
from simjax.train._data import DataSplits, load_splits
from simjax.train._settings import from_dict

ANALYSIS_FILE = "analysis.json"
PROBE_IMAGES, PROBE_FEATURES = 1000, 512  # training images and largest number of features of a linear probe
LEFT_OUT = (".Convolution", ".BatchNorm", ".flatten")  # ends of names: an activation follows, or no number changes
PIXELS = "pixels"  # stands in the results of the probes for the image itself
SEED = 0  # of the choice of images and of the corruptions


def analyze(
    plan: Plan, states: list[CellState], out: str | Path, begin: Callable[[str], None] = lambda part: None
) -> None:
    """Compare the networks of all finished cells and write analysis.json into the folder of the study.

    Args:
        plan: The plan of the study.
        states: Its cells, from `begin_study`.
        out: The folder.
        begin: Called with the name of each part when it begins.
    """
    content = {}
    for index, (title, members) in enumerate(_finished_groups(states).items()):
        splits = load_splits(from_dict(members[0].planned["settings"]))
        content[title] = _analyze_group(members, splits, plan.analysis_images, begin)
        if (arrays := _look_inside(members, splits, plan.analysis_images, begin)) is not None:
            content[title]["pictures"] = f"pictures-{index}.npz"
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **arrays)
            write_file(Path(out) / content[title]["pictures"], buffer.getvalue())
    write_file(Path(out) / ANALYSIS_FILE, json.dumps(content, indent=2, allow_nan=False) + "\n")


def analysis_parts(states: list[CellState]) -> int:
    """Return the number of parts of `analyze`: every finished cell, and the layers and the pictures of every group."""
    groups = _finished_groups(states)
    return sum(map(len, groups.values())) + 2 * len(groups)


def _finished_groups(states: list[CellState]) -> dict[str, list[CellState]]:
    """Return the finished cells by their group."""
    groups: dict[str, list[CellState]] = {}
    for state in states:
        if state.status == "finished":
            groups.setdefault(state.cell.group, []).append(state)
    return groups


def _analyze_group(
    states: list[CellState], splits: DataSplits, count: int, begin: Callable[[str], None]
) -> dict[str, Any]:
    test, train = _sample(splits.test, count), _sample(splits.train, PROBE_IMAGES)
    layers: dict[str, list[dict[str, np.ndarray]]] = {}
    classified: dict[str, list[Classifications]] = {}
    attention, uniform = {}, {}
    pixels = [{PIXELS: of.images.reshape(len(of.labels), -1) / np.float32(255)} for of in (train, test)]
    probes = {PIXELS: _probe_results(pixels[0], train.labels, pixels[1], test.labels)}
    for state in states:
        begin(state.cell.name)
        network, encoder = state.cell.network, load_encoder(state.folder)
        if len(layers.setdefault(network, [])) < 2:  # two seeds: the second one is the yardstick of the first
            layers[network].append(_layers(encoder, test.images))
        if encoder.head is not None:
            classified.setdefault(network, []).append(classify(encoder, test, SEED))
        if network not in probes and layers[network][0]:
            features = _layers(encoder, train.images)
            probes[network] = _probe_results(features, train.labels, layers[network][0], test.labels)
            if state.cell.model == "vit":
                attention[network], uniform[network] = _attention_distances(encoder, test.images[: count // 4])
    begin("layers")
    return {
        "images": len(test.labels),
        "layers": _layer_comparisons(layers),
        "probes": probes,
        "robustness": {network: robustness(runs) for network, runs in classified.items()},
        "calibration": {network: calibration(runs) for network, runs in classified.items()},
        "attention_distance": attention,
        "uniform_attention_distance": uniform,
    }


def _layers(encoder: Encoder, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of the layers by name, without those in `LEFT_OUT`."""
    outputs = encoder.encode(images, layers=True)
    return {name: features for name, features in outputs.items() if not name.endswith(LEFT_OUT)}


def _look_inside(
    states: list[CellState], splits: DataSplits, count: int, begin: Callable[[str], None]
) -> dict[str, np.ndarray] | None:
    """Return the pictures of the first CNN and ViT of one measure and seed, or None if there are none that classify."""
    begin("pictures")
    cnns, vits = (
        {(state.cell.measure, state.cell.seed): state for state in states if state.cell.model == model}
        for model in ("cnn", "vit")
    )
    common = next((key for key in cnns if key in vits), None)
    if common is None:
        return None
    encoders = [load_encoder(of_model[common].folder) for of_model in (cnns, vits)]
    if any(encoder.head is None for encoder in encoders):
        return None
    cnn, vit = encoders
    return look_inside(cnn, vit, _sample(splits.test, count))


def _sample(dataset: Dataset, count: int) -> Dataset:
    """Return at most `count` random images in the order of the data set."""
    n = len(dataset.labels)
    rows = np.sort(np.random.default_rng(SEED).permutation(n)[:count])
    return dataset._replace(images=dataset.images[rows], labels=dataset.labels[rows], paths=None)


def _layer_comparisons(layers: dict[str, list[dict[str, np.ndarray]]]) -> list[dict[str, Any]]:
    """Return the similarity of the layers of networks that differ in the model, the measure or the seed only.

    The last one compares a network with itself on shuffled images.
    """
    found = []

    def add(a: str, b: str, x: dict[str, np.ndarray], y: dict[str, np.ndarray], kind: str) -> None:
        values = layer_similarity(x, y)
        found.append({"a": a, "b": b, "kind": kind, "rows": [*x], "columns": [*y], "cka": values.tolist()})

    names = [name for name, of_seeds in layers.items() if of_seeds[0]]  # logistic regression has no layers
    for a, b in itertools.combinations(names, 2):
        (model_a, _, measure_a), (model_b, _, measure_b) = a.rpartition("-"), b.rpartition("-")
        if measure_a == measure_b or model_a == model_b:
            add(a, b, layers[a][0], layers[b][0], "model" if measure_a == measure_b else "measure")
    for name in names:
        if len(layers[name]) > 1:
            first, second = layers[name]
            add(name, name, first, second, "seeds")
    for name in names[:1]:
        add(name, name, layers[name][0], shuffle_images(layers[name][0]), "shuffled")
    return found


def _probe_results(
    train_features: dict[str, np.ndarray],
    train_labels: np.ndarray,
    test_features: dict[str, np.ndarray],
    test_labels: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """Return the accuracy of a linear probe of each layer, with its interval."""
    found = linear_probes(train_features, train_labels, test_features, test_labels, max_features=PROBE_FEATURES)
    return {layer: {"accuracy": one.value, "accuracy_interval": one.interval()} for layer, one in found.items()}


def _attention_distances(encoder: Encoder, images: np.ndarray) -> tuple[list[list[float]], float]:
    """Return the mean attention distance of each head of each block, in patches, and that of uniform attention."""
    network: Any = encoder.networks[0]
    distances = mean_attention_distance(encoder.attention_weights(images), network.grid).mean(axis=0)
    patches = network.grid[0] * network.grid[1]
    return distances.tolist(), float(mean_attention_distance(np.ones((patches, patches)), network.grid))
