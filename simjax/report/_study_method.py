"""What was done in a study: images, where the networks measure similarity, settings and the budget."""

from collections.abc import Callable, Sequence
from typing import Any

from simjax.report import _numbers as numbers
from simjax.report._page import Block, Row, Table, Text
from simjax.report._run import MODEL_NAMES
from simjax.report._study_group import MEASURE_NAMES, Group

FORMULAS = {
    "dot": "x.w",
    "cosine": "x.w / (|x| |w|)",
    "squared_euclidean": "-|x - w|^2",
    "rbf": "exp(-gamma |x - w|^2)",
    "manhattan": "-sum |x_k - w_k|",
}
PLACES = {
    "cnn": "the CNN compares the patches around all pixels with the weights of each filter",
    "vit": "the ViT compares patches and the inputs of neurons with weights, and queries with keys (attention)",
    "dnn": "the dense network compares its inputs with the weights of each neuron",
    "logistic": "logistic regression compares the image with the weights of each class",
}
CHANGES = {
    "shift": ("shifted by up to {:.3g}%", 100),
    "rotation": ("rotated by up to {:g} degrees", 1),
    "scale": ("scaled by up to {:.3g}%", 100),
    "cutout": ("partly covered by a square of {:.3g}% of the width", 100),
}


def method(plan: dict[str, Any], groups: Sequence[Group]) -> list[Block]:
    """Return paragraphs about the images, the measures, the settings and the budget."""
    blocks: list[Block] = [Text(text) for text in dict.fromkeys(map(_images, groups)) if text]
    measures = list(dict.fromkeys(measure for group in groups for measure in group.measures))
    models = list(dict.fromkeys(model for group in groups for model in group.models))
    places = "; ".join(PLACES[model] for model in models if model in PLACES)
    if len(measures) > 1:
        blocks.append(
            Text(
                f"Similarity is measured in every layer: {places}; at the end, the embedding of an image is compared "
                "with the weights of each class, if there are any. These measures take the place of each other:"
            )
        )
        rows: list[Row] = [[MEASURE_NAMES.get(m, m), FORMULAS.get(m, "")] for m in measures]
        blocks.append(Table(["Measure", "Score of an input x and weights w"], rows, align="ll"))
        blocks.append(
            Text(
                "Scores other than the dot product are standardized; a learned scale and the bias of the layer follow."
            )
        )
    return [*blocks, Text(f"{_settings(groups)} {_budget(plan, groups)}".strip())]


def _images(group: Group) -> str:
    """Return a sentence about the images of a group, empty if its runs do not say how many there are."""
    data = group.networks[0].runs[0].part("data")
    if not data.get("test_images") or not data.get("image_shape"):
        return ""
    h, w, c = data["image_shape"]
    train, validation, test = (numbers.count(data.get(f"{name}_images")) for name in ("train", "validation", "test"))
    return (
        f"Images: {group.dataset}, {w}x{h} pixels{' in colour' if c == 3 else ''}, {len(data['class_names'])} classes; "
        f"{train} for training, {validation} for validation, {test} for tests. One test image is "
        f"{100 / data['test_images']:.2g} percentage points of the accuracy of one run."
    )


def _settings(groups: Sequence[Group]) -> str:
    """Return the settings of the networks, with the models for which one holds if it is not the same for all."""
    settings = [(network.model, network.planned["settings"]) for group in groups for network in group.networks]
    if not all("optimizer" in of and "augment" in of for _, of in settings):
        return ""

    def of_models(show: Callable[[dict[str, Any]], str]) -> str:
        models: dict[str, list[str]] = {}
        for model, of in settings:
            names = models.setdefault(show(of), [])
            names += [name for name in [MODEL_NAMES.get(model, model)] if name not in names]
        if len(models) == 1:
            return next(iter(models))
        return ", ".join(f"{value} ({', '.join(names)})" for value, names in models.items())

    rate, decay = (
        of_models(lambda of, name=name: f"{of['optimizer'][name]:g}") for name in ("learning_rate", "weight_decay")
    )
    batch = of_models(lambda of: str(of["batch_size"]))
    return (
        f"Trained by the objective {of_models(_objective)}; AdamW with learning rates up to {rate}, weight decay "
        f"{decay}, batches of {batch} images; training images: {of_models(_augmentation)}. Settings that the file of "
        "the study does not name are the defaults of each model; plan.json in the folder of this page has all of them."
    )


def _objective(settings: dict[str, Any]) -> str:
    smoothing = settings["loss"].get("label_smoothing")
    return settings["objective"] + (f" with label smoothing {smoothing:g}" if smoothing else "")


def _augmentation(settings: dict[str, Any]) -> str:
    augment = settings["augment"]
    changes = [text.format(unit * augment[name]) for name, (text, unit) in CHANGES.items() if augment.get(name)]
    changes += ["flipped at random"] if augment.get("flip") else []
    return " and ".join(changes) if augment.get("enabled") and changes else "unchanged"


def _budget(plan: dict[str, Any], groups: Sequence[Group]) -> str:
    """Return a sentence about when the training of the networks ends."""
    budget, networks = plan["study"]["budget"], [network for group in groups for network in group.networks]
    amount, limit = budget["amount"], numbers.quantity(budget["max_epochs"], "epoch")
    if budget["rule"] == "parameters":
        sizes = [network.planned["parameters"] for network in networks]
        return (
            f"The widths of the networks are scaled for {amount:,.0f} parameters: they have {min(sizes):,} to "
            f"{max(sizes):,}, and {limit} of training."
        )
    ends = {
        "training_flops": f"{amount / 1e9:,.0f} billion operations",
        "seconds": numbers.quantity(round(amount), "second"),
        "epochs": numbers.quantity(amount, "epoch"),
    }[budget["rule"]]
    capped = sum(network.planned["is_capped"] for network in networks)
    if not capped:
        return f"Training ends after {ends}."
    which = "all networks" if capped == len(networks) else f"{capped} of the {len(networks)} networks"
    return (
        f"Training ends after {ends} or {limit}, whichever is first: {limit} for {which}, so that the budgets are not "
        "equal (see Budgets)."
    )
