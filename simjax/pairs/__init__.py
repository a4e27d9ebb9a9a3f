"""Relations: which pairs of rows are positive or negative, and the triplets that they form."""

from simjax.pairs._relation import (
    Relation,
    as_relation,
    by_class,
    by_function,
    by_grade,
    by_matrix,
    by_position,
    by_shared_label,
)
from simjax.pairs._triplets import count_triplets, fold_positives, sum_over_positives, take_columns

__all__ = [
    "Relation",
    "as_relation",
    "by_class",
    "by_function",
    "by_grade",
    "by_matrix",
    "by_position",
    "by_shared_label",
    "count_triplets",
    "fold_positives",
    "sum_over_positives",
    "take_columns",
]
