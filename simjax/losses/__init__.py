"""Losses that learn similarity: pure functions of embeddings and of who is similar to whom."""

from simjax.losses._angular import angular_loss as angular_loss
from simjax.losses._angular_margin import arcface_loss as arcface_loss
from simjax.losses._angular_margin import cosface_loss as cosface_loss
from simjax.losses._angular_margin import normalized_softmax_loss as normalized_softmax_loss
from simjax.losses._circle import circle_loss as circle_loss
from simjax.losses._combined import combined_loss as combined_loss
from simjax.losses._contrastive import contrastive_loss as contrastive_loss
from simjax.losses._contrastive import contrastive_terms as contrastive_terms
from simjax.losses._distillation import score_distillation_loss as score_distillation_loss
from simjax.losses._distillation import similarity_distillation_loss as similarity_distillation_loss
from simjax.losses._dynamic_soft_margin import dynamic_soft_margin_histogram as dynamic_soft_margin_histogram
from simjax.losses._dynamic_soft_margin import dynamic_soft_margin_loss as dynamic_soft_margin_loss
from simjax.losses._embedding_regularizers import global_orthogonal_regularizer as global_orthogonal_regularizer
from simjax.losses._embedding_regularizers import lp_regularizer as lp_regularizer
from simjax.losses._embedding_regularizers import zero_mean_regularizer as zero_mean_regularizer
from simjax.losses._fast_ap import fast_ap_loss as fast_ap_loss
from simjax.losses._generalized_lifted_structure import (
    generalized_lifted_structure_loss as generalized_lifted_structure_loss,
)
from simjax.losses._graded import angle_loss as angle_loss
from simjax.losses._graded import cosent_loss as cosent_loss
from simjax.losses._histogram import histogram_loss as histogram_loss
from simjax.losses._in_chunks import encode_in_chunks as encode_in_chunks
from simjax.losses._instance import instance_loss as instance_loss
from simjax.losses._intra_pair_variance import intra_pair_variance_loss as intra_pair_variance_loss
from simjax.losses._lifted_structure import lifted_structure_loss as lifted_structure_loss
from simjax.losses._manifold import manifold_loss as manifold_loss
from simjax.losses._margin import margin_loss as margin_loss
from simjax.losses._matryoshka import matryoshka_loss as matryoshka_loss
from simjax.losses._multi_similarity import multi_similarity_loss as multi_similarity_loss
from simjax.losses._multiplicative_margin import large_margin_softmax_loss as large_margin_softmax_loss
from simjax.losses._multiplicative_margin import sphereface_loss as sphereface_loss
from simjax.losses._n_pairs import n_pairs_loss as n_pairs_loss
from simjax.losses._nca import nca_loss as nca_loss
from simjax.losses._nt_xent import info_nce_loss as info_nce_loss
from simjax.losses._nt_xent import nt_xent_loss as nt_xent_loss
from simjax.losses._p2s_grad import p2s_grad_loss as p2s_grad_loss
from simjax.losses._pair_loss import pair_loss as pair_loss
from simjax.losses._pnp import pnp_loss as pnp_loss
from simjax.losses._proxy import proxy_anchor_loss as proxy_anchor_loss
from simjax.losses._proxy import proxy_nca_loss as proxy_nca_loss
from simjax.losses._proxy_regularizers import center_invariant_regularizer as center_invariant_regularizer
from simjax.losses._proxy_regularizers import regular_face_regularizer as regular_face_regularizer
from simjax.losses._proxy_regularizers import sparse_centers_regularizer as sparse_centers_regularizer
from simjax.losses._ranked_list import ranked_list_loss as ranked_list_loss
from simjax.losses._self_supervised import self_supervised_loss as self_supervised_loss
from simjax.losses._siglip import siglip_loss as siglip_loss
from simjax.losses._signal_to_noise_contrastive import (
    signal_to_noise_contrastive_loss as signal_to_noise_contrastive_loss,
)
from simjax.losses._smooth_ap import smooth_ap_loss as smooth_ap_loss
from simjax.losses._soft_triple import soft_triple_loss as soft_triple_loss
from simjax.losses._sub_center_arcface import SubCenterOutliers as SubCenterOutliers
from simjax.losses._sub_center_arcface import sub_center_arcface_loss as sub_center_arcface_loss
from simjax.losses._sub_center_arcface import sub_center_outliers as sub_center_outliers
from simjax.losses._supervised_contrastive import supervised_contrastive_loss as supervised_contrastive_loss
from simjax.losses._terms import REDUCERS as REDUCERS
from simjax.losses._terms import LossTerms as LossTerms
from simjax.losses._terms import Reducer as Reducer
from simjax.losses._threshold_consistent_margin import (
    threshold_consistent_margin_loss as threshold_consistent_margin_loss,
)
from simjax.losses._triplet import triplet_margin_loss as triplet_margin_loss
from simjax.losses._tuplet_margin import tuplet_margin_loss as tuplet_margin_loss
from simjax.losses._views import barlow_twins_loss as barlow_twins_loss
from simjax.losses._views import simsiam_loss as simsiam_loss
from simjax.losses._views import vicreg_loss as vicreg_loss
