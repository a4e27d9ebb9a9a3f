import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.similarity import combine_embeddings, pairwise


@pytest.fixture
def parts(random):
    return [jnp.float32(random.normal(size=(7, e)) * 3) for e in (3, 5, 2)]


def test_the_cosine_of_the_average_is_the_average_of_the_cosines(parts):
    combined = combine_embeddings(parts)
    assert combined.shape == (7, 10)
    np.testing.assert_allclose(combined @ combined.T, np.mean([pairwise(p) for p in parts], axis=0), atol=1e-6)
    np.testing.assert_allclose(pairwise(combined), np.mean([pairwise(p) for p in parts], axis=0), atol=1e-6)


def test_long_vectors_dominate_a_concatenation(parts):
    combined = combine_embeddings([1000 * parts[0], *parts[1:]], "concatenate")
    np.testing.assert_allclose(pairwise(combined), pairwise(parts[0]), atol=1e-3)
    assert combined.shape == (7, 10)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    for wrong in ([], [jnp.ones((3, 2)), jnp.ones((4, 2))], [jnp.ones(3)]):
        with pytest.raises(InputError, match=r"embeddings: expected one or more of shape \[n, e\]"):
            combine_embeddings(wrong)
    with pytest.raises(InputError, match="unknown how 'mean'"):
        combine_embeddings([jnp.ones((3, 2))], "mean")
