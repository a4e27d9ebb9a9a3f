"""An encoder as a scikit-learn transformer, for pipelines such as encoder, then logistic regression.

The module imports scikit-learn, so `simjax.encoder` imports it when `EncoderTransformer` is first used.
"""

import os
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from simjax.encoder._encoder import Encoder
from simjax.encoder._images import Images
from simjax.encoder._load import load_encoder


class EncoderTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Transform images to embeddings.

    Args:
        encoder: An `Encoder`, or a path or name for `load_encoder`. It is trained already, `fit` only loads it.
        normalize: Scale embeddings to unit length.
        batch_size: Images that are embedded at once. Default: see `Encoder.encode`.

    Attributes:
        encoder_: The encoder.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from simjax.data import load
        >>> from simjax.encoder import EncoderTransformer
        >>> train, test = load("digits", "train"), load("digits", "test")
        >>> classifier = make_pipeline(EncoderTransformer("digits-cnn"), LogisticRegression(max_iter=1000))
        >>> accuracy = classifier.fit(train.images[:200], train.labels[:200]).score(test.images, test.labels)
        >>> print(accuracy > 0.95)
        True
    """

    def __init__(
        self,
        encoder: Encoder | str | os.PathLike[str],
        *,
        normalize: bool = False,
        batch_size: int | None = None,
    ):
        self.encoder, self.normalize, self.batch_size = encoder, normalize, batch_size

    def fit(self, images: Images, y: Any = None) -> "EncoderTransformer":
        """Load the encoder; the images and `y` are ignored."""
        self.encoder_ = self.encoder if isinstance(self.encoder, Encoder) else load_encoder(self.encoder)
        self._n_features_out = self.encoder_.embedding_size
        return self

    def transform(self, images: Images) -> np.ndarray:
        """Compute the embeddings of images, float32 [n, embedding_size]; see `Encoder.encode`."""
        check_is_fitted(self)
        return self.encoder_.encode(images, batch_size=self.batch_size, normalize=self.normalize)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "encoder_")
