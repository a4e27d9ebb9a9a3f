"""Embeddings in two dimensions: PCA is that of scikit-learn, t-SNE keeps groups together."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from simjax.core import InputError
from simjax.report._projection import project

ROWS = np.arange(0, 101, 3)


def test_pca_is_that_of_scikit_learn_up_to_signs(random):
    embeddings = (random.normal(size=(101, 7)) * np.arange(1, 8) + 5).astype(np.float32)
    xy, sentence = project(embeddings, ROWS)
    pca = PCA(2).fit(embeddings)
    np.testing.assert_allclose(np.abs(xy), np.abs(pca.transform(embeddings)[ROWS]), rtol=1e-3, atol=1e-3)
    assert f"keeps {pca.explained_variance_ratio_.sum():.0%} of the variance" in sentence


def test_one_or_two_features_are_the_axes(random):
    embeddings = random.normal(size=(101, 2))
    np.testing.assert_array_equal(project(embeddings, ROWS)[0], embeddings[ROWS])
    one = project(embeddings[:, :1], ROWS, "tsne")[0]
    np.testing.assert_array_equal(one, np.stack([embeddings[ROWS, 0], np.zeros(len(ROWS))], axis=1))


def test_equal_embeddings_are_one_point():
    assert not project(np.ones((5, 4)), np.arange(5))[0].any()


def test_tsne_keeps_groups_together(random):
    group = np.arange(60) % 2
    embeddings = random.normal(size=(60, 5)) + 20 * group[:, None]
    xy, sentence = project(embeddings, np.arange(60), "tsne")
    distances = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + np.diag(np.full(60, np.inf))
    assert (group[distances.argmin(axis=1)] == group).all()
    assert "distances between groups have no meaning" in sentence


def test_an_unknown_method_is_named():
    with pytest.raises(InputError, match="unknown projection 'umap'"):
        project(np.ones((5, 4)), np.arange(5), "umap")
