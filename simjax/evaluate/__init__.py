"""Metrics of embeddings and predictions: pure functions from arrays to plain numbers.

A value that does not exist (a rate of no pairs, the precision of no queries) is None, never NaN. `measure` is the name
of a measure or a `Measure`. All functions raise an InputError if shapes do not match, numbers are not finite, labels
are not integers or the measure is unknown, and a TypeError if embeddings or scores are not numbers; their docstrings
list further errors only.
"""

from typing import TYPE_CHECKING, Any

from simjax.evaluate._calibration import Calibration, Threshold
from simjax.evaluate._classification import class_similarity, classification_metrics
from simjax.evaluate._clustering import clustering_metrics
from simjax.evaluate._comparisons import Comparison, compare, error_consistency, mcnemar
from simjax.evaluate._diagnostics import (
    alignment,
    effective_rank,
    embedding_diagnostics,
    largest_variance_share,
    spread,
    uniformity,
)
from simjax.evaluate._few_shot import few_shot_accuracy
from simjax.evaluate._intervals import Estimate, estimates_of, jackknife_interval, mean_estimate, random_groups
from simjax.evaluate._knn import knn_accuracy, knn_predict
from simjax.evaluate._neighbors import mutual_knn
from simjax.evaluate._open_set import OpenSetSearch, open_set_metrics, open_set_search
from simjax.evaluate._reliability import calibration_error_interval, reliability
from simjax.evaluate._retrieval import graded_ndcg, retrieval_metrics, retrieval_values
from simjax.evaluate._search_intervals import open_set_estimates, retrieval_estimates
from simjax.evaluate._verification import (
    best_threshold,
    dissimilarity_probability,
    fit_dissimilarity,
    sample_pairs_for_verification,
    verification_metrics,
)
from simjax.evaluate._verification_intervals import verification_estimates

if TYPE_CHECKING:
    from simjax.evaluate._pair_verifier import PairVerifier

__all__ = [
    "Calibration",
    "Comparison",
    "Estimate",
    "OpenSetSearch",
    "PairVerifier",
    "Threshold",
    "alignment",
    "best_threshold",
    "calibration_error_interval",
    "class_similarity",
    "classification_metrics",
    "clustering_metrics",
    "compare",
    "dissimilarity_probability",
    "effective_rank",
    "embedding_diagnostics",
    "error_consistency",
    "estimates_of",
    "few_shot_accuracy",
    "fit_dissimilarity",
    "graded_ndcg",
    "jackknife_interval",
    "knn_accuracy",
    "knn_predict",
    "largest_variance_share",
    "mcnemar",
    "mean_estimate",
    "mutual_knn",
    "open_set_estimates",
    "open_set_metrics",
    "open_set_search",
    "random_groups",
    "reliability",
    "retrieval_estimates",
    "retrieval_metrics",
    "retrieval_values",
    "sample_pairs_for_verification",
    "spread",
    "uniformity",
    "verification_estimates",
    "verification_metrics",
]


def __getattr__(name: str) -> Any:
    """Import `PairVerifier` when it is first used, because scikit-learn takes a second to import."""
    if name == "PairVerifier":
        from simjax.evaluate._pair_verifier import PairVerifier

        return PairVerifier
    raise AttributeError(f"module 'simjax.evaluate' has no attribute {name!r}")
