"""Defaults that depend on the model, the data set and the objective; tuned values were tuned on validation images."""

from dataclasses import replace
from typing import Any, Literal

from simjax.data import default_augmentation, split_name
from simjax.train._settings import Settings

EPOCHS = {"digits": 60.0, "mnist": 10.0, "fashion_mnist": 10.0, "cifar10": 15.0, "cifar100": 15.0}
IMAGES_SEEN = 600_000  # by other data sets, in 2 to 60 epochs
VIT_EPOCHS_FACTOR = 2.0  # a transformer lacks the inductive bias of a convolution
LEARNING_RATE = {"cnn": 3e-3, "vit": 3e-3, "dnn": 2e-3}
WEIGHT_DECAY = {"cnn": 0.02, "vit": 0.05, "dnn": 0.05}
VIT_PATCH = {"mnist": 7, "fashion_mnist": 7}  # 16 patches take a fifth of the time of 49
MARGIN = {"contrastive": 0.5, "triplet": 0.2, "triplet_margin": 0.2}
FORM: dict[str, Literal["linear"]] = {"contrastive": "linear"}
EMBEDDING_SIZE, CLASSIC_EMBEDDING_SIZE = 64, 2


def fill_defaults(settings: Settings, train_images: int) -> Settings:
    """Return settings whose `None`s are replaced by the recipe's defaults; other settings stay as they are.

    Args:
        settings: Any settings; filled ones are returned unchanged.
        train_images: Number of training images.
    """
    s, optimizer = settings, settings.optimizer
    dataset, _ = split_name(s.dataset)  # some classes of a data set use the recipe of the whole data set
    classic = s.model == "cnn" and s.cnn.variant == "classic"
    return replace(
        s,
        epochs=None if s.steps else s.epochs or _epochs(s, dataset, train_images),
        embedding_size=s.embedding_size or (CLASSIC_EMBEDDING_SIZE if classic else EMBEDDING_SIZE),
        vit=replace(s.vit, patch_size=s.vit.patch_size or VIT_PATCH.get(dataset)),
        augment=replace(s.augment, **_augmentation(s, dataset)),
        loss=replace(
            s.loss,
            margin=_or(s.loss.margin, MARGIN.get(s.objective)),
            form=s.loss.form or FORM.get(s.objective),
        ),
        optimizer=replace(
            optimizer,
            learning_rate=_or(optimizer.learning_rate, LEARNING_RATE[s.model]),
            weight_decay=_or(optimizer.weight_decay, WEIGHT_DECAY[s.model]),
        ),
    )


def _epochs(settings: Settings, dataset: str, train_images: int) -> float:
    epochs = EPOCHS.get(dataset) or float(min(60, max(2, round(IMAGES_SEEN / max(train_images, 1)))))
    return epochs * (VIT_EPOCHS_FACTOR if settings.model == "vit" else 1.0)


def _augmentation(settings: Settings, dataset: str) -> dict[str, Any]:
    if not settings.augment.enabled:
        return {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "flip": False}
    default = default_augmentation(dataset)
    names = ("shift", "rotation", "scale", "flip")
    return {name: _or(getattr(settings.augment, name), getattr(default, name)) for name in names}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
