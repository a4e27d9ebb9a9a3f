"""Losses of graded pairs, each of which has a target score, and distillation from the scores of a teacher.

CoSENT and AnglE penalize similarities of n pairs that are not in the order of the target scores. With s_a the
similarity of pair a = (x_a, y_a) and t_a its target score,

    loss = log(1 + sum over pairs a, b with t_a > t_b of exp(scale * (s_b - s_a)))

Distillation fits the scores s of a student to the scores t of a teacher, whose embeddings may have another size. Row i
is an embedding that is compared with m others, the columns. A score is a similarity or a negated distance. T is a
temperature:

    kl            loss_i = T^2 KL(softmax of t_i / T  ||  softmax of s_i / T)
    margin_mse    loss_i = mean over positives p and negatives n of ((s_ip - s_in) - (t_ip - t_in))^2

margin_mse does not change if a constant is added to all scores of a row. With e = s - t, and its mean and variance over
p and over n, it equals var_p(e) + var_n(e) + (mean_p(e) - mean_n(e))^2, so the triplets (i, p, n) are never stored.

A tile is a block of r rows of the similarity matrix with all columns. `_distillation_terms` takes a tile and returns
the loss of each row and the mask of the rows with a loss, [r, 1] each.

References:
    Su (2022), CoSENT: A More Efficient Sentence Vector Scheme than Sentence-BERT. Li, Li (2023), AnglE-optimized Text
    Embeddings. Hofstätter et al. (2020), Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation (Margin-MSE). Lin, Yang, Lin (2020), Distilling Dense Representations for Ranking using
    Tightly-Coupled Teachers.
"""

from functools import partial
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import (
    InputError,
    as_float_array,
    as_matrices,
    as_number_array,
    auto_axes,
    check_choice,
    check_number,
    check_positive,
    map_rows,
    promote_to_float32,
)
from simjax.losses._options import Labels, PairOptions, ResolvedOptions, resolve_options
from simjax.losses._pair_loss import Terms, compute_pair_loss, log_sum_exp
from simjax.losses._terms import Embeddings, Scalar
from simjax.pairs import Relation
from simjax.similarity import Measure, cosine_similarity, unit_vectors
from simjax.similarity import measure as as_measure
from simjax.similarity._finite import absolute
from simjax.similarity._row_reductions import softmax_of_tile


def cosent_loss(
    x: Embeddings, y: Embeddings, score: Num[ArrayLike, " n"], *, scale: ArrayLike = 20.0, block_size: int | None = None
) -> Scalar:
    """Penalize pairs whose cosine similarities are ordered differently from their target scores.

    Takes O(n^2) time; the n x n matrix of differences is processed in blocks. A target score of NaN is an error.

    Args:
        x, y: Embeddings, [n, d] each; row i of x and row i of y form a pair.
        score: Target score of each pair, higher for more similar pairs, [n]. Only the order matters.
        scale: Multiplier of the similarity differences (inverse temperature), above 0.
        block_size: Pairs per block. Default: chosen from a memory budget.

    Example:
        >>> x, y = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> print(round(float(cosent_loss(x, y, jnp.array([5, 1]), scale=1.0)), 4))  # log(1 + exp(0 - 1))
        0.3133
    """
    x, y, targets = _check_graded_pairs(x, y, score, scale)
    return _ordering_loss(cosine_similarity(x, y), targets, jnp.asarray(scale), block_size=block_size)


def angle_loss(
    x: Embeddings, y: Embeddings, score: Num[ArrayLike, " n"], *, scale: ArrayLike = 20.0, block_size: int | None = None
) -> Scalar:
    """Penalize pairs whose angles, as complex vectors, are ordered differently from their target scores.

    Near 0 and 180 degrees the gradient of the cosine vanishes, and the gradient of the angle does not. The first half
    of a vector holds real parts, the second half imaginary parts. For unit vectors the similarity is
    |sum over features of Re z + Im z| with z = x conj(y). Other arguments are those of `cosent_loss`.

    Args:
        x: [n, d] with an even d.

    Example:
        >>> x, y = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.6, 0.8]])
        >>> print(round(float(angle_loss(x, y, jnp.array([5, 1]), scale=1.0)), 4))  # log(1 + exp(0.2 - 1))
        0.3711
    """
    x, y, targets = _check_graded_pairs(x, y, score, scale)
    if x.shape[1] % 2:
        raise InputError(f"x: expected an even number of features, real and imaginary parts, got {x.shape[1]}")
    return _ordering_loss(_angle_similarity(x, y), targets, jnp.asarray(scale), block_size=block_size)


