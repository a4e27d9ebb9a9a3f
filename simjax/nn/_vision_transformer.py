"""A small vision transformer: an image as a sentence of patches.

References:
    Dosovitskiy et al. (2021), An Image is Worth 16x16 Words. Beyer, Zhai, Kolesnikov (2022), Better plain ViT
    baselines for ImageNet-1k (sin-cos positions, mean pooling).
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from simjax import core
from simjax.nn._layers import Dense
from simjax.nn._transformer import TransformerBlock

POSITIONS = ("learned", "sincos")
POOLINGS = ("mean", "class")


class VisionTransformer(nnx.Module):
    """Images [b, h, w, c] to embeddings [b, embedding_size].

    The image is cut into patches, each becomes a token by a dense layer, a position is added, transformer blocks let
    the tokens look at each other, and their mean (or an extra class token) becomes the embedding. An image whose
    sides the patch size does not divide is filled up with zeros at the bottom and the right.

    Args:
        image_shape: (h, w, c) of the images.
        patch_size: None is an eighth of the shorter side, at least 2: 2 for 8x8, 4 for 28x28 and 32x32, 8 for 64x64.
        width: of a token.
        depth: transformer blocks.
        heads: of the attention; must divide the width.
        mlp_ratio: hidden neurons of a block's dense layers, as a multiple of the width.
        positions: "learned" or "sincos" (fixed).
        pooling: "mean" of the tokens or "class" token.
        embedding_size: of the output.
        rngs: initialises the parameters.

    Raises:
        InputError: for an unknown choice, heads that do not divide the width, or a patch larger than the image.
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
        embedding_size: int = 64,
        rngs: nnx.Rngs,
    ):
        core.check_at_least("vit.depth", depth, 1)
        core.check_choice("vit.positions", positions, POSITIONS)
        core.check_choice("vit.pooling", pooling, POOLINGS)
        height, width_px, channels = image_shape
        patch = patch_size or max(2, round(min(height, width_px) / 8))
        if patch > min(height, width_px):
            raise core.InputError(f"vit.patch_size: {patch} is larger than the images of {height}x{width_px}")
        self.patch_size, self.pooling, self.embedding_size = patch, pooling, embedding_size
        self.grid = (-(-height // patch), -(-width_px // patch))
        tokens = self.grid[0] * self.grid[1]
        self.embed_patch = Dense(patch * patch * channels, width, init="lecun_normal", rngs=rngs)
        self.position: Any
        if positions == "learned":
            self.position = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (tokens, width)))
        else:
            self.position = _sincos(self.grid, width)
        self.class_token = nnx.Param(jnp.zeros(width)) if pooling == "class" else None
        self.blocks = nnx.List([TransformerBlock(width, heads, mlp_ratio=mlp_ratio, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.embed = Dense(width, embedding_size, init="lecun_normal", rngs=rngs)

    def __call__(self, images: Array, *, return_attention: bool = False) -> Any:
        """Images [b, h, w, c], normalised, to embeddings [b, embedding_size].

        With `return_attention` a pair of it and the attention weights of the last block [b, heads, t, t]; t counts the
        patches row by row, after the class token if there is one.
        """
        b, h, w, _ = images.shape
        p = self.patch_size
        images = jnp.pad(images, ((0, 0), (0, -h % p), (0, -w % p), (0, 0)))
        x = core.patches(images, (p, p), stride=p)  # [b, grid, grid, p p c]
        x = self.embed_patch(x.reshape(b, -1, x.shape[-1])) + self.position[...][None]  # [b, t, width]
        if self.class_token is not None:
            x = jnp.concatenate([jnp.broadcast_to(self.class_token[...], (b, 1, x.shape[-1])), x], axis=1)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        x, *weights = last(x, return_weights=True) if return_attention else (last(x),)
        x = self.norm(x)
        embedding = self.embed(x[:, 0] if self.class_token is not None else jnp.mean(x, axis=1))
        return (embedding, *weights) if return_attention else embedding


def _sincos(grid: tuple[int, int], width: int) -> Array:
    """Fixed positions [grid[0] * grid[1], width]: sines and cosines of row and column at falling frequencies."""
    if width % 4:
        raise core.InputError(f"vit.width: expected a multiple of 4 for sincos positions, got {width}")
    frequency = 1 / 100 ** (jnp.arange(width // 4) / max(width // 4 - 1, 1))  # wave lengths of 6 to 600 patches
    row, column = jnp.meshgrid(jnp.arange(grid[0]), jnp.arange(grid[1]), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency[None] for axis in (row, column)]
    return jnp.concatenate([f(angle) for angle in angles for f in (jnp.sin, jnp.cos)], axis=1)
