"""Losses that learn similarity: pure functions of embeddings and of who is similar to whom."""

from simjax.losses._contrastive import (
    contrastive_loss,
    contrastive_terms,
    signal_to_noise_contrastive_loss,
    threshold_consistent_margin_loss,
)
from simjax.losses._graded import angle_loss, cosent_loss, score_distillation_loss, similarity_distillation_loss
from simjax.losses._margin import margin_loss, ranked_list_loss
from simjax.losses._multi_pair import (
    circle_loss,
    generalized_lifted_structure_loss,
    intra_pair_variance_loss,
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
from simjax.losses._triplet import (
    angular_loss,
    dynamic_soft_margin_histogram,
    dynamic_soft_margin_loss,
    triplet_margin_loss,
)
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
