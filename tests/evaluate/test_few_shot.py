"""Few-shot accuracy, against a loop over the same episodes and known cases."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare, ttest_1samp

from simjax.core import InputError
from simjax.evaluate import few_shot_accuracy
from simjax.evaluate._few_shot import _draw_distinct, _episode_accuracy
from simjax.similarity import measure as as_measure

jitted_episode_accuracy: Any = _episode_accuracy  # the type stub of a jitted function lacks _cache_size


def half_width(found):
    return (found["interval"][1] - found["interval"][0]) / 2


def test_episodes_equal_a_loop():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(61, 5)).astype(np.float32)
    images = np.stack([rng.permutation(61)[: 3 * 7].reshape(3, 7) for _ in range(11)])
    valid = np.ones((11, 3, 7), bool)
    valid[4, 1, 5:] = False
    found = np.asarray(_episode_accuracy(x, images, valid, as_measure("euclidean"), shots=2))
    for episode in range(11):
        prototypes = [x[i[:2]].mean(0) for i in images[episode]]
        right = [
            np.argmin([np.linalg.norm(x[i] - p) for p in prototypes]) == way
            for way in range(3)
            for i, is_valid in zip(images[episode, way, 2:], valid[episode, way, 2:], strict=True)
            if is_valid
        ]
        assert len(right) == (13 if episode == 4 else 15)
        assert found[episode] == pytest.approx(np.mean(right))


def test_drawn_integers_are_distinct_uniform_and_in_random_order():
    size = np.array([3, 4, 7]).repeat(20_000)
    drawn = _draw_distinct(np.random.default_rng(0), size, 3)
    assert np.all(drawn >= 0)
    assert np.all(drawn < size[:, None])
    assert np.all(np.diff(np.sort(drawn, axis=1), axis=1) > 0)
    for n in (3, 4, 7):
        ordered = drawn[size == n] @ [n * n, n, 1]
        times = np.unique(ordered, return_counts=True)[1]
        assert len(times) == n * (n - 1) * (n - 2)
        assert chisquare(times).pvalue > 0.01


def test_random_embeddings_have_chance_accuracy_within_the_interval():
    rng = np.random.default_rng(0)
    found = few_shot_accuracy(rng.normal(size=(3000, 7)), np.arange(3000) % 30, ways=4, queries=5, episodes=500)
    assert found["mean"] == pytest.approx(1 / 4, abs=2 * half_width(found))
    # binomial with 20 queries an episode
    assert half_width(found) == pytest.approx(1.96 * (0.25 * 0.75 / 20 / 500) ** 0.5, rel=0.25)


def test_more_shots_are_more_accurate_and_episodes_depend_on_the_seed_and_compile_once():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 20
    x = rng.normal(size=(20, 7))[labels] + rng.normal(size=(400, 7))
    one, five = (few_shot_accuracy(x, labels, shots=s, episodes=200) for s in (1, 5))
    assert five["mean"] > one["mean"] + 0.05
    compiled = jitted_episode_accuracy._cache_size()
    assert few_shot_accuracy(x, labels, shots=5, episodes=200) == five
    assert few_shot_accuracy(x, labels, shots=5, episodes=200, seed=1) != five
    # with the cosine similarity, support images have equal weight
    longer = x * 2.0 ** rng.integers(-9, 9, (400, 1))
    assert few_shot_accuracy(longer, labels, shots=5, episodes=200) == five
    assert jitted_episode_accuracy._cache_size() == compiled
    correlated, longer = (few_shot_accuracy(rows, labels, episodes=99, measure="correlation") for rows in (x, longer))
    assert longer["mean"] == pytest.approx(correlated["mean"], abs=1e-4)


def test_the_length_of_vectors_matters_for_euclidean_but_not_for_cosine():
    labels = np.arange(3).repeat(10)
    x = np.eye(3)[labels] * np.random.default_rng(0).uniform(1e-3, 1e3, (30, 1))
    assert few_shot_accuracy(x, labels, shots=3, episodes=100)["mean"] == 1.0
    assert few_shot_accuracy(x, labels, shots=3, episodes=100, measure="euclidean")["mean"] < 0.95


def test_fewer_classes_than_ways_and_small_classes():
    labels = np.array([0] * 9 + [1] * 3 + [2] * 2 + [3])
    x = np.eye(4)[labels]
    found = few_shot_accuracy(x, labels, ways=5, shots=1, queries=15, episodes=20)
    assert (found["mean"], found["ways"]) == (1.0, 3)  # class 3 has no query image
    assert few_shot_accuracy(x, labels, shots=3) == {"mean": None, "interval": None, "ways": 1}


def test_a_class_with_few_images_has_fewer_queries():
    # for constant embeddings every query is assigned to the first way; 1 or 4 of 5 queries belong to it
    found = few_shot_accuracy(np.ones((7, 2)), [0] * 5 + [1] * 2, ways=2, episodes=400)
    assert found["mean"] == pytest.approx(0.5, abs=half_width(found) * 2)
    assert half_width(found) == pytest.approx(1.96 * 0.3 / 20, rel=0.05)


@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1, 2], [0, 0, 1]])
def test_fewer_than_two_classes_have_no_accuracy(labels):
    found = few_shot_accuracy(np.ones((len(labels), 2)), labels)
    assert (found["mean"], found["interval"]) == (None, None)
    assert found["ways"] < 2


def interval_of(accuracy, monkeypatch):
    """Return the interval of episodes with these accuracies."""
    monkeypatch.setattr("simjax.evaluate._few_shot._episode_accuracy", lambda *arguments, shots: np.array(accuracy))
    return few_shot_accuracy(np.eye(2).repeat(2, 0), [0, 0, 1, 1], episodes=len(accuracy))["interval"]


def test_the_interval_is_that_of_student(monkeypatch):
    accuracy = [0.4, 0.7, 0.8, 0.5]
    expected = ttest_1samp(accuracy, 0).confidence_interval()
    assert interval_of(accuracy, monkeypatch) == pytest.approx(tuple(expected))
    assert interval_of([0.4, 0.6], monkeypatch) == (0, 1)


def test_equal_accuracies_have_the_interval_of_the_rule_of_3(monkeypatch):
    margin = -math.log(0.05) / 20
    assert interval_of([0.6] * 20, monkeypatch) == pytest.approx((0.6 - margin, 0.6 + margin))
    assert interval_of([1.0] * 20, monkeypatch) == pytest.approx((1 - margin, 1))
    assert interval_of([0.5, 0.5], monkeypatch) == (0, 1)


def test_one_episode_has_no_interval():
    found = few_shot_accuracy(np.eye(2).repeat(2, 0), [0, 0, 1, 1], episodes=1)
    assert (found["mean"], found["interval"]) == (1.0, None)


@pytest.mark.parametrize("wrong", [{"ways": 1}, {"shots": 0}, {"queries": 0}, {"episodes": 0}])
def test_wrong_arguments_are_errors(wrong):
    ((argument, got),) = wrong.items()
    with pytest.raises(InputError, match=f"{argument}: expected at least {got + 1}, got {got}"):
        few_shot_accuracy(np.ones((4, 2)), [0, 0, 1, 1], **wrong)
