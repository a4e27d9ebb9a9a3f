"""Ensembles: several encoders in one run, trained one after the other, whose embeddings are combined.

Each encoder is trained on all images, with its own batches and initial parameters, or on one cluster of the images. The
clusters are computed by k-means from the embeddings of an encoder that is first trained on all images. The encoder of
each cluster starts as a copy of that encoder.

References:
    Sanakoyeu, Tschernezki, Buchler, Ommer (2019), Divide and Conquer the Embedding Space for Metric Learning. Here the
    encoders share only their initial parameters.
"""

from dataclasses import replace

import numpy as np

from simjax.core import InputError
from simjax.encoder import Encoder
from simjax.train._data import subset
from simjax.train._learner import build_learner
from simjax.train._loop import FitResult, Training, fit
from simjax.train._objective import build_objective
from simjax.train._progress import print_line
from simjax.train._run_folder import RunFolder


def fit_all(training: Training, folder: RunFolder, *, resume: bool) -> list[FitResult]:
    """Train a single encoder, or all encoders of an ensemble, each with its own subfolder for checkpoints; see `fit`.

    Args:
        training: Training of the first encoder, on all images.
        folder: Folder of the run.
        resume: Continue from the newest checkpoints.

    Returns:
        Results of all trainings. The last `settings.ensemble.size` belong to the encoders of the ensemble.

    Raises:
        InputError: If a cluster has a single class.
    """
    settings, splits = training.settings, training.splits
    size = settings.ensemble.size
    if size == 1:
        return [fit(training, folder, resume=resume)]
    results: list[FitResult] = []
    clusters = None
    if settings.ensemble.each == "clusters":
        print_line(f"training an encoder whose embeddings are clustered: {training.objective.steps:,} steps")
        results.append(fit(training._replace(name="all"), folder, resume=resume))
        clusters = _cluster(results[0].encoder, splits.train.images, size)
    for k in range(size):
        # The first encoder has the seed of the run, the others a hash of that seed and of their number.
        seed = int(np.random.SeedSequence([settings.seed, k]).generate_state(1)[0]) if k else settings.seed
        member = training._replace(
            settings=replace(settings, seed=seed),
            name=f"encoder_{k + 1}",
            previous_steps=sum(result.steps for result in results),
        )
        if clusters is not None:
            member = _on_cluster(member._replace(learner=results[0].learner), clusters == k)
        elif k:
            classes = len(splits.train.class_names)
            member = member._replace(learner=build_learner(member.settings, splits.image_shape, classes))
        print_line(f"encoder {k + 1} of {size}: {len(member.splits.train.labels):,} images")
        results.append(fit(member, folder, resume=resume))
    return results


def _on_cluster(training: Training, mask: np.ndarray) -> Training:
    """Return the same training on the training images where a mask [n] is True."""
    cluster = subset(training.splits.train, mask)
    if not training.objective.has_views and len(np.unique(cluster.labels)) < 2:
        raise InputError("ensemble.size: one of the clusters has images of a single class, give fewer")
    objective = build_objective(training.settings, cluster.labels, len(cluster.class_names))
    return training._replace(splits=training.splits._replace(train=cluster), objective=objective)


def _cluster(encoder: Encoder, images: np.ndarray, clusters: int) -> np.ndarray:
    """Return the cluster of each image, int [n]."""
    from sklearn.cluster import KMeans

    return KMeans(clusters, random_state=0).fit_predict(encoder.encode(images, normalize=True))
