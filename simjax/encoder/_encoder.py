"""The encoder: from images to embeddings, and from embeddings to similarities and probabilities."""

import dataclasses
import os
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import ArrayLike as NumpyArrayLike

from simjax import similarity
from simjax.core import InputError, check_at_least
from simjax.data import Progress, normalize
from simjax.encoder._config import EncoderConfig
from simjax.encoder._images import Images, as_images, batches_of_pixels
from simjax.encoder._storage import Modules, fingerprint, save_encoder
from simjax.evaluate import Calibration

MAX_BATCH, BATCH_PIXELS = 256, 2**20  # a batch of efficientnet-lite0 adds about 210 MB


class Encoder:
    """A trained network, or an ensemble, with the preprocessing of its images and the measure of its embeddings.

    Args:
        networks: Modules from normalized images [b, h, w, c] to embeddings [b, e].
        config: Description of the networks, the preprocessing and the measure.
        learned_measure: Module of `simjax.nn` whose method `measure` returns the measure. Default: that of the config.
        head: Classifier of the embeddings, the module that `config.head` names. Default: the encoder has no classifier.
        calibration: Converts scores to probabilities and sets thresholds. Default: the encoder is not calibrated.
        name: Name for messages.

    Attributes:
        measure: Compares embeddings.
        embedding_size: Size of the embeddings.
        fingerprint: Hash of the weights, the network, the preprocessing and the measure. Embeddings are comparable if
            the fingerprints of their encoders are equal.
    """

    def __init__(
        self,
        networks: Sequence[nnx.Module],
        config: EncoderConfig,
        *,
        learned_measure: nnx.Module | None = None,
        head: nnx.Module | None = None,
        calibration: Calibration | None = None,
        name: str = "encoder",
    ):
        if (head is None) != (config.head is None):
            raise InputError(f"head: expected the module that config.head = {config.head!r} names, got {head}")
        self.networks = [_evaluation_mode(network) for network in networks]
        self.config, self.calibration, self.name = config, calibration, name
        self.learned_measure: Any = learned_measure
        self.head: Any = head
        self.measure = similarity.measure(config.measure) if learned_measure is None else self.learned_measure.measure()
        self.embedding_size = config.embedding_size * len(networks)
        mean, std = config.preprocessing.mean, config.preprocessing.std
        self._split = [nnx.split(network) for network in self.networks]
        self._normalization = jax.device_put((np.asarray(mean, np.float32), np.asarray(std, np.float32)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes of the training images."""
        return self.config.class_names

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, the network, the preprocessing and the measure, 16 hexadecimal digits."""
        return fingerprint(self.config, Modules(self.networks, self.learned_measure))

    @overload
    def encode(
        self,
        images: Images,
        *,
        batch_size: int | None = None,
        normalize: bool = False,
        layers: Literal[False] = False,
        progress: Progress | None = None,
    ) -> np.ndarray: ...

    @overload
    def encode(
        self,
        images: Images,
        *,
        batch_size: int | None = None,
        normalize: bool = False,
        layers: Literal[True],
        progress: Progress | None = None,
    ) -> dict[str, np.ndarray]: ...

    def encode(
        self,
        images: Images,
        *,
        batch_size: int | None = None,
        normalize: bool = False,
        layers: bool = False,
        progress: Progress | None = None,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Compute the embeddings of images of any size and color mode.

        Args:
            images: A path of a file or a folder, a Pillow image, an array (uint8, or floating-point from 0 to 1)
                [n, h, w, c], [n, h, w], [h, w, c] or [h, w], or an iterable of single images: paths of files, Pillow
                images, encoded bytes, files opened in binary mode, arrays [h, w, c] or [h, w]. An array [a, b, c] is
                one image if c <= 4.
            batch_size: Images that are decoded and embedded at once. Default: 256, or fewer if the network's input has
                more than 64 x 64 pixels.
            normalize: Scale embeddings to unit length.
            layers: Return the outputs of all layers of the network instead; not for ensembles.
            progress: Called after each batch with a text, the number of images done and the number of all images, or
                that number again if it is not known.

        Returns:
            float32 [n, embedding_size], in the order of the images; the files of a folder are in alphabetical order.
            With `layers`, a dictionary of arrays [n, ...] by the name of the layer, in the order of computation; the
            last one is the embedding.

        Raises:
            InputError: If an image cannot be read. The message names its path or its position.
        """
        if batch_size is None:
            height, width, _ = self.config.preprocessing.image_shape
            batch_size = max(1, min(MAX_BATCH, BATCH_PIXELS // (height * width)))
        check_at_least("batch_size", batch_size, 1)
        if layers and len(self.networks) > 1:
            raise InputError("layers: expected a single network, got an ensemble")
        given: Any = as_images(images)
        total = len(given) if hasattr(given, "__len__") else 0
        parts: list[dict[str, np.ndarray]] = []
        done = 0
        for pixels in batches_of_pixels(given, self.config.preprocessing, batch_size):
            parts.append(self._layers(pixels, batch_size) if layers else {"embedding": self._embed(pixels, batch_size)})
            done += len(pixels)
            if progress is not None:
                progress("encoding images", done, max(total, done))
        if not parts:
            parts = [{"embedding": np.zeros((0, self.embedding_size), np.float32)}]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        *_, last = joined
        if normalize:
            joined[last] = np.asarray(similarity.unit_vectors(joined[last]))
        return joined if layers else joined[last]

    def _embed(self, pixels: np.ndarray, batch_size: int) -> np.ndarray:
        """Compute the embeddings of at most `batch_size` uint8 images."""
        padded = _pad(pixels, batch_size)
        parts = [_embed(graph, state, *self._normalization, padded)[: len(pixels)] for graph, state in self._split]
        combined = parts[0] if len(parts) == 1 else similarity.combine_embeddings(parts, self.config.combine)
        return np.asarray(combined)

    def _layers(self, pixels: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
        outputs = _layer_outputs(*self._split[0], *self._normalization, _pad(pixels, batch_size))
        return {name: np.asarray(output)[: len(pixels)] for name, output in outputs.items()}

    def similarity(self, a: Any, b: Any) -> np.ndarray:
        """Compute the matrix of the measure of a and b, float32 [n, m]; a distance is smaller for closer pairs.

        Args:
            a, b: Images as in `encode`, or embeddings [n, embedding_size] and [m, embedding_size], as which every
                floating-point array of two axes is taken.
        """
        return np.asarray(similarity.pairwise(self._as_embeddings(a), self._as_embeddings(b), measure=self.measure))

    def _as_embeddings(self, given: Any) -> np.ndarray:
        if getattr(given, "ndim", 0) != 2 or not jnp.issubdtype(given.dtype, jnp.floating):
            return self.encode(given)
        if given.shape[1] != self.embedding_size:
            raise InputError(
                f"expected embeddings [n, {self.embedding_size}], got shape {given.shape}; a grey image is [1, h, w]"
            )
        return np.asarray(given, np.float32)

    def probability(self, scores: NumpyArrayLike, *, prior: float = 0.5) -> np.ndarray:
        """Compute the probability that pairs with these scores are of one class or identity.

        Args:
            scores: Values of the measure, any shape.
            prior: Share of such pairs among the pairs that will be compared, between 0 and 1.

        Raises:
            InputError: If the encoder is not calibrated.
        """
        if self.calibration is None:
            raise InputError(
                "the encoder is not calibrated: `simjax calibrate ENCODER --images FOLDER` fits probabilities on "
                "images of identities that it was not trained on"
            )
        return self.calibration.probability(scores, prior=prior)

    def classify(
        self, images: Images, *, batch_size: int | None = None, progress: Progress | None = None
    ) -> np.ndarray:
        """Compute the probabilities of the classes of the training images, by the classifier of the training.

        An image of another class also has probabilities that sum to 1; a gallery tells known from unknown identities.

        Args:
            images, batch_size, progress: See `encode`.

        Returns:
            float32 [n, classes], the softmax of the logits, in the order of `class_names`.

        Raises:
            InputError: If the encoder has no classifier, or an image cannot be read.
        """
        self.check_classifier()
        return np.asarray(jax.nn.softmax(self.logits(self.encode(images, batch_size=batch_size, progress=progress))))

    def logits(self, embeddings: NumpyArrayLike) -> np.ndarray:
        """Compute the logits of embeddings [n, embedding_size] by the classifier, float32 [n, classes].

        Raises:
            InputError: If the encoder has no classifier.
        """
        self.check_classifier()
        return np.asarray(_logits(*nnx.split(self.head), jnp.asarray(embeddings)))

    def check_classifier(self) -> None:
        """Raise an InputError if the encoder has no classifier."""
        if self.head is None:
            objective = self.config.about.get("recipe", {}).get("Objective", "not known")
            raise InputError(
                f"{self.name} was saved without a classifier (objective {objective}); compare embeddings, for instance "
                "in a gallery, or train a single network with the objective softmax"
            )

    def pixels(self, images: Images) -> np.ndarray:
        """Return images as the networks see them, before normalization: uint8 [n, h, w, c], see `encode`."""
        parts = list(batches_of_pixels(as_images(images), self.config.preprocessing, 256))
        return np.concatenate(parts) if parts else np.zeros((0, *self.config.preprocessing.image_shape), np.uint8)

    def network_input(self, images: Images) -> Array:
        """Return the normalized images that the networks take, float32 [n, h, w, c], see `encode`."""
        return normalize(self.pixels(images), *self._normalization)

    def attention(self, images: Images) -> np.ndarray:
        """Compute the attention to each patch in the last block of a vision transformer, of an ensemble's first one.

        Returns:
            float32 [n, heads, grid rows, grid columns]: attention of the class token, or the mean over all tokens.
        """
        weights = self.attention_weights(images)
        network: Any = self.networks[0]
        return np.asarray(network.attention_to_patches(weights[:, -1]))

    def attention_weights(self, images: Images) -> np.ndarray:
        """Compute the attention weights of all blocks of a vision transformer, of an ensemble's first one.

        Returns:
            float32 [n, blocks, heads, t, t]; the tokens are described in `simjax.nn.VisionTransformer`.

        Raises:
            InputError: If the network has no attention.
        """
        if not hasattr(self.networks[0], "attention_to_patches"):
            raise InputError(f"attention: expected a vision transformer, got {self.config.network}")
        return np.asarray(_attention(*self._split[0], *self._normalization, self.pixels(images)))

    def calibrated(self, calibration: Calibration | None) -> "Encoder":
        """Return the same encoder with a calibration."""
        modules = {"learned_measure": self.learned_measure, "head": self.head}
        about = {name: fact for name, fact in self.config.about.items() if name != "calibrated_for"}
        config = dataclasses.replace(self.config, about=about)
        return Encoder(self.networks, config, **modules, calibration=calibration, name=self.name)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the encoder to a folder: config.json, model.safetensors, README.md and its calibration, if it has one.

        Raises:
            InputError: If the folder exists and `overwrite` is False, or it cannot be written. It is then unchanged.
        """
        modules = Modules(self.networks, self.learned_measure, self.head)
        save_encoder(Path(folder), self.config, modules, self.calibration, overwrite=overwrite)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.config.preprocessing.image_shape))
        number = f"{len(self.networks)} " if len(self.networks) > 1 else ""
        return f"Encoder({self.name}: {number}{self.config.network}, {size} -> {self.embedding_size})"


def _pad(pixels: np.ndarray, batch_size: int) -> np.ndarray:
    """Repeat the first image up to a power of two or the batch size, so that batches have few different shapes."""
    size = min(1 << (len(pixels) - 1).bit_length(), batch_size)
    return np.concatenate([pixels, np.repeat(pixels[:1], size - len(pixels), axis=0)])


def _evaluation_mode(network: nnx.Module) -> Any:
    return nnx.view(network, use_running_average=True, raise_if_not_found=False)


@partial(jax.jit, static_argnums=0)
def _embed(graph: Any, state: Any, mean: Array, std: Array, images: ArrayLike) -> Array:
    return nnx.merge(graph, state)(normalize(images, mean, std)).astype(jnp.float32)


@partial(jax.jit, static_argnums=0)
def _logits(graph: Any, state: Any, embeddings: Array) -> Array:
    return nnx.merge(graph, state)(embeddings)


@partial(jax.jit, static_argnums=0)
def _layer_outputs(graph: Any, state: Any, mean: Array, std: Array, images: ArrayLike) -> OrderedDict[str, Array]:
    # JAX sorts the keys of other dictionaries.
    return OrderedDict(nnx.merge(graph, state)(normalize(images, mean, std), return_layers=True)[1])


@partial(jax.jit, static_argnums=0)
def _attention(graph: Any, state: Any, mean: Array, std: Array, images: ArrayLike) -> Array:
    return nnx.merge(graph, state)(normalize(images, mean, std), return_attention=True)[1]
