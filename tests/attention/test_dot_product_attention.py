import logging
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.special import logsumexp, softmax

from simjax import attention
from simjax.core import InputError
from tests.slow import mostly_slow

dot_product_attention: Any = attention.dot_product_attention  # options decide whether it returns a tuple

B, T, S, H, G, K, E = 2, 5, 11, 6, 3, 7, 13
OPTIONS = {
    "no options": {},
    "scale": {"scale": 0.3},
    "causal": {"is_causal": True},
    "window": {"local_window_size": (1, 3)},
    "one window": {"local_window_size": 2},
    "query lengths": {"query_seq_lengths": np.array([5, 5], np.int32)},
    "key lengths": {"key_value_seq_lengths": np.array([4, 9], np.int32)},
    "lengths and window": {"key_value_seq_lengths": np.array([4, 9], np.int32), "local_window_size": (2, 2)},
    "causal and window": {"is_causal": True, "local_window_size": (2, 0)},
    "bias": {"bias": (B, H, T, S)},
    "bias of all batches": {"bias": (1, H, T, S)},
    "bias of all": {"bias": (T, S)},
    "bias of a key": {"bias": (B, 1, 1, S)},
    "mask": {"mask": (B, H, T, S)},
    "mask of all heads": {"mask": (B, 1, T, S)},
    "mask of a key": {"mask": (B, 1, 1, S)},
    "mask and bias and causal": {"mask": (B, H, T, S), "bias": (1, 1, T, S), "is_causal": True},
}

FAST = ("no options", "scale", "causal and window", "lengths and window", "mask and bias and causal")

in_jax = jax.jit(
    jax.nn.dot_product_attention, static_argnames=("is_causal", "local_window_size", "return_residual", "scale")
)


def qkv(random, g=G, e=E, dtype: Any = np.float32):
    shapes = ((B, T, H, K), (B, S, g, K), (B, S, g, e))
    return tuple(random.normal(size=shape).astype(dtype) for shape in shapes)


def filled(random, options):
    """Replace shapes in the options by arrays; every query attends to its first key."""
    options = dict(options)
    if "bias" in options:
        options["bias"] = np.float32(random.normal(size=options["bias"]))
    if "mask" in options:
        options["mask"] = random.random(options["mask"]) < 0.7
        options["mask"][..., 0] = True
    return options


