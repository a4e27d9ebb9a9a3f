"""Samplers without replacement within an epoch: every class or triplet is drawn once per epoch, in a new random order.

Independent draws leave out some classes for a long time: if each batch has k of c classes, a fraction (1 - k / c)^s of
the classes is missing in s batches. Here a batch is a function of a PRNG key and the index of the batch alone, so that
a run resumes at any step without saved state, and all hosts draw the same batches. The order of an epoch is a random
permutation, of which `permutation_at` computes single elements by a swap-or-not shuffle. Arguments that are out of
range raise an `InputError`, and labels and triplets that are not integers a `TypeError`.

Batches of triplets are for data with judgements "a is more similar to p than to n" instead of classes.
`fixed_triplets` instead draws triplets of classes, independently and once before the training. The relation of a batch
of b triplets has their anchors as rows, and their positives and negatives as columns:

    anchor, positive, negative = sample_triplets(key, step, triplets, b)
    relation = pairs.by_matrix(jnp.eye(b, 2 * b, dtype=bool), jnp.eye(b, 2 * b, k=b, dtype=bool))
    others = jnp.concatenate([embed(positive), embed(negative)])
    loss = losses.triplet_margin_loss(embed(anchor), relation, ref_embeddings=others)

References:
    Hoang, Morris, Rogaway (2012), An Enciphering Scheme Based on a Card Shuffle.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Int

from simjax.core import InputError, as_exact_array, as_integer_array, check_at_least, mixed_bits
from simjax.data._sampler import ClassTable, class_table, locate

ROUNDS = 32
"""Rounds of the shuffle. With half as many, 60,000 permutations of 5 or 37 elements passed the tests of uniformity."""


@partial(jax.jit, static_argnames=("classes_per_batch", "m"))
def sample_balanced(
    key: Array, step: ArrayLike, table: ClassTable, classes_per_batch: int, m: int
) -> Int[Array, " k_m"]:
    """Draw classes without replacement within an epoch, and the next m images of each.

    An epoch has ceil(c / classes_per_batch) batches, where c is the number of classes with images. If its last batch is
    not full, it is padded with classes of the same epoch. The images of a class are drawn in the same way: all of them
    once, in ceil(count / m) draws of the class, before any is drawn again.

    Args:
        key: PRNG key of the run.
        step: Index of the batch, counted from 0 over all epochs. May be traced.
        table: The images of each class, from `class_table`.
        classes_per_batch: At most the number of classes. Classes repeat if fewer classes have images.
        m: Images of each class. They are distinct within a batch if the class has enough images; otherwise each is
            drawn once before any is drawn again.

    Returns:
        int32 [classes_per_batch * m], the m images of a class next to each other.

    Differs from pytorch-metric-learning: its MPerClassSampler draws the classes of each batch independently if a batch
    size is given, and always draws the images independently.

    Example:
        Three classes of two images: an epoch of three batches of one class has every image once.

        >>> table = class_table(np.array([0, 0, 1, 1, 2, 2]), 3)
        >>> drawn = [sample_balanced(jax.random.key(0), step, table, 1, 2).tolist() for step in range(3)]
        >>> sorted(sum(drawn, []))
        [0, 1, 2, 3, 4, 5]
    """
    _check_groups("classes_per_batch", classes_per_batch, table, "classes")
    check_at_least("m", m, 1)
    return _draw_within(_draw_groups(key, step, table, classes_per_batch), table, m).indices


class Hierarchy(NamedTuple):
    """Classes of super-classes.

    Attributes:
        classes: The images of each class.
        super_classes: The classes of each super-class that have images.
    """

    classes: ClassTable
    super_classes: ClassTable


def hierarchy(labels: ArrayLike, super_labels: ArrayLike) -> Hierarchy:
    """Make tables of the images of each class and the classes of each super-class, once, on the host.

    Args:
        labels: Class of each image, int [n] from 0.
        super_labels: Super-class of each image, int [n] from 0. All images of a class have the same.

    Example:
        >>> cats_and_cars = hierarchy(np.array([0, 1, 1, 2]), np.array([0, 0, 0, 1]))
        >>> cats_and_cars.super_classes.counts.tolist()
        [2, 1]
    """
    labels, super_labels = (
        np.asarray(as_exact_array(argument, as_integer_array(argument, ids), jnp.int32))
        for argument, ids in (("labels", labels), ("super_labels", super_labels))
    )
    if labels.ndim != 1 or labels.shape != super_labels.shape:
        raise InputError(f"super_labels: expected one for each label {labels.shape}, got shape {super_labels.shape}")
    pairs = np.unique(np.stack([labels, super_labels]), axis=1) if len(labels) else np.zeros((2, 0), int)
    classes, counts = np.unique(pairs[0], return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"super_labels: expected one super-class for each class, got several for {classes[counts > 1]}"
        )
    children = class_table(pairs[1], int(pairs[1].max(initial=-1)) + 1)  # rows are positions in `classes`
    if len(classes):
        children = children._replace(rows=jax.device_put(classes.astype(np.int32)[np.asarray(children.rows)]))
    return Hierarchy(class_table(labels, int(labels.max(initial=-1)) + 1), children)


@partial(jax.jit, static_argnames=("super_classes_per_batch", "classes_per_super_class", "m"))
def sample_hierarchical(
    key: Array, step: ArrayLike, table: Hierarchy, super_classes_per_batch: int, classes_per_super_class: int, m: int
) -> Int[Array, " s_k_m"]:
    """Draw classes of a few super-classes, so that most negatives of a batch are of similar classes.

    Super-classes are drawn without replacement within an epoch of ceil(s / super_classes_per_batch) batches. The
    classes of each super-class and the images of each class are drawn in the same way over its draws; see
    `sample_balanced`.

    Args:
        key, step: See `sample_balanced`.
        table: From `hierarchy`.
        super_classes_per_batch: At most the number of super-classes.
        classes_per_super_class: Classes of each super-class. They are distinct if the super-class has enough classes;
            otherwise each is drawn once before any is drawn again.
        m: Images of each class, as in `sample_balanced`.

    Returns:
        int32 [super_classes_per_batch * classes_per_super_class * m], ordered by super-class, then by class.

    Differs from pytorch-metric-learning: its HierarchicalSampler lists batches for every combination of super-classes;
    here an epoch has every super-class once, in random combinations.

    Example:
        >>> table = hierarchy(np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1]))
        >>> drawn = sample_hierarchical(jax.random.key(0), 0, table, 1, 2, 1)
        >>> sorted(drawn.tolist()) in ([0, 1], [2, 3])
        True
    """
    _check_groups("super_classes_per_batch", super_classes_per_batch, table.super_classes, "super-classes")
    check_at_least("classes_per_super_class", classes_per_super_class, 1)
    check_at_least("m", m, 1)
    super_classes = _draw_groups(key, step, table.super_classes, super_classes_per_batch)
    classes = _draw_within(super_classes, table.super_classes, classes_per_super_class)
    return _draw_within(classes, table.classes, m).indices


def fixed_triplets(key: Array, table: ClassTable, n_triplets: int) -> Int[Array, "{n_triplets} 3"]:
    """Draw the triplets of a run for `sample_triplets`, independently, so a triplet may occur twice.

    Args:
        key: PRNG key.
        table: The images of each class, from `class_table`.
        n_triplets: The number of triplets t.

    Returns:
        Indices of images (anchor, positive, negative), int32 [t, 3]. Anchor and positive are different images of a
        class that is drawn uniformly from the classes with at least two images. The negative is an image of another
        class, which is drawn uniformly from the other classes with images.

    Differs from pytorch-metric-learning: in its FixedSetOfTriplets an anchor whose class has no other image is its own
    positive.

    Example:
        >>> fixed_triplets(jax.random.key(0), class_table(np.array([0, 1, 1]), 2), 2)[:, 2].tolist()
        [0, 0]
    """
    check_at_least("n_triplets", n_triplets, 1)
    counts = np.asarray(table.counts)
    if np.sum(counts > 0) < 2 or counts.max() < 2:
        raise InputError(
            "table: expected at least two classes with images, one of them with at least two images, got "
            f"{np.sum(counts > 0)} classes with images, the largest with {counts.max(initial=0)} images"
        )
    return _fixed_triplets(key, table, n_triplets)


@partial(jax.jit, static_argnames="t")
def _fixed_triplets(key: Array, table: ClassTable, t: int) -> Array:
    keys = jax.random.split(key, 5)
    has_image, has_pair = (table.counts > 0).astype(jnp.int32), (table.counts > 1).astype(jnp.int32)
    # With counts of 0 and 1, `locate` returns the class with a given rank among the classes with count 1.
    own_class, _ = locate(jax.random.randint(keys[0], (t,), 0, has_pair.sum()), has_pair)
    own_rank = jnp.cumsum(has_image)[own_class] - 1
    other_rank = jax.random.randint(keys[1], (t,), 0, has_image.sum() - 1)
    other_class, _ = locate(other_rank + (other_rank >= own_rank), has_image)  # the own rank is skipped
    # Positions in the lists of images of both classes, which are rows of the table.
    own_count, other_count = table.counts[own_class], table.counts[other_class]
    anchor = jax.random.randint(keys[2], (t,), 0, own_count)
    positive = (anchor + jax.random.randint(keys[3], (t,), 1, own_count)) % own_count
    negative = jax.random.randint(keys[4], (t,), 0, other_count)
    rows = table.rows
    return jnp.stack([rows[own_class, anchor], rows[own_class, positive], rows[other_class, negative]], axis=1)


def sample_triplets(
    key: Array, step: ArrayLike, triplets: Int[ArrayLike, "t 3"], batch: int
) -> tuple[Int[Array, " batch"], Int[Array, " batch"], Int[Array, " batch"]]:
    """Draw triplets of a fixed set without replacement within an epoch.

    An epoch has ceil(t / batch) batches. If its last batch is not full, it is padded with triplets of the same epoch.

    Args:
        key, step: See `sample_balanced`.
        triplets: Indices of images (anchor, positive, negative), int [t, 3].
        batch: The number of triplets, at most t.

    Returns:
        Indices of anchors, positives and negatives, int32 [batch] each.

    Example:
        >>> triplets = jnp.array([[0, 1, 2], [3, 4, 5]])
        >>> anchors = [sample_triplets(jax.random.key(0), step, triplets, 1)[0].tolist() for step in range(2)]
        >>> sorted(anchors)
        [[0], [3]]
    """
    triplets = as_exact_array("triplets", as_integer_array("triplets", triplets), jnp.int32)
    if triplets.ndim != 2 or triplets.shape[1] != 3:
        raise InputError(f"triplets: expected shape [t, 3], got {triplets.shape}")
    if not 1 <= batch <= len(triplets):
        raise InputError(f"batch: expected 1 .. {len(triplets)}, the number of triplets, got {batch}")
    return _sample_triplets(key, step, triplets, batch)


@partial(jax.jit, static_argnames="batch")
def _sample_triplets(key: Array, step: ArrayLike, triplets: Array, batch: int) -> tuple[Array, Array, Array]:
    drawn = _draw(key, jnp.asarray(step, jnp.int32), jnp.asarray(len(triplets)), batch).indices
    anchor, positive, negative = triplets[drawn].T
    return anchor, positive, negative


def permutation_at(key: Array, position: Int[ArrayLike, "*s"], n: ArrayLike) -> Int[Array, "*s"]:
    """Compute the elements at `position`, integers in 0 .. n - 1, of a random permutation of 0 .. n - 1.

    The elements are int32 of the shape of `position`. n is at least 1 and may be traced.

    Example:
        >>> order = permutation_at(jax.random.key(0), jnp.arange(5), 5)
        >>> sorted(order.tolist())
        [0, 1, 2, 3, 4]
        >>> permutation_at(jax.random.key(0), 3, 5) == order[3]
        Array(True, dtype=bool)
    """
    # Sorting random numbers at each step instead takes 30 times as long for 60,000 images, and a notable part of a
    # training step (`python -m benchmarks.choices`).
    n = jnp.asarray(n, jnp.uint32)
    sums, salts = jax.random.bits(key, (2, ROUNDS))  # two random numbers for each round
    sums = sums % n  # an element and its partner in round i add up to sums[i] modulo n

    def swap(i: Array, x: Array) -> Array:
        partner = (sums[i] + n - x) % n
        is_swapped = mixed_bits(jnp.maximum(x, partner) ^ salts[i]) & 1 == 1  # the same for x and its partner
        return jnp.where(is_swapped, partner, x)

    return jax.lax.fori_loop(0, ROUNDS, swap, jnp.asarray(position, jnp.uint32)).astype(jnp.int32)


class Selection(NamedTuple):
    """Selected members of a group, [k] each. A member is a class or an image."""

    indices: Array  # the members
    keys: Array  # PRNG keys for draws within each member
    draws: Array  # how often each member was drawn before
    repeat: Array  # how often each member occurs before in this selection, if the group has fewer than k members
    repeats: Array  # the largest number of occurrences of a member in this selection


def _draw(key: Array, draw: Array, n: Array, k: int, repeat: ArrayLike = 0, repeats: ArrayLike = 1) -> Selection:
    """Select the next k of n members of a group, without replacement within an epoch.

    If k does not divide n, the last draw of an epoch is padded with the first members of the epoch. The draws within
    such a repeated member use a key of their own, so that its next regular draw is not affected. The group occurs
    `repeats` times in the batch. The draw with index `draw` selects k members for each occurrence; this call is for the
    occurrence with index `repeat`.
    """
    n = jnp.maximum(n, 1)
    members_per_draw = k * jnp.asarray(repeats, jnp.int32)
    draws_per_epoch = -(-n // members_per_draw)
    epoch = draw // draws_per_epoch
    first = draw % draws_per_epoch * members_per_draw + k * jnp.asarray(repeat, jnp.int32)
    position = first + jnp.arange(k, dtype=jnp.int32)
    indices, occurrence = permutation_at(jax.random.fold_in(key, epoch), position % n, n), position // n
    has_too_few = n < members_per_draw
    # Numbers below 0, because the keys of epochs are folded from the numbers from 0.
    fold_numbers = -1 - (indices + jnp.where(has_too_few, 0, occurrence) * n)
    return Selection(
        indices,
        jax.vmap(jax.random.fold_in, (None, 0))(key, fold_numbers),
        jnp.broadcast_to(epoch, k),
        jnp.where(has_too_few, occurrence, 0),
        jnp.broadcast_to(jnp.where(has_too_few, -(-members_per_draw // n), 1), k),
    )


def _draw_groups(key: Array, step: ArrayLike, table: ClassTable, k: int) -> Selection:
    """Select the next k groups among those that have members."""
    has_members = (table.counts > 0).astype(jnp.int32)
    drawn = _draw(key, jnp.asarray(step, jnp.int32), has_members.sum(), k)
    return drawn._replace(indices=locate(drawn.indices, has_members)[0])


def _draw_within(groups: Selection, table: ClassTable, m: int) -> Selection:
    """Select the next m members of each selected group, [k * m] in all; members of a group are next to each other."""
    draw = jax.vmap(_draw, (0, 0, 0, None, 0, 0))
    within = draw(groups.keys, groups.draws, table.counts[groups.indices], m, groups.repeat, groups.repeats)
    rows = table.rows[groups.indices[:, None], within.indices]
    return jax.tree.map(lambda a: a.reshape(-1), within._replace(indices=rows))


def _check_groups(argument: str, k: int, table: ClassTable, plural: str) -> None:
    if not 1 <= k <= len(table.counts):
        raise InputError(f"{argument}: expected 1 .. {len(table.counts)} {plural}, got {k}")
