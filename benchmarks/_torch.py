"""The networks of simjax in PyTorch, layer by layer and with the same parameters, and the same training step."""

import functools
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from torch import Tensor
from torch.nn import functional as F

from simjax import nn


def same_network(layer: Any) -> torch.nn.Module:
    """A network of simjax as one of PyTorch, images [b, c, h, w] in.

    Raises:
        TypeError: for a layer that has no counterpart here.
    """
    if isinstance(layer, nn.SiameseCNN | nn.DenseNetwork):
        return same_network(layer.layers)
    if isinstance(layer, nnx.Sequential):
        return torch.nn.Sequential(*(same_network(inner) for inner in layer.layers))
    if isinstance(layer, nn.VisionTransformer):
        return VisionTransformer(layer)
    if isinstance(layer, nn.Residual):
        return Residual(layer)
    if isinstance(layer, nn.Dense):
        return filled(torch.nn.Linear(*layer.kernel.shape, bias=layer.bias is not None), layer.kernel.T, layer.bias)
    if isinstance(layer, nn.Convolution):
        height, width, channels, filters = layer.kernel.shape
        convolution = torch.nn.Conv2d(
            channels, filters, (height, width), layer.stride, layer.padding, bias=layer.bias is not None
        )
        return filled(convolution, layer.kernel[...].transpose(3, 2, 0, 1), layer.bias)
    if isinstance(layer, nn.BatchNorm):
        return filled(BatchNorm(layer.scale.size, eps=layer.epsilon), layer.scale, layer.bias)
    if isinstance(layer, nnx.LayerNorm):
        return filled(torch.nn.LayerNorm(layer.num_features, eps=layer.epsilon), layer.scale, layer.bias)
    if isinstance(layer, functools.partial) and layer.func is nn.average_pool:
        return torch.nn.AvgPool2d(layer.keywords["size"])
    functions: dict[Any, torch.nn.Module] = {
        nn.max_pool: torch.nn.MaxPool2d(2),
        nn.flatten: torch.nn.Flatten(),
        nn.global_average_pool: torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        jax.nn.relu: torch.nn.ReLU(),
    }
    if layer in functions:
        return functions[layer]
    raise TypeError(f"no counterpart of {layer!r} in PyTorch")


def filled(layer: Any, weight: Any, bias: Any) -> Any:
    """The layer with these parameters."""
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.array(weight[...])))
        if bias is not None:
            layer.bias.copy_(torch.tensor(np.array(bias[...])))
    return layer


class BatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """Of rows [b, c] and of images [b, c, h, w]."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


class Residual(torch.nn.Module):
    """x + inner(x)."""

    def __init__(self, layer: nn.Residual):
        super().__init__()
        self.inner = same_network(layer.inner)

    def forward(self, x: Tensor) -> Tensor:
        """x to the same shape."""
        return x + self.inner(x)


class Block(torch.nn.Module):
    """A transformer block with PyTorch's own attention."""

    def __init__(self, layer: nn.TransformerBlock):
        super().__init__()
        self.heads = layer.attention.heads
        self.attention_norm, self.mlp_norm = same_network(layer.attention_norm), same_network(layer.mlp_norm)
        self.query_key_value = same_network(layer.attention.query_key_value)
        self.mix = same_network(layer.attention.out)
        self.hidden, self.out = same_network(layer.hidden), same_network(layer.out)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, t, width] to the same shape."""
        b, t, width = x.shape
        parts = self.query_key_value(self.attention_norm(x)).reshape(b, t, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.mix(mixed.transpose(1, 2).reshape(b, t, width))
        return x + self.out(F.gelu(self.hidden(self.mlp_norm(x)), approximate="tanh"))


class VisionTransformer(torch.nn.Module):
    """Fixed positions, and the mean of the tokens."""

    def __init__(self, layer: nn.VisionTransformer):
        super().__init__()
        size, kernel = layer.patch_size, layer.embed_patch.kernel[...]
        width = kernel.shape[1]
        self.embed_patch = filled(
            torch.nn.Conv2d(kernel.shape[0] // size**2, width, size, stride=size),
            kernel.reshape(size, size, -1, width).transpose(3, 2, 0, 1),
            layer.embed_patch.bias,
        )
        self.register_buffer("position", torch.tensor(np.array(layer.position)))
        self.blocks = torch.nn.Sequential(*(Block(block_size) for block_size in layer.blocks))
        self.norm, self.embed = same_network(layer.norm), same_network(layer.embed)

    def forward(self, images: Tensor) -> Tensor:
        """Images [b, c, h, w] to embeddings [b, e]."""
        x = self.embed_patch(images).flatten(2).transpose(1, 2) + self.position
        return self.embed(self.norm(self.blocks(x)).mean(1))


def decayed(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of parameters for AdamW: as in simjax, kernels alone decay, not biases and norms."""
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
