"""Measures of similarity and distance, the reductions of their matrix, and exact search."""

from simjax.similarity._alignment import Alignment, alignment, centered_kernel_alignment
from simjax.similarity._angular import angular_distance, cosine_distance
from simjax.similarity._boolean import (
    dice_distance,
    jaccard_distance,
    rogers_tanimoto_distance,
    russell_rao_distance,
    sokal_sneath_distance,
    yule_distance,
)
from simjax.similarity._canberra import bray_curtis_distance, canberra_distance
from simjax.similarity._chi_squared import additive_chi2_kernel, chi2_kernel
from simjax.similarity._combine import combine_embeddings
from simjax.similarity._correlation import correlation_distance, signal_to_noise_distance
from simjax.similarity._dot_products import bilinear_similarity, cosine_similarity, dot_product, unit_vectors
from simjax.similarity._euclidean import euclidean_distance, normalized_euclidean_distance, squared_euclidean_distance
from simjax.similarity._frechet import frechet_distance
from simjax.similarity._hamming import hamming_distance
from simjax.similarity._haversine import haversine_distance
from simjax.similarity._jensen_shannon import jensen_shannon_distance
from simjax.similarity._kernels import laplacian_kernel, polynomial_kernel, rbf_kernel, sigmoid_kernel
from simjax.similarity._mahalanobis import mahalanobis_distance, standardized_euclidean_distance
from simjax.similarity._manhattan import manhattan_distance
from simjax.similarity._masks import Mask, all_of, causal, different_label, exclude_self, same_label
from simjax.similarity._max_similarity import maxsim_matrix, maxsim_similarity
from simjax.similarity._maximum_mean_discrepancy import maximum_mean_discrepancy
from simjax.similarity._measure import Measure, measure
from simjax.similarity._minkowski import chebyshev_distance, minkowski_distance
from simjax.similarity._moments import Moments, moments
from simjax.similarity._nan_euclidean import nan_euclidean_distance
from simjax.similarity._reduce_rows import PRECISIONS, default_block_size, reduce_rows
from simjax.similarity._reductions import (
    ReductionOptions,
    count,
    histogram,
    largest_k,
    logsumexp,
    max,
    mean,
    min,
    order_statistics,
    softmax_weighted_sum,
    sum,
)
from simjax.similarity._search import pairwise, top_k
from simjax.similarity._sets import dice_coefficient, jaccard_index, overlap_coefficient, tversky_index
from simjax.similarity._sliced_wasserstein import sliced_wasserstein_distance

__all__ = [
    "Alignment",
    "Mask",
    "Measure",
    "Moments",
    "PRECISIONS",
    "ReductionOptions",
    "additive_chi2_kernel",
    "alignment",
    "all_of",
    "angular_distance",
    "bilinear_similarity",
    "bray_curtis_distance",
    "canberra_distance",
    "causal",
    "centered_kernel_alignment",
    "chebyshev_distance",
    "chi2_kernel",
    "combine_embeddings",
    "correlation_distance",
    "cosine_distance",
    "cosine_similarity",
    "count",
    "default_block_size",
    "dice_coefficient",
    "dice_distance",
    "different_label",
    "dot_product",
    "euclidean_distance",
    "exclude_self",
    "frechet_distance",
    "hamming_distance",
    "haversine_distance",
    "histogram",
    "jaccard_distance",
    "jaccard_index",
    "jensen_shannon_distance",
    "laplacian_kernel",
    "largest_k",
    "logsumexp",
    "mahalanobis_distance",
    "manhattan_distance",
    "max",
    "maximum_mean_discrepancy",
    "maxsim_matrix",
    "maxsim_similarity",
    "mean",
    "measure",
    "min",
    "minkowski_distance",
    "moments",
    "nan_euclidean_distance",
    "normalized_euclidean_distance",
    "order_statistics",
    "overlap_coefficient",
    "pairwise",
    "polynomial_kernel",
    "rbf_kernel",
    "reduce_rows",
    "rogers_tanimoto_distance",
    "russell_rao_distance",
    "same_label",
    "sigmoid_kernel",
    "signal_to_noise_distance",
    "sliced_wasserstein_distance",
    "softmax_weighted_sum",
    "sokal_sneath_distance",
    "squared_euclidean_distance",
    "standardized_euclidean_distance",
    "sum",
    "top_k",
    "tversky_index",
    "unit_vectors",
    "yule_distance",
]
