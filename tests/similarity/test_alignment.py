import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from simjax.core import InputError
from simjax.similarity import Alignment, Measure, alignment, centered_kernel_alignment, measure
from simjax.similarity._kernel_alignment import median_squared_distance
from tests.similarity.arrays import float32, float64, temporary_bytes
from tests.similarity.derivatives import assert_derivatives
from tests.slow import slow_unless


def gram(x, kernel, bandwidth):
    if kernel == "linear":
        return x @ x.T
    distances = pdist(x)
    width = bandwidth * np.sort(distances)[(len(distances) - 1) // 2]
    return np.exp(-(squareform(distances) ** 2) / (2 * width**2))


def hsic(k: np.ndarray, m: np.ndarray, unbiased: bool) -> Any:
    n = len(k)
    if not unbiased:
        h = np.eye(n) - 1 / n
        return np.trace(k @ h @ m @ h) / n**2
    k, m, one = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), np.ones(n)
    means = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return (np.trace(k @ m) + means) / (n * (n - 3))


def by_matrices(x, y, kernel="linear", unbiased=False, bandwidth=0.8):
    k, m = (gram(float64(a), kernel, bandwidth) for a in (x, y))
    return hsic(k, m, unbiased) / np.sqrt(hsic(k, k, unbiased) * hsic(m, m, unbiased))


def representations(random, n, d=5, e=5):
    x = random.normal(size=(n, d)) @ random.normal(size=(d, d)) + 3
    y = np.tanh(x @ random.normal(size=(d, e))) + 0.3 * random.normal(size=(n, e))
    return float32(x), float32(y)


every_variant = pytest.mark.parametrize(
    ("kernel", "unbiased"), [("linear", False), ("linear", True), slow_unless(False, "rbf", True)]
)


@functools.cache
def with_gradients(kernel, unbiased):
    align = functools.partial(centered_kernel_alignment, kernel=kernel, unbiased=unbiased)
    return jax.jit(jax.value_and_grad(align, (0, 1)))


@every_variant
def test_agrees_with_matrices(random, kernel, unbiased):
    x, y = representations(random, 31)
    found = with_gradients(kernel, unbiased)(x, y)[0]
    np.testing.assert_allclose(found, by_matrices(x, y, kernel, unbiased), rtol=2e-4)


@pytest.mark.parametrize(
    ("kernel", "unbiased", "n", "block_size"),
    [
        slow_unless(False, "linear", False, 5, 4),  # fewer inputs than features: computed from tiles
        slow_unless(False, "linear", True, 5, None),
        slow_unless(False, "rbf", False, 53, 4),
        slow_unless(False, "rbf", True, 53, 7),
    ],
)
def test_representations_of_different_sizes_agree_with_matrices(random, kernel, unbiased, n, block_size):
    x, y = representations(random, n, e=7)
    options = {"kernel": kernel, "unbiased": unbiased, "bandwidth": 0.4}
    found = centered_kernel_alignment(x, y, **options, block_size=block_size)
    np.testing.assert_allclose(found, by_matrices(x, y, **options), rtol=2e-4)


