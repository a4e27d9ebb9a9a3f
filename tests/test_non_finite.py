"""A NaN is never hidden: every loss and mined relation that uses one is NaN, and an unused one changes nothing."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining, pairs
from tests.public_functions import CASES, batch
from tests.slow import mostly_slow

pytestmark = pytest.mark.usefixtures("compile_faster")

COUNTS = {"losses.sub_center_outliers"}  # booleans and row numbers
LOSSES = sorted(name for name in CASES if name.startswith("losses.") and name not in COUNTS)
MINED = sorted(name for name in CASES if name.startswith("mining.") and callable(getattr(mining, name[7:])))
# Of these a case returns the relation's masks, the columns of hard negatives, or what the memory holds.
NOT_LOSSES = {"mining.hard_negatives", "mining.cross_batch_memory", "mining.push", "mining.statistics"}

PAIR_LOSSES = sorted(
    name
    for name, function in vars(losses).items()
    if inspect.isroutine(function)
    and name.endswith("_loss")
    and list(inspect.signature(getattr(losses, name)).parameters)[:2] == ["embeddings", "labels"]
)


FAST = ("losses.contrastive_loss",)


def with_nan(array, index):
    array = np.array(array)
    array[index] = np.nan
    return array


def scalars(found):
    return [a for a in jax.tree.leaves(found) if jnp.ndim(a) == 0 and jnp.issubdtype(jnp.result_type(a), jnp.floating)]


@pytest.mark.parametrize("name", mostly_slow(LOSSES, *FAST))
def test_a_loss_of_nan_is_nan(name):
    @jax.jit
    def run(given):
        def total(x):
            found = jax.tree.leaves(CASES[name](given | {"x": x}))
            return sum(jnp.sum(a) for a in found), scalars(found)

        return jax.value_and_grad(total, has_aux=True)(given["x"])

    poisoned = {"x", "y", "ref", "centers"} | ({"grades"} if name == "losses.contrastive_terms" else set())
    poisoned |= set() if name == "losses.margin_loss" else {"proxies"}  # from which its case makes beta
    for rows in (slice(3, 4), slice(None)):
        given = batch()
        for array in poisoned:
            given[array] = with_nan(given[array], rows)
        (sum_of_all, found), gradient = run(given)
        assert np.isnan(sum_of_all), rows
        assert np.isnan(found).all(), rows
        if name.removeprefix("losses.") in PAIR_LOSSES:  # no number that rests on what replaces the NaN
            assert (np.isnan(gradient) | (np.asarray(gradient) == 0)).all(), rows


@pytest.mark.parametrize("name", mostly_slow([n for n in MINED if n not in NOT_LOSSES]))
def test_a_loss_of_a_relation_mined_among_nan_is_nan(name):
    given = batch()
    given |= {array: with_nan(given[array], 3) for array in ("x", "y")}
    found = scalars(jax.jit(CASES[name])(given))
    assert found
    assert np.isnan(found).all()


# These need proxies, or more than embeddings and labels.
NEED_MORE = {"manifold_loss", "similarity_distillation_loss", "score_distillation_loss"} | {
    name for name in PAIR_LOSSES if "proxies" in inspect.signature(getattr(losses, name)).parameters
}
ONLY_WITH_POSITIVES = {"n_pairs_loss"}  # its columns are second rows of classes that have two


@pytest.mark.parametrize("name", mostly_slow([n for n in PAIR_LOSSES if n not in NEED_MORE], "contrastive_loss"))
def test_a_nan_matters_as_a_negative_and_not_outside_of_all_pairs(name):
    options = {"beta": 1.2} if name == "margin_loss" else {}

    @jax.jit
    def run(x, labels):
        def of_relation(x):
            return getattr(losses, name)(x, pairs.by_class(labels, ignore=(9,)), **options)

        return getattr(losses, name)(x, labels, **options), jax.value_and_grad(of_relation)(x)

    given = batch()
    labels = np.array(given["labels"])
    labels[3] = 9
    as_negative, (value, gradient) = run(with_nan(given["x"], 3), labels)
    assert np.isnan(as_negative) or name in ONLY_WITH_POSITIVES
    _, (expected, expected_gradient) = run(given["x"], labels)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_hard_negatives_rank_nan_after_all_numbers_and_before_missing_columns():
    x = np.array([[0.0], [1.0], [np.nan], [3.0], [0.5]], np.float32)
    found = mining.hard_negatives(x, np.array([0, 1, 1, 1, 0]), k=4, measure="euclidean")
    np.testing.assert_array_equal(found[0], [1, 3, 2, -1])


OF_SETS = ("alignment", "centered_kernel_alignment", "frechet_distance", "maximum_mean_discrepancy")


@pytest.mark.parametrize("name", mostly_slow([*OF_SETS, "sliced_wasserstein_distance"], "alignment"))
def test_a_distance_of_two_sets_with_a_nan_is_nan(name):
    given = batch()
    given["x"] = with_nan(given["x"], (3, 1))
    assert np.isnan(scalars(jax.jit(CASES[f"similarity.{name}"])(given))).all()
