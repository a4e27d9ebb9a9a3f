"""Ensembles on the embedded digits, in this process."""

import functools
import json

import numpy as np
import pytest

from simjax.core import InputError
from simjax.similarity import combine_embeddings
from simjax.train import train
from simjax.train._settings import from_dict

QUICK = {
    "model": "dnn",
    "steps": 40,
    "objective": "triplet",
    "dnn": {"widths": [32]},
    "embedding_size": 8,
    "optimizer": {"learning_rate": 0.01},
}
OF_TRIPLETS = QUICK | {"ensemble": {"size": 2}}
OF_CLUSTERS = QUICK | {"ensemble": {"size": 2, "each": "clusters", "combine": "concatenate"}}
RUNS = {"alone": QUICK, "triplets": OF_TRIPLETS, "clusters": OF_CLUSTERS}


def embeddings(folder):
    return np.load(folder / "predictions.npz")["embedding"]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a function that trains a run on first use, and returns its folder."""
    out = tmp_path_factory.mktemp("runs")

    @functools.cache
    def run(name):
        train(from_dict(RUNS[name]), out / name)
        return out / name

    return run


@pytest.mark.slow
def test_each_encoder_has_triplets_of_its_own(finished):
    both, alone = embeddings(finished("triplets")), embeddings(finished("alone"))
    np.testing.assert_allclose(both[:, :8], combine_embeddings([alone, alone])[:, :8], atol=1e-6)
    assert np.abs(both[:, :8] - both[:, 8:]).max() > 0.1
    report, single = (json.loads((finished(name) / "report.json").read_text()) for name in ("triplets", "alone"))
    assert report["steps"] == 80
    assert report["parameters"] == 2 * single["parameters"]
    assert report["accuracy"] > 0.9
    assert [line["step"] for line in lines(finished("triplets")) if "loss" in line] == list(range(1, 81))


@pytest.mark.slow
def test_each_encoder_continues_on_a_cluster_of_its_own(finished):
    both, alone = embeddings(finished("clusters")), embeddings(finished("alone"))
    assert both.shape == (450, 16)
    for own in (both[:, :8], both[:, 8:]):  # a copy of the first encoder that was trained further
        assert np.abs(own - alone).max() > 0.1
        assert np.corrcoef(own.ravel(), alone.ravel())[0, 1] > 0.5
    report = json.loads((finished("clusters") / "report.json").read_text())
    assert report["steps"] == 120
    assert report["accuracy"] > 0.9


@pytest.mark.parametrize("name", ["triplets", "clusters"])
@pytest.mark.slow
def test_a_resumed_ensemble_equals_an_uninterrupted_one(finished, tmp_path, monkeypatch, name):
    from simjax.train import _loop

    values = RUNS[name] | {"checkpoint_seconds": 0.0}
    real, taken = _loop.build_steps, []

    def stopping(*arguments):
        steps = real(*arguments)

        def counted(state, count, *rest):
            taken.append(count)
            if sum(taken) > 57:  # in the second training
                raise KeyboardInterrupt
            return steps(state, count, *rest)

        return counted

    monkeypatch.setattr(_loop, "build_steps", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(from_dict(values), tmp_path / "run")
    monkeypatch.setattr(_loop, "build_steps", real)
    train(from_dict(values), tmp_path / "run", resume=True)
    np.testing.assert_array_equal(embeddings(tmp_path / "run"), embeddings(finished(name)))
    curves = [[line.get("loss") for line in lines(folder)] for folder in (tmp_path / "run", finished(name))]
    assert curves[0] == curves[1]


def test_a_finished_run_is_resumed_by_evaluating_it(finished):
    before = embeddings(finished("triplets"))
    train(from_dict(OF_TRIPLETS), finished("triplets"), resume=True)
    np.testing.assert_array_equal(embeddings(finished("triplets")), before)
    assert len([line for line in lines(finished("triplets")) if "loss" in line]) == 80


def test_settings_of_an_ensemble_need_an_ensemble(tmp_path):
    with pytest.raises(InputError, match="'ensemble.size': expected 2 or more if other settings"):
        train(from_dict(QUICK | {"ensemble": {"each": "clusters"}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_cluster_of_a_single_class_is_rejected(tmp_path):
    values = QUICK | {"dataset": "digits[0-1]", "ensemble": {"size": 2, "each": "clusters"}}
    with pytest.raises(InputError, match="one of the clusters has images of a single class, give fewer"):
        train(from_dict(values), tmp_path / "run")
