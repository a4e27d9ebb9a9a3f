"""Multi-head attention and the transformer block.

References:
    Vaswani et al. (2017), Attention Is All You Need. Xiong et al. (2020), On Layer Normalization in the Transformer
    Architecture (the norms come before attention and the dense layers, not after).
"""

import jax
from flax import nnx
from jax import Array

from simjax.attention import dot_product_attention
from simjax.core import InputError
from simjax.nn._layers import Dense


class MultiHeadAttention(nnx.Module):
    """Several attentions in parallel, each on its own projection of the tokens, concatenated and mixed.

    Args:
        width: of the tokens; each head works on width / heads of it.
        heads: how many; must divide the width.
        rngs: initialises the parameters.

    Raises:
        InputError: if the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        if width % heads:
            raise InputError(f"vit.heads: expected a divisor of the width {width}, got {heads}")
        self.heads = heads
        self.query_key_value = Dense(width, 3 * width, init="glorot_uniform", rngs=rngs)
        self.out = Dense(width, width, init="glorot_uniform", rngs=rngs)

    def __call__(self, tokens: Array) -> tuple[Array, Array]:
        """Tokens [b, t, width] to the same shape, and the attention weights [b, heads, t, t]."""
        b, t, width = tokens.shape
        qkv = self.query_key_value(tokens).reshape(b, t, 3, self.heads, width // self.heads)
        mixed, weights = dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], return_weights=True)
        return self.out(mixed.reshape(b, t, width)), weights


class TransformerBlock(nnx.Module):
    """x + attention(norm(x)), then x + dense layers(norm(x)).

    Args:
        width: of the tokens.
        heads: of the attention.
        mlp_ratio: hidden neurons of the dense layers, as a multiple of the width.
        rngs: initialises the parameters.
    """

    def __init__(self, width: int, heads: int, *, mlp_ratio: int = 4, rngs: nnx.Rngs):
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = MultiHeadAttention(width, heads, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.hidden = Dense(width, mlp_ratio * width, init="glorot_uniform", rngs=rngs)
        self.out = Dense(mlp_ratio * width, width, init="glorot_uniform", rngs=rngs)

    def __call__(self, tokens: Array) -> tuple[Array, Array]:
        """Tokens [b, t, width] to the same shape, and the attention weights [b, heads, t, t]."""
        b, t, width = tokens.shape
        # Norms and dense layers see one flat list of tokens [b t, width]: the same numbers, and on a CPU XLA runs
        # them markedly faster than with three axes. Only attention needs to know which token is of which image.
        x = tokens.reshape(b * t, width)
        attended, weights = self.attention(self.attention_norm(x).reshape(b, t, width))
        x = x + attended.reshape(b * t, width)
        x = x + self.out(jax.nn.gelu(self.hidden(self.mlp_norm(x))))
        return x.reshape(b, t, width), weights
