"""Multi-head attention and the transformer block.

References:
    Vaswani et al. (2017), Attention Is All You Need. Xiong et al. (2020), On Layer Normalization in the Transformer
    Architecture (the norms come before attention and the dense layers, not after).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from simjax import core
from simjax.attention import attention
from simjax.core import InputError
from simjax.nn._layers import Dense
from simjax.similarity import Measure

_gelu = jax.checkpoint(jax.nn.gelu)  # keeps its argument for the backward pass, not every step on the way


class MultiHeadAttention(nnx.Module):
    """Several attentions in parallel, each on its own projection of the tokens, concatenated and mixed.

    Tokens look at each other (self-attention), or at those of a second input (cross-attention).

    Args:
        width: of the tokens; each head works on width / heads of it.
        heads: how many; must divide the width.
        measure: how close a query and a key are: a name, a `Measure`, or a module that has one, such as
            `TunedMeasure`, whose parameters are then learned.
        temperature: closeness is divided by it; None is sqrt(width / heads) for "dot" and 1 for any other measure.
        dropout_rate: the share of attention weights that is dropped where a call gives a key.
        rngs: initialises the parameters.

    Raises:
        InputError: if the heads do not divide the width.

    Example:
        >>> layer = MultiHeadAttention(8, 2, rngs=nnx.Rngs(0))
        >>> tokens, context = jnp.ones((3, 5, 8)), jnp.ones((3, 7, 8))
        >>> _, weights = layer(tokens, context, return_weights=True)
        >>> print(weights.shape)
        (3, 2, 5, 7)
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        measure: Any = "dot",
        temperature: float | None = None,
        dropout_rate: float = 0.0,
        rngs: nnx.Rngs,
    ):
        if width % heads:
            raise InputError(f"vit.heads: expected a divisor of the width {width}, got {heads}")
        self.heads, self.dropout_rate = heads, dropout_rate
        self.measure = measure
        usual = (width // heads) ** 0.5 if measure == "dot" else 1.0
        self.temperature = usual if temperature is None else temperature
        self.query_key_value = Dense(width, 3 * width, init="glorot_uniform", rngs=rngs)
        self.out = Dense(width, width, init="glorot_uniform", rngs=rngs)

    def __call__(
        self,
        tokens: Array,
        context: Array | None = None,
        *,
        bias: Array | Callable[..., Array] | None = None,
        mask: Array | Callable[..., Array] | None = None,
        is_causal: bool = False,
        dropout_key: Array | None = None,
        return_weights: bool = False,
    ) -> Any:
        """Tokens [b, t, width] to the same shape.

        Args:
            tokens: what looks, [b, t, width].
            context: what is looked at, [b, s, width]; None is the tokens.
            bias: of the scores, and
            mask: what may be looked at (True keeps): arrays that broadcast to [b, heads, t, s] or functions of
                position, as in `attention.attention`.
            is_causal: token i looks at 0 to i only.
            dropout_key: drops attention weights; None drops nothing.
            return_weights: also return the attention weights [b, heads, t, s], before any are dropped.
        """
        b, t, width = tokens.shape
        query, key, value = self._projections(tokens, context)
        found = attention(
            query,
            key,
            value,
            bias,
            mask,
            measure=self.measure if isinstance(self.measure, str | Measure) else self.measure.measure(),
            temperature=self.temperature,
            is_causal=is_causal,
            dropout_rng=dropout_key,
            dropout_rate=self.dropout_rate,
            deterministic=dropout_key is None,
            return_weights=return_weights,
        )
        mixed, *weights = found if return_weights else (found,)
        out = self.out(mixed.reshape(b, t, width))
        return (out, *weights) if return_weights else out

    def _projections(self, tokens: Array, context: Array | None) -> list[Array]:
        """Queries [b, t, heads, size], keys and values [b, s, heads, size]."""
        width = tokens.shape[-1]
        if context is None:
            parts = jnp.split(self.query_key_value(tokens), 3, axis=-1)
        else:
            layer: Any = self.query_key_value
            kernel, bias = layer.kernel[...], layer.bias[...]
            query = core.dense(tokens, kernel[:, :width], bias[:width])
            both = core.dense(context, kernel[:, width:], bias[width:])
            parts = [query, *jnp.split(both, 2, axis=-1)]
        return [a.reshape(*a.shape[:2], self.heads, width // self.heads) for a in parts]


class TransformerBlock(nnx.Module):
    """x + attention(norm(x)), then x + dense layers(norm(x)).

    Args:
        width: of the tokens.
        heads: of the attention.
        mlp_ratio: hidden neurons of the dense layers, as a multiple of the width.
        rngs: initialises the parameters.
        **options: of the attention: measure, temperature, dropout_rate.
    """

    def __init__(self, width: int, heads: int, *, mlp_ratio: int = 4, rngs: nnx.Rngs, **options: Any):
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = MultiHeadAttention(width, heads, rngs=rngs, **options)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.hidden = Dense(width, mlp_ratio * width, init="glorot_uniform", rngs=rngs)
        self.out = Dense(mlp_ratio * width, width, init="glorot_uniform", rngs=rngs)

    def __call__(self, tokens: Array, *, return_weights: bool = False, **options: Any) -> Any:
        """Tokens [b, t, width] to the same shape.

        Args:
            tokens: [b, t, width].
            return_weights: also return the attention weights [b, heads, t, t].
            **options: of the attention: bias, mask, is_causal, dropout_key.
        """
        b, t, width = tokens.shape
        # Norms and dense layers see one flat list of tokens [b t, width]: the same numbers, and on a CPU XLA runs
        # them markedly faster than with three axes. Only attention needs to know which token is of which image.
        x = tokens.reshape(b * t, width)
        normed = self.attention_norm(x).reshape(b, t, width)
        found = self.attention(normed, return_weights=return_weights, **options)
        attended, *weights = found if return_weights else (found,)
        x = x + attended.reshape(b * t, width)
        x = x + self.out(_gelu(self.hidden(self.mlp_norm(x))))
        x = x.reshape(b, t, width)
        return (x, *weights) if return_weights else x
