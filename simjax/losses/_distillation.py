"""Distillation of similarities: a student should find pairs as similar as a teacher does, of whatever width it is.

With s the closeness of row i and column j to the student, t to the teacher, and T a temperature:

    kl            loss_i = T^2 KL(softmax of t_i / T  ||  softmax of s_i / T), over the row's pairs
    margin_mse    loss_i = mean over positives p and negatives n of ((s_ip - s_in) - (t_ip - t_in))^2

The second leaves the student free to move all similarities of a row together. With e = s - t its mean over all p and n
is var_p(e) + var_n(e) + (mean_p(e) - mean_n(e))^2: no tuple is written down.

References:
    Hofstätter et al. (2020), Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation
    (Margin-MSE). Lin, Yang, Lin (2020), Distilling Dense Representations for Ranking using Tightly-Coupled Teachers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import InputError, as_float_array, as_matrices, check_choice, check_positive, promote_to_float32
from simjax.losses._pair_loss import log_sum_exp, pair_loss
from simjax.pairs import Relation
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure
from simjax.similarity._row_reductions import softmax_of_tile


def similarity_distillation_loss(
    embeddings: Num[ArrayLike, "n d"],
    teacher: Num[ArrayLike, "n e"],
    labels: Any = None,
    *,
    form: str = "kl",
    temperature: ArrayLike = 1.0,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_teacher: Num[ArrayLike, "m e"] | None = None,
    measure: str | Measure = "dot",
    teacher_measure: str | Measure | None = None,
    **options: Any,
) -> Any:
    """Distillation from a teacher's embeddings: one term for each row; a strip of each of the two, time n m (d + e).

    Args:
        embeddings: the student's, [n, d].
        teacher: the teacher's, of the same rows, [n, e]; constants for the gradient.
        labels: which pairs count, class ids [n] or a `Relation`: for kl its positive and negative pairs, for margin_mse
            each positive with each negative. None is all, for margin_mse every two different columns.
        form: kl or margin_mse, see above.
        temperature: of kl; both closenesses are divided by it.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_teacher: the teacher's embeddings of these, [m, e].
        measure: of the student, a name or a `Measure`.
        teacher_measure: of the teacher; None is the student's.
        **options: ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows that have a pair; for margin_mse a positive and a negative.

    Raises:
        InputError: for shapes that do not fit, an unknown form, or a temperature that is not positive.

    Example:
        The teacher is sure of the first row's match, the student is not:

        >>> student, teacher = jnp.array([[0.0]]), jnp.array([[1.0]])
        >>> columns = {"ref_embeddings": jnp.array([[1.0], [1.0]]), "ref_teacher": jnp.array([[2.0], [0.0]])}
        >>> print(similarity_distillation_loss(student, teacher, form="margin_mse", **columns))  # (0 - 2)^2
        4.0
    """
    if (ref_embeddings is None) != (ref_teacher is None):
        raise InputError("ref_teacher: expected together with ref_embeddings, got one without the other")
    x, y = as_matrices(teacher, teacher if ref_teacher is None else ref_teacher, ("teacher", "ref_teacher"))
    for name, student, its in (("teacher", embeddings, x), ("ref_teacher", ref_embeddings, y)):
        if student is not None and (n := np.shape(student)[0]) != its.shape[0]:
            raise InputError(
                f"{name}: expected {n} rows as in {name.replace('teacher', 'embeddings')}, got {its.shape[0]}"
            )
    of = as_measure(measure if teacher_measure is None else teacher_measure)
    rows, columns = lax.stop_gradient(of.tile_inputs(x, y))
    return _distilled(
        embeddings,
        ref_embeddings,
        labels,
        form,
        temperature,
        teacher=Partial(_strip, lax.stop_gradient(of), columns),
        teacher_rows=rows,
        shape=(x.shape[0], y.shape[0]),
        measure=measure,
        **options,
    )


def score_distillation_loss(
    embeddings: Num[ArrayLike, "n d"],
    scores: Num[ArrayLike, "n m"],
    labels: Any = None,
    *,
    form: str = "kl",
    temperature: ArrayLike = 1.0,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    measure: str | Measure = "dot",
    **options: Any,
) -> Any:
    """Distillation from scores of pairs, as a model gives them that reads both sides at once: one term for each row.

    Args:
        embeddings: the student's, [n, d].
        scores: the teacher's, larger when more similar, [n, m]; constants for the gradient.
        labels: which pairs count, class ids [n] or a `Relation`: for kl its positive and negative pairs, for margin_mse
            each positive with each negative. None is all, for margin_mse every two different columns.
        form: kl or margin_mse, see above.
        temperature: of kl; closeness and scores are divided by it.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        measure: of the student, a name or a `Measure`.
        **options: ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the rows that have a pair; for margin_mse a positive and a negative.

    Raises:
        InputError: for shapes that do not fit, an unknown form, or a temperature that is not positive.

    Example:
        >>> x, y, scores = jnp.array([[2.0]]), jnp.array([[1.0], [0.0]]), jnp.array([[3.0, 1.0]])
        >>> print(score_distillation_loss(x, scores, ref_embeddings=y))  # 2 apart, and 2 apart
        0.0
    """
    given = lax.stop_gradient(as_float_array("scores", scores))
    columns = embeddings if ref_embeddings is None else ref_embeddings
    expected = (np.shape(embeddings)[0], np.shape(columns)[0])
    if given.shape != expected:
        raise InputError(f"scores: expected shape {expected}, got {given.shape}")
    return _distilled(
        embeddings,
        ref_embeddings,
        labels,
        form,
        temperature,
        teacher=Partial(_as_given),
        teacher_rows=given,
        shape=expected,
        measure=measure,
        **options,
    )


def _distilled(
    embeddings: Any,
    ref_embeddings: Any,
    labels: Any,
    form: str,
    temperature: Any,
    *,
    teacher: Partial,
    teacher_rows: Any,
    shape: tuple[int, int],
    **options: Any,
) -> Any:
    """The loss of a teacher that is a function of its part of the rows, giving its strip of closeness."""
    check_choice("form", form, FORMS)
    check_positive("temperature", temperature)
    if form == "kl":
        options["temperature"] = temperature
    return pair_loss(
        FORMS[form],
        embeddings,
        Relation(Partial(_every), shape) if labels is None else labels,
        ref_embeddings=ref_embeddings,
        row_parameters={"teacher_rows": teacher_rows},
        teacher=teacher,
        **options,
    )


def _every(i: Array, j: Array) -> tuple[Array, Array]:
    every = jnp.ones((1, 1), bool)
    return every, every


def _strip(measure: Measure, columns: Any, rows: Any) -> Array:
    return promote_to_float32(measure.as_score(measure.tile(jax.tree.map(lambda a: a[:, 0], rows), columns)))


def _as_given(scores: Array) -> Array:
    return promote_to_float32(scores[:, 0])


def _kl(c: Array, positive: Array, negative: Array, *, teacher: Partial, teacher_rows: Any, temperature: Array) -> Any:
    counts = positive | negative
    student, target = c / temperature, teacher(teacher_rows) / temperature
    difference = (target - log_sum_exp(target, counts)) - (student - log_sum_exp(student, counts))
    loss = temperature**2 * jnp.sum(jnp.where(counts, softmax_of_tile(target, counts)[0] * difference, 0), axis=1)
    return {"row": (loss[:, None], jnp.any(counts, axis=1, keepdims=True))}


def _margin_mse(c: Array, positive: Array, negative: Array, *, teacher: Partial, teacher_rows: Any) -> Any:
    # What is larger counts as this much, so that no square overflows, nor the sum of many.
    most = jnp.sqrt(jnp.finfo(c.dtype).max) / 1024
    e = jnp.clip(c, -most, most) - jnp.clip(teacher(teacher_rows), -most, most)
    e = jnp.where(positive | negative, e, 0)  # the teacher's NaN elsewhere would be NaN in the gradient
    (mean_p, var_p, p), (mean_n, var_n, n) = (_moments(e, keep) for keep in (positive, negative))
    same = jnp.sum(positive & negative, axis=1, keepdims=True)  # pairs of a column with itself add 0 to the sum
    tuples = p * n - same
    loss = (var_p + var_n + jnp.square(mean_p - mean_n)) * (p * n / jnp.maximum(tuples, 1))
    return {"row": (loss, tuples > 0)}


def _moments(e: Array, keep: Array) -> tuple[Array, Array, Array]:
    """Mean, variance and number of the kept entries of each row, [r, 1] each; 0 where none is kept."""
    number = jnp.sum(keep, axis=1, keepdims=True, dtype=e.dtype)
    divisor = jnp.maximum(number, 1)
    mean = jnp.sum(jnp.where(keep, e, 0), axis=1, keepdims=True) / divisor
    return mean, jnp.sum(jnp.where(keep, jnp.square(e - mean), 0), axis=1, keepdims=True) / divisor, number


FORMS = {"kl": _kl, "margin_mse": _margin_mse}
