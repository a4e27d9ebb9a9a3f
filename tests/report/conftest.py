"""Finished runs with made-up results and real images of digits."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

MakeRun = Callable[..., Path]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace charts by empty ones, for tests of the text: drawing takes most of the time of a report."""
    monkeypatch.setattr("simjax.report._style.to_svg", lambda figure, name: "<svg ></svg>")


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _calibration() -> dict[str, Any]:
    """Return three bins, the middle one without pairs."""
    bins = [
        {"low": 0.0, "high": 0.3, "count": 60, "mean_probability": 0.1, "fraction_same": 0.15,
         "fraction_same_interval": [0.05, 0.3]},
        {"low": 0.3, "high": 0.6, "count": 0, "mean_probability": None, "fraction_same": None,
         "fraction_same_interval": None},
        {"low": 0.6, "high": 1.0, "count": 1, "mean_probability": 0.9, "fraction_same": 1.0,
         "fraction_same_interval": None},
    ]  # fmt: skip
    error = {"expected_calibration_error": 0.05082, "expected_calibration_error_interval": [0.02, 0.0813]}
    return error | {"bins": bins, "prior": 0.5}


def _pictures(names: list[str], size: int, channels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    pixels, target = load_digits(return_X_y=True)
    pixels, target = np.asarray(pixels)[:400].reshape(-1, 8, 8), np.asarray(target)[:400]
    images = np.kron(pixels / 16 * 255, np.ones((1, size // 8, size // 8)))[..., None]  # [n, size, size, 1]
    if channels == 3:
        images = images * rng.uniform(0.4, 1, (len(images), 1, 1, 3)) + rng.uniform(0, 60, (len(images), size, size, 3))
    return images.clip(0, 255).astype(np.uint8), target % len(names)


def _samples(images: np.ndarray, labels: np.ndarray, classes: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    query = rng.choice(len(images), 8, replace=False)
    neighbours = np.stack([rng.choice(np.flatnonzero(labels == labels[i]), 5) for i in query])  # [8, 5]
    neighbours[::3, 4] = rng.choice(len(images), 3)
    pairs = rng.choice(len(images), (12, 2))
    for i in range(0, 12, 2):
        pairs[i, 1] = rng.choice(np.flatnonzero(labels == labels[pairs[i, 0]]))
    same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    vectors = rng.normal(size=(classes, 16)) + 0.4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rate = np.linspace(0, 1, 200)
    return {
        "query_images": images[query],
        "query_labels": labels[query],
        "neighbour_images": images[neighbours],
        "neighbour_labels": labels[neighbours],
        "neighbour_scores": np.sort(rng.uniform(0.7, 1, neighbours.shape))[:, ::-1],
        "query_index": query,
        "neighbour_index": neighbours,
        "pair_images": images[pairs],
        "pair_index": pairs,
        "pair_labels": labels[pairs],
        "pair_scores": np.where(same, rng.uniform(0.7, 1, 12), rng.uniform(0, 0.6, 12)),
        "pair_probability": np.where(same, rng.uniform(0.8, 1, 12), rng.uniform(0, 0.4, 12)),
        "score_edges": np.linspace(0, 1, 11),
        "score_same": np.arange(10),
        "score_different": np.arange(10)[::-1],
        "mistake_index": query[:2],
        "mistake_images": images[query[:2]],
        "mistake_labels": labels[query[:2]],
        "mistake_predicted": (labels[query[:2]] + 1) % classes,
        "mistake_confidence": np.array([0.91, 0.62]),
        "confusion_true": np.array([0]),
        "confusion_predicted": np.array([classes - 1]),
        "confusion_count": np.array([3]),
        "confusion_images": images[pairs[:1]],
        "confusion_index": pairs[:1],
        "map_index": np.arange(0, 360, 2),
        "map_images": images[:360:2, :: -(-images.shape[1] // 32), :: -(-images.shape[1] // 32)],
        "det_fmr": rate[::-1],
        "det_fnmr": 1 - rate[::-1] ** 0.08,
        "roc_false_positive_rate": rate,
        "roc_true_positive_rate": rate**0.08,
        "roc_point": np.array([0.03, 0.03**0.08]),
        "class_similarity": vectors @ vectors.T,
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a finished run and returns its folder."""
    return make_runs(tmp_path)


def make_runs(parent: Path) -> MakeRun:
    """Return a function that writes a finished run below a folder and returns its folder."""

    def make(
        folder: str = "runs/cnn",
        *,
        report: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        names: list[str] | None = None,
        dimensions: int = 8,
        size: int = 16,
        channels: int = 1,
        heads: int = 0,
        steps: int = 200,
        left_out: Mapping[str, np.ndarray] | None = None,
    ) -> Path:
        names = names or [str(i) for i in range(10)]
        rng, classes, run = np.random.default_rng(0), len(names), parent / folder
        run.mkdir(parents=True)
        images, labels = _pictures(names, size, channels, rng)
        confusion = rng.poisson(0.4, (classes, classes)) + np.diag(rng.integers(25, 36, classes))
        values = {"model": "cnn", "dataset": "digits", "test_dataset": None, "objective": "softmax", "seed": 0}
        values |= {"steps": steps, "out": folder, "optimizer": {"learning_rate": 1e-3, "name": "adamw"}}
        values |= settings or {}
        config = {
            "settings": values,
            "versions": {"jax": "0.10.2", "simjax": "0.1.0"},
            "command": f"python train.py --model cnn --dataset digits --out '{folder}'",
            "data": {
                "fingerprint": "5f3a",
                "train_images": 1200,
                "validation_images": 237,
                "test_images": 360,
                "class_names": names,
                "image_shape": [size, size, channels],
            }
            | dict(data or {}),
        }
        _write(run / "config.json", config)
        numbers = {key: values[key] for key in ("model", "dataset", "test_dataset", "objective", "seed", "steps")}
        numbers |= {
            "parameters": 37254,
            "train_seconds": 83.2,
            "step_milliseconds": 39.62,
            "images_per_second": 3230.4,
            "accuracy": 0.98611,
            "accuracy_of": "classifier",
            "knn_accuracy": 0.98333,
            "most_frequent_class_share": 0.10278,
            "measure": "cosine",
            "higher_is_closer": True,
            "test_loss": 0.06012,
            "retrieval": {
                "precision_at_1": 0.98055,
                "mean_average_precision_at_r": 0.90321,
                "r_precision": 0.92111,
                "recall_at_k": {"1": 0.98055, "5": 0.99444, "10": 0.99722},
                "queries": 360,
            },
            "verification": {
                "roc_auc": 0.99312,
                "equal_error_rate": 0.03142,
                "accuracy": 0.97123,
                "threshold": 0.61234,
                "threshold_from": "validation",
                "pairs": 64620,
            },
            "calibration": _calibration(),
            "few_shot": None,
            "environment": {"jax": "0.10.2", "device": "cpu", "cores": 2},
            "confusion": confusion.tolist(),
            "per_class_accuracy": (np.diag(confusion) / confusion.sum(1)).tolist(),
        }
        _write(run / "report.json", numbers | dict(report or {}))
        with (run / "metrics.jsonl").open("w", encoding="utf-8") as file:
            for step in range(1, steps + 1):
                loss = 2.3 * np.exp(-step / (steps / 5)) + 0.03 + 0.02 * rng.random()
                line = {"step": step, "epoch": step // 10, "loss": loss, "accuracy": 1 - loss / 2.5}
                file.write(json.dumps(line | {"learning_rate": 1e-3, "images_per_second": 3e3, "seconds": step}) + "\n")
                if step % max(1, steps // 8) == 0:
                    file.write(json.dumps({"step": step, "validation_loss": loss + 0.05,
                                           "validation_accuracy": 0.98 - loss / 3}) + "\n")  # fmt: skip
        samples = _samples(images, labels, classes, rng)
        if heads:
            attention = _softmax(2 * rng.normal(size=(6, heads, 16))).reshape(6, heads, 4, 4)
            samples |= {"attention_images": images[:6], "attention": attention, "attention_labels": labels[:6]}
        np.savez(run / "samples.npz", **samples)  # pyright: ignore[reportArgumentType]
        centres = rng.normal(size=(classes, dimensions)) * 3
        embedding = centres[labels[:360]] + rng.normal(size=(360, dimensions)) * 0.5
        label = labels[:360]
        np.savez(run / "predictions.npz", index=np.arange(360), label=label, predicted=label, embedding=embedding)
        estimates = dict(left_out or {})
        estimates |= {f"{name}.identities": np.arange(len(values)) for name, values in estimates.items()}
        np.savez(run / "leave_one_out.npz", **estimates)  # pyright: ignore[reportArgumentType]
        return run

    return make
