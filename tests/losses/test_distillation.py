"""Distillation of similarities and of given scores, against loops."""

import logging
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining, pairs
from simjax.core import InputError
from tests.losses.cases import (
    D,
    M,
    N,
    assert_gradient_equals_slope,
    cosine,
    degenerate_batches,
    float32,
    mean,
    related,
    rows,
)
from tests.slow import mostly_slow

E, T = 3, 0.7  # features of the teacher, temperature


def kl(s, t, positive, negative):
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        columns = sorted({*p, *q})
        if columns:
            student, teacher = (np.exp(a[i, columns] / T) / np.exp(a[i, columns] / T).sum() for a in (s, t))
            terms.append(T**2 * sum(b * np.log(b / a) for a, b in zip(student, teacher, strict=True)))
    return mean(terms)


def margin_mse(s, t, positive, negative):
    terms = []
    for i, (p, q) in enumerate(rows(positive, negative)):
        squares = [((s[i, a] - s[i, b]) - (t[i, a] - t[i, b])) ** 2 for a in p for b in q if a != b]
        if squares:
            terms.append(np.mean(squares))
    return mean(terms)


ORACLES = {"kl": kl, "margin_mse": margin_mse}
OPTIONS = {"kl": {"temperature": T}, "margin_mse": {}}


@pytest.mark.parametrize("variant", mostly_slow(ORACLES, "kl"))
def test_value_equals_loops_and_gradient_equals_finite_differences(random, variant):
    """For all pairs and for pairs of classes."""
    x, teacher, labels = random.normal(size=(N, D)), random.normal(size=(N, E)), random.integers(0, 3, N)
    same, others = labels[:, None] == labels, ~np.eye(N, dtype=bool)
    with jax.enable_x64(True):

        @jax.jit
        @partial(jax.value_and_grad, has_aux=True)
        def compute(x):
            of = partial(losses.similarity_distillation_loss, x, teacher, variant=variant, **OPTIONS[variant])
            parts = of(block_size=4), of(labels)
            return parts[0] + 2 * parts[1], parts

        (_, found), _ = compute(x)
        for value, masks in zip(found, ((others, others), (same & others, ~same)), strict=True):
            np.testing.assert_allclose(value, ORACLES[variant](x @ x.T, teacher @ teacher.T, *masks), rtol=2e-5)
        assert_gradient_equals_slope(lambda x: (compute(x)[0][0], compute(x)[1]), x, random)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ORACLES)
def test_pairs_of_shared_labels_equal_loops(random, variant):
    """Pairs that are positive and negative at once occur here."""
    x, teacher, others = random.normal(size=(N, D)), random.normal(size=(N, E)), ~np.eye(N, dtype=bool)
    labels, _, positive, negative = related("shared labels", random)
    found = losses.similarity_distillation_loss(
        float32(x), float32(teacher), labels, variant=variant, block_size=4, **OPTIONS[variant]
    )
    expected = ORACLES[variant](x @ x.T, teacher @ teacher.T, positive & others, negative & others)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize("variant", mostly_slow(ORACLES))
def test_references_of_a_teacher_or_its_scores_equal_loops(random, variant):
    x, teacher, y, ref = (random.normal(size=shape) for shape in ((N, D), (N, E), (M, D), (M, E)))
    labels, ref_labels, positive, negative = related("reference", random)
    options = {"ref_embeddings": float32(y), "ref_labels": ref_labels, "variant": variant, "block_size": 4}
    by_scores = partial(losses.score_distillation_loss, scores=float32(teacher @ ref.T))
    by_teacher = partial(losses.similarity_distillation_loss, teacher=float32(teacher), ref_teacher=float32(ref))
    for loss in (by_scores, by_teacher):
        found = loss(float32(x), labels=labels, **options, **OPTIONS[variant])
        np.testing.assert_allclose(found, ORACLES[variant](x @ y.T, teacher @ ref.T, positive, negative), rtol=2e-5)


@pytest.mark.parametrize("variant", mostly_slow(ORACLES, "kl"))
def test_student_and_teacher_have_their_own_measures_and_directions(random, variant):
    x, teacher = random.normal(size=(N, D)), random.normal(size=(N, E))
    others = ~np.eye(N, dtype=bool)
    t = -np.linalg.norm(teacher[:, None] - teacher, axis=2)  # a distance: closer is smaller
    measures = {"measure": "cosine", "teacher_measure": "euclidean"}
    loss = partial(losses.similarity_distillation_loss, variant=variant, **measures, **OPTIONS[variant])
    found = jax.jit(loss)(float32(x), float32(teacher))
    np.testing.assert_allclose(found, ORACLES[variant](cosine(x, x), t, others, others), rtol=2e-5)


