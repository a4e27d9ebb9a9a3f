"""Numbers of a loss that are learned with the encoder: temperature, scale and bias, boundary.

Each is a module with its value as a parameter; calling it gives what the loss takes:

    temperature = Temperature()

    def loss(temperature, x, y):
        return losses.info_nce_loss(x, y, temperature=temperature())
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from simjax.core import check_at_least
from simjax.nn._bounded import LOG_LIMIT, MAX_SCALE, bounded, check_scale, log_limit


class Temperature(nnx.Module):
    """What closeness is divided by, in NT-Xent, InfoNCE, SupCon and softmax losses; it stays positive.

    The logarithm of its inverse is what is learned, so that steps are relative. As in CLIP the scale, 1 over the
    temperature, is at most 100. At that bound the gradient is 0 while a larger scale would lower the loss, and the
    usual one as soon as a smaller scale would: the temperature does not run away, and is not stuck.

    Args:
        initial: where it begins; 0.07 is CLIP's.
        max_scale: largest value of 1 over the temperature; None is the largest with finite gradients, exp(40).

    Raises:
        InputError: if `initial` is not above 0 or below 1 / max_scale.

    Example:
        >>> temperature = Temperature(0.25)
        >>> print(temperature(), temperature.scale)
        0.25 4.0

    References:
        Radford et al. (2021), Learning Transferable Visual Models From Natural Language Supervision (CLIP).
    """

    def __init__(self, initial: float = 0.07, *, max_scale: float | None = MAX_SCALE):
        check_scale("initial", initial, max_scale, inverse=True)
        self.max_scale = max_scale
        self.log_scale = nnx.Param(-jnp.log(jnp.float32(initial)))

    def __call__(self) -> Array:
        """The temperature as it is now."""
        return jnp.exp(-self._bounded())

    @property
    def scale(self) -> Array:
        """1 over the temperature, for losses that have a scale of cosines in its place."""
        return jnp.exp(self._bounded())

    def _bounded(self) -> Array:
        return bounded(self.log_scale[...], -LOG_LIMIT, log_limit(self.max_scale))


class ScaleAndBias(nnx.Module):
    """Scale and bias of the sigmoid loss: `siglip_loss(x, y, **scale_and_bias())`.

    The logarithm of the scale is what is learned. The bias begins far below 0 since nearly all pairs are negative: the
    first steps are not spent on learning that. The scale is at most 100, with the gradient of `Temperature` there.

    Args:
        scale: where it begins; 10 is the paper's.
        bias: where it begins; -10 is the paper's.
        max_scale: largest scale; None is the largest with finite gradients, exp(40).

    Raises:
        InputError: if the scale is not above 0 or is above max_scale.

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
        """Both as they are now, by the names that the loss has for them."""
        log_scale = jnp.asarray(bounded(self.log_scale[...], -LOG_LIMIT, log_limit(self.max_scale)))
        return {"log_scale": log_scale, "bias": self.bias[...]}


class Boundary(nnx.Module):
    """The distance between positive and negative pairs, beta of the margin loss: one, or one for each class.

    Args:
        initial: where it begins, in units of the measure; 1.2 is the paper's, for unit vectors.
        classes: how many there are; None is one boundary for all.

    Raises:
        InputError: if there are to be no classes.

    Example:
        >>> print(Boundary()(), Boundary(0.5, classes=3)())
        1.2 [0.5 0.5 0.5]

    References:
        Wu, Manmatha, Smola, Krähenbühl (2017), Sampling Matters in Deep Embedding Learning.
    """

    def __init__(self, initial: float = 1.2, *, classes: int | None = None):
        check_at_least("classes", classes, 1)
        self.beta = nnx.Param(jnp.full(() if classes is None else (classes,), initial, jnp.float32))

    def __call__(self) -> Array:
        """The boundary as it is now, [] or [classes]."""
        return self.beta[...]
