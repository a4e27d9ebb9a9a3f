"""Regularizers of embeddings and of proxies against loops."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError
from tests.losses.cases import DEGENERATE, D, N, cosine, kind, related, unit
from tests.slow import mostly_slow


def center_invariant(x):
    squares = np.square(x).sum(1)
    return np.mean([(s - squares.mean()) ** 2 / 4 for s in squares])


def regular_face(x):
    return np.mean([max(s for j, s in enumerate(row) if j != i) for i, row in enumerate(cosine(x, x))])


def sparse_centers(x):
    c, k, _ = x.shape
    apart = [np.linalg.norm(unit(own)[i] - unit(own)[j]) for own in x for i in range(k) for j in range(i)]
    return sum(apart) / (c * k * (k - 1))


def lp(x, p=2, power=1.0):
    return np.mean([np.linalg.norm(row, p) ** power for row in x])


def zero_mean(x):
    return np.mean(abs(x.sum(1)))


def global_orthogonal(x, negative=None, mean_weight=1.0, second_moment_weight=1.0, threshold=None):
    others = ~np.eye(len(x), dtype=bool)
    s = cosine(x, x)[others if negative is None else negative & others]
    threshold = 1 / x.shape[1] if threshold is None else threshold
    return mean_weight * s.mean() ** 2 + second_moment_weight * max(0, np.square(s).mean() - threshold)


ORACLES = {
    "center_invariant": center_invariant,
    "regular_face": regular_face,
    "sparse_centers": sparse_centers,
    "lp": lp,
    "zero_mean": zero_mean,
    "global_orthogonal": global_orthogonal,
}


def regularizer_named(name):
    return getattr(losses, f"{name}_regularizer")


def arguments(name, random):
    return random.normal(size=(N, 3, D) if name == "sparse_centers" else (N, D))


@pytest.mark.parametrize("name", ORACLES)
def test_equals_loops(random, name):
    x = arguments(name, random)
    np.testing.assert_allclose(regularizer_named(name)(jnp.float32(x)), ORACLES[name](x), rtol=2e-5)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, *list(ORACLES)[:2]))
def test_gradient_equals_finite_differences(random, name):
    with jax.enable_x64(True):
        x = jnp.asarray(arguments(name, random))
        jax.test_util.check_grads(regularizer_named(name), (x,), order=1, modes=["rev"])


@pytest.mark.parametrize(
    ("p", "power"), [(1, 1.0), (3, 2.0), (2.5, 0.5), (float("inf"), 1.0)], ids=["1", "3", "2.5", "inf"]
)
def test_lp_equals_loops_for_other_norms(random, p, power):
    x = random.normal(size=(N, D))
    np.testing.assert_allclose(losses.lp_regularizer(jnp.float32(x), p=p, power=power), lp(x, p, power), rtol=2e-5)


@pytest.mark.parametrize("kind", [kind(name) for name in ("classes", "shared labels", "function", "grades")])
def test_global_orthogonal_averages_negative_pairs(random, kind):
    labels, _, _, negative = related(kind, random)
    x = random.normal(size=(N, D))
    options = {"mean_weight": 0.5, "second_moment_weight": 2.0, "threshold": 0.1}
    found = losses.global_orthogonal_regularizer(jnp.float32(x), labels, block_size=4, **options)
    np.testing.assert_allclose(found, global_orthogonal(x, negative, **options), rtol=2e-5)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "global_orthogonal", "center_invariant"))
@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(t, marks=pytest.mark.slow) for t in ("bfloat16", "float16"))]
)
def test_no_nan_at_degenerate_batches(name, dtype):
    for case, (x, _) in DEGENERATE.items():
        x = np.clip(x, -6e4, 6e4) if dtype == "float16" else x
        x = np.repeat(x[:, None], 2, axis=1) if name == "sparse_centers" else x
        value, gradient = jax.value_and_grad(regularizer_named(name))(jnp.asarray(x, dtype))
        assert np.isfinite(value), case
        assert np.isfinite(np.float32(gradient)).all(), case
        if case == "no row" or (case == "at one point" and name != "global_orthogonal"):
            assert float(value) == 0, case
            assert not np.any(gradient), case


def test_proxies_that_are_equal_single_or_of_very_different_lengths():
    assert float(losses.regular_face_regularizer(jnp.ones((1, 4)))) == 0
    np.testing.assert_allclose(losses.regular_face_regularizer(jnp.ones((3, 4))), 1.0, rtol=1e-6)
    assert float(losses.sparse_centers_regularizer(jnp.ones((5, 1, 4)))) == 0
    uneven = jax.value_and_grad(losses.center_invariant_regularizer)(jnp.eye(3) * jnp.array([1.0, 1e15, 1e30]))
    assert all(np.isfinite(leaf).all() for leaf in uneven)


@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments():
    for name in ("center_invariant", "regular_face"):
        with pytest.raises(InputError, match=r"proxies: expected rows \[c, d\], got shape \(3,\)"):
            regularizer_named(name)(jnp.ones(3))
    for name in ("lp", "zero_mean", "global_orthogonal"):
        with pytest.raises(InputError, match=r"embeddings: expected rows \[n, d\], got shape \(3,\)"):
            regularizer_named(name)(jnp.ones(3))
    with pytest.raises(InputError, match=r"k proxies of each class, \[c, k, d\], got shape \(3, 2\)"):
        losses.sparse_centers_regularizer(jnp.ones((3, 2)))
    with pytest.raises(InputError, match=r"p: expected at least 1, got 0.5"):
        losses.lp_regularizer(jnp.ones((3, 2)), p=0.5)
    with pytest.raises(InputError, match="power: expected more than 0, got 0"):
        losses.lp_regularizer(jnp.ones((3, 2)), power=0)
    with pytest.raises(InputError, match=r"relation of \(3, 3\) rows and columns, got \(2, 2\)"):
        losses.global_orthogonal_regularizer(jnp.ones((3, 2)), jnp.array([0, 1]))
