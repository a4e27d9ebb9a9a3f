"""Properties of all named measures; a new measure is tested without a change here."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simjax import similarity
from simjax.similarity import _measure
from tests.similarity.arrays import float32, temporary_bytes
from tests.similarity.derivatives import assert_derivatives
from tests.slow import mostly_slow


def real(random, *shape):
    return random.normal(size=shape)


def positive(random, *shape):
    return random.uniform(0.1, 2.0, size=shape)


def binary(random, *shape):
    return 1.0 * random.integers(0, 2, size=shape)


def coordinates(random, *shape):
    """Latitude and longitude."""
    return random.uniform([-1.5, -3.1], [1.5, 3.1], size=(*shape[:-1], 2))


DOMAIN = {
    **dict.fromkeys(("bray_curtis", "jensen_shannon", "chi2", "additive_chi2"), positive),
    **dict.fromkeys(("jaccard", "tversky", "dice", "overlap"), positive),
    **dict.fromkeys(("jaccard_distance", "dice_distance", "rogers_tanimoto", "russell_rao"), binary),
    **dict.fromkeys(("sokal_sneath", "yule"), binary),
    "haversine": coordinates,
}
PARAMETERS = {
    "rbf": {"gamma": 0.3},
    "laplacian": {"gamma": 0.3},
    "chi2": {"gamma": 0.7},
    "polynomial": {"gamma": 0.3, "coef0": 0.5},
    "sigmoid": {"gamma": 0.3, "coef0": 0.5},
    "minkowski": {"p": 2.6},
    "jensen_shannon": {"base": 3.0},
    "standardized_euclidean": {"variance": np.linspace(0.5, 2, 3)},
    "mahalanobis": {"matrix": np.eye(3) + 0.2},
    "bilinear": {"matrix": np.linspace(-1, 1, 9).reshape(3, 3)},
}
NONZERO_DIAGONAL = {"russell_rao"}  # by its definition
# Piecewise constant: every gradient is 0.
PIECEWISE_CONSTANT = {"hamming"} | {n for n in DOMAIN if DOMAIN[n] is binary}
NAMES = sorted(_measure.MEASURES)
FAST_NAMES = ("euclidean",)
each_when_slow = pytest.mark.parametrize("name", mostly_slow(NAMES, *FAST_NAMES))


def draw(name, *shape, seed=0):
    return DOMAIN.get(name, real)(np.random.default_rng(seed), *shape)


def whole_tile(s, i, j):
    return s


def matrix(x, y, measure, block_size=None):
    """Return the matrix in the type in which it is computed."""
    return similarity.reduce_rows(whole_tile, x, y, measure=measure, block_size=block_size)


@each_when_slow
def test_pair_form_equals_matrix_form_in_blocks_and_under_vmap(name):
    m = similarity.measure(name)

    @jax.jit
    def forms(x, y):
        batch = jax.vmap(m.all_pairs)(jnp.stack([x[::-1], x]), jnp.stack([y, y]))
        return m(x[:, None], y[None]), matrix(x, y, m), matrix(x, y, m, block_size=3), batch[1]

    with jax.enable_x64(True):
        pairs, *others = forms(*(draw(name, n, 3, seed=n) for n in (7, 11)))
    assert pairs.dtype == np.float64
    for other in others:
        np.testing.assert_allclose(other, pairs, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["euclidean", "jaccard"])
def test_pair_form_is_the_same_without_jit(name):
    m = similarity.measure(name)
    x, y = (float32(draw(name, 7, 3, seed=n)) for n in (7, 11))
    expected = m(x, y)
    with jax.disable_jit():
        np.testing.assert_allclose(m(x, y), expected, rtol=1e-5)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
@each_when_slow
def test_range_direction_and_symmetry(name, seed):
    m = similarity.measure(name)
    x = float32(draw(name, 7, 3, seed=seed))
    x[5] = x[2]
    s = np.asarray(similarity.pairwise(x, measure=m), np.float64)
    low, high = m.range
    assert s.min() >= low - 1e-6
    assert s.max() <= high + 1e-6
    assert m.symmetric == (name not in {"bilinear", "signal_to_noise", "tversky"})
    if m.symmetric:
        np.testing.assert_allclose(s, s.T, rtol=1e-5, atol=2e-6)
    if not m.higher_is_closer and name not in NONZERO_DIAGONAL:
        assert s[2, 5] == s[5, 2] == 0
        np.testing.assert_array_equal(np.diagonal(s), np.zeros(7))
        assert s.min() == 0
    assert m.higher_is_closer != m.pair.__name__.endswith("_distance")


@pytest.mark.parametrize("name", mostly_slow([n for n in NAMES if n not in PIECEWISE_CONSTANT], *FAST_NAMES))
def test_first_and_second_derivatives_of_both_forms_in_both_modes(name):
    """Of both forms, in float64, for x, y and every parameter."""
    x, y = (draw(name, n, 3, seed=n) for n in (2, 3))

    def forms(x, y, parameters):
        m = similarity.measure(name, **parameters)
        return m(x[:, None], y[None]), matrix(x, y, m)

    gradient = assert_derivatives(forms, x, y, PARAMETERS.get(name, {}))
    assert np.abs(gradient[0]).max() > 1e-4
    for learned in jax.tree.leaves(gradient[2]):
        assert np.abs(learned).min() > 1e-6


ROWS = {
    "zero": [0, 0, 0],
    "constant": [3, 3, 3],
    "another constant": [0.1, 0.1, 0.1],
    "one feature": [0, 2, 0],
    "positive": [1, 0.5, 2],
    "opposite": [-1, -0.5, -2],
    "alternating": [1, -1, 2],
    "identical": [1, -1, 2],
}


def degenerate(name, scale):
    """Return zero, constant, identical and opposite rows on which the measure is defined."""
    rows = np.asarray([*ROWS.values()])
    if DOMAIN.get(name, real) in (positive, binary):
        rows = np.abs(rows)
    rows = rows[:, :2] if name == "haversine" else rows
    return rows * (1.0 if name == "haversine" else scale)


@pytest.mark.parametrize("scale", mostly_slow([1.0, 1e30, 1e-30], 1e30))
@each_when_slow
def test_value_and_gradient_at_degenerate_points(name, scale):
    """float32 gives the value of float64, in which no square overflows, or inf where the value is too large."""
    x = degenerate(name, scale)
    m = similarity.measure(name)
    with jax.enable_x64(True):
        true = np.asarray(m(x[:, None], x[None]))
        with np.errstate(over="ignore"):
            true = true.astype(np.float32)
    assert not np.isnan(true).any()
    x = float32(x)
    size = float(np.abs(true, where=np.isfinite(true), out=np.zeros_like(true)).max())
    for s, gradients in values_and_gradients(name)(x):
        assert np.isfinite(gradients).all()
        np.testing.assert_allclose(s, true, rtol=2e-5, atol=2e-3 * size)


@functools.cache
def values_and_gradients(name):
    """Return a function giving the values of both forms, and the gradient of each value separately."""
    m = similarity.measure(name)

    def of(form, x):
        s, pullback = jax.vjp(form, x, x)
        cotangents = jnp.eye(s.size, dtype=s.dtype).reshape(-1, *s.shape)
        return s, jnp.stack(jax.vmap(pullback)(cotangents))

    return jax.jit(lambda x: (of(lambda x, y: m(x[:, None], y[None]), x), of(m.all_pairs, x)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_accumulates_in_float32(name):
    m = similarity.measure(name)
    kinds = (jnp.dtype(jnp.float16), jnp.dtype(jnp.bfloat16))

    @jax.jit
    def forms(x, y):
        gradient = jax.grad(lambda x: jnp.sum(m.all_pairs(x, x)))(x)
        return m.all_pairs(x, y), m(x, y[:3]), m(jnp.float32(x)[:, None], jnp.float32(y)[None]), gradient

    for kind in kinds:
        s, pairs, wide, gradient = map(np.asarray, forms(*(draw(name, n, 3, seed=n).astype(kind) for n in (3, 7))))
        assert s.dtype == np.float32
        assert pairs.dtype == gradient.dtype == kind
        np.testing.assert_allclose(s, wide, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(float32(pairs), np.diagonal(s), rtol=float(jnp.finfo(kind).eps))
        assert np.isfinite(float32(gradient)).all()


@each_when_slow
def test_no_rows_no_columns_one_row_and_one_feature(name):
    m = similarity.measure(name)

    @jax.jit
    def edges(x, y):
        empty = [jax.vjp(m.all_pairs, a, b) for a, b in ((x[:0], y), (x, y[:0]), (x[:0], y[:0]))]
        one = (m.all_pairs(x[:1], y), m(x[:1], y)[None])
        thin = (x, y) if name == "haversine" else (x[:, :1], y[:, :1])
        gradient = jax.grad(lambda x: jnp.sum(m.all_pairs(x, x)))(thin[0])
        thin = (m.all_pairs(*thin), m(thin[0][:, None], thin[1]))
        return [(s, pullback(s)) for s, pullback in empty], one, thin, gradient

    empty, one, thin, gradient = edges(*(float32(draw(name, n, 3, seed=n)) for n in (3, 7)))
    assert [s.shape for s, _ in empty] == [(0, 7), (3, 0), (0, 0)]
    for gradients in (g for _, pair in empty for g in pair):
        np.testing.assert_array_equal(gradients, np.zeros(gradients.shape))
    np.testing.assert_allclose(*one, rtol=1e-5, atol=2e-6)
    # With one feature vectors are alike or opposite, and the angle of opposite ones is 2 / pi times the root of a
    # squared distance that the product rounds by up to 8 eps d (|u|^2 + |v|^2).
    rounding = 2 / np.pi * (8 * np.finfo(np.float32).eps * 2) ** 0.5 if name == "angular" else 2e-5
    np.testing.assert_allclose(*thin, rtol=1e-5, atol=float(rounding))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["euclidean", "minkowski"])
def test_ten_eager_calls_compile_once(name, caplog):
    m = similarity.measure(name)
    calls = [float32(draw(name, 13, 5, seed=n)) for n in range(10)]
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for x in calls:
            m(x, calls[0])
    messages = [record.getMessage() for record in caplog.records]
    assert sum(f"Finished XLA compilation of jit({m.pair.__name__})" in message for message in messages) == 1


@each_when_slow
def test_a_gradient_needs_the_memory_of_a_block(name, monkeypatch):
    monkeypatch.setattr("simjax.similarity._featurewise.CHUNK", 4)  # 16 terms take long to compile
    n = 4096
    x = jax.ShapeDtypeStruct((n, 2 if name == "haversine" else 32), jnp.float32)

    def total(x, y):
        return jnp.sum(similarity.reduce_rows(lambda s, i, j: jnp.sum(s, axis=1), x, y, measure=name, block_size=16))

    assert temporary_bytes(jax.grad(total), x, x) < n * n * 4 / 4
