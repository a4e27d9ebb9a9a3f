"""Every objective and every miner, for two jitted steps on a tiny network with random images."""

import dataclasses
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining
from simjax.core import InputError
from simjax.data import Augmentation
from simjax.train._checkpoint import Checkpoints
from simjax.train._data import Normalization
from simjax.train._learner import build_learner
from simjax.train._loss_settings import LossSettings, MinerName, MiningSettings, ObjectiveName
from simjax.train._objective import LossInputs, build_objective, curriculum_hardness, dry_run
from simjax.train._objectives import (
    MINERS,
    NO_SETTINGS,
    OBJECTIVES,
    hyper_parameters,
    settings_of_miner,
    settings_of_objective,
)
from simjax.train._recipes import fill_defaults
from simjax.train._settings import Settings, from_dict
from simjax.train._step import build_optimizer, build_steps, initial_state
from simjax.train._validation import check_options

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
NO_MINERS = {
    "guided": "another model",
    "cross_batch_memory": "--loss.memory",
    "push": "of that",
    "against": "of that",
    "hard_negatives": "of a whole data set",
    "statistics": "tells, and keeps nothing",
}
CLASSES, IMAGES = 3, 24
REPRESENTATIVE = [
    {"objective": "triplet", "mining": {"miner": "semi_hard"}},
    {"objective": "margin", "loss": {"boundary": "classes"}, "mining": {"miner": "distance_weighted"}},
    {"objective": "multi_similarity", "mining": {"miner": "curriculum"}},
    {"objective": "nt_xent", "loss": {"positives": "views", "learn_temperature": True}},
    {"objective": "fast_ap", "loss": {"memory": 24}},
    {"objective": "soft_triple", "loss": {"tau": 0.2, "centers": 2}},
    {"objective": "sphereface", "loss": {"margin": 2.0}},
    {"objective": "normalized_softmax", "loss": {"learn_temperature": True, "parameters_rate": 10.0}},
    {"objective": "multi_similarity", "loss": {"reducer": "sum"}},
    {"objective": "simsiam"},
]
BY_ANOTHER_MEASURE = {name: "manhattan" for name in OBJECTIVES if "measure" in settings_of_objective(name)}
BY_ANOTHER_MEASURE |= {"circle": "jaccard", "histogram": "angular"}  # a similarity; a bounded measure
OTHERS = [
    {"objective": "contrastive", "loss": {"pairs": "random"}},
    *[{"objective": name} for name in OBJECTIVES],
    *[{"objective": "triplet", "mining": {"miner": name}} for name in MINERS],
    *[{"objective": "supervised_contrastive", "mining": {"miner": name}} for name in MINERS],
    *[
        {"objective": n, "mining": {"miner": m}}
        for n, o in OBJECTIVES.items()
        if o.mined
        for m in ("n_hard", "angular", "cluster_hard")
    ],
    *[{"objective": n, "loss": {"positives": "views"}} for n, o in OBJECTIVES.items() if o.batch == "classes"],
    *[{"objective": n, "loss": {"memory": 24}} for n, o in OBJECTIVES.items() if o.mined],
    *[
        {"objective": "triplet", "loss": {"memory": 24}, "mining": {"miner": name}}
        for name in MINERS
        if name != "cluster_hard"
    ],
    *[{"objective": n, "loss": {"normalize": False}} for n in OBJECTIVES if "normalize" in settings_of_objective(n)],
    *[{"objective": n, "loss": {"reducer": "per_row"}} for n in OBJECTIVES if "reducer" in settings_of_objective(n)],
    *[{"objective": n, "loss": {"measure": m}} for n, m in BY_ANOTHER_MEASURE.items()],
]


def name_of(values):
    parts = [values["objective"], *(f"{k}={v}" for part in ("loss", "mining") for k, v in values.get(part, {}).items())]
    return "-".join(parts)


