import jax
import numpy as np
import pytest

from simjax.core import InputError
from simjax.similarity import combine_embeddings, pairwise
from tests.similarity.arrays import float32


@pytest.fixture
def parts(random):
    return [float32(random.normal(size=(7, e)) * 3) for e in (3, 5, 2)]


@jax.jit
def combine(parts):
    average, concatenated = combine_embeddings(parts), combine_embeddings([1000 * parts[0], *parts[1:]], "concatenate")
    return average, pairwise(average), pairwise(concatenated), [pairwise(p) for p in parts]


def test_the_cosine_of_the_average_is_the_average_of_the_cosines(parts):
    average, cosines, _, of_parts = combine(parts)
    average, expected = np.asarray(average), np.mean(of_parts, axis=0)
    assert average.shape == (7, 10)
    np.testing.assert_allclose(average @ average.T, expected, atol=1e-6)
    np.testing.assert_allclose(cosines, expected, atol=1e-6)


def test_long_vectors_dominate_a_concatenation(parts):
    _, _, cosines, of_parts = combine(parts)
    np.testing.assert_allclose(cosines, of_parts[0], atol=1e-3)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    for wrong in ([], [np.ones((3, 2)), np.ones((4, 2))], [np.ones(3)]):
        with pytest.raises(InputError, match=r"embeddings: expected one or more of shape \[n, e\]"):
            combine_embeddings(wrong)
    with pytest.raises(InputError, match="unknown how 'mean'"):
        combine_embeddings([np.ones((3, 2))], "mean")
