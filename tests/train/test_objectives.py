"""Every objective and every miner, with a tiny network and random images."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.typing import ArrayLike

from simjax import losses, mining
from simjax.core import InputError
from simjax.data import Augmentation
from simjax.train._checkpoint import Checkpoints
from simjax.train._data import Normalization
from simjax.train._learner import Learner, build_learner
from simjax.train._loss_settings import LossSettings, MinerName, MiningSettings, ObjectiveName
from simjax.train._objective import LossInputs, Objective, build_objective, curriculum_hardness, dry_run
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
from simjax.train._step import State, build_optimizer, build_steps, initial_state
from simjax.train._validation import check_options

pytestmark = pytest.mark.usefixtures("compile_faster")

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
LABELS = np.arange(IMAGES, dtype=np.int32) % CLASSES
EMBEDDINGS = np.random.default_rng(1).normal(size=(12, 4)).astype(np.float32)
KEY = jax.random.key(5)
MINED = [name for name, spec in OBJECTIVES.items() if spec.mined]
BY_ANOTHER_MEASURE = {name: "manhattan" for name in OBJECTIVES if "measure" in settings_of_objective(name)}
BY_ANOTHER_MEASURE |= {"circle": "jaccard", "histogram": "angular"}  # a similarity; a bounded measure
REPRESENTATIVE = [
    {"objective": "nt_xent", "loss": {"positives": "views", "learn_temperature": True}},
    {"objective": "soft_triple", "loss": {"tau": 0.2, "centers": 2}},
    {"objective": "simsiam"},
]
LEARNED = [
    {"objective": "triplet", "mining": {"miner": "semi_hard"}},
    {"objective": "multi_similarity", "mining": {"miner": "curriculum"}},
    {"objective": "contrastive", "loss": {"pairs": "random"}},
    {"objective": "margin", "loss": {"boundary": "classes"}, "mining": {"miner": "distance_weighted"}},
    {"objective": "sphereface", "loss": {"margin": 2.0}},
    {"objective": "normalized_softmax", "loss": {"learn_temperature": True}},
    {"objective": "multi_similarity", "loss": {"reducer": "sum"}},
    {"objective": "fast_ap", "loss": {"memory": 24}},
    *[{"objective": name} for name in OBJECTIVES],
    *[{"objective": "supervised_contrastive", "mining": {"miner": name}} for name in MINERS],
]
TRACED = [
    *[{"objective": "triplet", "mining": {"miner": name}} for name in MINERS],
    *[{"objective": n, "mining": {"miner": m}} for n in MINED for m in ("n_hard", "angular", "cluster_hard")],
    *[{"objective": n, "loss": {"positives": "views"}} for n, o in OBJECTIVES.items() if o.batch == "classes"],
    *[{"objective": n, "loss": {"memory": 24}} for n in MINED],
    *[{"objective": "triplet", "loss": {"memory": 24}, "mining": {"miner": m}} for m in MINERS if m != "cluster_hard"],
    *[{"objective": n, "loss": {"normalize": False}} for n in OBJECTIVES if "normalize" in settings_of_objective(n)],
    *[{"objective": n, "loss": {"reducer": "per_row"}} for n in OBJECTIVES if "reducer" in settings_of_objective(n)],
    *[{"objective": n, "loss": {"measure": m}} for n, m in BY_ANOTHER_MEASURE.items()],
]


def name_of(values: dict[str, Any]) -> str:
    parts = [values["objective"], *(f"{k}={v}" for part in ("loss", "mining") for k, v in values.get(part, {}).items())]
    return "-".join(parts)


class Built(NamedTuple):
    settings: Settings
    objective: Objective
    learner: Learner


def build(**values: Any) -> Built:
    small = {"model": "dnn", "dnn": {"widths": []}, "embedding_size": 4, "steps": 2, "batch_size": 12}
    settings = fill_defaults(from_dict(small | values), IMAGES)
    return Built(settings, build_objective(settings, LABELS, CLASSES), build_learner(settings, (4, 4, 1), CLASSES))


def loss_inputs(step: ArrayLike = 0, memory: mining.CrossBatchMemory | None = None, **learned: Any) -> LossInputs:
    arrays: list[Any] = [EMBEDDINGS, LABELS[:12], None, learned, KEY, step, memory]
    return LossInputs(*arrays)


def build_training(**values: Any) -> tuple[Any, State, tuple[Any, ...], Built]:
    """Return the compiled steps, the first state, the other inputs of the steps, and what they were built from."""
    built = build(optimizer={"warmup": 0.0}, **values)
    optimizer, _ = build_optimizer(built.settings, 2)
    graphdef, state = initial_state(built.learner, optimizer, 0)
    augmentation = Augmentation(shift=0.25) if built.objective.has_views else Augmentation()
    steps = build_steps(graphdef, optimizer, built.objective, augmentation, "float32")
    images = np.random.default_rng(0).integers(0, 255, (IMAGES, 4, 4, 1), dtype=np.uint8)
    return steps, state, (images, LABELS, np.arange(IMAGES), Normalization.unit(1)), built


def value_and_grad(built: Built) -> tuple[Callable[[Any], tuple[Any, Any]], Any]:
    """Return the loss of a batch and its gradient as a function of the parameters of a learner, and the parameters."""
    _, objective, learner = built
    graphdef, params, statistics = nnx.split(learner, nnx.Param, ...)
    labels = np.arange(objective.images_per_step, dtype=np.int32) % CLASSES
    images = np.random.default_rng(0).normal(size=(objective.images_per_step, 4, 4, 1)).astype(np.float32)

    def loss(params: Any) -> Any:
        learner = nnx.merge(graphdef, params, statistics, copy=True)
        embeddings, logits = learner(jnp.asarray(images))
        memory = learner.remember(embeddings, jnp.asarray(labels))
        arguments = learner.loss_arguments(embeddings)
        return objective.loss(
            LossInputs(embeddings, jnp.asarray(labels), logits, arguments, KEY, jnp.int32(0), memory)
        )[0]

    return jax.value_and_grad(loss), params


def check_gradient(built: Built) -> None:
    """Check that the loss is finite and that every parameter has a finite gradient other than 0."""
    dry_run(built.objective, built.learner)
    function, params = value_and_grad(built)
    value, gradient = jax.device_get(jax.jit(function)(params))
    assert np.isfinite(value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all()
        if "bias" not in str(path):  # a shift of all embeddings changes no distance
            assert np.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("values", REPRESENTATIVE, ids=name_of)
def test_every_parameter_is_learned(values):
    check_gradient(build(**values))


@pytest.mark.slow
@pytest.mark.parametrize("values", LEARNED, ids=name_of)
def test_every_parameter_is_learned_with_every_objective_and_miner(values):
    check_gradient(build(**values))


@pytest.mark.slow
@pytest.mark.parametrize("values", TRACED, ids=name_of)
def test_objectives_are_differentiable_with_other_settings(values):
    """The values of losses with these options are compared with oracles in the tests of losses and miners."""
    function, params = value_and_grad(build(**values))
    value, gradient = jax.eval_shape(function, params)
    assert (value.shape, value.dtype) == ((), jnp.float32)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)


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
    """With the default measure named explicitly, a loss is traced to the same program."""
    for name, spec in OBJECTIVES.items():
        if spec.loss is not None and "measure" in settings_of_objective(name) and spec.batch == "classes":
            default, by_distance = (partial(spec.loss, **m) for m in ({}, {"measure": "normalized_euclidean"}))
            program = str(jax.make_jaxpr(default)(EMBEDDINGS, LABELS[:12]))
            try:
                is_same = program == str(jax.make_jaxpr(by_distance)(EMBEDDINGS, LABELS[:12]))
            except InputError:  # a loss of similarities
                is_same = False
            assert is_same == spec.unit_distance, name


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
    text = inspect.cleandoc(section.__doc__)  # Python 3.13 removes the indentation
    descriptions = dict(re.findall(r"^ {4}(\w+): (.*)", text, re.MULTILINE))
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
    x, y = jnp.asarray(EMBEDDINGS), jnp.asarray(LABELS[:12])
    proxies = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4)), jnp.float32)
    learned = {"margin": {"beta": jnp.float32(0.9)}, "proxy_anchor": {"proxies": proxies}}
    cases: list[dict[str, Any]] = [
        {"objective": "circle", "loss": {"gamma": 9.0, "margin": 0.3}},
        {"objective": "fast_ap", "loss": {"bins": 5}},
        {"objective": "triplet"},
        {"objective": "triplet", "mining": {"miner": "batch_hard"}, "loss": {"normalize": False, "swap": True}},
        {"objective": "margin", "mining": {"miner": "distance_weighted", "cutoff": 0.3}},
        {"objective": "proxy_anchor", "loss": {"alpha": 16.0}},
        {"objective": "nt_xent", "loss": {"positives": "views", "temperature": 0.3}},
        {"objective": "multi_similarity", "loss": {"reducer": "sum"}},
        {"objective": "triplet", "mining": {"miner": "cluster_hard"}},
        {"objective": "info_nce"},
    ]

    @jax.jit
    def found_and_expected() -> tuple[list[Any], list[Any]]:
        anchors, references, related = mining.cluster_hard(x, y)
        of_distances = {"margin": 0.2, "swap": True, "measure": "euclidean"}
        expected = [
            losses.circle_loss(x, y, gamma=9, margin=0.3),
            losses.fast_ap_loss(x, y, bins=5),
            losses.triplet_margin_loss(x, y, margin=0.2),
            losses.triplet_margin_loss(x, mining.batch_hard(x, y, measure="euclidean"), **of_distances),
            losses.margin_loss(x, mining.distance_weighted(x, y, key=KEY, cutoff=0.3), beta=0.9),
            losses.proxy_anchor_loss(x, y, proxies=proxies, alpha=16.0),
            losses.self_supervised_loss(losses.nt_xent_loss, x[:6], x[6:], temperature=0.3),
            losses.multi_similarity_loss(x, y, reducer="sum"),
            losses.triplet_margin_loss(anchors, related, ref_embeddings=references, margin=0.2),
            losses.info_nce_loss(x[:6], x[6:]),
        ]
        inputs = [loss_inputs(**learned.get(values["objective"], {})) for values in cases]
        found = [build(**values).objective.loss(i)[0] for values, i in zip(cases, inputs, strict=True)]
        return found, expected

    for values, found, expected in zip(cases, *found_and_expected(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=str(values))


def test_curriculum_hardness_rises_linearly():
    rising = MiningSettings(hardness=0.5, start=0.25, length=0.5)
    at_once = MiningSettings(hardness=0.3, start=0.5, length=0.0)
    hardness = jax.jit(lambda a, b: (curriculum_hardness(rising, a, 100), curriculum_hardness(at_once, b, 10)))
    found = hardness(np.array([0, 24, 25, 50, 75, 100]), np.array([5, 6]))
    np.testing.assert_array_equal(found[0], [0.5, 0.5, 0.5, 0.75, 1.0, 1.0])
    np.testing.assert_allclose(found[1], [0.3, 1.0])


@pytest.mark.slow
def test_a_curriculum_selects_more_pairs_over_time():
    values = {"objective": "contrastive", "mining": {"miner": "curriculum", "hardness": 0.0}, "steps": 100}
    objective = build(**values).objective
    at_step = jax.vmap(lambda step: objective.loss(loss_inputs(step))[0])
    all_pairs = partial(losses.contrastive_loss, EMBEDDINGS, LABELS[:12], margin=0.5)
    at, expected = jax.device_get(jax.jit(lambda steps: (at_step(steps), all_pairs()))(np.array([0, 25, 50, 100])))
    assert at[0] < at[1] < at[2] == at[3]
    np.testing.assert_allclose(at[3], expected, rtol=1e-6)


@pytest.mark.slow
def test_both_views_are_of_the_same_images_and_differ():
    steps, state, inputs, built = build_training(objective="info_nce", loss={"temperature": 1.0})
    rows = jax.jit(built.objective.sample)(KEY, 1, np.arange(IMAGES))
    np.testing.assert_array_equal(rows, np.tile(np.arange(12, 24), 2))
    assert (built.objective.images_per_step, built.objective.steps_per_epoch) == (24, 2)
    loss_of_equal_rows = np.log(12)
    assert float(steps(state, 1, *inputs).metrics.loss) < loss_of_equal_rows


@pytest.mark.slow
def test_learned_parameters_have_given_initial_values_and_their_own_learning_rate():
    learner = build(objective="margin", loss={"beta": 0.7, "boundary": "classes"}).learner
    np.testing.assert_allclose(learner.loss_arguments()["beta"], [0.7] * 3)
    found = build(objective="siglip", loss={"log_scale": 1.0, "bias": -2.0}).learner.loss_arguments()
    assert {name: round(float(value), 4) for name, value in found.items()} == {"log_scale": 1.0, "bias": -2.0}
    assert build(objective="margin", loss={"boundary": "fixed"}).learner.loss_arguments() == {}
    assert build(objective="soft_triple", loss={"centers": 5}).learner.loss_arguments()["proxies"].shape == (3, 5, 4)
    params = {
        "encoder": {"kernel": np.array([1.0, -2.0], np.float32)},
        "learned": {"proxies": np.array([3.0, 4.0], np.float32)},
    }

    @jax.jit
    def first_updates() -> list[Any]:
        rates = [from_dict({"loss": {"parameters_rate": rate}, "optimizer": {"warmup": 0.0}}) for rate in (1.0, 4.0)]
        optimizers = [build_optimizer(fill_defaults(settings, 100), 10)[0] for settings in rates]
        return [optimizer.update(params, optimizer.init(params), params)[0] for optimizer in optimizers]

    slow, fast = first_updates()
    np.testing.assert_array_equal(fast["encoder"]["kernel"], slow["encoder"]["kernel"])
    np.testing.assert_allclose(fast["learned"]["proxies"], 4 * slow["learned"]["proxies"], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*sharding:UserWarning")
def test_learned_parameters_and_a_memory_are_updated_and_resumed_bit_for_bit(tmp_path):
    loss = {"boundary": "classes", "memory": 30}
    steps, state, inputs, (_, objective, learner) = build_training(
        objective="margin", loss=loss, mining={"miner": "distance_weighted"}, steps=6
    )
    dry_run(objective, learner)
    before, fresh = jax.tree.map(np.array, state.params), jax.jit(lambda a: jax.tree.map(jnp.copy, a))(state)
    state = steps(state, 2, *inputs)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state, 1.0)
    whole = steps(state, 1, *inputs)  # 36 images so far
    restored = checkpoints.restore(fresh)
    checkpoints.close()
    assert restored is not None
    again = steps(restored[0], 1, *inputs)
    assert steps._cache_size() == 1
    assert int(again.step) == 3
    assert int(again.metrics.first_nonfinite_step) == -1
    assert set(again.params["learned"]) == {"beta"}
    memory = again.statistics["memory"].get_value()
    assert (int(memory.filled), int(memory.place)) == (30, 6)
    assert np.bincount(memory.labels, minlength=CLASSES).sum() == 30
    for resumed, uninterrupted in zip(jax.tree.leaves(again[:3]), jax.tree.leaves(whole[:3]), strict=True):
        np.testing.assert_array_equal(resumed, uninterrupted)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(again.params), strict=True):
        assert np.any(np.asarray(new) != old)


def test_a_loss_with_a_memory_compares_with_earlier_batches():
    objective = build(objective="multi_similarity", loss={"memory": 30}).objective

    @jax.jit
    def compare() -> tuple[Any, Any, Any]:
        memory = mining.cross_batch_memory(30, 4)
        for shift in (0.0, 1.0, 2.0):
            memory = mining.push(memory, EMBEDDINGS + shift, LABELS[:12])
        related = mining.against(memory, LABELS[:12])
        expected = losses.multi_similarity_loss(EMBEDDINGS, related, ref_embeddings=memory.embeddings)
        return objective.loss(loss_inputs(memory=memory))[0], expected, objective.loss(loss_inputs())[0]

    found, expected, without = compare()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert abs(float(without) - float(expected)) > 1e-3


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
        build(objective="sphereface", loss={"margin": 2.5})
    _, objective, learner = build(objective="smooth_ap")
    dry_run(objective, learner)
    _, objective, learner = build(objective="triplet", mining={"miner": "hard_aware", "share": 1.5})
    with pytest.raises(InputError, match="share"):
        dry_run(objective, learner)


def test_default_settings_are_valid_for_every_objective():
    for objective in OBJECTIVES:
        check_options(fill_defaults(dataclasses.replace(Settings(), objective=objective), 1000))