def prepared(batch_size=12, **values) -> tuple[Any, ...]:
    small = {"model": "dnn", "dnn": {"widths": []}, "embedding_size": 4, "steps": 2, "batch_size": batch_size}
    settings = fill_defaults(from_dict(small | values), IMAGES)
    random = np.random.default_rng(0)
    labels = np.arange(IMAGES, dtype=np.int32) % CLASSES
    images = random.integers(0, 255, (IMAGES, 4, 4, 1), dtype=np.uint8)
    learner = build_learner(settings, (4, 4, 1), CLASSES)
    objective = build_objective(settings, labels, CLASSES)
    optimizer, _ = build_optimizer(settings, 2)
    structure, state = initial_state(learner, optimizer, 0)
    augmentation = Augmentation(shift=0.25) if objective.has_views else Augmentation()
    steps = build_steps(structure, optimizer, objective, augmentation, settings.dtype)
    inputs = (jnp.asarray(images), jnp.asarray(labels), jnp.arange(IMAGES), Normalization.unit(1))
    return steps, state, inputs, objective, learner


def learns(**values):
    """Take two steps by one compiled program, and check that every parameter changed and all values are finite."""
    steps, state, inputs, objective, learner = prepared(optimizer={"warmup": 0.0}, **values)
    dry_run(objective, learner)
    before = jax.tree.map(np.asarray, state.params)
    for _ in range(2):
        state = steps(state, 1, *inputs)
    assert int(state.metrics.first_nonfinite_step) == -1
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
def test_steps_learn_with_every_objective_and_miner(values):
    learns(**values)


def fields(section):
    return {field.name for field in dataclasses.fields(section)}


def test_every_loss_and_miner_is_registered_or_excluded_for_a_reason():
    names = {name for name in vars(losses) if name.endswith("_loss") and inspect.isfunction(vars(losses)[name])}
    trained = {spec.loss.__name__ for spec in OBJECTIVES.values() if spec.loss is not None}
    assert names - trained == set(NO_OBJECTIVES)
    assert {name for name in vars(mining) if inspect.isfunction(vars(mining)[name])} - set(MINERS) == set(NO_MINERS)
    assert list(typing.get_args(ObjectiveName)) == list(OBJECTIVES)
    assert list(typing.get_args(MinerName)) == ["none", *MINERS]
    for name, spec in OBJECTIVES.items():
        assert spec.loss is None or spec.loss.__name__ == f"{'triplet_margin' if name == 'triplet' else name}_loss"
    assert all(miner.__name__ == name for name, miner in MINERS.items())


def test_the_registry_knows_which_losses_measure_distances_of_unit_vectors():
    random = np.random.default_rng(2)
    x, y = jnp.asarray(random.normal(size=(12, 4)), jnp.float32), jnp.arange(12, dtype=jnp.int32) % 3
    for name, spec in OBJECTIVES.items():
        if spec.loss is not None and "measure" in settings_of_objective(name) and spec.batch == "classes":
            try:
                by_distance = float(spec.loss(x, y, measure="normalized_euclidean"))
            except InputError:  # a loss of similarities
                by_distance = None
            assert (float(spec.loss(x, y)) == by_distance) == spec.unit_distance, name


def test_every_parameter_is_a_setting_and_every_setting_a_parameter():
    """A new parameter of a loss or a miner must become a setting, or be listed in `NO_SETTINGS`."""
    of_losses = set().union(*(hyper_parameters(spec.loss) for spec in OBJECTIVES.values() if spec.loss is not None))
    assert of_losses <= fields(LossSettings)
    assert set().union(*(settings_of_objective(name) for name in OBJECTIVES)) == fields(LossSettings)
    assert set().union(*(hyper_parameters(miner) for miner in MINERS.values())) <= fields(MiningSettings)
    assert set().union(*(settings_of_miner(name) for name in MINERS)) == fields(MiningSettings) - {"miner"}
    assert not NO_SETTINGS & (fields(LossSettings) | fields(MiningSettings))


