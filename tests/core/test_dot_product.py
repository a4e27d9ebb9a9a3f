import jax
import jax.extend
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax import core, similarity
from simjax.attention import attention
from simjax.core import _convolution
from simjax.core._convolution import _by_xla


def test_dot_products_equal_loops(random):
    x, y = random.normal(size=(2, 3, 7)), random.normal(size=(2, 5, 7))
    loops = [[[np.dot(a, b) for b in ys] for a in xs] for xs, ys in zip(x, y, strict=True)]
    np.testing.assert_allclose(core.dot_products(jnp.float32(x), jnp.float32(y)), loops, rtol=1e-5, atol=1e-6)


def test_dense_equals_dot_products_with_the_neurons(random):
    x, kernel, bias = (jnp.float32(random.normal(size=s)) for s in ((2, 3, 7), (7, 5), (5,)))
    neurons = kernel.T
    expected = core.dot_products(x.reshape(6, 7), neurons).reshape(2, 3, 5) + bias[None, None]
    np.testing.assert_array_equal(core.dense(x, kernel, bias), expected)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding", "filters"),
    [
        ((7, 11, 2), (3, 3), 1, 1, 5),  # short patches are extracted whole, longer ones row by row
        ((9, 8, 13), (2, 3), 2, 1, 5),
        ((5, 7, 1), (1, 1), 1, 0, 3),
        pytest.param((7, 11, 2), (3, 5), 2, 0, 3, marks=pytest.mark.slow),
        pytest.param((9, 8, 13), (3, 3), 1, 1, 5, marks=pytest.mark.slow),
        pytest.param((8, 9, 13), (3, 3), 3, 2, 4, marks=pytest.mark.slow),
        pytest.param((6, 6, 3), (5, 5), 3, 2, 1, marks=pytest.mark.slow),
        pytest.param((6, 7, 17), (2, 2), 2, 0, 3, marks=pytest.mark.slow),
    ],
)
def test_convolution_equals_products_of_patches_and_its_sparse_matrix(random, shape, size, stride, padding, filters):
    x = jnp.float32(random.normal(size=(2, *shape)))
    kernel = jnp.float32(random.normal(size=(*size, shape[2], filters)))
    bias = jnp.float32(random.normal(size=filters))
    out = core.convolution(x, kernel, bias, stride=stride, padding=padding)

    rows = core.patches(x, size, stride=stride, padding=padding)
    by_patches = core.dense(rows, kernel.reshape(-1, filters), bias)
    np.testing.assert_allclose(out, by_patches, rtol=1e-5, atol=2e-5)

    by_xla = _by_xla(x, kernel, stride, padding) + bias[None, None, None]  # what runs on a GPU or TPU
    np.testing.assert_allclose(out, by_xla, rtol=1e-5, atol=2e-5)

    matrix = core.convolution_matrix(kernel, shape, stride=stride, padding=padding)
    by_matrix = core.dense(x.reshape(2, -1), matrix).reshape(out.shape) + bias[None, None, None]
    np.testing.assert_allclose(out, by_matrix, rtol=1e-5, atol=2e-5)
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
    out = core.convolution(jnp.float32(x)[None], jnp.float32(kernel), stride=2, padding=1)
    np.testing.assert_allclose(out[0], loops, rtol=1e-5, atol=1e-5)


def test_28x28_to_28x28_has_614656_weights():
    matrix = core.convolution_matrix(jnp.ones((3, 3, 1, 1)), (28, 28, 1), padding=1)
    assert matrix.size == 614_656
    inner = np.asarray(matrix).reshape(28, 28, 28, 28)[:, :, 1:-1, 1:-1]
    np.testing.assert_array_equal(inner.sum((0, 1)), 9)


def test_one_block_of_images_equals_many(random, monkeypatch):
    x, kernel = jnp.float32(random.normal(size=(7, 6, 5, 9))), jnp.float32(random.normal(size=(3, 3, 9, 4)))

    def both(x, kernel):
        return jax.value_and_grad(lambda *a: jnp.sum(core.convolution(*a, padding=1) ** 2), argnums=(0, 1))(x, kernel)

    whole = both(x, kernel)
    monkeypatch.setattr(_convolution, "rows_per_block", lambda *_, **__: 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), both(x, kernel), whole)


@pytest.mark.slow
def test_convolution_gradients():
    with jax.enable_x64(True):
        random = np.random.default_rng(1)
        for shape, size in (((2, 5, 4, 2), (3, 2)), ((2, 4, 5, 9), (3, 3))):
            x = jnp.asarray(random.normal(size=shape))
            kernel = jnp.asarray(random.normal(size=(*size, shape[3], 3)))
            jax.test_util.check_grads(
                lambda x, k: core.convolution(x, k, padding=1), (x, kernel), order=2, modes=["fwd", "rev"]
            )


@pytest.mark.usefixtures("unchecked")
def test_errors_name_the_given_shape():
    with pytest.raises(core.InputError, match=r"expected \[b, h, w, 3\].*got \(2, 5, 5, 1\)"):
        core.convolution(jnp.zeros((2, 5, 5, 1)), jnp.zeros((3, 3, 3, 4)))
    with pytest.raises(core.InputError, match=r"at least 7x7, padding included, got \(2, 5, 5, 1\)"):
        core.convolution(jnp.zeros((2, 5, 5, 1)), jnp.zeros((7, 7, 1, 4)))
    with pytest.raises(core.InputError, match=r"kernel: expected \[kh, kw, c, k\], got \(3, 3, 4\)"):
        core.convolution(jnp.zeros((2, 5, 5, 1)), jnp.zeros((3, 3, 4)))
    with pytest.raises(core.InputError, match="at least 9x2"):
        core.patches(jnp.zeros((2, 5, 5, 1)), (9, 2))


def precisions(function, *arguments) -> set:
    """Return the precisions of all dot products in the program of a function."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation.params["precision"]
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from walk(inner)

    return set(walk(jax.make_jaxpr(function)(*arguments).jaxpr))


@pytest.mark.parametrize("name", ["dot", "cosine", "euclidean"])
@pytest.mark.parametrize("how", ["argument", "context"])
def test_gradients_have_the_precision_of_the_value(random, name, how):
    x, y = (jnp.float32(random.normal(size=(5, 4))) for _ in range(2))
    options = {"precision": "highest"} if how == "argument" else {}
    highest = {(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)}

    def total(x, y):
        return similarity.logsumexp(x, y, measure=name, **options).sum()

    def attended(x, y):
        return attention(x[:, None], y[:, None], y[:, None], measure=name, **options).sum()

    with jax.default_matmul_precision("highest" if how == "context" else None):
        for function in (total, attended):
            assert precisions(jax.value_and_grad(function, argnums=(0, 1)), x, y) == highest


def test_derivatives_of_a_matrix_product(random):
    a, b = (jnp.float32(random.normal(size=s)) for s in ((2, 3, 5), (2, 5, 4)))
    np.testing.assert_allclose(core.matrix_product(a, b), a @ b, rtol=1e-6)
    with jax.enable_x64(True):
        jax.test_util.check_grads(core.matrix_product, (jnp.float64(a), jnp.float64(b)), order=2)
    half = jax.grad(lambda b: core.matrix_product(a.astype(jnp.bfloat16), b).sum())(b.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
