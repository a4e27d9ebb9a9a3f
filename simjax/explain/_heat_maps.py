"""Heat maps: Grad-CAM, attention rollout, occlusion, and random regions for comparison.

References:
    Selvaraju et al. (2017), Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization.
    Abnar, Zuidema (2020), Quantifying Attention Flow in Transformers.
    Zeiler, Fergus (2014), Visualizing and Understanding Convolutional Networks (occlusion).
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.tree_util import Partial

from simjax.core import InputError, check_choice
from simjax.encoder import Encoder
from simjax.encoder._images import Images
from simjax.explain._patches import Fill, filling, patch_ids
from simjax.explain._targets import Target, check_target
from simjax.nn import SpatialNetwork

METHODS = ("grad_cam", "attention_rollout", "occlusion")
"""Names of the methods that `heat_maps` computes."""


def heat_maps(
    encoder: Encoder,
    images: Images,
    target: Target,
    methods: Sequence[str] | None = None,
    *,
    patch_size: int | None = None,
    fill: Fill = "mean",
) -> dict[str, np.ndarray]:
    """Compute the heat maps of images by several methods.

    Args:
        encoder: Embeds the images.
        images: n images, see `simjax.explain`.
        target: The scores that are explained, `similarity_to` or `class_score`.
        methods: Names in `METHODS`. Default: all that the encoder supports.
        patch_size, fill: See `occlusion`.

    Returns:
        Heat maps float32 [n, h, w] by the name of the method.

    Raises:
        InputError: If the encoder does not support a method.

    Example:
        >>> from simjax import data, explain, load_encoder
        >>> encoder, images = load_encoder("digits-cnn"), data.load("digits", "test").images
        >>> target = explain.similarity_to(encoder, images[2:4])
        >>> explain.heat_maps(encoder, images[:2], target, ["occlusion"])["occlusion"].shape
        (2, 8, 8)
    """
    if methods is None:
        network, is_single = encoder.networks[0], len(encoder.networks) == 1
        has = {"grad_cam": is_single and isinstance(network, SpatialNetwork), "occlusion": True}
        has["attention_rollout"] = is_single and hasattr(network, "attention_to_patches")
        methods = [name for name in METHODS if has[name]]
    computed = {
        "grad_cam": lambda: grad_cam(encoder, images, target),
        "attention_rollout": lambda: attention_rollout(encoder, images),
        "occlusion": lambda: occlusion(encoder, images, target, patch_size=patch_size, fill=fill),
    }
    return {name: computed[check_choice("method", name, METHODS)]() for name in methods}


def grad_cam(encoder: Encoder, images: Images, target: Target) -> np.ndarray:
    """Compute Grad-CAM: the features of the last spatial map, weighted by the gradients of the score.

        map = max(0, sum_k w_k features_k),  w_k = mean over positions of d score / d features_k

    The map is enlarged bilinearly to the size of the image.

    Args:
        encoder: Its network is a `simjax.nn.SpatialNetwork`; not an ensemble.
        images: n images, see `simjax.explain`. All are computed at once.
        target: The scores that are explained.

    Returns:
        float32 [n, h, w], at least 0.

    Raises:
        InputError: If the encoder's network has no spatial feature map.
    """
    network = encoder.networks[0]
    if len(encoder.networks) > 1 or not isinstance(network, SpatialNetwork):
        got = "an ensemble" if len(encoder.networks) > 1 else encoder.config.network
        raise InputError(f"grad_cam: expected a network with a spatial feature map, such as a CNN, got {got}")
    pixels = check_target(encoder, images, target)
    graph, state = nnx.split(network)
    return np.asarray(_grad_cam(graph, state, target.gradient_score, encoder.network_input(pixels)))


@partial(jax.jit, static_argnums=0)
def _grad_cam(graph: Any, state: Any, score: Partial, images: Array) -> Array:
    network = nnx.merge(graph, state)
    features = network.feature_map(images)

    def total_score(features: Array) -> Array:  # each score depends on the features of one image only
        return jnp.sum(score(network.embed_feature_map(features)))

    weights = jnp.mean(jax.grad(total_score)(features), axis=(1, 2), keepdims=True)
    small = jax.nn.relu(jnp.sum(weights * features, axis=-1))
    return jax.image.resize(small, images.shape[:3], "bilinear")


def attention_rollout(encoder: Encoder, images: Images) -> np.ndarray:
    """Compute attention rollout: the attention to each patch, followed through all blocks of a vision transformer.

        rollout = A_L ... A_2 A_1,  A_l = (I + mean over heads of the attention weights of block l) / 2

    It depends on the image only, not on the target.

    Args:
        encoder: Its network is a `simjax.nn.VisionTransformer`; not an ensemble.
        images: n images, see `simjax.explain`.

    Returns:
        float32 [n, h, w], constant within a patch: the attention of the class token, or the mean over all tokens.

    Raises:
        InputError: If the encoder's network has no attention.
    """
    if len(encoder.networks) > 1:
        raise InputError("attention_rollout: expected a single network, got an ensemble")
    weights = encoder.attention_weights(images).mean(axis=2)  # [n, blocks, t, t]
    blocks = (weights + np.eye(weights.shape[-1], dtype=np.float32)) / 2
    rollout = reduce(lambda product, block: block @ product, blocks.swapaxes(0, 1))
    return _patches_to_pixels(encoder, rollout)


def attention_by_head(encoder: Encoder, images: Images) -> np.ndarray:
    """Return the attention to each patch in each block and head of a vision transformer, of an ensemble's first one.

    Returns:
        float32 [n, blocks, heads, h, w], constant within a patch; otherwise as in `attention_rollout`.

    Raises:
        InputError: If the encoder's network has no attention.
    """
    return _patches_to_pixels(encoder, encoder.attention_weights(images))


def _patches_to_pixels(encoder: Encoder, weights: np.ndarray) -> np.ndarray:
    """Return the attention to each pixel, [..., h, w], from the attention weights of tokens [..., t, t]."""
    network: Any = encoder.networks[0]
    patches = np.asarray(network.attention_to_patches(weights))
    return patches.reshape(*patches.shape[:-2], -1)[..., patch_ids(encoder, network.patch_size)]


def occlusion(
    encoder: Encoder, images: Images, target: Target, *, patch_size: int | None = None, fill: Fill = "mean"
) -> np.ndarray:
    """Compute how much the score falls when a patch is replaced, for each patch. Slow, but valid for any encoder.

    Args:
        encoder: Embeds the images.
        images: n images, see `simjax.explain`.
        target: The scores that are explained.
        patch_size: Side of a patch in pixels. Default: `default_patch_size`.
        fill: Pixels that replace a patch. "mean" is the mean of the preprocessing: that of the training images for
            encoders that were trained here, a middle grey for efficientnet-lite0. "blur" is the image after a Gaussian
            blur whose standard deviation is the side of a patch.

    Returns:
        float32 [n, h, w], constant within a patch. A patch that lowers the score has a negative value.
    """
    ids = patch_ids(encoder, patch_size)
    pixels = check_target(encoder, images, target)
    filled = filling(encoder, pixels, fill, ids)
    is_removed = ids[None] == np.arange(ids[-1, -1] + 1)[:, None, None]  # [patches, h, w]
    maps = np.zeros(pixels.shape[:3], np.float32)
    for i, image in enumerate(pixels):
        variants = np.where(is_removed[..., None], filled[i], image)
        whole, *occluded = target.score(encoder.encode(np.concatenate([image[None], variants])), i)
        maps[i] = (whole - np.asarray(occluded))[ids]
    return maps


def random_regions(encoder: Encoder, images: Images, *, patch_size: int | None = None, seed: int = 0) -> np.ndarray:
    """Return heat maps of random values for each patch, with which other heat maps are compared.

    Args:
        encoder: Gives the size of the images.
        images: n images, see `simjax.explain`.
        patch_size: See `occlusion`.
        seed: Seed of the random numbers.

    Returns:
        float32 [n, h, w], constant within a patch, from 0 to 1.
    """
    ids = patch_ids(encoder, patch_size)
    values = np.random.default_rng(seed).random((len(encoder.pixels(images)), ids[-1, -1] + 1), np.float32)
    return values[:, ids]