@pytest.mark.parametrize(
    ("section", "names", "settings_of"),
    [(LossSettings, OBJECTIVES, settings_of_objective), (MiningSettings, MINERS, settings_of_miner)],
)
def test_the_description_of_a_setting_begins_with_its_takers(section, names, settings_of):
    families = {"positives", "batches", "samples_per_class", "memory", "reducer", "parameters_rate", "miner"}
    descriptions = dict(re.findall(r"^ {8}(\w+): (.*)", section.__doc__, re.MULTILINE))
    assert set(descriptions) == fields(section)
    for field in set(descriptions) - families - ({"measure"} if section is MiningSettings else set()):
        takers = descriptions[field].split(":")[0].split(", ")
        assert takers == [name for name in names if field in settings_of(name)], field


def test_the_documentation_lists_the_miners_of_each_objective():
    text = (Path(__file__).parents[2] / "docs" / "losses.md").read_text()
    text = text.partition("## From the command line")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in text.splitlines() if "| `" in line]
    found = {name.strip("` "): row[-2].strip() for row in rows for name in row[1].split(",")}
    assert found == {
        name: "all but `guided`" if spec.mined else "" for name, spec in OBJECTIVES.items() if name != "triplet_margin"
    }


@pytest.mark.slow
def test_hyper_parameters_reach_the_loss():
    """The loss of a step equals the loss of the library with the given and the learned values."""
    random = np.random.default_rng(1)
    x, y = jnp.asarray(random.normal(size=(12, 4)), jnp.float32), jnp.arange(12, dtype=jnp.int32) % 3
    proxies = jnp.asarray(random.normal(size=(3, 4)), jnp.float32)
    key = jax.random.key(5)
    two = {"positives": "views", "temperature": 0.3}
    anchors, references, related = mining.cluster_hard(x, y)
    cases = [
        ({"objective": "circle", "loss": {"gamma": 9.0, "margin": 0.3}}, losses.circle_loss(x, y, gamma=9, margin=0.3)),
        ({"objective": "fast_ap", "loss": {"bins": 5}}, losses.fast_ap_loss(x, y, bins=5)),
        ({"objective": "triplet"}, losses.triplet_margin_loss(x, y, margin=0.2)),
        (
            {"objective": "triplet", "mining": {"miner": "batch_hard"}, "loss": {"normalize": False, "swap": True}},
            losses.triplet_margin_loss(
                x, mining.batch_hard(x, y, measure="euclidean"), margin=0.2, swap=True, measure="euclidean"
            ),
        ),
        (
            {"objective": "margin", "mining": {"miner": "distance_weighted", "cutoff": 0.3}},
            losses.margin_loss(x, mining.distance_weighted(x, y, key=key, cutoff=0.3), beta=0.9),
        ),
        (
            {"objective": "proxy_anchor", "loss": {"alpha": 16.0}},
            losses.proxy_anchor_loss(x, y, proxies=proxies, alpha=16.0),
        ),
        (
            {"objective": "nt_xent", "loss": two},
            losses.self_supervised_loss(losses.nt_xent_loss, x[:6], x[6:], temperature=0.3),
        ),
        (
            {"objective": "multi_similarity", "loss": {"reducer": "sum"}},
            losses.multi_similarity_loss(x, y, reducer="sum"),
        ),
        (
            {"objective": "triplet", "mining": {"miner": "cluster_hard"}},
            losses.triplet_margin_loss(anchors, related, ref_embeddings=references, margin=0.2),
        ),
        ({"objective": "info_nce"}, losses.info_nce_loss(x[:6], x[6:])),
    ]
    for values, expected in cases:
        objective = prepared(**values)[3]
        learned = {"margin": {"beta": jnp.float32(0.9)}, "proxy_anchor": {"proxies": proxies}}
        seen = LossInputs(x, y, None, learned.get(values["objective"], {}), key, jnp.int32(0))
        np.testing.assert_allclose(objective.loss(seen)[0], expected, rtol=1e-6, err_msg=str(values))


