"""Dense and convolutional layers on the dot-product core, batch normalization, residual connections, and pooling."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from simjax import core
from simjax.nn._responses import Response, unit_kernel


class Dense(nnx.Module):
    """A dense layer, x @ kernel + bias, or with another measure `Response`(x, kernel) + bias.

    Args:
        features_in: Size of the last axis of x.
        features_out: Size of the last axis of the result.
        use_bias: Add a learned bias, zero at the start.
        init: Name of a factory in `flax.nnx.initializers`, which initializes the kernel. The default is for a layer
            that a ReLU follows. For other measures than "dot" see `Response`.
        measure: Compares x with the weight vector of a neuron: a name in `NETWORK_MEASURES`.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        use_bias: bool = True,
        init: str = "he_normal",
        measure: str = "dot",
        rngs: nnx.Rngs,
    ):
        initializer = getattr(nnx.initializers, init)() if measure == "dot" else unit_kernel
        self.kernel = nnx.Param(initializer(rngs.params(), (features_in, features_out)))
        self.bias = nnx.Param(jnp.zeros(features_out)) if use_bias else None
        self.response = None if measure == "dot" else Response(measure, features_in)

    def __call__(self, x: Array, units: slice = slice(None)) -> Array:
        """Map x [..., features_in] to [..., features_out], or to the outputs of some units."""
        kernel = self.kernel[:, units]
        bias = None if self.bias is None else self.bias[units]
        if self.response is None:
            return core.dense(x, kernel, bias)
        return add_bias(self.response(x, kernel, multiply=core.dense, extract=lambda x: x), bias)


class Convolution(nnx.Module):
    """A convolution of images, see `core.convolution`, or with another measure `Response`(patch, filter) + bias.

    The kernel has He normal initialization; for other measures than "dot" see `Response`.

    Args:
        channels_in: Number of channels of x.
        channels_out: Number of filters.
        size: Height and width of the filters.
        stride: Step between patches, in pixels.
        padding: Zeros added on every side.
        use_bias: Add a learned bias, zero at the start.
        measure: Compares patches with filters: a name in `NETWORK_MEASURES`.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        size: int = 3,
        stride: int = 1,
        padding: int = 1,
        use_bias: bool = True,
        measure: str = "dot",
        rngs: nnx.Rngs,
    ):
        shape = (size, size, channels_in, channels_out)
        initializer = nnx.initializers.he_normal() if measure == "dot" else unit_kernel
        self.kernel = nnx.Param(initializer(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(channels_out)) if use_bias else None
        self.response = None if measure == "dot" else Response(measure, size * size * channels_in)
        self.stride, self.padding = stride, padding

    def __call__(self, x: Array) -> Array:
        """Map x [b, h, w, channels_in] to [b, h', w', channels_out]."""
        kernel, bias = self.kernel[...], None if self.bias is None else self.bias[...]
        options = {"stride": self.stride, "padding": self.padding}
        if self.response is None:
            return core.convolution(x, kernel, bias, **options)
        multiply = functools.partial(core.convolution, **options)
        extract = functools.partial(core.patches, size=kernel.shape[:2], **options)
        return add_bias(self.response(x, kernel, multiply=multiply, extract=extract), bias)


def add_bias(x: Array, bias: Array | None) -> Array:
    """Add a bias [k] or None to x [..., k]."""
    return x if bias is None else x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


class BatchNorm(nnx.Module):
    """Normalize each feature of x [..., features] over the batch, then scale and shift it.

        y = scale (x - mean) / sqrt(variance + epsilon) + bias

    Mean and variance are computed from the sums of x - c and of its square, where c is the running mean. Any c gives
    the same variance, and a c close to the mean avoids cancellation.

    `nnx.view(module, use_running_average=True)` normalizes by the running statistics instead, so that the result for an
    image does not depend on its batch.

    Args:
        features: Size of the last axis.
        momentum: Decay of the running averages: new = momentum * old + (1 - momentum) * batch.
        epsilon: Added to the variance.

    Differs from `nnx.BatchNorm`, which is slower on a CPU, and whose variance loses precision to cancellation when the
    mean is far from 0.

    References:
        Ioffe, Szegedy (2015), Batch Normalization. Chan, Golub, LeVeque (1983), Algorithms for Computing the Sample
        Variance (shifted data).
    """

    def __init__(self, features: int, *, momentum: float = 0.9, epsilon: float = 1e-5):
        self.scale, self.bias = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))
        # Running statistics, with the names of `nnx.BatchNorm`, which are part of the checkpoint format.
        self.mean, self.var = nnx.BatchStat(jnp.zeros(features)), nnx.BatchStat(jnp.ones(features))
        self.momentum, self.epsilon = momentum, epsilon
        self.use_running_average = False

    def __call__(self, x: Array) -> Array:
        rows = x.reshape(-1, x.shape[-1])
        rows = rows - self.mean[...][None]  # float16 becomes float32
        if self.use_running_average:
            mean, var = jnp.zeros(x.shape[-1:]), self.var[...]  # the mean is that of the shifted rows
        else:
            mean = jnp.mean(rows, axis=0)
            var = jax.nn.relu(jnp.mean(rows * rows, axis=0) - mean * mean)
            momentum = self.momentum
            self.var[...] = lax.stop_gradient(momentum * self.var[...] + (1 - momentum) * var)
            self.mean[...] = lax.stop_gradient(self.mean[...] + (1 - momentum) * mean)
        factor = self.scale[...] * lax.rsqrt(var + self.epsilon)
        y = (rows - mean[None]) * factor[None] + self.bias[...][None]
        return y.reshape(x.shape).astype(x.dtype)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Set whether running statistics are used, as `nnx.view` does."""
        if use_running_average is not None:
            self.use_running_average = use_running_average


class Residual(nnx.Module):
    """A residual connection, x + inner(x)."""

    def __init__(self, inner: Callable[[Array], Array]):
        self.inner = inner

    def __call__(self, x: Array) -> Array:
        return x + self.inner(x)


def max_pool(x: Array, size: int = 2) -> Array:
    """Compute the maximum of each window, mapping x [b, h, w, c] to [b, h // size, w // size, c].

    The gradient goes to the first of equal maxima, row by row. On a CPU the maximum of strided slices is 1.3 times as
    fast in a step of the Siamese CNN as XLA's windowed reduction (`python benchmarks/choices.py`).
    """
    h, w = (extent // size * size for extent in x.shape[1:3])
    slices = [x[:, i:h:size, j:w:size] for i in range(size) for j in range(size)]
    return functools.reduce(lambda a, b: jnp.where((a >= b) | jnp.isnan(a), a, b), slices)


def average_pool(x: Array, size: int = 2) -> Array:
    """Compute the mean of each window, mapping x [b, h, w, c] to [b, h // size, w // size, c]."""
    b, c = x.shape[0], x.shape[3]
    h, w = (extent // size for extent in x.shape[1:3])
    return jnp.mean(x[:, : h * size, : w * size].reshape(b, h, size, w, size, c), axis=(2, 4))


def global_average_pool(x: Array) -> Array:
    """Compute the mean over all positions, mapping x [b, h, w, c] to [b, c]."""
    return jnp.mean(x, axis=(1, 2))


def flatten(x: Array) -> Array:
    """Merge all axes but the first, mapping x [b, ...] to [b, d]."""
    return x.reshape(x.shape[0], -1)


def count_parameters(module: nnx.Module) -> int:
    """Return the number of learned parameters of a module."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
