"""How good embeddings and predictions are: pure functions from arrays to plain numbers.

A number that does not exist (a rate of no pairs, the precision of no queries) is None, never a NaN.
"""

from simjax.evaluate._calibration import dissimilarity_probability as dissimilarity_probability
from simjax.evaluate._calibration import fit_dissimilarity as fit_dissimilarity
from simjax.evaluate._class_similarity import class_similarity as class_similarity
from simjax.evaluate._classification import classification_metrics as classification_metrics
from simjax.evaluate._few_shot import few_shot_accuracy as few_shot_accuracy
from simjax.evaluate._knn import knn_accuracy as knn_accuracy
from simjax.evaluate._knn import knn_predict as knn_predict
from simjax.evaluate._pairs import sample_pairs_for_verification as sample_pairs_for_verification
from simjax.evaluate._retrieval import retrieval_metrics as retrieval_metrics
from simjax.evaluate._verification import best_threshold as best_threshold
from simjax.evaluate._verification import verification_metrics as verification_metrics
