import jax
import jax.numpy as jnp
import numpy as np

from simjax.core import map_rows, rows_per_block
from tests.similarity.arrays import float32, temporary_bytes


def tile_sum(y):
    return lambda rows, scale: {"sum": jnp.sum(jnp.sin(rows @ y.T), 1) * scale, "max": jnp.max(rows @ y.T, 1)}


def test_values_and_gradients_of_many_blocks_equal_those_of_one(random):
    def total(x, y, scale, block_size):
        found = map_rows(tile_sum(y), x, scale, block_size=block_size)
        return jnp.sum(found["sum"] ** 2), found

    @jax.jit
    def by_blocks(x, y, scale):
        compute = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
        return {size: compute(x, y, scale, size) for size in (1, 2, 3, 7, 100)}, tile_sum(y)(x, scale)

    found, values = by_blocks(*(float32(random.normal(size=s)) for s in ((7, 3), (5, 3), (7,))))
    (_, whole), gradients = found[7]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, values)
    for (_, blocks), of_blocks in found.values():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), blocks, whole)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), of_blocks, gradients)


def test_padding_adds_no_nan_to_gradients():
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(map_rows(jnp.sqrt, x, block_size=2))))
    np.testing.assert_allclose(gradient(float32([[4], [9], [16]])), [[1 / 4], [1 / 6], [1 / 8]], rtol=1e-6)


def test_memory_of_a_gradient_is_one_block():
    x = jax.ShapeDtypeStruct((4096, 16), jnp.float32)

    def total(x, block_size):
        return jnp.sum(map_rows(lambda rows: jax.nn.logsumexp(rows @ x.T, axis=1), x, block_size=block_size))

    temporary = [temporary_bytes(jax.grad(lambda x, b=b: total(x, b)), x) for b in (64, 4096)]
    assert temporary[1] > 4096 * 4096 * 4  # the whole matrix
    assert temporary[0] < temporary[1] / 16


def test_row_bytes_determine_the_default_block_size(random):
    x = float32(random.normal(size=(11, 3)))
    sizes = []
    jax.eval_shape(lambda x: map_rows(lambda rows: sizes.append(rows.shape[0]) or rows, x, row_bytes=2**24), x)
    assert set(sizes) == {2}


def test_equal_blocks_are_preferred_to_fewer_blocks_with_padding():
    assert rows_per_block(5000, 2**14) == 250  # with 256 rows the last block would need padding
    assert rows_per_block(5003, 2**14) == 251  # a prime number: 20 blocks of at most 256
    assert rows_per_block(65_536, 2**18) == 128
    assert rows_per_block(1000, 2**30) == 1  # a row exceeds the budget
