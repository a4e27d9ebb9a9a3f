"""Few-shot accuracy, against a loop over the same episodes and known cases."""

import numpy as np
import pytest
from scipy.stats import chisquare

from simjax.core import InputError
from simjax.evaluate import few_shot_accuracy
from simjax.evaluate._few_shot import _draw, _episodes
from simjax.similarity import measure as as_measure


def test_episodes_equal_a_loop():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(61, 5)).astype(np.float32)
    images = np.stack([rng.permutation(61)[: 3 * 7].reshape(3, 7) for _ in range(11)])
    there = np.ones((11, 3, 7), bool)
    there[4, 1, 5:] = False
    found = _episodes(x, images, there, as_measure("euclidean"), shots=2)
    for episode in range(11):
        prototypes = [x[i[:2]].mean(0) for i in images[episode]]
        right = [
            np.argmin([np.linalg.norm(x[i] - p) for p in prototypes]) == way
            for way in range(3)
            for i, counts in zip(images[episode, way, 2:], there[episode, way, 2:], strict=True)
            if counts
        ]
        assert len(right) == (13 if episode == 4 else 15)
        assert found[episode] == pytest.approx(np.mean(right))


def test_drawn_numbers_are_different_uniform_and_in_random_order():
    size = np.array([3, 4, 7]).repeat(20_000)
    drawn = _draw(np.random.default_rng(0), size, 3)
    assert np.all(drawn >= 0)
    assert np.all(drawn < size[:, None])
    assert np.all(np.diff(np.sort(drawn, axis=1), axis=1) > 0)
    for n in (3, 4, 7):
        ordered = drawn[size == n] @ [n * n, n, 1]
        times = np.unique(ordered, return_counts=True)[1]
        assert len(times) == n * (n - 1) * (n - 2)
        assert chisquare(times).pvalue > 0.01


def test_random_embeddings_score_chance_and_the_interval_covers_it():
    rng = np.random.default_rng(0)
    found = few_shot_accuracy(rng.normal(size=(3000, 7)), np.arange(3000) % 30, ways=4, queries=5, episodes=500)
    assert found["mean"] == pytest.approx(1 / 4, abs=2 * found["confidence_95"])
    # binomial with 20 queries an episode
    assert found["confidence_95"] == pytest.approx(1.96 * (0.25 * 0.75 / 20 / 500) ** 0.5, rel=0.25)


def test_more_shots_help_and_the_seed_decides():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 20
    x = rng.normal(size=(20, 7))[labels] + rng.normal(size=(400, 7))
    one, five = (few_shot_accuracy(x, labels, shots=s, episodes=200)["mean"] for s in (1, 5))
    assert five > one + 0.05
    assert few_shot_accuracy(x, labels, episodes=50) == few_shot_accuracy(x, labels, episodes=50)
    assert few_shot_accuracy(x, labels, episodes=50) != few_shot_accuracy(x, labels, episodes=50, seed=1)


def test_length_counts_for_euclidean_and_not_for_cosine():
    labels = np.arange(3).repeat(10)
    x = np.eye(3)[labels] * np.random.default_rng(0).uniform(1e-3, 1e3, (30, 1))
    assert few_shot_accuracy(x, labels, shots=3, episodes=100)["mean"] == 1.0
    assert few_shot_accuracy(x, labels, shots=3, episodes=100, measure="euclidean")["mean"] < 0.95


def test_for_cosine_every_support_image_counts_alike():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 4
    x = rng.normal(size=(4, 5))[labels] + rng.normal(size=(60, 5))
    found = few_shot_accuracy(x, labels, shots=5, episodes=50)
    assert few_shot_accuracy(x * 2.0 ** rng.integers(-9, 9, (60, 1)), labels, shots=5, episodes=50) == found
    assert 0.3 < found["mean"] < 0.95


def test_fewer_classes_than_ways_and_small_classes():
    labels = np.array([0] * 9 + [1] * 3 + [2] * 2 + [3])
    x = np.eye(4)[labels]
    found = few_shot_accuracy(x, labels, ways=5, shots=1, queries=15, episodes=20)
    assert found == {"mean": 1.0, "confidence_95": 0.0, "ways": 3}  # class 3 has no image left to ask for
    assert few_shot_accuracy(x, labels, shots=2, episodes=20)["ways"] == 2


def test_a_class_gives_as_many_queries_as_it_has():
    # constant embeddings: every query goes to the first way; 1 of 5 or 4 of 5 queries are its own
    found = few_shot_accuracy(np.ones((7, 2)), [0] * 5 + [1] * 2, ways=2, episodes=400)
    assert found["mean"] == pytest.approx(0.5, abs=found["confidence_95"] * 2)
    assert found["confidence_95"] == pytest.approx(1.96 * 0.3 / 20, rel=0.05)


@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1, 2], [0, 0, 1]])
def test_without_two_classes_to_choose_from_there_is_no_accuracy(labels):
    found = few_shot_accuracy(np.ones((len(labels), 2)), labels)
    assert (found["mean"], found["confidence_95"]) == (None, None)
    assert found["ways"] < 2


def test_one_episode_has_no_interval():
    found = few_shot_accuracy(np.eye(2).repeat(2, 0), [0, 0, 1, 1], episodes=1)
    assert (found["mean"], found["confidence_95"]) == (1.0, None)


def test_many_calls_compile_once():
    x, labels = np.random.default_rng(0).normal(size=(53, 3)), np.arange(53) % 5
    few_shot_accuracy(x, labels, episodes=17)
    compiled = _episodes._cache_size()
    for seed in range(10):
        few_shot_accuracy(x, labels, episodes=17, seed=seed)
    assert _episodes._cache_size() == compiled


@pytest.mark.parametrize("wrong", [{"ways": 1}, {"shots": 0}, {"queries": 0}, {"episodes": 0}])
def test_mistakes(wrong):
    ((argument, got),) = wrong.items()
    with pytest.raises(InputError, match=f"{argument}: expected a number from {got + 1}, got {got}"):
        few_shot_accuracy(np.ones((4, 2)), [0, 0, 1, 1], **wrong)
