"""What was done in a study: images, where the networks measure similarity, the recipe and the budget."""

from collections.abc import Sequence
from typing import Any

from simjax.report import _numbers as numbers
from simjax.report._page import Block, Row, Table, Text
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
    "shift": ("shifted by at most {:.3g}% of their size", 100),
    "rotation": ("rotated by at most {:g} degrees", 1),
    "scale": ("scaled by at most {:.3g}%", 100),
    "cutout": ("covered by a black square of {:.3g}% of the width", 100),
}


def method(plan: dict[str, Any], groups: Sequence[Group]) -> list[Block]:
    """Return paragraphs about the images, the measures, the recipe and the budget."""
    images = [Text(text) for group in groups if (text := _images(group))]
    measures = list(dict.fromkeys(measure for group in groups for measure in group.measures))
    models = list(dict.fromkeys(model for group in groups for model in group.models))
    places = "; ".join(PLACES[model] for model in models if model in PLACES)
    if places:
        images.append(
            Text(
                f"Similarity is measured in every layer: {places}. At the end, the embedding of an image is compared "
                "with the weights of each class. This measure is what differs:"
            )
        )
    rows: list[Row] = [[MEASURE_NAMES.get(m, m), FORMULAS.get(m, "")] for m in measures]
    table = Table(["Measure", "Score of an input x and weights w"], rows, align="ll")
    note = (
        "Scores other than the dot product are standardized; a learned scale and a bias follow."
        if measures != ["dot"]
        else ""
    )
    return [*images, table, Text(f"{note} {_recipe(groups[0].settings)} {_budget(plan, groups)}".strip())]


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


def _recipe(settings: dict[str, Any]) -> str:
    """Return sentences about the settings that all networks share, empty if they are unknown."""
    optimizer, augment = settings.get("optimizer"), settings.get("augment")
    if not optimizer or not augment:
        return ""
    smoothing = settings["loss"]["label_smoothing"]
    changes = [text.format(unit * augment[name]) for name, (text, unit) in CHANGES.items() if augment[name]]
    changes += ["flipped from left to right at random"] if augment["flip"] else []
    return (
        f"All networks have one recipe: the {settings['objective']} objective"
        f"{f' with label smoothing {smoothing:g}' if smoothing else ''}, batches of {settings['batch_size']} images, "
        f"AdamW with learning rates up to {optimizer['learning_rate']:g} and weight decay "
        f"{optimizer['weight_decay']:g}; training images are "
        f"{', '.join(changes) if augment['enabled'] and changes else 'not augmented'}. plan.json in the folder of "
        "this page has all settings."
    )


def _budget(plan: dict[str, Any], groups: Sequence[Group]) -> str:
    """Return a sentence about when the training of the networks ends."""
    budget, networks = plan["study"]["budget"], [network for group in groups for network in group.networks]
    amount, limit = budget["amount"], f"{budget['max_epochs']:g} epochs"
    if budget["rule"] == "parameters":
        return f"All networks have about {amount:,.0f} parameters and {limit} of training."
    ends = {
        "training_flops": f"{amount / 1e9:,.0f} billion operations",
        "seconds": f"{amount:,.0f} seconds",
        "epochs": f"{amount:g} epochs",
    }[budget["rule"]]
    capped = sum(network.planned["is_capped"] for network in networks)
    if not capped:
        return f"Training ends after {ends}."
    which = "all networks" if capped == len(networks) else f"{capped} of the {len(networks)} networks"
    return (
        f"Training ends after {ends} or {limit}, whichever is first: {limit} for {which}, so that the budgets are not "
        "equal (see Budgets)."
    )
