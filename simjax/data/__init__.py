"""Data sources, image decoding, preprocessing, samplers of batches, and augmentation."""

from simjax.data._augment import Augmentation, augment, default_augmentation, normalize, statistics
from simjax.data._balanced_sampler import (
    Hierarchy,
    fixed_triplets,
    hierarchy,
    permutation_at,
    sample_balanced,
    sample_hierarchical,
    sample_triplets,
)
from simjax.data._dataset import Dataset, Progress, export, select_classes
from simjax.data._decode import Format, UnreadableImageError, decode_images, resize
from simjax.data._folder import has_test_folder, list_classes, list_images
from simjax.data._load import DATASETS, load, resolve_folders, split_name
from simjax.data._prepare import prepare
from simjax.data._sampler import (
    ClassTable,
    class_table,
    epoch_order,
    sample_by_score,
    sample_m_per_class,
    sample_pairs,
    sample_unique_labels,
)

__all__ = [
    "Augmentation",
    "ClassTable",
    "DATASETS",
    "Dataset",
    "Format",
    "Hierarchy",
    "Progress",
    "UnreadableImageError",
    "augment",
    "class_table",
    "decode_images",
    "default_augmentation",
    "epoch_order",
    "export",
    "fixed_triplets",
    "has_test_folder",
    "hierarchy",
    "list_classes",
    "list_images",
    "load",
    "normalize",
    "permutation_at",
    "prepare",
    "resize",
    "resolve_folders",
    "sample_balanced",
    "sample_by_score",
    "sample_hierarchical",
    "sample_m_per_class",
    "sample_pairs",
    "sample_triplets",
    "sample_unique_labels",
    "select_classes",
    "split_name",
    "statistics",
]
