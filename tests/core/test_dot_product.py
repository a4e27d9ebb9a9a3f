import itertools
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import core, similarity
from simjax.attention import attention
from simjax.core import _convolution
from simjax.core._convolution import _by_xla
from tests.similarity.arrays import float32
from tests.similarity.derivatives import assert_derivatives
from tests.slow import mostly_slow, slow_unless


def test_dot_products_and_dense_equal_loops(random):
    x, y, bias = random.normal(size=(2, 3, 7)), random.normal(size=(2, 5, 7)), random.normal(size=5)
    loops = np.array([[[np.dot(a, b) for b in ys] for a in xs] for xs, ys in zip(x, y, strict=True)])

    @jax.jit
    def compute(x, y, bias):
        return core.dot_products(x, y), core.dense(x, y[1].T, bias)

    products, dense = compute(float32(x), float32(y), float32(bias))
    np.testing.assert_allclose(products, loops, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dense[1], loops[1] + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding", "filters"),
    [
        ((7, 11, 2), (3, 3), 1, 1, 5),  # short patches are extracted whole, longer ones row by row
        ((9, 8, 13), (2, 3), 2, 1, 5),
        slow_unless(False, (5, 7, 1), (1, 1), 1, 0, 3),
        slow_unless(False, (7, 11, 2), (3, 5), 2, 0, 3),
        slow_unless(False, (9, 8, 13), (3, 3), 1, 1, 5),
        slow_unless(False, (8, 9, 13), (3, 3), 3, 2, 4),
        slow_unless(False, (6, 6, 3), (5, 5), 3, 2, 1),
        slow_unless(False, (6, 7, 17), (2, 2), 2, 0, 3),
    ],
)
def test_convolution_equals_products_of_patches_and_its_sparse_matrix(random, shape, size, stride, padding, filters):
    x = float32(random.normal(size=(2, *shape)))
    kernel = float32(random.normal(size=(*size, shape[2], filters)))
    bias = float32(random.normal(size=filters))
    step = {"stride": stride, "padding": padding}

    @jax.jit
    def compute(x, kernel, bias):
        matrix = core.convolution_matrix(kernel, shape, **step)
        others = (
            core.dense(core.patches(x, size, **step), kernel.reshape(-1, filters), bias),
            _by_xla(x, kernel, stride, padding) + bias[None, None, None],  # what runs on a GPU or TPU
            core.dense(x.reshape(2, -1), matrix),
        )
        return core.convolution(x, kernel, bias, **step), matrix, *others

    out, matrix, by_patches, by_xla, by_matrix = map(np.asarray, compute(x, kernel, bias))
    np.testing.assert_allclose(out, by_patches, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(out, by_xla, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(out, by_matrix.reshape(out.shape) + bias, rtol=1e-5, atol=2e-5)
    # An output has the inputs of one patch at most, and the same weights as all other positions.
    positions = out.shape[1] * out.shape[2]
    assert int((np.asarray(matrix) != 0).sum(0).max()) <= size[0] * size[1] * shape[2]
    assert len(np.unique(matrix)) <= kernel.size + 1
    assert matrix.shape == (np.prod(shape), positions * filters)


def test_convolution_equals_loops(random):
    x, kernel = random.normal(size=(5, 6, 2)), random.normal(size=(3, 2, 2, 4))
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    loops = [
        [np.einsum("ijc,ijck->k", padded[i : i + 3, j : j + 2], kernel) for j in range(0, 7, 2)] for i in range(0, 5, 2)
    ]
    convolve = jax.jit(lambda x, kernel: core.convolution(x, kernel, stride=2, padding=1))
    np.testing.assert_allclose(convolve(float32(x)[None], float32(kernel))[0], loops, rtol=1e-5, atol=1e-5)


def test_28x28_to_28x28_has_614656_weights():
    matrix = jax.jit(lambda k: core.convolution_matrix(k, (28, 28, 1), padding=1))(np.ones((3, 3, 1, 1), np.float32))
    assert matrix.size == 614_656
    inner = np.asarray(matrix).reshape(28, 28, 28, 28)[:, :, 1:-1, 1:-1]
    np.testing.assert_array_equal(inner.sum((0, 1)), 9)


def test_one_block_of_images_equals_many(random, monkeypatch):
    x, kernel = float32(random.normal(size=(7, 6, 5, 9))), float32(random.normal(size=(3, 3, 9, 4)))

    def value_and_gradients(x, kernel):
        return jax.value_and_grad(lambda *a: jnp.sum(core.convolution(*a, padding=1) ** 2), argnums=(0, 1))(x, kernel)

    whole = jax.jit(value_and_gradients)(x, kernel)
    monkeypatch.setattr(_convolution, "rows_per_block", lambda *_, **__: 3)
    blocks = jax.jit(lambda *a: value_and_gradients(*a))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), blocks, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_a_depthwise_convolution_is_that_of_xla(random, size, stride):
    for height, width in ((8, 8), (7, 10), (2, 1)):
        x = random.normal(size=(2, height, width, 4)).astype(np.float32)
        kernel = random.normal(size=(size, size, 4)).astype(np.float32)
        names = ("NHWC", "HWIO", "NHWC")
        expected = jax.lax.conv_general_dilated(
            x, kernel[:, :, None], (stride, stride), "SAME", dimension_numbers=names, feature_group_count=4
        )
        found = core.depthwise_convolution(x, kernel, stride=stride)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        padded = core.pad_same(x, (size, size), stride)
        separate = [
            core.convolution(padded[..., i : i + 1], kernel[:, :, i, None, None], stride=stride) for i in range(4)
        ]
        np.testing.assert_allclose(found, np.concatenate(separate, axis=-1), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_a_depthwise_convolution_needs_a_filter_for_each_channel():
    with pytest.raises(core.InputError, match="expected"):
        core.depthwise_convolution(np.zeros((2, 4, 4, 4), np.float32), np.zeros((3, 3, 3), np.float32))


def test_derivatives_of_a_convolution():
    random = np.random.default_rng(1)
    for shape, size in (((2, 5, 4, 2), (3, 2)), ((2, 4, 5, 9), (3, 3))):
        x, kernel = random.normal(size=shape), random.normal(size=(*size, shape[3], 3))
        assert_derivatives(lambda x, k: core.convolution(x, k, padding=1), x, kernel)


@pytest.mark.usefixtures("unchecked")
def test_errors_name_the_given_shape():
    x = np.zeros((2, 5, 5, 1), np.float32)
    with pytest.raises(core.InputError, match=r"expected \[b, h, w, 3\].*got \(2, 5, 5, 1\)"):
        core.convolution(x, np.zeros((3, 3, 3, 4), np.float32))
    with pytest.raises(core.InputError, match=r"at least 7x7, padding included, got \(2, 5, 5, 1\)"):
        core.convolution(x, np.zeros((7, 7, 1, 4), np.float32))
    with pytest.raises(core.InputError, match=r"kernel: expected \[kh, kw, c, k\], got \(3, 3, 4\)"):
        core.convolution(x, np.zeros((3, 3, 4), np.float32))
    with pytest.raises(core.InputError, match="at least 9x2"):
        core.patches(x, (9, 2))


def precisions(function, *arguments) -> set:
    """Return the precisions of all dot products in the program of a function."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation.params["precision"]
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from walk(inner)

    return set(walk(jax.make_jaxpr(function)(*arguments).jaxpr))


@pytest.mark.parametrize(
    ("name", "how"),
    mostly_slow(itertools.product(["dot", "cosine", "euclidean"], ["argument", "context"]), ("euclidean", "argument")),
)
def test_gradients_have_the_precision_of_the_value(random, name, how):
    x, y = float32(random.normal(size=(2, 5, 4)))
    options: Any = {"precision": "highest"} if how == "argument" else {}
    highest = {(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)}

    def total(x, y):
        return similarity.logsumexp(x, y, measure=name, **options).sum()

    def attended(x, y):
        out: Any = attention(x[:, None], y[:, None], y[:, None], measure=name, **options)
        return out.sum()

    with jax.default_matmul_precision("highest" if how == "context" else None):
        for function in (total, attended):
            assert precisions(jax.value_and_grad(function, argnums=(0, 1)), x, y) == highest


def test_derivatives_of_a_matrix_product(random):
    a, b = (random.normal(size=s) for s in ((2, 3, 5), (2, 5, 4)))
    np.testing.assert_allclose(core.matrix_product(float32(a), float32(b)), a @ b, rtol=1e-5)
    assert_derivatives(core.matrix_product, a, b)
    half = jax.eval_shape(
        jax.grad(lambda b: core.matrix_product(a.astype(jnp.bfloat16), b).sum()), b.astype(jnp.dtype(jnp.bfloat16))
    )
    assert half.dtype == jnp.bfloat16
