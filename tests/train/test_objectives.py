"""Every objective and every miner, for two jitted steps on a tiny network with random images."""

import ast
import dataclasses
import inspect
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining
from simjax.core import InputError
from simjax.data import Augmentation
from simjax.train import _loss_settings
from simjax.train._learner import build_learner
from simjax.train._loss_of import Seen
from simjax.train._loss_settings import Loss, MinerName, Mining, ObjectiveName
from simjax.train._miner_of import hardness
from simjax.train._objective import build_objective, rehearse
from simjax.train._objectives import MINERS, OBJECTIVES
from simjax.train._recipes import complete
from simjax.train._settings import Settings, from_dict
from simjax.train._step import Pixels, build_optimizer, build_steps, fresh_state
from simjax.train._takes import ARGUMENTS, check_taken, parameters, taken_by_miner, taken_by_objective


@pytest.fixture(autouse=True, scope="module")
def compiled_quickly_here(compiled_quickly):
    """Each program takes two small steps: nearly all of the time is the compiler's."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


NO_OBJECTIVES = {
    "cosent_loss": "graded scores",
    "angle_loss": "graded scores",
    "score_distillation_loss": "a teacher",
    "similarity_distillation_loss": "a teacher",
    "combined_loss": "takes losses",
    "matryoshka_loss": "takes a loss",
    "self_supervised_loss": "takes a loss; --loss.positives views",
    "pair_loss": "takes a formula",
    "intra_pair_variance_loss": "added to another",
}
NO_MINERS = {"guided": "another model", "statistics": "tells, and keeps nothing"}
CLASSES, IMAGES = 3, 24
REPRESENTATIVE = [
    {"objective": "softmax"},
    {"objective": "contrastive", "loss": {"pairs": "random"}},
    {"objective": "triplet", "mining": {"miner": "semi_hard"}},
    {"objective": "margin", "loss": {"boundary": "classes"}, "mining": {"miner": "distance_weighted"}},
    {"objective": "multi_similarity", "mining": {"miner": "curriculum"}},
    {"objective": "nt_xent", "loss": {"positives": "views", "learn_temperature": True}},
    {"objective": "fast_ap"},
    {"objective": "soft_triple", "loss": {"tau": 0.2, "centers": 2}},
    {"objective": "sphereface", "loss": {"margin": 2.0}},
    {"objective": "normalized_softmax", "loss": {"learn_temperature": True, "parameters_rate": 10.0}},
    {"objective": "siglip"},
    {"objective": "simsiam"},
]
OTHERS = [
    *[{"objective": name} for name in OBJECTIVES],
    *[{"objective": "triplet", "mining": {"miner": name}} for name in MINERS],
    *[{"objective": "supervised_contrastive", "mining": {"miner": name}} for name in MINERS],
    *[
        {"objective": n, "mining": {"miner": m}}
        for n, o in OBJECTIVES.items()
        if o.mined
        for m in ("n_hard", "angular")
    ],
    *[{"objective": n, "loss": {"positives": "views"}} for n, o in OBJECTIVES.items() if o.batch == "classes"],
    *[{"objective": n, "loss": {"normalise": False}} for n in OBJECTIVES if "normalise" in taken_by_objective(n)],
    *[{"objective": n, "loss": {"measure": "manhattan"}} for n in OBJECTIVES if "measure" in taken_by_objective(n)],
]


def name_of(values):
    parts = [values["objective"], *(f"{k}={v}" for part in ("loss", "mining") for k, v in values.get(part, {}).items())]
    return "-".join(parts)


def prepared(batch_size=12, **values):
    small = {"model": "dnn", "dnn": {"widths": []}, "embedding_size": 4, "steps": 2, "batch_size": batch_size}
    settings = complete(from_dict(small | values), IMAGES)
    random = np.random.default_rng(0)
    labels = np.arange(IMAGES, dtype=np.int32) % CLASSES
    images = random.integers(0, 255, (IMAGES, 4, 4, 1), dtype=np.uint8)
    learner = build_learner(settings, (4, 4, 1), CLASSES)
    objective = build_objective(settings, labels, CLASSES)
    optimizer, _ = build_optimizer(settings, 2)
    structure, state = fresh_state(learner, optimizer, 0)
    augmentation = Augmentation(shift=0.25) if objective.views else Augmentation()
    steps = build_steps(structure, optimizer, objective, augmentation, settings.dtype)
    inputs = (jnp.asarray(images), jnp.asarray(labels), jnp.arange(IMAGES), Pixels.unit(1))
    return steps, state, inputs, objective, learner


def learns(**values):
    """Two steps by one compiled program, after which all that can be learned has changed, and nothing is bad."""
    steps, state, inputs, objective, learner = prepared(optimizer={"warmup": 0.0}, **values)
    rehearse(objective, learner)
    before = jax.tree.map(np.asarray, state.params)
    for _ in range(2):
        state = steps(state, 1, *inputs)
    assert int(state.metrics.first_bad_step) == -1
    assert np.isfinite(float(state.metrics.loss))
    assert steps._cache_size() == 1
    for path, old in jax.tree_util.tree_leaves_with_path(before):
        new = dict(jax.tree_util.tree_leaves_with_path(state.params))[path]
        if "bias" not in str(path):  # a shift of all embeddings changes no distance
            assert np.any(np.asarray(new) != old), jax.tree_util.keystr(path)


@pytest.mark.parametrize("values", REPRESENTATIVE, ids=name_of)
def test_steps_learn(values):
    learns(**values)


@pytest.mark.slow
@pytest.mark.parametrize("values", [v for v in OTHERS if v not in REPRESENTATIVE], ids=name_of)
def test_steps_of_all_others_learn(values):
    learns(**values)
