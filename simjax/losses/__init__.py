"""Losses that learn similarity: pure functions of embeddings and labels that return a scalar.

Most losses have these arguments, which their own docstrings do not repeat:

    embeddings    rows to compare, [n, d]; they need not have unit length
    labels        class ids [n], or a `Relation` that says which pairs are positive and negative, as a miner returns
    proxies       learned vectors of c classes, [c, d], or k of each class, [c, k, d]; they need not have unit length.
                  Class ids are then from 0 to c - 1, and a row with a negative id has no term.
    measure       name of a measure or a `Measure`; by default cosine
    **options     see `PairOptions`, `ReferenceOptions` and `ClassOptions`; the default reducer is "mean"

A loss computes terms, and a reducer makes them one number, by default their mean. If there are no terms, the loss is 0
with zero gradient. Without reference embeddings the columns are the rows, a row is not paired with itself, and each
pair of a batch is compared in both directions. Scores s_ij of rows i and columns j are larger for closer pairs: a
distance is negated. The similarity matrix is computed in tiles, blocks of rows with all columns, and never stored.

Every loss raises an `InputError` if shapes do not match, a hyper-parameter is outside its range, or the name of a
measure, reducer or variant is unknown, and a `TypeError` if labels are not integers or an option is unknown.
"""

from simjax.losses._angular import angular_loss
from simjax.losses._contrastive import (
    contrastive_loss,
    contrastive_terms,
    intra_pair_variance_loss,
    signal_to_noise_contrastive_loss,
    threshold_consistent_margin_loss,
)
from simjax.losses._graded import angle_loss, cosent_loss, score_distillation_loss, similarity_distillation_loss
from simjax.losses._margin import margin_loss, ranked_list_loss
from simjax.losses._multi_pair import (
    circle_loss,
    generalized_lifted_structure_loss,
    lifted_structure_loss,
    multi_similarity_loss,
    tuplet_margin_loss,
)
from simjax.losses._options import ClassOptions, PairOptions, ReferenceOptions
from simjax.losses._pair_loss import pair_loss
from simjax.losses._proxies import instance_loss, manifold_loss, proxy_anchor_loss, proxy_nca_loss
from simjax.losses._ranking import fast_ap_loss, histogram_loss, pnp_loss, smooth_ap_loss
from simjax.losses._regularizers import (
    center_invariant_regularizer,
    global_orthogonal_regularizer,
    lp_regularizer,
    regular_face_regularizer,
    sparse_centers_regularizer,
    zero_mean_regularizer,
)
from simjax.losses._self_supervised import barlow_twins_loss, self_supervised_loss, simsiam_loss, vicreg_loss
from simjax.losses._softmax import (
    info_nce_loss,
    n_pairs_loss,
    nca_loss,
    nt_xent_loss,
    siglip_loss,
    supervised_contrastive_loss,
)
from simjax.losses._softmax_margin import (
    arcface_loss,
    cosface_loss,
    large_margin_softmax_loss,
    normalized_softmax_loss,
    p2s_grad_loss,
    sphereface_loss,
)
from simjax.losses._sub_centers import SubCenterOutliers, soft_triple_loss, sub_center_arcface_loss, sub_center_outliers
from simjax.losses._terms import REDUCERS, LossTerms, Reducer, unreduced
from simjax.losses._triplet import dynamic_soft_margin_histogram, dynamic_soft_margin_loss, triplet_margin_loss
from simjax.losses._wrappers import combined_loss, encode_in_chunks, matryoshka_loss

__all__ = [
    "ClassOptions",
    "LossTerms",
    "PairOptions",
    "REDUCERS",
    "Reducer",
    "ReferenceOptions",
    "SubCenterOutliers",
    "angle_loss",
    "angular_loss",
    "arcface_loss",
    "barlow_twins_loss",
    "center_invariant_regularizer",
    "circle_loss",
    "combined_loss",
    "contrastive_loss",
    "contrastive_terms",
    "cosent_loss",
    "cosface_loss",
    "dynamic_soft_margin_histogram",
    "dynamic_soft_margin_loss",
    "encode_in_chunks",
    "fast_ap_loss",
    "generalized_lifted_structure_loss",
    "global_orthogonal_regularizer",
    "histogram_loss",
    "info_nce_loss",
    "instance_loss",
    "intra_pair_variance_loss",
    "large_margin_softmax_loss",
    "lifted_structure_loss",
    "lp_regularizer",
    "manifold_loss",
    "margin_loss",
    "matryoshka_loss",
    "multi_similarity_loss",
    "n_pairs_loss",
    "nca_loss",
    "normalized_softmax_loss",
    "nt_xent_loss",
    "p2s_grad_loss",
    "pair_loss",
    "pnp_loss",
    "proxy_anchor_loss",
    "proxy_nca_loss",
    "ranked_list_loss",
    "regular_face_regularizer",
    "score_distillation_loss",
    "self_supervised_loss",
    "siglip_loss",
    "signal_to_noise_contrastive_loss",
    "similarity_distillation_loss",
    "simsiam_loss",
    "smooth_ap_loss",
    "soft_triple_loss",
    "sparse_centers_regularizer",
    "sphereface_loss",
    "sub_center_arcface_loss",
    "sub_center_outliers",
    "supervised_contrastive_loss",
    "threshold_consistent_margin_loss",
    "triplet_margin_loss",
    "tuplet_margin_loss",
    "unreduced",
    "vicreg_loss",
    "zero_mean_regularizer",
]
