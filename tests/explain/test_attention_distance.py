"""The mean attention distance is compared with loops over patches."""

import math

import numpy as np
import pytest

from simjax.core import InputError
from simjax.explain import mean_attention_distance


@pytest.mark.parametrize("has_class_token", [False, True])
def test_the_distance_of_each_image_block_and_head_is_a_loop(random, has_class_token):
    tokens = 6 + has_class_token
    weights = random.random((2, 3, 2, tokens, tokens)) ** 4
    weights /= weights.sum(axis=-1, keepdims=True)
    found = mean_attention_distance(weights, (2, 3))
    places = [(row, column) for row in range(2) for column in range(3)]
    for index in np.ndindex(2, 3, 2):
        distances = []
        for i, a in enumerate(places):
            row = weights[index][i + has_class_token][int(has_class_token) :]
            distances.append(sum(w * math.dist(a, b) for w, b in zip(row, places, strict=True)) / sum(row))
        assert found[index] == pytest.approx(np.mean(distances))
    assert found.shape == (2, 3, 2)


@pytest.mark.slow
def test_attention_of_a_transformer_is_near_uniform_before_training(transformer, pairs):
    network = transformer.networks[0]
    found = mean_attention_distance(transformer.attention_weights(pairs[0]), network.grid)
    uniform = mean_attention_distance(np.ones((9, 9)), network.grid)
    assert found.shape == (3, 2, 2)
    np.testing.assert_allclose(found, uniform, rtol=0.2)


def test_attention_to_the_class_token_only_is_finite():
    weights = np.zeros((5, 5))
    weights[:, 0] = 1
    assert mean_attention_distance(weights, (2, 2)) == 0


@pytest.mark.parametrize("shape", [(4,), (4, 5), (6, 6), (3, 3)])
def test_weights_that_do_not_match_the_grid_are_errors(shape):
    with pytest.raises(InputError, match=r"^weights: expected \[..., t, t\] with t = 4 or 5 for 2x2 patches"):
        mean_attention_distance(np.ones(shape), (2, 2))
