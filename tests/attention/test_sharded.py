"""Batches or heads sharded over two devices have the values, gradients and dropout of one device.

Sharded batches without a bias are tested with all public functions in test_sharding.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import Partial

from simjax import attention

dot_product_attention: Any = attention.dot_product_attention  # options decide whether it returns a tuple

SHARDINGS = {"batch": P("data"), "heads": P(None, None, "data")}


@pytest.fixture
def arrays(random):
    shapes = ((4, 5, 4, 3), (4, 7, 2, 3), (4, 7, 2, 3))
    return tuple(np.float32(random.normal(size=shape)) for shape in shapes)


def expected(loss, arrays):
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*arrays)


def same(found, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), b, rtol=1e-4, atol=1e-5), found, wanted)


@pytest.mark.slow
def test_heads_inside_shard_map(arrays):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))

    def loss(q, k, v):
        return jnp.sum(jnp.sin(dot_product_attention(q, k, v, is_causal=True, block_size=2)))

    def sharded(*arrays):
        def local(*arrays):
            return jax.lax.psum(loss(*arrays), "data")

        return jax.shard_map(local, mesh=mesh, in_specs=(SHARDINGS["heads"],) * 3, out_specs=P())(*arrays)

    same(jax.jit(jax.value_and_grad(sharded, argnums=(0, 1, 2)))(*arrays), expected(loss, arrays))


OPTIONS = {
    "bias": Partial(lambda slopes, i, j, head: -slopes[head] * jnp.abs(i - j), np.float32(np.arange(4) / 3)),
    "mask": np.random.default_rng(1).random((4, 1, 5, 7)) < 0.8,
    "key_value_seq_lengths": np.array([7, 3, 5, 6]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axis", "kind", "block_size"),
    [("batch", AxisType.Explicit, None), ("heads", AxisType.Explicit, 2), ("heads", AxisType.Auto, 2)],
    ids=str,
)
def test_on_a_mesh(arrays, axis, kind, block_size):
    def loss(q, k, v):
        return jnp.sum(jnp.sin(dot_product_attention(q, k, v, block_size=block_size, **OPTIONS)))

    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        sharded = (jax.device_put(a, NamedSharding(mesh, SHARDINGS[axis])) for a in arrays)
        found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*sharded)
        if kind == AxisType.Explicit:
            assert {g.sharding.spec for g in found[1]} == {P(*SHARDINGS[axis], *(None,) * (4 - len(SHARDINGS[axis])))}
    same(found, expected(loss, arrays))


@pytest.mark.slow
def test_the_same_weights_are_dropped_on_a_mesh(arrays):
    @jax.jit
    def attend(*arrays):
        options = {"dropout_rng": jax.random.key(0), "dropout_rate": 0.3, "broadcast_dropout": False}
        return dot_product_attention(*arrays, **options)

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    whole = attend(*arrays)
    for spec in SHARDINGS.values():
        with jax.set_mesh(mesh):
            found = attend(*(jax.device_put(a, NamedSharding(mesh, spec)) for a in arrays))
        same(found, whole)


def test_each_device_computes_only_its_part(arrays):
    """Each device computes half of the products, if the batch is sharded over an Explicit mesh."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))

    def flops(arrays):
        costs = jax.jit(dot_product_attention).lower(*arrays).compile().cost_analysis()
        assert costs is not None
        return costs["flops"]

    with jax.set_mesh(mesh):
        half = flops([jax.device_put(a, NamedSharding(mesh, P("data"))) for a in arrays])
    assert half < 0.6 * flops(arrays)
