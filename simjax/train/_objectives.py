"""All objectives and what they need, in one table; and all miners.

An objective is a loss of `simjax.losses`, and three things say how it is trained:

    batch     classes   m images of each of a few classes, so that there are positives
              images    in the epoch's order
              views     in the epoch's order, each image twice, changed at random in two ways
    learns    what the loss learns beside the encoder: a head that gives logits, a vector for each class or several
              (centers), the boundary between positives and negatives, scale and bias of a sigmoid, a predictor
    mined     whether a miner may choose its pairs and triplets

Not here are losses of graded scores (cosent, angle) and of a teacher (distillation), for which images with labels have
nothing to offer, and intra_pair_variance, which is made to be added to another.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from simjax import losses, mining


class Needs(NamedTuple):
    """A row of the table.

    Attributes:
        loss: of `simjax.losses`, or None for softmax, whose head is the classifier.
        batch: what a step sees, see above.
        learns: what the loss learns, see above.
        mined: see above.
        measure: by which embeddings of unit length, or else as they are, are meant to be compared.
    """

    loss: Callable[..., Any] | None
    batch: Literal["classes", "images", "views"]
    learns: Literal["nothing", "head", "vectors", "centers", "boundary", "sigmoid", "predictor"] = "nothing"
    mined: bool = False
    measure: str = "cosine"


# fmt: off
OBJECTIVES: dict[str, Needs] = {
    "softmax":                      Needs(None, "images", "head"),
    # pairs and triplets
    "contrastive":                  Needs(losses.contrastive_loss, "classes", mined=True),
    "triplet":                      Needs(losses.triplet_margin_loss, "classes", mined=True),
    "triplet_margin":               Needs(losses.triplet_margin_loss, "classes", mined=True),
    "margin":                       Needs(losses.margin_loss, "classes", "boundary", mined=True),
    "dynamic_soft_margin":          Needs(losses.dynamic_soft_margin_loss, "classes", mined=True),
    "signal_to_noise_contrastive":  Needs(losses.signal_to_noise_contrastive_loss, "classes", mined=True),
    "threshold_consistent_margin":  Needs(losses.threshold_consistent_margin_loss, "classes", mined=True),
    "multi_similarity":             Needs(losses.multi_similarity_loss, "classes", mined=True),
    "circle":                       Needs(losses.circle_loss, "classes", mined=True),
    "angular":                      Needs(losses.angular_loss, "classes", mined=True),
    "tuplet_margin":                Needs(losses.tuplet_margin_loss, "classes", mined=True),
    "nt_xent":                      Needs(losses.nt_xent_loss, "classes", mined=True),
    "supervised_contrastive":       Needs(losses.supervised_contrastive_loss, "classes", mined=True),
    "n_pairs":                      Needs(losses.n_pairs_loss, "classes"),
    "instance":                     Needs(losses.instance_loss, "classes"),
    "nca":                          Needs(losses.nca_loss, "classes", mined=True),
    "lifted_structure":             Needs(losses.lifted_structure_loss, "classes", mined=True),
    "generalized_lifted_structure": Needs(losses.generalized_lifted_structure_loss, "classes", mined=True),
    "histogram":                    Needs(losses.histogram_loss, "classes", mined=True),
    # ranks
    "ranked_list":                  Needs(losses.ranked_list_loss, "classes", mined=True),
    "fast_ap":                      Needs(losses.fast_ap_loss, "classes", mined=True),
    "smooth_ap":                    Needs(losses.smooth_ap_loss, "classes", mined=True),
    "pnp":                          Needs(losses.pnp_loss, "classes", mined=True),
    # class vectors
    "normalized_softmax":           Needs(losses.normalized_softmax_loss, "images", "vectors"),
    "cosface":                      Needs(losses.cosface_loss, "images", "vectors"),
    "arcface":                      Needs(losses.arcface_loss, "images", "vectors"),
    "sub_center_arcface":           Needs(losses.sub_center_arcface_loss, "images", "centers"),
    "sphereface":                   Needs(losses.sphereface_loss, "images", "vectors"),
    "large_margin_softmax":         Needs(losses.large_margin_softmax_loss, "images", "vectors"),
    "soft_triple":                  Needs(losses.soft_triple_loss, "images", "centers"),
    "p2s_grad":                     Needs(losses.p2s_grad_loss, "images", "vectors"),
    "proxy_nca":                    Needs(losses.proxy_nca_loss, "images", "vectors"),
    "proxy_anchor":                 Needs(losses.proxy_anchor_loss, "images", "vectors"),
    "manifold":                     Needs(losses.manifold_loss, "images", "vectors"),
    # two views
    "info_nce":                     Needs(losses.info_nce_loss, "views"),
    "siglip":                       Needs(losses.siglip_loss, "views", "sigmoid"),
    "vicreg":                       Needs(losses.vicreg_loss, "views", measure="euclidean"),
    "barlow_twins":                 Needs(losses.barlow_twins_loss, "views"),
    "simsiam":                      Needs(losses.simsiam_loss, "views", "predictor"),
}
# fmt: on

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