def test_curriculum_hardness_rises_linearly():
    steps = jnp.array([0, 24, 25, 50, 75, 100])
    schedule = MiningSettings(hardness=0.5, start=0.25, length=0.5)
    found = jax.vmap(lambda step: curriculum_hardness(schedule, step, 100))(steps)
    np.testing.assert_array_equal(found, [0.5, 0.5, 0.5, 0.75, 1.0, 1.0])
    at_once = MiningSettings(hardness=0.3, start=0.5, length=0.0)
    np.testing.assert_allclose([curriculum_hardness(at_once, jnp.int32(s), 10) for s in (5, 6)], [0.3, 1.0])


def test_a_curriculum_selects_more_pairs_over_time():
    objective = prepared(objective="contrastive", mining={"miner": "curriculum", "hardness": 0.0}, steps=100)[3]
    random = np.random.default_rng(1)
    x, y = jnp.asarray(random.normal(size=(12, 4)), jnp.float32), jnp.arange(12, dtype=jnp.int32) % 3
    at = [
        float(objective.loss(LossInputs(x, y, None, {}, jax.random.key(0), jnp.int32(s)))[0]) for s in (0, 25, 50, 100)
    ]
    assert at[0] < at[1] < at[2] == at[3]
    np.testing.assert_allclose(at[3], losses.contrastive_loss(x, y, margin=0.5), rtol=1e-6)


def test_both_views_are_of_the_same_images_and_differ():
    objective = prepared(objective="info_nce")[3]
    rows = objective.sample(jax.random.key(0), jnp.int32(1), jnp.arange(IMAGES))
    np.testing.assert_array_equal(rows, np.tile(np.arange(12, 24), 2))
    assert (objective.images, objective.steps_per_epoch) == (24, 2)
    steps, state, inputs, _, _ = prepared(objective="info_nce", loss={"temperature": 1.0})
    alike = losses.info_nce_loss(*(2 * [jnp.ones((12, 4))]), temperature=1.0)
    assert float(steps(state, 1, *inputs).metrics.loss) < float(alike)


def test_learned_parameters_have_given_initial_values_and_their_own_learning_rate():
    learner = prepared(objective="margin", loss={"beta": 0.7, "boundary": "classes"})[4]
    np.testing.assert_allclose(learner.loss_arguments()["beta"], [0.7] * 3)
    found = prepared(objective="siglip", loss={"log_scale": 1.0, "bias": -2.0})[4].loss_arguments()
    assert {name: round(float(value), 4) for name, value in found.items()} == {"log_scale": 1.0, "bias": -2.0}
    assert prepared(objective="margin", loss={"boundary": "fixed"})[4].loss_arguments() == {}
    assert prepared(objective="soft_triple", loss={"centers": 5})[4].loss_arguments()["proxies"].shape == (3, 5, 4)
    moved = []
    for rate in (1.0, 4.0):
        values = {"objective": "proxy_anchor", "loss": {"parameters_rate": rate}, "optimizer": {"warmup": 0.0}}
        steps, state, inputs, _, _ = prepared(**values)
        before = jax.tree.map(np.asarray, state.params)
        after = steps(state, 1, *inputs).params
        moved.append(jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), after, before))
    assert moved[0]["encoder"] == moved[1]["encoder"]
    np.testing.assert_allclose(
        *(m["learned"]["proxies"]["vectors"][...] * s for m, s in zip(moved, (4, 1), strict=True))
    )


def test_a_loss_with_a_memory_compares_with_earlier_batches():
    steps, state, inputs, objective, learner = prepared(objective="multi_similarity", loss={"memory": 30})
    state = steps(state, 3, *inputs)  # 36 images
    memory = state.statistics["memory"].get_value()
    assert (int(memory.filled), int(memory.place)) == (30, 6)
    assert np.bincount(memory.labels, minlength=CLASSES).sum() == 30
    x, y = jnp.asarray(np.random.default_rng(0).normal(size=(12, 4)), jnp.float32), jnp.arange(12) % CLASSES
    related = mining.against(memory, y)
    expected = losses.multi_similarity_loss(x, related, ref_embeddings=memory.embeddings)
    seen = LossInputs(x, y, None, {}, jax.random.key(0), jnp.int32(0), memory)
    np.testing.assert_allclose(objective.loss(seen)[0], expected, rtol=1e-6)
    assert abs(float(objective.loss(seen._replace(memory=None))[0]) - float(expected)) > 1e-3


