"""Linear probes: how well a linear classifier predicts the classes from each layer of a network.

References:
    Alain, Bengio (2016), Understanding Intermediate Layers Using Linear Classifier Probes.
    Li, Hastie, Church (2006), Very Sparse Random Projections.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_at_least
from simjax.evaluate import Estimate, mean_estimate
from simjax.evaluate._checks import as_labels
from simjax.study._representations import as_layers


def linear_probes(
    train_features: Mapping[str, ArrayLike],
    train_labels: ArrayLike,
    test_features: Mapping[str, ArrayLike],
    test_labels: ArrayLike,
    *,
    max_features: int = 2048,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimate the test accuracy of a multinomial logistic regression on the outputs of each layer.

    The outputs are flattened. A layer with more than `max_features` of them is replaced by that many sparse random
    projections, which keep the distances of images approximately. Features are standardised by the training images. The
    regression is that of scikit-learn with its default L2 penalty (C = 1) and the solver L-BFGS.

    Args:
        train_features, test_features: Outputs [n, ...] and [m, ...] of the same layers by name, as
            `Encoder.encode(images, layers=True)` returns them.
        train_labels, test_labels: Class ids, integers [n] and [m].
        max_features: Largest number of features of a regression.
        seed: Seed of the random projections.

    Returns:
        An estimate for each layer, with one test image left out at a time.

    Raises:
        InputError: If layers, shapes or labels do not match, or the training images have a single class.

    Example:
        >>> labels = np.arange(100) % 4
        >>> layer = np.eye(4)[labels] + 0.1 * np.random.default_rng(0).normal(size=(100, 4))
        >>> linear_probes({"layer": layer[:50]}, labels[:50], {"layer": layer[50:]}, labels[50:])["layer"].value
        1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.random_projection import SparseRandomProjection

    check_at_least("max_features", max_features, 1)
    train, test = as_layers("train_features", train_features), as_layers("test_features", test_features)
    if list(train) != list(test):
        raise InputError(f"test_features: expected the layers {', '.join(train)}, got {', '.join(test)}")
    n, m = (len(next(iter(layers.values()))) for layers in (train, test))
    labels, expected = as_labels("train_labels", train_labels, n), as_labels("test_labels", test_labels, m)
    if len(np.unique(labels)) < 2:
        raise InputError(f"train_labels: expected at least 2 classes, got {len(np.unique(labels))}")
    found = {}
    for name, x in train.items():
        if test[name].shape[1] != x.shape[1]:
            raise InputError(f"test_features[{name!r}]: expected {x.shape[1]} features, got {test[name].shape[1]}")
        steps = [StandardScaler(), LogisticRegression(max_iter=1000)]
        if x.shape[1] > max_features:
            steps.insert(0, SparseRandomProjection(random_state=seed).set_params(n_components=max_features))
        predicted = make_pipeline(*steps).fit(x, labels).predict(test[name])
        found[name] = mean_estimate(predicted == expected, np.arange(m))
    return found
