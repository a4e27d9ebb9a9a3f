"""Scores of embeddings that heat maps explain: the similarity to another image, or a class of the classifier."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from simjax import similarity
from simjax.core import InputError, check_choice
from simjax.encoder import Encoder
from simjax.encoder._images import Images
from simjax.similarity import Measure


class Target(NamedTuple):
    """The score of each of n images that is explained, as a function of the embedding.

    Attributes:
        size: n.
        score: Returns the scores [k] of k embeddings [k, e] of variants of image i, from the embeddings and i.
        gradient_score: Returns the scores [n] of the embeddings [n, e] of all images, for gradients. It may differ from
            `score` by a function whose derivative vanishes where the score saturates.
    """

    size: int
    score: Callable[[np.ndarray, int], np.ndarray]
    gradient_score: Partial


def similarity_to(encoder: Encoder, others: Images, *, constant_norm: bool = True) -> Target:
    """Return the target that image i is similar to others[i]. The score is the measure, negated if it is a distance.

    Args:
        encoder: Compares the images.
        others: n images as in `Encoder.encode`.
        constant_norm: For the measure "cosine", the gradient treats the norm of the image's embedding as a constant.
            Otherwise it has no component along the embedding: it tells what would make similar images more similar, not
            what makes them similar, and it is 0 for equal images. Other measures are not affected.
    """
    embeddings, sign = encoder.encode(others), 1 if encoder.measure.higher_is_closer else -1
    measure, references = encoder.measure, jnp.asarray(embeddings)
    if constant_norm and measure.name == "cosine":
        # Insertion area on MNIST: 0.78, with the full gradient 0.60, by occlusion 0.78 (python -m benchmarks.explain).
        measure, references = similarity.measure("dot"), similarity.unit_vectors(references)

    def score(variants: np.ndarray, i: int) -> np.ndarray:
        return sign * encoder.similarity(variants, embeddings[i : i + 1])[:, 0]

    return Target(len(embeddings), score, Partial(_similarity, measure, references))


def _similarity(measure: Measure, others: Array, embeddings: Array) -> Array:
    return measure.as_score(measure.of_pairs(embeddings, others))


def class_score(encoder: Encoder, classes: Sequence[str]) -> Target:
    """Return the target that image i has the class classes[i]. The score is its probability, for gradients its logit.

    The probability of a class that the classifier is sure of hardly changes with the features, so its gradient is
    nearly 0; Grad-CAM is defined by the logit.

    Args:
        encoder: Has a classifier.
        classes: n names in `encoder.class_names`.

    Raises:
        InputError: If the encoder has no classifier, or a class is unknown.
    """
    encoder.check_classifier()
    ids = np.array(
        [encoder.class_names.index(check_choice("class", name, encoder.class_names)) for name in classes], int
    )

    def score(variants: np.ndarray, i: int) -> np.ndarray:
        return np.asarray(jax.nn.softmax(encoder.logits(variants)))[:, ids[i]]

    return Target(len(ids), score, Partial(_logits, encoder.head, jnp.asarray(ids)))


def _logits(head: Any, ids: Array, embeddings: Array) -> Array:
    return jnp.take_along_axis(head(embeddings), ids[:, None], axis=1)[:, 0]


def check_target(encoder: Encoder, images: Images, target: Target) -> np.ndarray:
    """Return the pixels of the images, uint8 [n, h, w, c], if the target has a score for each of them."""
    pixels = encoder.pixels(images)
    if len(pixels) != target.size:
        raise InputError(f"target: expected one for each of {len(pixels)} images, got {target.size}")
    return pixels
