"""Encoders: a trained network with the preprocessing of its images and the measure that compares its embeddings.

An encoder is saved as a folder with config.json, model.safetensors and README.md, which `load_encoder` reads without
the training images and without executing anything from it.
"""

from typing import TYPE_CHECKING, Any

from simjax.encoder._config import EncoderConfig, Preprocessing
from simjax.encoder._encoder import Encoder
from simjax.encoder._images import find_identities, find_images
from simjax.encoder._load import load_encoder, pretrained_network, ready_encoders
from simjax.encoder._pretrained import PREPROCESSING as PRETRAINED_PREPROCESSING
from simjax.encoder._pretrained import PRETRAINED

if TYPE_CHECKING:
    from simjax.encoder._transformer import EncoderTransformer

__all__ = [
    "Encoder",
    "EncoderConfig",
    "EncoderTransformer",
    "PRETRAINED",
    "PRETRAINED_PREPROCESSING",
    "Preprocessing",
    "find_identities",
    "find_images",
    "load_encoder",
    "pretrained_network",
    "ready_encoders",
]


def __getattr__(name: str) -> Any:
    """Import `EncoderTransformer` when it is first used, because scikit-learn takes a second to import."""
    if name == "EncoderTransformer":
        from simjax.encoder._transformer import EncoderTransformer

        return EncoderTransformer
    raise AttributeError(f"module 'simjax.encoder' has no attribute {name!r}")
