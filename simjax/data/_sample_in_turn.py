"""Classes in turn: batches that cover all classes evenly, and batches from few super-classes.

An independent draw of classes for each batch leaves some out for long: of c classes, k at a time, a share of
(1 - k / c)^b is not seen in b batches. Here an epoch is a pass through all of them, and so is, within each class, the
way through its images.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Int

from simjax.core import InputError, as_exact_array, as_integer_array, check_at_least
from simjax.data._sampler import ClassTable, class_table, locate
from simjax.data._turns import Drawn, draw, draw_within


@partial(jax.jit, static_argnames=("classes_per_batch", "m"))
def sample_classes_in_turn(
    key: Array, step: ArrayLike, table: ClassTable, classes_per_batch: int, m: int
) -> Int[Array, " k_m"]:
    """Batch number `step`: the classes whose turn it is, and the next m images of each.

    An epoch has ceil(c / classes_per_batch) batches, of the c classes that have images. In it each class comes once
    before any comes again; only the last batch, where it is not full, takes in some a second time. Within a class the
    images take turns in the same way, m each time, for as long as it takes. The next epoch has another order.

    Args:
        key: of the whole run: a batch is a function of key, step and table, and of nothing else.
        step: which batch, counted from 0 over all epochs; may be traced.
        table: of the classes.
        classes_per_batch: at most as many as there are classes. If fewer have images, they come several times.
        m: images of each class. In a batch they are distinct while the class has enough; else each is there once
            before any comes again.

    Returns:
        int32 [classes_per_batch * m], the m images of a class next to each other.

    Raises:
        InputError: if more classes are asked for than there are, or m is not positive.

    Differs from pytorch-metric-learning: its MPerClassSampler draws the classes of each batch independently, except
    where no batch size is given, and the images at each turn independently.

    Example:
        Three classes of two images: an epoch of 3 batches of one class has every image once.

        >>> table = class_table(np.array([0, 0, 1, 1, 2, 2]), 3)
        >>> drawn = [sample_classes_in_turn(jax.random.key(0), step, table, 1, 2).tolist() for step in range(3)]
        >>> sorted(sum(drawn, []))
        [0, 1, 2, 3, 4, 5]
    """
    _check_groups("classes_per_batch", classes_per_batch, table, "classes")
    check_at_least("m", m, 1)
    return draw_within(_draw_groups(key, step, table, classes_per_batch), table, m).members


class Hierarchy(NamedTuple):
    """Classes that belong to super-classes.

    Attributes:
        classes: which images each class has.
        super_classes: which classes each super-class has; only those with images.
    """

    classes: ClassTable
    super_classes: ClassTable


def hierarchy(labels: ArrayLike, super_labels: ArrayLike) -> Hierarchy:
    """Gather the images of each class and the classes of each super-class. Made once, on the host.

    Args:
        labels: class of each image, int [n], from 0.
        super_labels: super-class of each image, int [n], from 0.

    Raises:
        InputError: if the lengths disagree, an id is negative or beyond int32, or a class lies in two super-classes.
        TypeError: if labels are not integers.

    Example:
        >>> cats_and_cars = hierarchy(np.array([0, 1, 1, 2]), np.array([0, 0, 0, 1]))
        >>> cats_and_cars.super_classes.counts.tolist()
        [2, 1]
    """
    labels, above = (
        np.asarray(as_exact_array(argument, as_integer_array(argument, ids), jnp.int32))
        for argument, ids in (("labels", labels), ("super_labels", super_labels))
    )
    if labels.ndim != 1 or labels.shape != above.shape:
        raise InputError(f"super_labels: expected one for each label {labels.shape}, got shape {above.shape}")
    pairs = np.unique(np.stack([labels, above]), axis=1) if len(labels) else np.zeros((2, 0), int)
    classes, counts = np.unique(pairs[0], return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"super_labels: expected one super-class for each class, got several for {classes[counts > 1]}"
        )
    children = class_table(pairs[1], int(pairs[1].max(initial=-1)) + 1)  # of positions in the list of classes
    if len(classes):
        children = children._replace(rows=jnp.asarray(classes, jnp.int32)[children.rows])
    return Hierarchy(class_table(labels, int(labels.max(initial=-1)) + 1), children)


@partial(jax.jit, static_argnames=("super_classes_per_batch", "classes_per_super_class", "m"))
def sample_hierarchical(
    key: Array,
    step: ArrayLike,
    table: Hierarchy,
    super_classes_per_batch: int,
    classes_per_super_class: int,
    m: int,
) -> Int[Array, " s_k_m"]:
    """Batch number `step` from few super-classes, so that most of its negatives are near relatives.

    Super-classes take turns over an epoch of ceil(s / super_classes_per_batch) batches; so do, from epoch to epoch,
    the classes of each super-class, and from turn to turn the images of each class.

    Args:
        key: of the whole run: a batch is a function of key, step and table, and of nothing else.
        step: which batch, counted from 0 over all epochs; may be traced.
        table: made by `hierarchy`.
        super_classes_per_batch: at most as many as there are super-classes.
        classes_per_super_class: distinct while a super-class has so many; else each is there before any comes again.
        m: images of each class. In a batch they are distinct while the class has enough; else each is there once
            before any comes again.

    Returns:
        int32 [super_classes_per_batch * classes_per_super_class * m], those of a super-class next to each other, and
        within it those of a class.

    Raises:
        InputError: if more super-classes are asked for than there are, or another number is not positive.

    Differs from pytorch-metric-learning: its HierarchicalSampler makes a list of batches for every combination of
    super-classes; here every super-class comes in every epoch, with others at random.

    Example:
        >>> table = hierarchy(np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1]))
        >>> drawn = sample_hierarchical(jax.random.key(0), 0, table, 1, 2, 1)
        >>> sorted(drawn.tolist()) in ([0, 1], [2, 3])
        True
    """
    _check_groups("super_classes_per_batch", super_classes_per_batch, table.super_classes, "super-classes")
    check_at_least("classes_per_super_class", classes_per_super_class, 1)
    check_at_least("m", m, 1)
    above = _draw_groups(key, step, table.super_classes, super_classes_per_batch)
    return draw_within(draw_within(above, table.super_classes, classes_per_super_class), table.classes, m).members


def _draw_groups(key: Array, step: ArrayLike, table: ClassTable, k: int) -> Drawn:
    """The k groups whose turn it is, of those that have members."""
    there = (table.counts > 0).astype(jnp.int32)
    drawn = draw(key, jnp.asarray(step, jnp.int32), there.sum(), k)
    return drawn._replace(members=locate(drawn.members, there)[0])


def _check_groups(argument: str, k: int, table: ClassTable, what: str) -> None:
    if not 1 <= k <= len(table.counts):
        raise InputError(f"{argument}: expected 1 .. {len(table.counts)} {what}, got {k}")
