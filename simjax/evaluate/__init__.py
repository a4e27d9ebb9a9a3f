"""How good embeddings and predictions are: pure functions from arrays to plain numbers.

A number that does not exist (a rate of no pairs, the precision of no queries) is None, never a NaN.
"""

from simjax.evaluate._calibration import dissimilarity_probability, fit_dissimilarity
from simjax.evaluate._class_similarity import class_similarity
from simjax.evaluate._classification import classification_metrics
from simjax.evaluate._few_shot import few_shot_accuracy
from simjax.evaluate._knn import knn_accuracy, knn_predict
from simjax.evaluate._pairs import sample_pairs_for_verification
from simjax.evaluate._retrieval import retrieval_metrics
from simjax.evaluate._verification import best_threshold, verification_metrics

__all__ = [
    "best_threshold",
    "class_similarity",
    "classification_metrics",
    "dissimilarity_probability",
    "few_shot_accuracy",
    "fit_dissimilarity",
    "knn_accuracy",
    "knn_predict",
    "retrieval_metrics",
    "sample_pairs_for_verification",
    "verification_metrics",
]