RESUMED = {
    "normalized_softmax": {"learn_temperature": True, "parameters_rate": 10.0},
    "contrastive": {"memory": 30},
}


@pytest.mark.filterwarnings("ignore:.*sharding:UserWarning")
@pytest.mark.parametrize("objective", RESUMED)
def test_learned_parameters_and_memory_are_resumed_bit_for_bit(tmp_path, objective):
    steps, state, inputs, _, _ = prepared(objective=objective, loss=RESUMED[objective], steps=6)
    fresh = jax.tree.map(lambda a: a.copy(), state)
    state = steps(state, 2, *inputs)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state, 1.0)
    whole = steps(state, 3, *inputs)
    restored = checkpoints.restore(fresh)
    checkpoints.close()
    assert restored is not None
    again = steps(restored[0], 3, *inputs)
    assert int(again.step) == 5
    if objective == "normalized_softmax":
        assert set(again.params["learned"]) == {"proxies", "temperature"}
    else:
        assert int(again.statistics["memory"].get_value().filled) == 30
    for x, y in zip(jax.tree.leaves(again.statistics), jax.tree.leaves(whole.statistics), strict=True):
        np.testing.assert_array_equal(x, y)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)
    jax.tree.map(np.testing.assert_array_equal, again.optimizer, whole.optimizer)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": {"temperature": 0.1}}, "'loss.temperature': not taken by the objective softmax, but by nt_xent, "),
        ({"objective": "circle", "loss": {"head": "cosine"}}, "'loss.head': not taken by .* circle, but by softmax$"),
        ({"objective": "arcface", "mining": {"miner": "n_hard"}}, "not taken by the objective arcface, but by contr"),
        ({"objective": "circle", "mining": {"share": 0.5}}, "not taken by the miner none, but by hard_aware$"),
        (
            {"objective": "cosface", "loss": {"memory": 256}},
            "'loss.memory': not taken by the objective cosface, but by",
        ),
        (
            {"objective": "contrastive", "loss": {"pairs": "random", "reducer": "sum"}},
            "'loss.reducer': loss.pairs='random' takes",
        ),
        (
            {"objective": "circle", "loss": {"memory": 24}, "mining": {"miner": "cluster_hard"}},
            "'loss.memory': the miner cluster_hard",
        ),
        ({"objective": "vicreg", "augment": {"enabled": False}}, "'augment.enabled': two views of an image"),
        ({"objective": "triplet", "loss": {"measure": "manhatan"}}, "'loss.measure': .*did you mean manhattan"),
        (
            {"objective": "triplet", "loss": {"measure": "manhattan", "normalize": False}},
            "'loss.normalize': loss.measure defines",
        ),
        (
            {"objective": "nca", "loss": {"batches": "shuffled", "samples_per_class": 4}},
            "'loss.samples_per_class': shuffled batches have no fixed number",
        ),
        (
            {"objective": "nca", "loss": {"positives": "views", "samples_per_class": 4}},
            "'loss.samples_per_class': with",
        ),
        ({"objective": "contrastive", "loss": {"pairs": "random"}, "mining": {"miner": "n_hard"}}, "by random pairs"),
    ],
)
def test_settings_without_effect_are_rejected(values, message):
    with pytest.raises(InputError, match=message):
        check_options(from_dict(values))


def test_values_are_checked_before_training():
    with pytest.raises(InputError, match="margin: expected a whole number, got 2.5"):
        prepared(objective="sphereface", loss={"margin": 2.5})
    *_, objective, learner = prepared(objective="smooth_ap")
    dry_run(objective, learner)
    *_, objective, learner = prepared(objective="triplet", mining={"miner": "hard_aware", "share": 1.5})
    with pytest.raises(InputError, match="share"):
        dry_run(objective, learner)


def test_default_settings_are_valid_for_every_objective():
    for objective in OBJECTIVES:
        check_options(fill_defaults(dataclasses.replace(Settings(), objective=objective), 1000))
