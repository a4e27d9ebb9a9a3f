"""The registry of objectives and miners: one row for each.

A row names the function of `simjax.losses` or `simjax.mining` and says how it is trained. The settings that an
objective or a miner takes are read from the signature of the function, so a loss declares its hyper-parameters once.

Not registered are losses that need more than images with labels: losses of graded scores (cosent, angle) and of a
teacher (distillation). `intra_pair_variance_loss` is made to be added to another loss.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from simjax import losses, mining


class ObjectiveSpec(NamedTuple):
    """How a loss is trained.

    Attributes:
        loss: Function of `simjax.losses`, or None for cross-entropy of a classifier.
        batch: How the images of a step are chosen. "classes": m images of each of several classes, so that there are
            positive pairs; "images": the next images of the epoch; "views": two augmented views of the next images.
        extra_parameters: Trainable parameters other than those of the encoder: a classification head, one proxy per
            class, several proxies per class ("centers"), beta, scale and bias of a sigmoid, or a predictor.
        mined: Whether a miner may select the pairs and triplets.
        unit_distance: Whether the loss measures Euclidean distances between unit vectors by default. Without the
            setting `loss.normalize` the embeddings are not scaled to unit length.
        measure: Name of the measure by which embeddings are compared after training.
    """

    loss: Callable[..., Any] | None
    batch: Literal["classes", "images", "views"]
    extra_parameters: Literal["head", "proxies", "centers", "beta", "scale_and_bias", "predictor"] | None = None
    mined: bool = False
    unit_distance: bool = False
    measure: str = "cosine"


_mined = functools.partial(ObjectiveSpec, batch="classes", mined=True)
_mined_distance = functools.partial(ObjectiveSpec, batch="classes", mined=True, unit_distance=True)
_proxy = functools.partial(ObjectiveSpec, batch="images", extra_parameters="proxies")

OBJECTIVES: dict[str, ObjectiveSpec] = {
    "softmax": ObjectiveSpec(None, "images", "head"),
    # pairs and triplets
    "contrastive": _mined_distance(losses.contrastive_loss),
    "triplet": _mined_distance(losses.triplet_margin_loss),
    "triplet_margin": _mined_distance(losses.triplet_margin_loss),
    "margin": _mined_distance(losses.margin_loss, extra_parameters="beta"),
    "dynamic_soft_margin": _mined_distance(losses.dynamic_soft_margin_loss),
    "signal_to_noise_contrastive": _mined(losses.signal_to_noise_contrastive_loss),
    "threshold_consistent_margin": _mined(losses.threshold_consistent_margin_loss),
    "multi_similarity": _mined(losses.multi_similarity_loss),
    "circle": _mined(losses.circle_loss),
    "angular": _mined(losses.angular_loss),
    "tuplet_margin": _mined(losses.tuplet_margin_loss),
    "nt_xent": _mined(losses.nt_xent_loss),
    "supervised_contrastive": _mined(losses.supervised_contrastive_loss),
    "n_pairs": ObjectiveSpec(losses.n_pairs_loss, "classes"),
    "instance": ObjectiveSpec(losses.instance_loss, "classes"),
    "nca": _mined(losses.nca_loss),
    "lifted_structure": _mined_distance(losses.lifted_structure_loss),
    "generalized_lifted_structure": _mined_distance(losses.generalized_lifted_structure_loss),
    "histogram": _mined(losses.histogram_loss),
    # ranking
    "ranked_list": _mined_distance(losses.ranked_list_loss),
    "fast_ap": _mined(losses.fast_ap_loss),
    "smooth_ap": _mined(losses.smooth_ap_loss),
    "pnp": _mined(losses.pnp_loss),
    # proxies
    "normalized_softmax": _proxy(losses.normalized_softmax_loss),
    "cosface": _proxy(losses.cosface_loss),
    "arcface": _proxy(losses.arcface_loss),
    "sub_center_arcface": _proxy(losses.sub_center_arcface_loss, extra_parameters="centers"),
    "sphereface": _proxy(losses.sphereface_loss),
    "large_margin_softmax": _proxy(losses.large_margin_softmax_loss),
    "soft_triple": _proxy(losses.soft_triple_loss, extra_parameters="centers"),
    "p2s_grad": _proxy(losses.p2s_grad_loss),
    "proxy_nca": _proxy(losses.proxy_nca_loss),
    "proxy_anchor": _proxy(losses.proxy_anchor_loss),
    "manifold": _proxy(losses.manifold_loss),
    # two augmented views
    "info_nce": ObjectiveSpec(losses.info_nce_loss, "views"),
    "siglip": ObjectiveSpec(losses.siglip_loss, "views", "scale_and_bias"),
    "vicreg": ObjectiveSpec(losses.vicreg_loss, "views", measure="euclidean"),
    "barlow_twins": ObjectiveSpec(losses.barlow_twins_loss, "views"),
    "simsiam": ObjectiveSpec(losses.simsiam_loss, "views", "predictor"),
}

MINERS: dict[str, Callable[..., Any]] = {
    "batch_hard": mining.batch_hard,
    "batch_easy_hard": mining.batch_easy_hard,
    "semi_hard": mining.semi_hard,
    "n_hard": mining.n_hard,
    "hard_aware": mining.hard_aware,
    "multi_similarity": mining.multi_similarity,
    "pair_margin": mining.pair_margin,
    "triplet_margin": mining.triplet_margin,
    "angular": mining.angular,
    "distance_weighted": mining.distance_weighted,
    "uniform_histogram": mining.uniform_histogram,
    "curriculum": mining.curriculum,
    "cluster_hard": mining.cluster_hard,
}

NO_SETTINGS = frozenset(
    {"embeddings", "labels", "ref_embeddings", "ref_labels", "relation"}  # data
    | {"x", "y", "prediction", "projection", "other_prediction", "other_projection"}  # two views
    | {"proxies", "histogram", "key"}  # learned parameters and state
    | {"weights", "block_size", "options"}
)
"""Arguments of losses and miners that are not settings."""


@functools.cache
def hyper_parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the hyper-parameters of a loss or a miner, including those of `**options: Unpack[SomeTypedDict]`."""
    parameters = dict(inspect.signature(function, eval_str=True).parameters)
    if "options" in parameters:
        for options in typing.get_args(parameters["options"].annotation):  # empty if the annotation is Any
            for name in getattr(options, "__annotations__", {}):
                parameters.setdefault(name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY))
    return {name: parameter for name, parameter in parameters.items() if name not in NO_SETTINGS}


