import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import map_rows, rows_per_block


def tile_sum(y):
    return lambda rows, scale: {"sum": jnp.sum(jnp.sin(rows @ y.T), 1) * scale, "max": jnp.max(rows @ y.T, 1)}


@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 100])
def test_one_block_equals_many(random, block_size):
    x, y, scale = (jnp.float32(random.normal(size=s)) for s in ((7, 3), (5, 3), (7,)))
    whole = tile_sum(y)(x, scale)
    found = map_rows(tile_sum(y), x, scale, block_size=block_size)
    np.testing.assert_allclose(found["sum"], whole["sum"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["max"], whole["max"], rtol=1e-5)


def test_gradients_of_many_blocks_equal_those_of_one(random):
    x, y, scale = (jnp.float32(random.normal(size=s)) for s in ((7, 3), (5, 3), (7,)))

    def total(x, y, block_size):
        return jnp.sum(map_rows(tile_sum(y), x, scale, block_size=block_size)["sum"] ** 2)

    many, one = (jax.grad(total, argnums=(0, 1))(x, y, block_size) for block_size in (2, 7))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), many, one)


def test_padding_adds_no_nan_to_gradients():
    x = jnp.array([[4.0], [9.0], [16.0]])
    grad = jax.grad(lambda x: jnp.sum(map_rows(jnp.sqrt, x, block_size=2)))(x)
    np.testing.assert_allclose(grad, [[1 / 4], [1 / 6], [1 / 8]], rtol=1e-6)


def test_memory_of_a_gradient_is_one_block():
    x = jnp.zeros((4096, 16))

    def total(x, block_size):
        return jnp.sum(map_rows(lambda rows: jax.nn.logsumexp(rows @ x.T, axis=1), x, block_size=block_size))

    temporary = [
        jax.jit(jax.grad(total), static_argnums=1).lower(x, block_size).compile().memory_analysis().temp_size_in_bytes
        for block_size in (64, 4096)
    ]
    assert temporary[1] > 4096 * 4096 * 4  # the whole matrix
    assert temporary[0] < temporary[1] / 16


def test_row_bytes_determine_the_default_block_size(random):
    x = jnp.float32(random.normal(size=(11, 3)))
    sizes = []
    map_rows(lambda rows: sizes.append(rows.shape[0]) or rows, x, row_bytes=2**24)
    assert set(sizes) == {2}


def test_equal_blocks_are_preferred_to_fewer_blocks_with_padding():
    assert rows_per_block(5000, 2**14) == 250  # with 256 rows the last block would need padding
    assert rows_per_block(5003, 2**14) == 251  # a prime number: 20 blocks of at most 256
    assert rows_per_block(65_536, 2**18) == 128
    assert rows_per_block(1000, 2**30) == 1  # a row exceeds the budget
