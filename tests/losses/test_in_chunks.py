"""A batch encoded in chunks has the gradients of the whole batch, in the memory of a chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simjax import losses
from simjax.core import InputError
from tests.slow import mostly_slow

N, FEATURES, LAYERS = 12, 8, 3


def layers(width=FEATURES, count=LAYERS):
    return [np.random.default_rng(k).normal(size=(width, width)) / width**0.5 for k in range(count)]


def encode(weights, x):
    for w in weights:
        x = jnp.tanh(x @ w)
    return x


def close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("chunk", mostly_slow([5, 100], 5))
def test_gradients_are_those_of_the_whole_batch(random, chunk):
    labels = np.arange(N) // 2
    with jax.enable_x64(True):
        weights, x = layers(), random.normal(size=(N, FEATURES))

        def plain(weights, x):
            return losses.multi_similarity_loss(encode(weights, x), labels)

        def cached(weights, x):
            embeddings = losses.encode_in_chunks(lambda part: encode(weights, part), x, chunk_size=chunk)
            return losses.multi_similarity_loss(embeddings, labels)

        @jax.jit
        def compute(weights, x):
            return [jax.value_and_grad(loss, argnums=(0, 1))(weights, x) for loss in (cached, plain)]

        close(*compute(weights, x))


@pytest.mark.slow
def test_two_towers_with_shared_layers(random):
    with jax.enable_x64(True):
        images, texts = map(jnp.asarray, random.normal(size=(2, N, FEATURES)))
        towers = {"images": layers(count=1), "texts": layers(count=2), "shared": layers(count=1)}

        def loss(towers, run):
            x = run(lambda part: encode(towers["images"] + towers["shared"], part), images)
            y = run(lambda part: encode(towers["texts"] + towers["shared"], part), texts)
            return losses.info_nce_loss(x, y, directions="both")

        def in_chunks(encoder, inputs):
            return losses.encode_in_chunks(encoder, inputs, chunk_size=3)

        def at_once(encoder, inputs):
            return encoder(inputs)

        compute = jax.jit(lambda towers: [jax.value_and_grad(loss)(towers, run) for run in (in_chunks, at_once)])
        close(*compute(towers))


def test_dropout_differs_between_chunks():
    def encoder(part, key):
        return part * jax.random.bernoulli(key, 0.5, part.shape)

    compute = jax.jit(lambda x: losses.encode_in_chunks(encoder, x, chunk_size=3, key=jax.random.key(0)))
    first_of_chunks = np.asarray(compute(np.ones((N, 64), np.float32)))[::3]
    assert len(np.unique(first_of_chunks, axis=0)) == 4


@pytest.mark.slow
def test_memory_is_bounded_by_one_chunk():
    n, width, depth = 1024, 64, 40
    labels, x = np.arange(n) // 2, jax.ShapeDtypeStruct((n, width), jnp.float32)
    weights = [jax.ShapeDtypeStruct((width, width), jnp.float32)] * depth

    def temporary_bytes(chunk):
        def loss(weights, x):
            embeddings = losses.encode_in_chunks(lambda part: encode(weights, part), x, chunk_size=chunk)
            return losses.nt_xent_loss(embeddings, labels, block_size=16)

        memory = jax.jit(jax.grad(loss)).lower(weights, x).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    in_chunks, at_once = temporary_bytes(32), temporary_bytes(n)
    assert at_once > n * width * depth * 4  # all activations
    assert in_chunks < at_once / 4


class Model(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(FEATURES, 16, rngs=rngs)
        self.drop = nnx.Dropout(0.5)
        self.last = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x, key):
        return self.last(self.drop(nnx.relu(self.first(x)), rngs=nnx.Rngs(dropout=key)))


@pytest.mark.slow
def test_dropout_of_a_flax_model_is_the_same_in_the_backward_pass(random):
    """Compare with a loop over padded chunks that stores all activations."""
    definition, parameters = nnx.split(Model(nnx.Rngs(0)))
    x, labels, key = jnp.asarray(random.normal(size=(N, FEATURES)), jnp.float32), np.arange(N) // 2, jax.random.key(2)

    def in_chunks(model):
        definition, parameters = model
        return losses.encode_in_chunks(
            lambda part, key: nnx.merge(definition, parameters)(part, key), x, chunk_size=5, key=key
        )

    def by_hand(model):
        full = jnp.concatenate([x, x[:3]])
        parts = [nnx.merge(*model)(full[s : s + 5], jax.random.fold_in(key, s)) for s in (0, 5, 10)]
        return jnp.concatenate(parts)[:N]

    @jax.jit
    def compute(parameters):
        def loss(parameters, encode):
            return losses.nt_xent_loss(encode((definition, parameters)), labels)

        return [jax.value_and_grad(loss)(parameters, encode) for encode in (in_chunks, by_hand)]

    found, expected = compute(parameters)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_inputs_and_results_may_be_pytrees():
    inputs = {"tokens": np.arange(14, dtype=np.float32).reshape(7, 2), "mask": np.arange(7) % 2 == 0}

    def encoder(part):
        return {"sum": jnp.where(part["mask"], part["tokens"].sum(1), 0), "twice": 2 * part["tokens"]}

    found = jax.jit(lambda inputs: losses.encode_in_chunks(encoder, inputs, chunk_size=3))(inputs)
    np.testing.assert_array_equal(found["sum"], np.where(inputs["mask"], np.arange(14).reshape(7, 2).sum(1), 0))
    np.testing.assert_array_equal(found["twice"], 2 * np.arange(14).reshape(7, 2))


def test_an_empty_batch():
    empty = np.zeros((0, FEATURES), np.float32)

    @jax.jit
    def compute(x, key=None):
        return losses.encode_in_chunks(lambda part, *_: jnp.tanh(part), x, chunk_size=2, key=key)

    assert compute(empty).shape == compute(empty, jax.random.key(0)).shape == (0, FEATURES)


def test_invalid_arguments():
    x = np.ones((3, 2), np.float32)
    with pytest.raises(InputError, match="chunk_size: expected at least 1, got 0"):
        losses.encode_in_chunks(jnp.tanh, x, chunk_size=0)
    with pytest.raises(InputError, match=r"same number of rows, got \[2, 3\]"):
        losses.encode_in_chunks(jnp.tanh, (x, x[:2]), chunk_size=2)
