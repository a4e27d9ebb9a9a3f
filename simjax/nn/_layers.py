"""Dense and convolution as Flax modules on the dot-product core, residual sums, and pooling.

Pooling is the maximum of strided slices, or the mean of windows, with a gradient of one pass: on a CPU the windowed
reduction that XLA offers takes several times as long (`benchmarks/choices.py`).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from simjax import core


class Dense(nnx.Module):
    """Every input against every neuron: [..., features_in] to [..., features_out]."""

    def __init__(
        self, features_in: int, features_out: int, *, use_bias: bool = True, init: str = "he_normal", rngs: nnx.Rngs
    ):
        initializer = getattr(nnx.initializers, init)()
        self.kernel = nnx.Param(initializer(rngs.params(), (features_in, features_out)))
        self.bias = nnx.Param(jnp.zeros(features_out)) if use_bias else None

    def __call__(self, x: Array) -> Array:
        """x [..., features_in] to [..., features_out]."""
        return core.dense(x, self.kernel[...], None if self.bias is None else self.bias[...])


class Convolution(nnx.Module):
    """Every filter against every patch: [b, h, w, channels_in] to [b, h', w', channels_out]."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        size: int = 3,
        stride: int = 1,
        padding: int = 1,
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        shape = (size, size, channels_in, channels_out)
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(channels_out)) if use_bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, x: Array) -> Array:
        """x [b, h, w, channels_in] to [b, h', w', channels_out]."""
        bias = None if self.bias is None else self.bias[...]
        return core.convolution(x, self.kernel[...], bias, stride=self.stride, padding=self.padding)


class Residual(nnx.Module):
    """x + inner(x)."""

    def __init__(self, inner: Callable[[Array], Array]):
        self.inner = inner

    def __call__(self, x: Array) -> Array:
        """x to x + inner(x), of the same shape."""
        return x + self.inner(x)


def _windows(x: Array, size: int) -> list[Array]:
    """The size * size strided slices of x whose entries at one place are one window; what is left over is dropped."""
    h, w = (extent // size * size for extent in x.shape[1:3])
    return [x[:, i:h:size, j:w:size] for i in range(size) for j in range(size)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def max_pool(x: Array, size: int = 2) -> Array:
    """The maximum of each window: x [b, h, w, c] to [b, h // size, w // size, c].

    The gradient goes to the first of the largest, row by row.
    """
    return functools.reduce(jnp.maximum, _windows(x, size))


@max_pool.defjvp
def _(size: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    x, t = *primals, *tangents
    out = max_pool(x, size)
    first = jnp.full(out.shape, size**2 - 1)
    for place, entries in reversed(list(enumerate(_windows(x, size)))):
        first = jnp.where(entries == out, place, first)
    b, h, w, c = out.shape
    place = jnp.arange(size**2).reshape(1, 1, size, 1, size, 1)
    # For the gradient: XLA on a CPU would compute it anew for each sum that the layer before takes of it.
    t = jax.lax.optimization_barrier(t.reshape(-1, c)).reshape(t.shape)
    t = t[:, : h * size, : w * size].reshape(b, h, size, w, size, c)
    return out, jnp.sum(jnp.where(first[:, :, None, :, None] == place, t, 0), axis=(2, 4))


def average_pool(x: Array, size: int = 2) -> Array:
    """The mean of each window: x [b, h, w, c] to [b, h // size, w // size, c]."""
    b, c = x.shape[0], x.shape[3]
    h, w = (extent // size for extent in x.shape[1:3])
    return jnp.mean(x[:, : h * size, : w * size].reshape(b, h, size, w, size, c), axis=(2, 4))


def global_average_pool(x: Array) -> Array:
    """The mean over all places: x [b, h, w, c] to [b, c]."""
    return jnp.mean(x, axis=(1, 2))


def flatten(x: Array) -> Array:
    """All but the first axis as one: x [b, ...] to [b, d]."""
    return x.reshape(x.shape[0], -1)


def count_parameters(module: nnx.Module) -> int:
    """How many numbers are learned."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
