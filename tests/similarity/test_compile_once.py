"""Functions of sets of samples compile once for all values of the same shape."""

import logging

import jax
import pytest

from simjax import similarity
from tests.similarity.arrays import float32
from tests.slow import mostly_slow

KEY = jax.random.key(0)
CALLS = {
    "_frechet_distance": lambda x, y: similarity.frechet_distance(x, y),
    "_moments": lambda x, y: similarity.moments(x),
    "_sliced_wasserstein": lambda x, y: similarity.sliced_wasserstein_distance(x, y, key=KEY, projections=3),
    "_maximum_mean_discrepancy": lambda x, y: similarity.maximum_mean_discrepancy(x, y),
    "_alignment": lambda x, y: similarity.centered_kernel_alignment(x, y, kernel="rbf"),
    "_paired": lambda x, y: similarity.maxsim_similarity(x, y),
    "_all_pairs": lambda x, y: similarity.maxsim_matrix(x[None], y[None]),
}


@pytest.mark.parametrize("name", mostly_slow(CALLS, "_moments"))
def test_eager_calls_compile_once(random, caplog, name):
    # A size that no other test has, so that the first call is the one that compiles.
    sets = [float32(random.normal(size=(43, 3))) for _ in range(3)]
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for x in sets:
            CALLS[name](x, sets[0])
    messages = [record.getMessage() for record in caplog.records]
    assert sum(f"Finished XLA compilation of jit({name})" in message for message in messages) == 1