def similarity_distillation_loss(
    embeddings: Embeddings,
    teacher: Num[ArrayLike, "n e"],
    labels: Labels | None = None,
    *,
    variant: Literal["kl", "margin_mse"] = "kl",
    temperature: ArrayLike = 1.0,
    ref_teacher: Num[ArrayLike, "m e"] | None = None,
    teacher_measure: str | Measure | None = None,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Fit the scores of embeddings to the scores of a teacher's embeddings.

    Takes O(n m (d + e)) time and the memory of two tiles, one of the student and one of the teacher. The result is by
    default the mean over the rows that have a pair, or for "margin_mse" a positive and a negative.

    Args:
        embeddings: Embeddings of the student, [n, d].
        teacher: Embeddings of the teacher for the same rows, [n, e]. No gradient flows through them.
        labels: Class ids [n] or a `Relation`. "kl" uses all positive and negative pairs, "margin_mse" every positive
            with every negative. Default: all pairs; "margin_mse" then compares every two columns of a row.
        variant: "kl" compares the softmax over each row, "margin_mse" the differences of scores.
        temperature: Divisor of both scores in "kl", above 0.
        ref_teacher: Embeddings of the teacher for `ref_embeddings`, [m, e].
        teacher_measure: Measure of the teacher. Default: the measure of the student.
        **options: See `PairOptions`. Default measure: dot.

    Example:
        The scores of the student are equal, and the scores of the teacher differ by 2:

        >>> student, teacher = jnp.array([[0.0]]), jnp.array([[1.0]])
        >>> references = {"ref_embeddings": jnp.array([[1.0], [1.0]]), "ref_teacher": jnp.array([[2.0], [0.0]])}
        >>> print(similarity_distillation_loss(student, teacher, variant="margin_mse", **references))  # (0 - 2)^2
        4.0
    """
    resolved = resolve_options(similarity_distillation_loss, options, measure="dot")
    if (resolved.ref_embeddings is None) != (ref_teacher is None):
        raise InputError("ref_teacher, ref_embeddings: expected both or neither, got one of them")
    rows, columns = as_matrices(teacher, teacher if ref_teacher is None else ref_teacher, ("teacher", "ref_teacher"))
    references = resolved.ref_embeddings
    for name, of_teacher, of_student in (("teacher", rows, embeddings), ("ref_teacher", columns, references)):
        if of_student is not None and len(of_teacher) != (n := np.shape(of_student)[0]):
            student = name.replace("teacher", "embeddings")
            raise InputError(f"{name}: expected {n} rows as in {student}, got {len(of_teacher)}")
    measure = lax.stop_gradient(resolved.measure if teacher_measure is None else as_measure(teacher_measure))
    teacher_inputs = (*lax.stop_gradient(measure.tile_inputs(rows, columns)), measure)
    shape = len(rows), len(columns)
    return _distillation_loss(embeddings, labels, resolved, variant, temperature, teacher_inputs, shape)


def score_distillation_loss(
    embeddings: Embeddings,
    scores: Num[ArrayLike, "n m"],
    labels: Labels | None = None,
    *,
    variant: Literal["kl", "margin_mse"] = "kl",
    temperature: ArrayLike = 1.0,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Fit the scores of embeddings to given scores, for instance those of a cross-encoder.

    Other arguments are those of `similarity_distillation_loss`.

    Args:
        scores: Scores of the teacher, higher for more similar pairs, [n, m]. No gradient flows through them.

    Example:
        >>> x, y, scores = jnp.array([[2.0]]), jnp.array([[1.0], [0.0]]), jnp.array([[3.0, 1.0]])
        >>> print(score_distillation_loss(x, scores, ref_embeddings=y))  # both differences are 2
        0.0
    """
    resolved = resolve_options(score_distillation_loss, options, measure="dot")
    teacher_scores = lax.stop_gradient(as_float_array("scores", scores))
    columns = embeddings if resolved.ref_embeddings is None else resolved.ref_embeddings
    shape = np.shape(embeddings)[0], np.shape(columns)[0]
    if teacher_scores.shape != shape:
        raise InputError(f"scores: expected shape {shape}, got {teacher_scores.shape}")
    return _distillation_loss(embeddings, labels, resolved, variant, temperature, (teacher_scores, None, None), shape)


def _check_graded_pairs(x: Any, y: Any, score: ArrayLike, scale: ArrayLike) -> tuple[Array, Array, Array]:
    x, y = as_matrices(x, y)
    check_number("score", score)
    check_positive("scale", scale)
    targets = as_number_array("score", score)
    if x.shape != y.shape or targets.shape != x.shape[:1]:
        raise InputError(
            f"x, y, score: expected shapes [n, d], [n, d] and [n], got {x.shape}, {y.shape} and {targets.shape}"
        )
    return promote_to_float32(x), promote_to_float32(y), targets


@jax.jit
def _angle_similarity(x: Array, y: Array) -> Array:
    (a, b), (c, d) = (jnp.split(unit_vectors(v), 2, axis=1) for v in (x, y))
    return absolute(jnp.sum((a * c + b * d) + (b * c - a * d), axis=1))


@partial(jax.jit, static_argnames="block_size")
@auto_axes
def _ordering_loss(s: Array, targets: Array, scale: Array, *, block_size: int | None) -> Array:
    def log_sum_of_rows(s_a: Array, t_a: Array) -> Array:
        return log_sum_exp(scale * (s[None] - s_a[:, None]), t_a[:, None] > targets[None])[:, 0]

    log_sums = map_rows(log_sum_of_rows, s, targets, block_size=block_size, row_bytes=4 * max(s.shape[0], 1))
    # softplus(z) = log(1 + exp(z)), and z is the logarithm of the sum, so the sum cannot overflow.
    return jax.nn.softplus(log_sum_exp(log_sums[None], jnp.ones((1, log_sums.shape[0]), bool))[0, 0])


def _distillation_loss(
    embeddings: ArrayLike,
    labels: Labels | None,
    options: ResolvedOptions,
    variant: str,
    temperature: ArrayLike,
    teacher_inputs: tuple[Any, Any, Measure | None],
    shape: tuple[int, int],
) -> Scalar:
    """Compute a distillation loss.

    `teacher_inputs` are the two results of `measure.tile_inputs` (for rows and for columns) and the measure, or the
    scores [n, m] of the teacher, None and None. `shape` is (n, m), the numbers of rows and columns.
    """
    check_choice("variant", variant, ("kl", "margin_mse"))
    check_positive("temperature", temperature)
    return compute_pair_loss(
        _distillation_terms,
        embeddings,
        Relation(Partial(_all_pairs), shape) if labels is None else labels,
        options,
        static=(variant,),
        row_parameters={"teacher_rows": teacher_inputs[0]},
        column_parameters={"teacher_columns": teacher_inputs[1]},
        teacher_measure=teacher_inputs[2],
        temperature=temperature,
    )


def _all_pairs(i: Array, j: Array) -> tuple[Array, Array]:
    """Return two masks by which every pair of rows i [r, 1] and columns j [1, m] is both positive and negative."""
    mask = jnp.ones((i.shape[0], j.shape[1]), bool)
    return mask, mask


def _distillation_terms(
    scores: Array,
    positive: Array,
    negative: Array,
    variant: str,
    *,
    teacher_rows: Any,
    teacher_columns: Any,
    teacher_measure: Measure | None,
    temperature: Array,
) -> Terms:
    teacher_rows = jax.tree.map(lambda a: a[:, 0], teacher_rows)  # row parameters come as [r, 1, ...]
    if teacher_measure is None:
        teacher_scores = teacher_rows
    else:
        teacher_scores = teacher_measure.as_score(teacher_measure.tile(teacher_rows, teacher_columns))
    teacher_scores = promote_to_float32(teacher_scores)
    if variant == "margin_mse":
        return {"row": _margin_mse(scores, teacher_scores, positive, negative)}
    mask = positive | negative
    divergence = _kl_divergence(teacher_scores / temperature, scores / temperature, mask)
    return {"row": (temperature**2 * divergence, jnp.any(mask, axis=1, keepdims=True))}


def _kl_divergence(teacher: Array, student: Array, mask: Array) -> Array:
    """Return KL(softmax of teacher || softmax of student) over the entries of each row in the mask, [r, 1]."""
    difference = (teacher - log_sum_exp(teacher, mask)) - (student - log_sum_exp(student, mask))
    teacher_weights, _ = softmax_of_tile(teacher, mask)
    return jnp.sum(jnp.where(mask, teacher_weights * difference, 0), axis=1, keepdims=True)


def _margin_mse(student: Array, teacher: Array, positive: Array, negative: Array) -> tuple[Array, Array]:
    """Return the loss of each row, and whether the row has a triplet, [r, 1] each."""
    # Clipped so that the sum of up to 2^18 squares does not overflow.
    largest = jnp.sqrt(jnp.finfo(student.dtype).max) / 1024
    e = jnp.clip(student, -largest, largest) - jnp.clip(teacher, -largest, largest)
    e = jnp.where(positive | negative, e, 0)  # a NaN outside of both masks would make the gradient NaN
    (mean_p, var_p, count_p), (mean_n, var_n, count_n) = (_mean_and_variance(e, mask) for mask in (positive, negative))
    same = jnp.sum(positive & negative, axis=1, keepdims=True)  # triplets whose positive is also the negative add 0
    all_triplets = count_p * count_n
    triplets = all_triplets - same
    return (var_p + var_n + jnp.square(mean_p - mean_n)) * (all_triplets / jnp.maximum(triplets, 1)), triplets > 0


def _mean_and_variance(e: Array, mask: Array) -> tuple[Array, Array, Array]:
    """Compute mean, variance and number of the entries of each row in the mask, [r, 1] each; 0 if there are none."""
    count = jnp.sum(mask, axis=1, keepdims=True, dtype=e.dtype)
    mean = jnp.sum(jnp.where(mask, e, 0), axis=1, keepdims=True) / jnp.maximum(count, 1)
    squares = jnp.where(mask, jnp.square(e - mean), 0)
    return mean, jnp.sum(squares, axis=1, keepdims=True) / jnp.maximum(count, 1), count