@functools.cache
def settings_of_objective(name: str) -> frozenset[str]:
    """Return the fields of `LossSettings` that an objective takes."""
    spec = OBJECTIVES[name]
    if spec.loss is None:
        return frozenset({"head", "label_smoothing"})
    own = hyper_parameters(spec.loss)
    taken = {
        "pairs": name == "contrastive",
        "positives": spec.batch == "classes",
        "batches": spec.batch == "classes",
        "samples_per_class": spec.batch == "classes",
        "memory": spec.mined,
        "normalize": spec.unit_distance,
        "centers": spec.extra_parameters == "centers",
        "boundary": spec.extra_parameters == "beta",
        "learned_measure": spec.mined and "measure" in own,
        "measure_size": spec.mined and "measure" in own,
        "reducer": "options" in inspect.signature(spec.loss).parameters,
        "learn_temperature": "temperature" in own,
        "parameters_rate": "temperature" in own
        or spec.extra_parameters in ("proxies", "centers", "beta", "scale_and_bias"),
    }
    return frozenset(own) | {setting for setting, is_taken in taken.items() if is_taken}


@functools.cache
def settings_of_miner(name: str) -> frozenset[str]:
    """Return the fields of `MiningSettings` that a miner takes."""
    schedule = {"start", "length"} if name == "curriculum" else set()
    return frozenset({*hyper_parameters(MINERS[name]), *schedule}) if name in MINERS else frozenset()