def by_numpy(q, k, v, bias: Any = 0.0, mask: Any = True):
    """Return the scores, the weights and the attended values."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    k, v = (np.repeat(a, q.shape[2] // a.shape[2], axis=2) for a in (k, v))
    scores = np.where(mask, np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1]) + bias, -np.inf)
    weights = softmax(scores, axis=-1)
    return scores, weights, np.einsum("bhts,bshe->bthe", weights, v)


def test_equals_numpy(random):
    q, k, v = qkv(random)
    found = jax.jit(partial(dot_product_attention, return_residual=True, return_weights=True))(q, k, v)
    scores, weights, out = by_numpy(q, k, v)
    expected = (out, np.swapaxes(np.asarray(logsumexp(scores, axis=-1)), 1, 2), weights)
    for mine, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-6)


@cache
def with_options(fast):
    """Return the results of this library and of JAX with the options of the fast, or of the slow suite."""
    random = np.random.default_rng(0)
    q, k, v = qkv(random, e=K)
    cases = {name: filled(random, options) for name, options in OPTIONS.items() if (name in FAST) == fast}

    def four_axes(options):  # which jax.nn requires
        return {n: a[None, None] if getattr(a, "ndim", 4) == 2 else a for n, a in options.items()}

    @jax.jit
    def both(q, k, v):
        return {
            name: (
                dot_product_attention(q, k, v, return_residual=True, **options),
                in_jax(q, k, v, return_residual=True, **four_axes(options)),
            )
            for name, options in cases.items()
        }

    return both(q, k, v)


@pytest.mark.parametrize("name", mostly_slow(OPTIONS, *FAST))
def test_agrees_with_jax(name):
    for found, wanted in zip(*with_options(name in FAST)[name], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("g", [1, 2, 6])
def test_groups_of_heads_share_keys_as_in_jax(random, g):
    q, k, v = qkv(random, g, K)
    options = filled(random, OPTIONS["mask and bias and causal"])
    expected = in_jax(q, k, v, **options)
    found = jax.jit(partial(dot_product_attention, block_size=7, **options))(q, k, v)  # one head at a time
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "error"), mostly_slow([(jnp.bfloat16, 2**-7), (jnp.float16, 2**-10)], (jnp.bfloat16, 2**-7))
)
def test_half_precision(random, dtype, error):
    """Computed in float32 and rounded once: within one rounding of the exact result on the same inputs."""
    q, k, v = qkv(random, e=K, dtype=dtype)
    options = filled(random, {"bias": (B, H, T, S), "is_causal": True})
    exact = np.asarray(in_jax(*(np.float32(a) for a in (q, k, v)), **options))
    found = jax.jit(partial(dot_product_attention, **options))(q, k, v)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.float32(found), exact, rtol=error, atol=1e-5)
    attend = in_jax if dtype == jnp.bfloat16 else jax.nn.dot_product_attention  # XLA on a CPU has no float16 for it
    theirs = np.float32(attend(*map(jnp.asarray, (q, k, v)), **options))
    assert np.abs(np.float32(found) - exact).max() <= np.abs(theirs - exact).max()


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_any_axes_of_a_batch(random, batch):
    q, k, v = (np.float32(random.normal(size=(*batch, n, 4, 7))) for n in (T, S, S))
    mask = random.random((*batch, 1, T, S)) < 0.7
    mask[..., 0] = True
    lengths = random.integers(1, S, batch or (1,))
    found = jax.jit(dot_product_attention)(q, k, v, mask=mask, key_value_seq_lengths=lengths)
    flat = (a.reshape(-1, *a.shape[-3:]) for a in (q, k, v))
    valid = mask.reshape(-1, 1, T, S) & (np.arange(S) < lengths.reshape(-1, 1, 1, 1))
    np.testing.assert_allclose(found, by_numpy(*flat, mask=valid)[2].reshape(q.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [2, 8, 31])  # some rows of a head, a head, a batch
def test_one_block_equals_many(random, block_size):
    q, k, v = qkv(random)
    options = filled(random, {"bias": (1, H, T, S), "mask": (B, 1, T, S), "local_window_size": (3, 2)})
    options |= {"query_seq_lengths": np.array([5, 3]), "key_value_seq_lengths": np.array([4, 9])}

    @partial(jax.grad, argnums=(0, 1, 2, 3), has_aux=True)
    def both(q, k, v, bias, block_size):
        rest = options | {"bias": bias}
        found = dot_product_attention(q, k, v, return_residual=True, return_weights=True, block_size=block_size, **rest)
        return jnp.sum(jnp.sin(found[0])), found

    many, one = jax.jit(lambda *a: (both(*a, block_size), both(*a, None)))(q, k, v, options["bias"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), many, one)


def test_gradients_are_those_of_jax(random):
    with jax.enable_x64(True):
        q, k, v = qkv(random, e=K, dtype=np.float64)
        bias, mask = random.normal(size=(1, H, T, S)), random.random((B, 1, T, S)) < 0.7
        mask[..., 0] = True

        def gradient(attend, **options):
            def total(q, k, v, bias):
                return jnp.sum(jnp.sin(attend(q, k, v, bias, mask, is_causal=True, **options)))

            return jax.grad(total, argnums=(0, 1, 2, 3))

        mine = gradient(dot_product_attention, block_size=2)
        every = jax.jit(lambda *a: (mine(*a), gradient(dense_attention)(*a), gradient(in_jax)(*a)))
        found, exact, theirs = every(q, k, v, bias)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, exact)
        # The softmax of jax.nn is float32 even here.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, theirs)


def dense_attention(q, k, v, bias, mask, is_causal):
    k, v = (jnp.repeat(a, H // G, axis=2) for a in (k, v))
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(K) + bias
    mask = mask & jnp.tril(jnp.ones((1, 1, T, S), bool))
    return jnp.einsum("bhts,bshe->bthe", jax.nn.softmax(jnp.where(mask, scores, -jnp.inf)), v)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "mode"), [(1, "fwd"), (2, "rev")])
def test_derivatives_of_every_order_and_mode(order, mode):
    with jax.enable_x64(True):
        random = np.random.default_rng(4)
        arrays = tuple(random.normal(size=s) for s in ((3, 2, 2), (5, 1, 2), (5, 1, 3), (3, 5)))

        @jax.jit
        def attend(q, k, v, bias):
            return dot_product_attention(q, k, v, bias, is_causal=True, block_size=2, return_residual=True)

        jax.test_util.check_grads(attend, arrays, order=order, modes=(mode,))


@pytest.mark.parametrize("by", mostly_slow(["mask", "bias", "function", "query_seq_lengths"], "function"))
def test_a_query_without_valid_keys_gives_zeros_and_zero_gradient(random, by):
    q, k, v = qkv(random)
    valid = np.broadcast_to(np.arange(T)[:, None] < 2, (B, 1, T, S))
    options = {
        "mask": {"mask": valid},
        "bias": {"bias": np.where(valid, np.float32(0.5), -np.inf)},
        "function": {"mask": lambda i, j: i < 2, "block_size": 2},
        "query_seq_lengths": {"query_seq_lengths": np.array([2, 2])},
    }[by]

    def total(*a):
        out, residual = dot_product_attention(*a, return_residual=True, **options)
        residual_of_none = jnp.where(residual[:, 2:] > -jnp.inf, residual[:, 2:], 0.0)
        return jnp.sum(jnp.sin(out)) + jnp.sum(residual_of_none), (out, residual)

    def without(q, k, v):
        return jnp.sum(jnp.sin(dot_product_attention(q[:, :2], k, v)))

    both = jax.jit(lambda *a: (jax.grad(total, (0, 1, 2), has_aux=True)(*a), jax.grad(without, (0, 1, 2))(*a)))
    (gradient, (out, residual)), expected = jax.tree.map(np.asarray, both(q, k, v))
    np.testing.assert_array_equal(out[:, 2:], 0)
    np.testing.assert_array_equal(residual[:, 2:], -np.inf)
    np.testing.assert_array_equal(gradient[0][:, 2:], 0)
    for mine, theirs in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_no_nan_from_finite_numbers(random):
    both = jax.jit(jax.value_and_grad(lambda *a: jnp.sum(dot_product_attention(*a)), argnums=(0, 1, 2)))
    for size in (1e30, 1e-30):
        out, gradient = both(*(np.float32(x * size) for x in qkv(random)))
        assert np.isfinite(out)
        assert all(np.isfinite(g).all() for g in gradient)


def test_nan_propagates_to_its_query_only(random):
    q, k, v = qkv(random)
    q[0, 1, 2, 3] = np.nan
    attend = jax.jit(partial(dot_product_attention, is_causal=True, return_residual=True))
    out, residual = map(np.asarray, attend(q, k, v))
    assert np.isnan(out[0, 1, 2]).all()
    assert np.isnan(residual[0, 1, 2])
    assert np.isnan(out).sum() == E


def test_values_near_the_largest_number_are_averaged():
    zeros, values = (np.full(shape, x, np.float32) for shape, x in (((1, 8, 1, 3), 0), ((1, 8, 1, 2), 1e38)))
    np.testing.assert_allclose(jax.jit(dot_product_attention)(zeros[:, :1], zeros, values), values[:, :1], rtol=1e-6)


def test_empty_axes():
    sizes = ((0, 5, 11), (2, 0, 11), (2, 5, 0))

    @jax.jit
    def attend():
        inputs = [[jnp.ones((b, n, 2, 3)) for n in (t, s, s)] for b, t, s in sizes]
        return [dot_product_attention(*qkv, is_causal=True, return_weights=True) for qkv in inputs]

    for (b, t, s), (out, weights) in zip(sizes, attend(), strict=True):
        np.testing.assert_array_equal(out, np.zeros((b, t, 2, 3)))
        assert weights.shape == (b, 2, t, s)


FUNCTIONS = {
    "i, j": (lambda i, j: jnp.cos(0.3 * i - j), lambda b, h, i, j: np.cos(0.3 * i - j)),
    "i, j, head": (lambda i, j, head: -(head + 1.0) * jnp.abs(i - j), lambda b, h, i, j: -(h + 1.0) * np.abs(i - j)),
    "all": (lambda i, j, head, batch: jnp.sin(i + j * head + batch), lambda b, h, i, j: np.sin(i + j * h + b)),
    "of the column": (lambda i, j: 0.1 * j, lambda b, h, i, j: 0.1 * j + 0 * i),
}


@pytest.mark.parametrize("block_size", mostly_slow([None, 2]))
def test_functions_of_position_equal_arrays(random, block_size):
    q, k, v = qkv(random)

    @jax.jit
    def every(q, k, v):
        found = {
            name: dot_product_attention(q, k, v, function, block_size=block_size)
            for name, (function, _) in FUNCTIONS.items()
        }
        return found, dot_product_attention(q, k, v, mask=lambda i, j: (i + j) % 3 > 0, block_size=block_size)

    found, masked = every(q, k, v)
    for name, (_, values) in FUNCTIONS.items():
        expected = by_numpy(q, k, v, values(*np.ogrid[:B, :H, :T, :S]))[2]
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    expected = by_numpy(q, k, v, mask=np.add(*np.ogrid[:T, :S]) % 3 > 0)[2]
    np.testing.assert_allclose(masked, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("block_size", "carried"), [(None, True), (2, True), (2, False)])
def test_a_learned_relative_bias_gets_its_gradient(random, block_size, carried):
    q, k, v = qkv(random)
    table = np.float32(random.normal(size=(T + S, H)))

    def by_function(table):
        look_up = Partial(lambda table, i, j, head: table[j - i + T, head], table)
        bias = look_up if carried else lambda i, j, head: look_up(i, j, head)
        return jnp.sum(jnp.sin(dot_product_attention(q, k, v, bias, block_size=block_size)))

    def by_array(table):
        bias = table[jnp.arange(S)[None] - jnp.arange(T)[:, None] + T].transpose(2, 0, 1)
        return jnp.sum(jnp.sin(dot_product_attention(q, k, v, bias)))

    found, expected = jax.jit(lambda table: (jax.grad(by_function)(table), jax.grad(by_array)(table)))(table)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_zeros_of_a_numeric_mask_are_false(random):
    q, k, v = qkv(random)
    mask = random.random((T, S)) < 0.7
    mask[:, 0] = True
    found = jax.jit(lambda mask: dot_product_attention(q, k, v, mask=mask))(np.float32(mask))
    np.testing.assert_allclose(found, by_numpy(q, k, v, mask=mask)[2], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_vmap_is_a_loop(random):
    q, k, v = (np.stack([a, np.sin(a), 2 * a]) for a in qkv(random))
    mask = random.random((3, 1, 1, T, S)) < 0.7
    mask[..., 0] = True
    attend = jax.vmap(lambda q, k, v, m: dot_product_attention(q, k, v, mask=m, block_size=2))
    found = np.asarray(jax.jit(attend)(q, k, v, mask))
    for n in range(3):
        np.testing.assert_allclose(found[n], by_numpy(q[n], k[n], v[n], mask=mask[n])[2], rtol=1e-5, atol=1e-5)


def test_eager_calls_equal_numpy_and_compile_once(random, caplog):
    q, k, v = qkv(random)
    i, j = np.ogrid[:T, :S]
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for n in range(1, 6):
            lengths = np.array([n + 1, 3])
            valid = (i - j <= n + 3) & (j <= i) & (j < lengths[:, None, None, None])
            options = {
                "scale": 0.1 * n,
                "is_causal": True,
                "local_window_size": n + 3,
                "key_value_seq_lengths": lengths,
            }
            found = dot_product_attention(q, k, v, **options)
            expected = by_numpy(0.1 * n * np.sqrt(K) * q, k, v, mask=valid)[2]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    messages = [r.getMessage() for r in caplog.records]
    assert sum("Finished XLA compilation of jit(_attend)" in m for m in messages) == 1


def test_precision_by_any_name(random):
    q, k, v = qkv(random)
    texts = {
        name: jax.jit(lambda q, p=name: dot_product_attention(q, k, v, precision=p)).lower(q).as_text()
        for name in (None, "highest", jax.lax.Precision.HIGHEST)
    }
    assert texts["highest"].count("HIGHEST") == texts[jax.lax.Precision.HIGHEST].count("HIGHEST") >= 4
    assert "HIGHEST" not in texts[None]


def test_the_fused_kernel_receives_the_arguments(random, monkeypatch):
    """The kernel needs a GPU; the arguments that it receives can be checked without one."""
    q, k, v = map(jnp.asarray, qkv(random, e=K, dtype=jnp.bfloat16))
    calls = []
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *a, **options: calls.append((a, options)) or a[0])
    dot_product_attention(q, k, v, is_causal=True, scale=0.5, implementation="cudnn")
    [((*arrays, bias, mask), options)] = calls
    assert all(a is b for a, b in zip(arrays, (q, k, v), strict=True))
    assert (bias, mask) == (None, None)
    given = {name: option for name, option in options.items() if option not in (None, False)}
    assert given == {"implementation": "cudnn", "is_causal": True, "scale": 0.5}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query": (5, 3)}, InputError, r"query: expected \[\*batch, length, heads, size\], got shape \(5, 3\)"),
        ({"key": (2, 11, 2, 4)}, InputError, r"key: expected batch and size of query .* got \(2, 11, 2, 4\)"),
        ({"key": (3, 11, 2, 3)}, InputError, r"key: expected batch and size"),
        ({"key": (2, 11, 3, 3)}, InputError, r"key: expected heads that divide the 4 of query, got \(2, 11, 3, 3\)"),
        ({"value": (2, 10, 2, 7)}, InputError, r"value: expected batch, length and heads of key .* \(2, 10, 2, 7\)"),
        ({"bias": np.ones((5, 10))}, InputError, r"bias: .* broadcasts to \(2, 4, 5, 11\), got \(5, 10\)"),
        ({"mask": np.ones((3, 1, 5, 11), bool)}, InputError, r"mask: .* got \(3, 1, 5, 11\)"),
        ({"mask": np.ones((5, 1)) - 2}, InputError, r"mask: expected at least 0"),
        ({"mask": lambda i, j: i + j}, TypeError, r"mask: expected a function that gives booleans, got int32"),
        ({"mask": lambda i, j: i[:, 0] < 3}, InputError, r"mask: expected a function of \(i, j\) that gives \(5, 11\)"),
        ({"bias": lambda i, j: jnp.ones((3, 11))}, InputError, r"bias: .* \(5, 11\), got shape \(3, 11\)"),
        ({"query_seq_lengths": np.array([1, 2, 3])}, InputError, r"query_seq_lengths: expected 2 .* got \(3,\)"),
        ({"key_value_seq_lengths": np.array([1.0, 2])}, TypeError, r"key_value_seq_lengths: expected integers, got f"),
        ({"local_window_size": (1, -2)}, InputError, r"local_window_size: expected .* got \(1, -2\)"),
        ({"dropout_rate": 0.5}, InputError, r"dropout_rng: expected a PRNG key .* 0.5, got None"),
        ({"dropout_rate": 1.0}, InputError, r"dropout_rate: expected 0 to less than 1, got 1.0"),
        ({"block_size": 0}, InputError, r"block_size: expected at least 1, got 0"),
        ({"precision": "hihgest"}, InputError, r"unknown precision 'hihgest' \(did you mean highest"),
        ({"implementation": "cuda"}, InputError, r"unknown implementation 'cuda'"),
        ({"implementation": "cudnn", "return_weights": True}, InputError, r"return_weights: .*cudnn"),
        ({"implementation": "cudnn", "mask": lambda i, j: i < j}, InputError, r"mask: .*cudnn"),
        ({"implementation": "cudnn"}, TypeError, r"query: expected float16 or bfloat16 .* got float32"),
        ({"query": "complex"}, TypeError, r"query: expected real numbers, got complex64"),
    ],
)
def test_errors(change, error, message, jitted):
    shapes = {"query": (2, 5, 4, 3), "key": (2, 11, 2, 3), "value": (2, 11, 2, 7)}
    change = dict(change)
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    for name in list(change):
        if name in arrays:
            shape = change.pop(name)
            arrays[name] = np.ones((2, 5, 4, 3), complex) if shape == "complex" else np.ones(shape, np.float32)

    def call(arrays):
        return dot_product_attention(**arrays, **change)

    with pytest.raises(error, match=message):
        (jax.jit(call) if jitted else call)(arrays)