@pytest.mark.parametrize("variant", mostly_slow(ORACLES, "margin_mse"))
def test_queries_with_one_positive_and_one_negative_each(random, variant):
    """With one positive and one negative per row, margin_mse is that of sentence-transformers."""
    x, y = (random.normal(size=(k, D)) for k in (4, 8))
    positive, negative = np.eye(4, 8, dtype=bool), np.eye(4, 8, 4, dtype=bool)
    scores = random.normal(size=(4, 8))
    relation = pairs.by_matrix(positive, negative)
    found = losses.score_distillation_loss(
        float32(x), float32(scores), relation, ref_embeddings=float32(y), variant=variant
    )
    of_positive, of_negative = ((x * part).sum(1) for part in (y[:4], y[4:]))
    gold = scores[range(4), range(4)], scores[range(4), range(4, 8)]
    if variant == "margin_mse":
        expected = np.mean(((of_positive - of_negative) - (gold[0] - gold[1])) ** 2)
    else:
        student, target = (np.exp(np.stack(a, 1)) for a in ((of_positive, of_negative), gold))
        student, target = (a / a.sum(1, keepdims=True) for a in (student, target))
        expected = (target * np.log(target / student)).sum(1).mean()
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ORACLES)
def test_mined_relations_select_pairs(random, variant):
    """A miner that lists a few columns per row gives the loss of the same pairs as matrices."""
    x, teacher, i = float32(random.normal(size=(N, D))), float32(random.normal(size=(N, E))), jnp.arange(N)
    mined = mining.batch_hard(x, np.arange(N) % 3)
    assert mined.indices is not None
    matrices = pairs.by_matrix(*mined.masks(i[:, None], i[None]))

    @jax.jit
    def compute(relation):
        of_scores = losses.score_distillation_loss(x, teacher @ teacher.T, relation, variant=variant)
        return losses.similarity_distillation_loss(x, teacher, relation, variant=variant), of_scores

    np.testing.assert_allclose(compute(mined), compute(matrices), rtol=1e-5)


@pytest.mark.parametrize("variant", mostly_slow(ORACLES, "kl"))
def test_gradients_are_zero_for_teachers_and_for_students_equal_to_them(random, variant):
    x = float32(random.normal(size=(N, D)))

    def loss(x, teacher, scores):
        of_scores = losses.score_distillation_loss(x, scores, variant=variant)
        return losses.similarity_distillation_loss(x, teacher, variant=variant) + of_scores

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    value, (of_student, of_teacher, of_scores) = both(x, x, x @ x.T)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(of_student, 0, atol=1e-4)
    assert not np.any(of_teacher)
    assert not np.any(of_scores)
    _, moved = both(x, x[::-1], x @ x.T + np.eye(N, k=1, dtype=np.float32))
    assert [bool(np.any(g)) for g in moved] == [True, False, False]


def test_margin_mse_ignores_a_shift_of_each_row(random):
    x, scores = float32(random.normal(size=(N, D))), random.normal(size=(N, N))
    found = [
        losses.score_distillation_loss(x, float32(scores + shift), variant="margin_mse")
        for shift in (0, random.normal(size=(N, 1)))
    ]
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ORACLES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_no_nan_at_degenerate_batches(variant, dtype):
    def loss(x, teacher, relation):
        of = partial(losses.similarity_distillation_loss, variant=variant)
        return of(x, teacher, relation), losses.unreduced(of)(x, teacher, relation).count

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for case, x, labels in degenerate_batches(dtype):
        teacher = jnp.asarray(np.arange(x.size).reshape(x.shape), dtype)
        for relation in (None, labels):
            (value, count), gradient = both(x, teacher, relation)
            assert np.isfinite(value), case
            # The gradient overflows float16: 6e4 times the difference of products of two such rows.
            fits = (dtype, variant, case) != ("float16", "margin_mse", "huge")
            assert np.all(np.isfinite(float32(gradient)) if fits else ~np.isnan(float32(gradient))), case
            if "row" in case or (variant == "margin_mse" and case.startswith("no ") and relation is not None):
                assert float(value) == 0, case
                assert not np.any(gradient), case
                assert not np.any(count), case


def test_other_teachers_do_not_compile_again(random, caplog):
    x = float32(random.normal(size=(N, D)))
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for _ in range(5):
            teacher = float32(random.normal(size=(N, E)))
            losses.similarity_distillation_loss(x, teacher, random.integers(0, 4, N))
    messages = [r.getMessage() for r in caplog.records]
    assert sum("Finished XLA compilation of jit(_pair_terms)" in m for m in messages) == 1


@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments():
    x = jnp.ones((3, 4))
    of = losses.similarity_distillation_loss
    wrong: Any = "margin_mes"
    with pytest.raises(InputError, match="did you mean margin_mse"):
        of(x, x, variant=wrong)
    with pytest.raises(InputError, match="temperature: expected more than 0, got 0"):
        of(x, x, temperature=0)
    with pytest.raises(InputError, match="ref_teacher, ref_embeddings: expected both or neither"):
        of(x, x, ref_embeddings=x)
    with pytest.raises(InputError, match=r"scores: expected shape \(3, 2\), got \(3, 3\)"):
        losses.score_distillation_loss(x, jnp.ones((3, 3)), ref_embeddings=x[:2])
    with pytest.raises(InputError, match="teacher: expected 3 rows as in embeddings, got 2"):
        of(x, x[:2])
    with pytest.raises(InputError, match="ref_teacher: expected 3 rows as in ref_embeddings, got 2"):
        of(x, x, ref_embeddings=x, ref_teacher=x[:2])
