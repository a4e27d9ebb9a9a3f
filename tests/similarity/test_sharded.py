"""Rows sharded over two devices have the values and gradients of one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from simjax import similarity
from tests.similarity.arrays import float32
from tests.slow import mostly_slow

N, D = 12, 5
LOSSES = {
    "logsumexp": lambda x, labels, **o: similarity.logsumexp(x, mask=similarity.exclude_self, measure="cosine", **o),
    "labels": lambda x, labels, **o: similarity.sum(
        x, mask=similarity.all_of(similarity.same_label(labels), similarity.exclude_self), measure="euclidean", **o
    ),
    "max": lambda x, labels, **o: similarity.max(x, mask=similarity.exclude_self, measure="manhattan", **o)[0],
    "softmax": lambda x, labels, **o: similarity.softmax_weighted_sum(x, x, jnp.sin(x), **o).sum(1),
}


@pytest.fixture
def batch(random):
    return float32(random.normal(size=(N, D))), random.integers(0, 3, N)


@functools.partial(jax.jit, static_argnums=0)
def reference(name, x, labels):
    return jax.value_and_grad(lambda x: jnp.sum(jnp.cos(LOSSES[name](x, labels))))(x)


@pytest.mark.parametrize("block_size", mostly_slow([None, 2], 2))
@pytest.mark.parametrize("name", mostly_slow(LOSSES, "softmax"))
def test_inside_shard_map(batch, name, block_size):
    x, labels = batch
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))

    def loss(x):
        def local(x, labels):
            rows = LOSSES[name](x, labels, axis_name="data", block_size=block_size)
            return jax.lax.psum(jnp.sum(jnp.cos(rows)), "data")

        return jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P()), out_specs=P())(x, labels)

    found = jax.jit(jax.value_and_grad(loss))(x)
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-5), found, reference(name, *batch))


@pytest.mark.parametrize("block_size", mostly_slow([None, 2], 2))
@pytest.mark.parametrize("kind", mostly_slow([AxisType.Auto, AxisType.Explicit], AxisType.Explicit))
@pytest.mark.parametrize("name", mostly_slow(LOSSES, "labels"))
def test_on_a_mesh(batch, name, kind, block_size):
    x, labels = batch
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        x = jax.device_put(x, NamedSharding(mesh, P("data")))
        labels = jax.device_put(labels, NamedSharding(mesh, P("data")))

        def loss(x, labels):
            return jnp.sum(jnp.cos(LOSSES[name](x, labels, block_size=block_size)))

        found = jax.jit(jax.value_and_grad(loss))(x, labels)
        assert kind == AxisType.Auto or found[1].sharding.spec[0] == "data"
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(np.asarray(f), e, rtol=1e-4, atol=1e-5), found, reference(name, *batch)
    )


def products(x):
    costs = jax.jit(similarity.logsumexp).lower(x).compile().cost_analysis()
    assert costs is not None
    return costs["flops"]


def test_sharded_rows_stay_on_their_devices():
    """Each device computes half of the products."""
    x = np.zeros((16 * N, D), np.float32)
    mesh = jax.make_mesh((2,), ("data",))
    with jax.set_mesh(mesh):
        x = jax.device_put(x, NamedSharding(mesh, P("data")))
        half = products(x)
    whole = products(np.zeros((16 * N, D), np.float32))
    assert half < 0.7 * whole
