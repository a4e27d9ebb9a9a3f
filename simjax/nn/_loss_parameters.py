"""Parameters of a loss that are learned with the encoder: proxies, temperature, scale and bias, beta.

Each is a module; calling it returns the argument of the loss:

    temperature = Temperature()

    def loss(temperature, x, y):
        return losses.info_nce_loss(x, y, temperature=temperature())

A scale is learned as its logarithm, and bounded. Without a bound the scale grows as long as this lowers the loss, until
its gradient overflows. CLIP clips the parameter after each step; here the forward pass clips it and the gradient is
that of projected gradient descent, so that no step of the training loop is needed.

References:
    Radford et al. (2021), Learning Transferable Visual Models From Natural Language Supervision (CLIP).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from simjax.core import InputError, check_at_least, check_positive
from simjax.similarity import unit_vectors

MAX_SCALE = 100.0  # as in CLIP
LOG_LIMIT = 40.0
"""Largest absolute logarithm of a scale. Gradients contain the squares of the scale and of its inverse, for example the
gradient of a division by the temperature. At the limit the squares are exp(80) and exp(-80), which fit into float32."""


class Proxies(nnx.Module):
    """Learned proxies, one for each class [c, d], or several [c, k, d].

    They start as random unit vectors, uniform on the sphere. In a loss of cosines, a gradient step rotates a vector by
    an angle that is inversely proportional to the square of its length. With unit vectors the same learning rate
    therefore suits any number of features.

    Args:
        embedding_size: Number of features d.
        classes: Number of classes c.
        per_class: Number of proxies per class k, for `sub_center_arcface_loss` and `soft_triple_loss`. Default: one
            proxy, without the axis k.

    Example:
        >>> one = Proxies(8, 5, rngs=nnx.Rngs(0))
        >>> many = Proxies(8, 5, per_class=3, rngs=nnx.Rngs(0))
        >>> one().shape, many().shape
        ((5, 8), (5, 3, 8))
    """

    def __init__(self, embedding_size: int, classes: int, *, per_class: int | None = None, rngs: nnx.Rngs):
        check_at_least("per_class", per_class, 1)
        shape = (classes,) if per_class is None else (classes, per_class)
        self.vectors = nnx.Param(random_directions(rngs.params(), (*shape, embedding_size)))

    def __call__(self) -> Array:
        return self.vectors[...]


def random_directions(key: Array, shape: tuple[int, ...]) -> Array:
    """Return random unit vectors [..., d], uniform on the sphere, from a PRNG key."""
    return unit_vectors(jax.random.normal(key, shape))


class Temperature(nnx.Module):
    """The temperature, a positive divisor of similarities, of NT-Xent, InfoNCE, SupCon and softmax losses.

    The parameter is the logarithm of its inverse, the scale, so that steps are relative. As in CLIP the scale is at
    most 100. At this bound the gradient is 0 if a larger scale would lower the loss, and unchanged otherwise.

    Args:
        initial: Initial temperature. Default: the value of CLIP.
        max_scale: Largest inverse of the temperature. None: exp(40), so that gradients do not overflow float32.

    Example:
        >>> temperature = Temperature(0.25)
        >>> print(temperature(), temperature.scale)
        0.25 4.0
    """

    def __init__(self, initial: float = 0.07, *, max_scale: float | None = MAX_SCALE):
        check_scale("initial", initial, max_scale, inverse=True)
        self.max_scale = max_scale
        self.log_scale = nnx.Param(-jnp.log(jnp.float32(initial)))

    def __call__(self) -> Array:
        return 1 / self.scale

    @property
    def scale(self) -> Array:
        """The inverse of the temperature, for losses with a scale of cosines."""
        return jnp.exp(clip_logarithm(self.log_scale[...], self.max_scale))


class ScaleAndBias(nnx.Module):
    """Scale and bias of the sigmoid loss: `siglip_loss(x, y, **scale_and_bias())`.

    The logarithm of the scale is learned. The bias starts far below 0 because nearly all pairs are negative. The scale
    is at most 100; for its gradient at this bound see `Temperature`.

    Args:
        scale: Initial scale. Default: the value of the paper.
        bias: Initial bias. Default: the value of the paper.
        max_scale: Largest scale. None: exp(40), so that gradients do not overflow float32.

    Example:
        >>> learned = ScaleAndBias(scale=1.0)()
        >>> print(learned["log_scale"], learned["bias"])
        0.0 -10.0

    References:
        Zhai, Mustafa, Kolesnikov, Beyer (2023), Sigmoid Loss for Language Image Pre-Training.
    """

    def __init__(self, *, scale: float = 10.0, bias: float = -10.0, max_scale: float | None = MAX_SCALE):
        check_scale("scale", scale, max_scale)
        self.max_scale = max_scale
        self.log_scale = nnx.Param(jnp.log(jnp.float32(scale)))
        self.bias = nnx.Param(jnp.float32(bias))

    def __call__(self) -> dict[str, Array]:
        """Return the keyword arguments `log_scale` and `bias` of `siglip_loss`."""
        return {"log_scale": clip_logarithm(self.log_scale[...], self.max_scale), "bias": self.bias[...]}


class Beta(nnx.Module):
    """The parameter beta of the margin loss, the distance that separates positive from negative pairs.

    Args:
        initial: Initial value, in units of the measure. Default: the value of the paper, for unit vectors.
        classes: Number of classes, each with its own beta. Default: one beta for all.

    Example:
        >>> print(Beta()(), Beta(0.5, classes=3)())
        1.2 [0.5 0.5 0.5]

    References:
        Wu, Manmatha, Smola, Krähenbühl (2017), Sampling Matters in Deep Embedding Learning.
    """

    def __init__(self, initial: float = 1.2, *, classes: int | None = None):
        check_at_least("classes", classes, 1)
        self.beta = nnx.Param(jnp.full(() if classes is None else (classes,), initial, jnp.float32))

    def __call__(self) -> Array:
        return self.beta[...]


def check_scale(argument: str, value: float, max_scale: float | None, *, inverse: bool = False) -> None:
    """Raise an InputError unless a scale is above 0 and at most `max_scale`; with `inverse` the scale is 1 / value."""
    check_positive(argument, value)
    if max_scale is None:
        return
    check_positive("max_scale", max_scale)
    if (1 / value if inverse else value) > max_scale * (1 + 1e-6):
        expected = f"at least 1 / max_scale = {1 / max_scale:g}" if inverse else f"at most max_scale = {max_scale:g}"
        raise InputError(f"{argument}: expected {expected}, got {value:g}")


def clip_logarithm(logarithm: Array, max_scale: float | None = None) -> Array:
    """Clip the logarithm of a scale, with the gradient of projected gradient descent.

    The bounds are -LOG_LIMIT and the smaller of LOG_LIMIT and log(max_scale). The gradient is unchanged inside the
    bounds. At and beyond a bound, it is 0 if a descent step would move the logarithm further out, and unchanged if a
    step moves the logarithm back. The returned gradient is not a linear function of the incoming one, because it
    depends on its sign, so there is no derivative in forward mode.
    """
    high = LOG_LIMIT if max_scale is None else min(math.log(max_scale), LOG_LIMIT)
    return _clip(logarithm, -LOG_LIMIT, high)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _clip(x: Array, low: float, high: float) -> Array:
    return jnp.clip(x, low, high)


def _backward(low: float, high: float, x: Array, gradient: Array) -> tuple[Array]:
    outwards = ((x >= high) & (gradient < 0)) | ((x <= low) & (gradient > 0))
    return (jnp.where(outwards, 0, gradient),)


_clip.defvjp(lambda x, low, high: (jnp.clip(x, low, high), x), _backward)
