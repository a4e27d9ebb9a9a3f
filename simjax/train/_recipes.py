"""Defaults that depend on the model, the data and the objective; those that were tuned were on validation images."""

from dataclasses import replace
from typing import Any, Literal

from simjax.train._settings import Settings

EPOCHS = {"digits": 60.0, "mnist": 10.0, "fashion_mnist": 10.0, "cifar10": 15.0, "cifar100": 15.0}
OTHER_IMAGES = 600_000  # seen in all by other data, in 2 to 60 epochs
VIT_LONGER = 2.0  # a transformer has to learn what a convolution is built with
LEARNING_RATE = {"cnn": 3e-3, "vit": 3e-3, "dnn": 2e-3}
WEIGHT_DECAY = {"cnn": 0.02, "vit": 0.05, "dnn": 0.05}
VIT_PATCH = {"mnist": 7, "fashion_mnist": 7}  # 16 patches take a fifth of the time of 49
MARGIN = {"contrastive": 0.5, "triplet": 0.2, "triplet_margin": 0.2}
FORM: dict[str, Literal["linear"]] = {"contrastive": "linear"}


def complete(settings: Settings, train_images: int) -> Settings:
    """The settings with every `None` that a recipe decides filled in; completed settings stay as they are."""
    from simjax.data import default_augmentation, split_name

    s = settings
    of_whole, _ = split_name(s.dataset)  # some classes of a set are learned as the whole set is
    classic = s.model == "cnn" and s.cnn.variant == "classic"
    augmentation: dict[str, Any] = {
        name: getattr(default_augmentation(of_whole), name) for name in ("shift", "rotation", "scale", "flip")
    }
    given = {name: value for name in augmentation if (value := getattr(s.augment, name)) is not None}
    off = dict.fromkeys(("shift", "rotation", "scale"), 0.0) | {"flip": False}
    return replace(
        s,
        epochs=None if s.steps else s.epochs or _epochs(s, of_whole, train_images),
        embedding_size=s.embedding_size or (2 if classic else 64),
        vit=replace(s.vit, patch_size=s.vit.patch_size or VIT_PATCH.get(of_whole)),
        augment=replace(s.augment, **(augmentation | given if s.augment.enabled else off)),
        loss=replace(
            s.loss,
            margin=_or(s.loss.margin, MARGIN.get(s.objective)),
            form=s.loss.form or FORM.get(s.objective),
        ),
        optimizer=replace(
            s.optimizer,
            learning_rate=_or(s.optimizer.learning_rate, LEARNING_RATE[s.model]),
            weight_decay=_or(s.optimizer.weight_decay, WEIGHT_DECAY[s.model]),
        ),
    )


def _epochs(settings: Settings, dataset: str, train_images: int) -> float:
    epochs = EPOCHS.get(dataset) or float(min(60, max(2, round(OTHER_IMAGES / max(train_images, 1)))))
    return epochs * (VIT_LONGER if settings.model == "vit" else 1.0)


def _or(value: float | None, default: float | None) -> float | None:
    return default if value is None else value