def test_products_by_features_and_of_inputs_agree(random):
    x, y = representations(random, 31)
    by_features = with_gradients("linear", False)(x, y)[0]
    by_inputs = centered_kernel_alignment(x - x.mean(0), y - y.mean(0), kernel=measure("dot"))
    np.testing.assert_allclose(by_features, by_inputs, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("unbiased", [False, True])
def test_a_user_function_and_a_named_measure_as_kernel(random, unbiased):
    x, y = representations(random, 31)
    k, m = (np.exp(-0.2 * squareform(pdist(float64(a), "sqeuclidean"))) for a in (x, y))
    expected = hsic(k, m, unbiased) / np.sqrt(hsic(k, k, unbiased) * hsic(m, m, unbiased))
    kernel = measure("rbf", gamma=0.2)
    if unbiased:
        kernel = Measure.from_pair(lambda a, b: jnp.exp(-0.2 * jnp.sum((a - b) ** 2, -1)), higher_is_closer=True)
    found = centered_kernel_alignment(x, y, kernel=kernel, unbiased=unbiased, block_size=7)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@every_variant
def test_rotation_and_scale_have_no_effect_and_equal_representations_give_one(random, kernel, unbiased):
    x, y = representations(random, 31)
    rotation = float32(np.linalg.qr(random.normal(size=(5, 5)))[0])

    def align(x, y):
        return with_gradients(kernel, unbiased)(x, y)[0]

    np.testing.assert_allclose(align(x, x), 1, rtol=1e-6)
    np.testing.assert_allclose(align(-8 * x @ rotation + 5, x), 1, rtol=1e-4)
    np.testing.assert_allclose(align(-8 * x @ rotation + 5, y), align(x, y), rtol=1e-4)
    np.testing.assert_allclose(align(y, x), align(x, y), rtol=1e-5)
    assert align(x, y) < 0.99


@pytest.mark.slow
def test_few_inputs_with_independent_representations_align_only_in_the_biased_form(random):
    x, y = float32(random.normal(size=(2, 100, 13, 31)))

    @jax.jit
    def align(x, y):
        return [jax.vmap(functools.partial(centered_kernel_alignment, unbiased=u))(x, y) for u in (False, True)]

    biased, unbiased = (np.mean(found) for found in align(x, y))
    assert biased > 0.6
    assert abs(unbiased) < 0.05


@every_variant
def test_huge_and_tiny_features(random, kernel, unbiased):
    x, y = representations(random, 31)
    align = with_gradients(kernel, unbiased)
    expected, (slope, _) = align(x, y)
    for scale in float32([1e-30, 1e30]):
        found, (gradient, _) = align(x * scale, y)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        np.testing.assert_allclose(np.asarray(gradient) * scale, slope, rtol=1e-2, atol=1e-5)


@every_variant
def test_a_constant_representation_has_alignment_and_gradient_zero(random, kernel, unbiased):
    align = with_gradients(kernel, unbiased)
    y = representations(random, 31)[1]
    for value in (0.0, 0.1, 1e4):
        x = np.full_like(y, value)
        for pair in ((x, y), (y, x), (x, x)):
            found, gradients = align(*pair)
            assert found == 0
            assert not any(np.any(g) for g in gradients)


@pytest.mark.slow
def test_a_median_distance_of_zero(random):
    """The median is 0: the RBF kernel is 1 for equal inputs and 0 for others."""
    x, y = float32(np.repeat(random.normal(size=(3, 5)), (23, 5, 3), axis=0)), representations(random, 31)[1]
    found, gradients = with_gradients("rbf", True)(x, y)
    k = float64((x[:, None] == x[None]).all(-1))
    m = gram(float64(y), "rbf", 0.8)
    np.testing.assert_allclose(found, hsic(k, m, True) / np.sqrt(hsic(k, k, True) * hsic(m, m, True)), rtol=1e-4)
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("n", [3, *(slow_unless(False, n) for n in (2, 101))])
def test_the_median_is_exact(random, n):
    """Integers around 0, whose distances are not rounded, with many ties."""
    half = float32(random.integers(-9, 9, size=(n // 2, 3)))
    x = np.concatenate([half, -half, np.zeros((n % 2, 3), np.float32)])
    distances = np.sort(pdist(x, "sqeuclidean"))
    found = jax.jit(lambda x: [median_squared_distance(x, block_size) for block_size in (None, 5)])(x)
    np.testing.assert_array_equal(found, distances[(len(distances) - 1) // 2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "unbiased", "e"),
    [("linear", True, 7), ("linear", False, 3), ("rbf", False, 3)],
)
def test_derivatives_in_float64(kernel, unbiased, e):
    x, y = (np.random.default_rng(d).normal(size=(5, d)) for d in (2, e))
    # The median is a constant of the gradient.
    kernel = {"rbf": measure("rbf", gamma=0.3)}.get(kernel, "linear")
    align = functools.partial(centered_kernel_alignment, kernel=kernel, unbiased=unbiased, block_size=2)
    assert_derivatives(align, x, y, order=1)


@pytest.mark.slow
def test_the_matrix_is_never_stored():
    x = jax.ShapeDtypeStruct((4096, 8), jnp.float32)

    def temporary(block_size):
        align = functools.partial(centered_kernel_alignment, kernel="rbf", block_size=block_size)
        return temporary_bytes(jax.value_and_grad(align, (0, 1)), x, x)

    assert temporary(4096) > 4096 * 4096 * 4
    assert temporary(8) < 4096 * 4096 * 4 / 10


def batches(random, count=5, n=13):
    return [representations(random, n) for _ in range(count)]


@pytest.mark.parametrize("kernel", ["linear", slow_unless(False, "rbf")])
def test_unbiased_products_are_averaged_over_batches(random, kernel):
    seen = batches(random)
    state = functools.reduce(lambda s, b: s.update(*b), seen[1:], alignment(*seen[0], kernel=kernel, bandwidth=0.4))
    grams = [[gram(float64(a), kernel, 0.4) for a in b] for b in seen]
    xy, xx, yy = (np.mean([hsic(g[i], g[j], True) for g in grams]) for i, j in ((0, 1), (0, 0), (1, 1)))
    np.testing.assert_allclose(state.value, xy / np.sqrt(xx * yy), rtol=1e-4)


def test_batches_of_different_scales_merge_in_any_order(random):
    """The fourth powers of these numbers do not fit float32."""
    scaled = [(float32(s * x), float32(s * y)) for s, (x, y) in zip((1e10, 3e9, 2e10), batches(random), strict=False)]
    products = [
        [
            hsic(gram(float64(b[i]), "linear", 0), gram(float64(b[j]), "linear", 0), True)
            for i, j in ((0, 1), (0, 0), (1, 1))
        ]
        for b in scaled
    ]
    xy, xx, yy = np.mean(products, axis=0)
    states = [alignment(*b) for b in scaled]
    for order in (states, states[::-1], states[1:] + states[:1]):
        np.testing.assert_allclose(functools.reduce(Alignment.merge, order).value, xy / np.sqrt(xx * yy), rtol=1e-4)


def test_one_batch_equals_the_unbiased_form(random):
    x, y = representations(random, 31)
    found = with_gradients("linear", True)(x, y)[0]
    np.testing.assert_allclose(alignment(x, y).value, found, rtol=1e-6)


def test_update_is_in_place_and_compiles_once(random):
    first, *others = batches(random)
    traces = []
    step = jax.jit(lambda s, x, y: traces.append(1) or s.update(x, y), donate_argnums=0)
    start = state = alignment(*first)
    for batch in others:
        state = step(state, *batch)
    assert len(traces) == 1
    assert start.products.is_deleted()
    again = functools.reduce(Alignment.merge, [alignment(*b) for b in (first, *others)])
    np.testing.assert_allclose(state.value, again.value, rtol=1e-5)


@pytest.mark.slow
def test_vmap_is_a_loop(random):
    x, y = (np.stack(a) for a in zip(*batches(random, 3), strict=True))
    align = functools.partial(centered_kernel_alignment, kernel="rbf")
    expected = [align(a, b) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(align))(x, y), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [slow_unless(False, "float16"), "bfloat16", slow_unless(False, "int32")])
def test_integers_and_half_precision(random, kind):
    kind = jnp.dtype(kind)
    x, y = ((3 * a).astype(kind) for a in representations(random, 31))
    result = jnp.dtype(jnp.float32 if kind == jnp.int32 else kind)
    found = centered_kernel_alignment(x, y)
    assert found.dtype == result
    np.testing.assert_allclose(float(found), by_matrices(x, y), rtol=float(jnp.finfo(result).eps) + 1e-5)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x = np.zeros((5, 2), np.float32)
    with pytest.raises(InputError, match="y: expected features of the same 5 inputs as x"):
        centered_kernel_alignment(x, x[:3])
    with pytest.raises(InputError, match="inputs: expected at least 4, got 3"):
        alignment(x[:3], x[:3])
    with pytest.raises(InputError, match="did you mean linear"):
        centered_kernel_alignment(x, x, kernel="liner")
    with pytest.raises(InputError, match="bandwidth: expected at least 0"):
        centered_kernel_alignment(x, x, kernel="rbf", bandwidth=-1.0)
    state = alignment(x, x)
    other = dataclasses.replace(state, kernel=dataclasses.replace(state.kernel, name="rbf"))
    with pytest.raises(InputError, match="kernel: expected"):
        state.merge(other)
