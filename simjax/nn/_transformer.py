"""Multi-head attention, the transformer block, and a small vision transformer.

References:
    Vaswani et al. (2017), Attention Is All You Need. Xiong et al. (2020), On Layer Normalization in the Transformer
    Architecture (norms before attention and dense layers). Dosovitskiy et al. (2021), An Image is Worth 16x16 Words.
    Beyer, Zhai, Kolesnikov (2022), Better plain ViT baselines for ImageNet-1k (sin-cos positions, mean pooling).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from simjax import core
from simjax.attention import attention
from simjax.core import InputError
from simjax.nn._layers import Dense
from simjax.nn._loss_parameters import Temperature
from simjax.nn._measures import TunedMeasure
from simjax.nn._responses import NETWORK_MEASURES, score_deviation
from simjax.similarity import Measure

POSITIONS = ("learned", "sincos")
POOLINGS = ("mean", "class")

_gelu = jax.checkpoint(jax.nn.gelu)  # only the argument of gelu is stored for the backward pass


class MultiHeadAttention(nnx.Module):
    """Attention of several heads, each with its own projection of the tokens.

    Tokens attend to each other (self-attention) or to the tokens of a second input (cross-attention).

    Args:
        width: Number of features of a token; each head has width / heads features.
        heads: Number of heads; must divide the width.
        measure: Compares queries with keys: the name of a measure, a `Measure`, or a module with a method `measure`,
            such as `simjax.nn.TunedMeasure`; the parameters of the module are then learned.
        temperature: Divisor of the attention scores, or a `Temperature`, which is learned. Default: sqrt(width / heads)
            for the name "dot", otherwise 1.
        dense_measure: Compares tokens with the weight vectors of the projections, see `Dense`.
        dropout_rate: Fraction of the attention weights that is dropped in a call with a PRNG key `dropout_key`.

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
        temperature: float | Temperature | None = None,
        dense_measure: str = "dot",
        dropout_rate: float = 0.0,
        rngs: nnx.Rngs,
    ):
        if width % heads:
            raise InputError(f"heads: expected a divisor of the width {width}, got {heads}")
        self.heads, self.dropout_rate = heads, dropout_rate
        self.measure = measure
        default = (width // heads) ** 0.5 if measure == "dot" else 1.0
        self.temperature = default if temperature is None else temperature
        dense = partial(Dense, init="glorot_uniform", measure=dense_measure, rngs=rngs)
        self.query_key_value, self.out = dense(width, 3 * width), dense(width, width)

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
        """Attend from tokens [b, t, width] to the context [b, s, width], returning [b, t, width].

        The default context is the tokens. For `bias`, `mask` and `is_causal` see `attention.attention`. Weights are
        dropped if a PRNG key is given. With `return_weights`, also return the weights before dropout, [b, heads, t, s].
        """
        b, t, width = tokens.shape
        query, key, value = self._projections(tokens, context)
        out: Any = attention(
            query,
            key,
            value,
            bias,
            mask,
            measure=self.measure if isinstance(self.measure, str | Measure) else self.measure.measure(),
            temperature=self.temperature() if isinstance(self.temperature, Temperature) else self.temperature,
            is_causal=is_causal,
            dropout_rng=dropout_key,
            dropout_rate=self.dropout_rate,
            deterministic=dropout_key is None,
            return_weights=return_weights,
        )
        attended, *weights = out if return_weights else (out,)
        out = self.out(attended.reshape(b, t, width))
        return (out, *weights) if return_weights else out

    def _projections(self, tokens: Array, context: Array | None) -> list[Array]:
        """Return queries [b, t, heads, size], and keys and values [b, s, heads, size]."""
        width = tokens.shape[-1]
        if context is None:
            parts = jnp.split(self.query_key_value(tokens), 3, axis=-1)
        else:
            query = self.query_key_value(tokens, slice(width))
            parts = [query, *jnp.split(self.query_key_value(context, slice(width, None)), 2, axis=-1)]
        return [a.reshape(*a.shape[:2], self.heads, width // self.heads) for a in parts]


class TransformerBlock(nnx.Module):
    """A transformer block: x + attention(norm(x)), then x + mlp(norm(x)), where mlp is two dense layers with a GELU.

    Args:
        width: Number of features of a token.
        heads: Number of attention heads.
        mlp_ratio: Number of hidden neurons of the dense layers, as a multiple of the width.
        dense_measure: Compares inputs with the weight vectors of all dense layers, see `Dense`.
        **options: Options of `MultiHeadAttention`: measure, temperature, dropout_rate.
    """

    def __init__(
        self, width: int, heads: int, *, mlp_ratio: int = 4, dense_measure: str = "dot", rngs: nnx.Rngs, **options: Any
    ):
        dense = partial(Dense, init="glorot_uniform", measure=dense_measure, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = MultiHeadAttention(width, heads, dense_measure=dense_measure, rngs=rngs, **options)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.hidden, self.out = dense(width, mlp_ratio * width), dense(mlp_ratio * width, width)

    def __call__(self, tokens: Array, *, return_weights: bool = False, **options: Any) -> Any:
        """Transform tokens [b, t, width]; the options are the arguments of a call of `MultiHeadAttention`."""
        b, t, width = tokens.shape
        # XLA on a CPU computes norms and dense layers of [b t, width] faster than of [b, t, width].
        x = tokens.reshape(b * t, width)
        normed = self.attention_norm(x).reshape(b, t, width)
        out = self.attention(normed, return_weights=return_weights, **options)
        attended, *weights = out if return_weights else (out,)
        x = x + attended.reshape(b * t, width)
        x = x + self.out(_gelu(self.hidden(self.mlp_norm(x))))
        x = x.reshape(b, t, width)
        return (x, *weights) if return_weights else x


class VisionTransformer(nnx.Module):
    """A vision transformer from images [b, h, w, c] to embeddings [b, embedding_size].

    A dense layer maps each patch of the image to a token, and a position embedding is added. After the transformer
    blocks and a norm, a dense layer maps the mean of the tokens, or an extra class token, to the embedding. An image
    whose sides are not multiples of the patch size is padded with zeros at the bottom and on the right.

    Args:
        image_shape: (h, w, c) of the images.
        patch_size: Side of a patch in pixels. Default: an eighth of the shorter side of the image, rounded, at least 2.
        width: Number of features of a token.
        depth: Number of transformer blocks.
        heads: Number of attention heads; must divide the width.
        mlp_ratio: Number of hidden neurons of a block's dense layers, as a multiple of the width.
        positions: Position embedding, "learned" or "sincos" (fixed sines and cosines).
        pooling: Whether the last dense layer maps the "mean" of the tokens or a "class" token.
        measure: Compares inputs with weight vectors in all dense layers, and queries with keys: a name in
            `NETWORK_MEASURES`. For other measures than "dot", the temperature of the attention is learned.
        embedding_size: Size of the embeddings.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        patch_size: int | None = None,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: int = 2,
        positions: str = "sincos",
        pooling: str = "mean",
        measure: str = "dot",
        embedding_size: int = 64,
        rngs: nnx.Rngs,
    ):
        core.check_at_least("depth", depth, 1)
        core.check_choice("positions", positions, POSITIONS)
        core.check_choice("pooling", pooling, POOLINGS)
        core.check_choice("measure", measure, NETWORK_MEASURES)
        height, width_px, channels = image_shape
        shorter_side = min(height, width_px)
        patch = patch_size or max(2, round(shorter_side / 8))
        if patch > shorter_side:
            raise core.InputError(
                f"patch_size: expected at most {shorter_side} for {height}x{width_px} images, got {patch}"
            )
        self.patch_size, self.pooling, self.embedding_size = patch, pooling, embedding_size
        self.grid = (-(-height // patch), -(-width_px // patch))  # rows and columns of patches
        n_patches = self.grid[0] * self.grid[1]
        self.embed_patch = Dense(patch * patch * channels, width, init="lecun_normal", measure=measure, rngs=rngs)
        self.position: Any
        if positions == "learned":
            self.position = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (n_patches, width)))
        else:
            self.position = nnx.data(_sincos(self.grid, width))
        self.class_token = nnx.Param(jnp.zeros(width)) if pooling == "class" else None
        self.blocks = nnx.List([_block(width, heads, mlp_ratio, measure, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.embed = Dense(width, embedding_size, init="lecun_normal", measure=measure, rngs=rngs)

    def __call__(self, images: Array, *, return_attention: bool = False, return_layers: bool = False) -> Any:
        """Embed normalized images [b, h, w, c], returning [b, embedding_size].

        With `return_attention`, also return the attention weights of all blocks, [b, blocks, heads, t, t]. The tokens
        are the class token, if there is one, and the patches row by row. With `return_layers`, also return a dictionary
        of the tokens [b, t, width] after the patch embedding, after each block and after the last norm, and of the
        embedding.
        """
        b, h, w, _ = images.shape
        p = self.patch_size
        images = jnp.pad(images, ((0, 0), (0, -h % p), (0, -w % p), (0, 0)))
        x = core.patches(images, (p, p), stride=p)  # [b, grid, grid, p p c]
        x = self.embed_patch(x.reshape(b, -1, x.shape[-1])) + self.position[...][None]  # [b, t, width]
        if self.class_token is not None:
            x = jnp.concatenate([jnp.broadcast_to(self.class_token[...], (b, 1, x.shape[-1])), x], axis=1)
        layers, weights = {"patches": x}, []
        for index, block in enumerate(self.blocks):
            if return_attention:
                x, weights_of_block = block(x, return_weights=True)
                weights.append(weights_of_block)
            else:
                x = block(x)
            layers[f"block.{index}"] = x
        layers["norm"] = x = self.norm(x)
        layers["embedding"] = embedding = self.embed(x[:, 0] if self.class_token is not None else jnp.mean(x, axis=1))
        extra = [jnp.stack(weights, axis=1)] if return_attention else []
        extra += [layers] if return_layers else []
        return (embedding, *extra) if extra else embedding

    def attention_to_patches(self, weights: ArrayLike) -> Array:
        """Return the attention to each patch, [..., grid rows, grid columns], from weights of tokens [..., t, t].

        This is the attention of the class token, or without one the mean over all tokens.
        """
        weights = jnp.asarray(weights)
        patches = jnp.mean(weights, axis=-2) if self.class_token is None else weights[..., 0, 1:]
        return patches.reshape(*patches.shape[:-1], *self.grid)


def _block(width: int, heads: int, mlp_ratio: int, measure: str, rngs: nnx.Rngs) -> TransformerBlock:
    """Return a block that compares by a measure in all dense layers and in its attention."""
    if measure == "dot":
        return TransformerBlock(width, heads, mlp_ratio=mlp_ratio, rngs=rngs)
    size = max(width // heads, 1)
    # For standard normal queries and keys, scores start with variance 1 over the keys, as those of dot products do.
    temperature = Temperature(score_deviation(measure, size, weight_scale=1.0), max_scale=None)
    compare = TunedMeasure(measure, gamma=1 / (2 * size)) if measure == "rbf" else measure
    options = {"measure": compare, "temperature": temperature, "dense_measure": measure}
    return TransformerBlock(width, heads, mlp_ratio=mlp_ratio, rngs=rngs, **options)


def _sincos(grid: tuple[int, int], width: int) -> Array:
    """Return sines and cosines of the row and the column of each patch, [grid[0] * grid[1], width]."""
    if width % 4:
        raise core.InputError(f"width: expected a multiple of 4 for sincos positions, got {width}")
    frequency = 1 / 100 ** (jnp.arange(width // 4) / max(width // 4 - 1, 1))  # wavelengths of 6 to 600 patches
    row, column = jnp.meshgrid(jnp.arange(grid[0]), jnp.arange(grid[1]), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency[None] for axis in (row, column)]
    return jnp.concatenate([f(angle) for angle in angles for f in (jnp.sin, jnp.cos)], axis=1)
