"""Floating-point operations of networks, by formula.

A multiply-add counts as two operations, and dot products alone are counted: those of dense layers, convolutions and
attention, 2 x (size of the result) x (length of the dot product). Zeros around an image count as pixels.

XLA's own count, `jax.jit(f).lower(...).compile().cost_analysis()["flops"]`, also contains the elementwise operations
(norms, activations, softmax). It leaves out the zeros around an image, except on a CPU, where `simjax.core.convolution`
computes matrix products.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from simjax.core import InputError
from simjax.nn import (
    BatchNorm,
    Convolution,
    Dense,
    DenseNetwork,
    IdentityNetwork,
    Residual,
    SiameseCNN,
    TransformerBlock,
    VisionTransformer,
)


def forward_flops(network: nnx.Module, image_shape: tuple[int, int, int]) -> int:
    """Count the floating-point operations of the dot products of a network for one image.

    Args:
        network: A `simjax.nn.SiameseCNN`, `DenseNetwork`, `IdentityNetwork` or `VisionTransformer`. A layer that
            compares its input with its weights by another measure counts as the dot products of the same size.
        image_shape: (h, w, c).

    Raises:
        InputError: If the network has other layers.

    Example:
        >>> from simjax import nn
        >>> network = nnx.eval_shape(lambda: nn.DenseNetwork((8, 8, 1), widths=(32,), rngs=nnx.Rngs(0)))
        >>> forward_flops(network, (8, 8, 1))  # without weights: 2 * (64 * 32 + 32 * 64)
        8192
    """
    if isinstance(network, VisionTransformer):
        patches, has_class_token = prod(network.grid), network.class_token is not None
        blocks = [_block_flops(block, patches + has_class_token) for block in network.blocks]
        return _products(network.embed_patch, patches) + sum(blocks) + _products(network.embed)
    if isinstance(network, SiameseCNN | DenseNetwork | IdentityNetwork):
        return _flops_and_shape(network.layers, (1, *image_shape))[0]
    expected = "a SiameseCNN, DenseNetwork, IdentityNetwork or VisionTransformer"
    raise InputError(f"network: expected {expected}, got {type(network).__name__}")


def _flops_and_shape(layer: Any, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Count the operations of a layer for one input of a shape, [1, ...], and return the shape of the result."""
    if isinstance(layer, Residual):
        return _flops_and_shape(layer.inner, shape)
    if isinstance(layer, nnx.Sequential):
        total = 0
        for inner in layer.layers:
            flops, shape = _flops_and_shape(inner, shape)
            total += flops
        return total, shape
    if isinstance(layer, BatchNorm):
        return 0, shape
    if isinstance(layer, Dense):
        return _products(layer, prod(shape[:-1])), (*shape[:-1], layer.kernel.shape[1])
    if isinstance(layer, Convolution):
        size = layer.kernel.shape[:2]
        steps = [(n + 2 * layer.padding - k) // layer.stride for n, k in zip(shape[1:3], size, strict=True)]
        shape = (1, steps[0] + 1, steps[1] + 1, layer.kernel.shape[3])
        return _products(layer, prod(shape[:-1])), shape
    if isinstance(layer, nnx.Module):
        raise InputError(f"network: expected layers of simjax.nn, got {type(layer).__name__}")
    return 0, jax.eval_shape(layer, jax.ShapeDtypeStruct(shape, jnp.float32)).shape


def _block_flops(block: TransformerBlock, tokens: int) -> int:
    """Count the operations of a transformer block: its dense layers, and scores and weighted sums of attention."""
    dense = (block.attention.query_key_value, block.attention.out, block.hidden, block.out)
    width = block.out.kernel.shape[1]
    return sum(_products(layer, tokens) for layer in dense) + 2 * 2 * tokens**2 * width


def _products(layer: Dense | Convolution, positions: int = 1) -> int:
    """Count the operations of a layer that multiplies its kernel with the input at a number of positions."""
    return 2 * layer.kernel.size * positions
