"""The recipe: defaults that depend on the model, the data set and the objective, tuned on validation images."""

from dataclasses import replace
from typing import Any, Literal

from simjax.data import Augmentation, default_augmentation, split_name
from simjax.encoder import PRETRAINED, PRETRAINED_PREPROCESSING
from simjax.train._settings import Settings

EPOCHS = {"digits": 60.0, "mnist": 10.0, "fashion_mnist": 10.0, "cifar10": 15.0, "cifar100": 15.0}
TRAINING_IMAGES = 600_000  # images processed with other data sets, in at least 2 and at most 60 epochs
VIT_EPOCHS_FACTOR = 2.0  # relative to the other models, as a transformer lacks the inductive bias of a CNN
LEARNING_RATE = {"cnn": 3e-3, "vit": 3e-3, "dnn": 2e-3, "logistic": 1e-2, "efficientnet-lite0": 1e-3}
WEIGHT_DECAY = {"cnn": 0.02, "vit": 0.05, "dnn": 0.05, "logistic": 0.05, "efficientnet-lite0": 0.01}
VIT_PATCH = {"mnist": 7, "fashion_mnist": 7}  # 16 patches are about 5 times as fast as 49
MARGIN = {"contrastive": 0.5, "triplet": 0.2, "triplet_margin": 0.2}
VARIANT: dict[str, Literal["linear"]] = {"contrastive": "linear"}
EMBEDDING_SIZE, CLASSIC_EMBEDDING_SIZE = 64, 2


def fill_reading_defaults(settings: Settings) -> Settings:
    """Return settings that read images as a pretrained network expects them; other networks take any images."""
    if settings.model != PRETRAINED:
        return settings
    height, _, channels = PRETRAINED_PREPROCESSING.image_shape
    data = replace(settings.data, image_size=settings.data.image_size or height, channels=channels)
    return replace(settings, data=data)


def fill_defaults(settings: Settings, train_images: int) -> Settings:
    """Return settings with None replaced by the default of the recipe, if it has one."""
    s, optimizer = settings, settings.optimizer
    dataset, _ = split_name(s.dataset)  # a selection of classes has the recipe of the whole data set
    is_classic = s.model == "cnn" and s.cnn.variant == "classic"
    default_size = CLASSIC_EMBEDDING_SIZE if is_classic else None if s.model == "logistic" else EMBEDDING_SIZE
    return replace(
        s,
        epochs=None if s.steps else s.epochs or _epochs(s, dataset, train_images),
        embedding_size=s.embedding_size or default_size,
        vit=replace(s.vit, patch_size=s.vit.patch_size or VIT_PATCH.get(dataset)),
        augment=replace(s.augment, **_augmentation(s, dataset)),
        loss=replace(
            s.loss,
            margin=_or(s.loss.margin, MARGIN.get(s.objective)),
            variant=s.loss.variant or VARIANT.get(s.objective),
        ),
        optimizer=replace(
            optimizer,
            learning_rate=_or(optimizer.learning_rate, LEARNING_RATE[s.model]),
            weight_decay=_or(optimizer.weight_decay, WEIGHT_DECAY[s.model]),
        ),
    )


def _epochs(settings: Settings, dataset: str, train_images: int) -> float:
    epochs = EPOCHS.get(dataset) or float(min(60, max(2, round(TRAINING_IMAGES / max(train_images, 1)))))
    return epochs * (VIT_EPOCHS_FACTOR if settings.model == "vit" else 1.0)


def _augmentation(settings: Settings, dataset: str) -> dict[str, Any]:
    if not settings.augment.enabled:
        return {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "flip": False, "cutout": 0.0}
    # A linear classifier of pixels cannot follow images that are moved: on MNIST, 3 epochs, --optimizer.learning-rate
    # 1e-2, its validation accuracy is 0.883 with the augmentation of the other models and 0.914 without.
    default = Augmentation() if settings.model == "logistic" else default_augmentation(dataset)
    names = ("shift", "rotation", "scale", "flip", "cutout")
    return {name: _or(getattr(settings.augment, name), getattr(default, name)) for name in names}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
