"""Ensembles: several encoders in one run, each with a training of its own, used together.

Each encoder learns from triplets of its own (all images, but other batches and another beginning) or from a cluster of
its own. Clusters are made by k-means from the embeddings of an encoder that is trained first on all images; every other
begins as a copy of that one, and learns to tell apart what it still finds alike.

References:
    Sanakoyeu, Tschernezki, Buchler, Ommer (2019), Divide and Conquer the Embedding Space for Metric Learning; here
    encoders share nothing but their beginning.
"""

from dataclasses import replace

import numpy as np

from simjax.core import InputError
from simjax.train._encode import Encoder
from simjax.train._learner import Learner, build_learner
from simjax.train._loop import Fitted, Training, fit
from simjax.train._objective import build_objective
from simjax.train._progress import say
from simjax.train._run_folder import RunFolder
from simjax.train._sources import Sources, some_of


def fit_all(training: Training, folder: RunFolder, *, resume: bool) -> list[Fitted]:
    """Train one encoder, or those of an ensemble one after the other.

    Args:
        training: of the first encoder, on all images.
        folder: of the run; each training of an ensemble has its checkpoints in a folder of its own.
        resume: go on from the newest checkpoints.

    Returns:
        All trainings; the last `settings.ensemble.size` are the encoders to be used.

    Raises:
        InputError: if a cluster has no two classes to tell apart, or as `fit` does.
        Interrupted: on Ctrl-C or SIGTERM, when the state is saved.
    """
    ensemble = training.settings.ensemble
    if ensemble.size == 1:
        return [fit(training, folder, resume=resume)]
    fitted: list[Fitted] = []
    groups = None
    if ensemble.each == "clusters":
        say(f"an encoder of all images first, whose embeddings are clustered: {training.objective.steps:,} steps")
        fitted.append(fit(training._replace(name="all"), folder, resume=resume))
        groups = _clusters(fitted[0].encoder, training.sources, ensemble.size)
    for k in range(ensemble.size):
        member = training._replace(settings=replace(training.settings, seed=_seed(training.settings.seed, k)))
        if groups is not None:
            member = _of_cluster(member._replace(learner=fitted[0].learner), groups == k)
        elif k:
            member = member._replace(learner=_fresh(member))
        say(f"encoder {k + 1} of {ensemble.size}: {len(member.sources.train.labels):,} images")
        before = sum(f.steps for f in fitted)
        fitted.append(fit(member._replace(name=f"encoder_{k + 1}", before=before), folder, resume=resume))
    return fitted


def _of_cluster(training: Training, rows: np.ndarray) -> Training:
    """The same on some of the training images, which booleans [n] mark."""
    some = some_of(training.sources.train, rows)
    if not training.objective.views and len(np.unique(some.labels)) < 2:
        raise InputError("ensemble.size: one of the clusters has images of a single class, give fewer")
    objective = build_objective(training.settings, some.labels, len(some.class_names))
    return training._replace(sources=training.sources._replace(train=some), objective=objective)


def _fresh(training: Training) -> Learner:
    """Another beginning, by the training's own seed."""
    height, width, channels = (int(extent) for extent in training.sources.train.images.shape[1:])
    return build_learner(training.settings, (height, width, channels), len(training.sources.train.class_names))


def _seed(seed: int, member: int) -> int:
    """Of each member another one, and of no other run's members the same; the first member has the run's own."""
    return int(np.random.SeedSequence([seed, member]).generate_state(1)[0]) if member else seed


def _clusters(encoder: Encoder, sources: Sources, size: int) -> np.ndarray:
    """Which cluster each training image belongs to: [n], 0 to size - 1."""
    from sklearn.cluster import KMeans

    embeddings = encoder(sources.train.images).embeddings
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return KMeans(size, random_state=0).fit_predict(embeddings / np.maximum(length, 1e-12))
