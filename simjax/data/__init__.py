"""Named sources of labelled images to arrays, samplers of batches, and augmentation."""

from simjax.data._augment import Augmentation, augment, default_augmentation
from simjax.data._classes import keep_classes, split_name
from simjax.data._dataset import Dataset
from simjax.data._export import export
from simjax.data._folder import has_test_folder
from simjax.data._load import DATASETS, load, resolve_folders
from simjax.data._normalise import normalise, statistics
from simjax.data._prepare import prepare
from simjax.data._resize import resize
from simjax.data._sample_by_score import sample_by_score, sample_unique_labels
from simjax.data._sample_in_turn import Hierarchy, hierarchy, sample_classes_in_turn, sample_hierarchical
from simjax.data._sample_triplets import fixed_triplets, sample_triplets
from simjax.data._sampler import ClassTable, class_table, epoch_order, sample_m_per_class, sample_pairs
from simjax.data._turns import shuffled

__all__ = [
    "Augmentation",
    "ClassTable",
    "DATASETS",
    "Dataset",
    "Hierarchy",
    "augment",
    "class_table",
    "default_augmentation",
    "epoch_order",
    "export",
    "fixed_triplets",
    "has_test_folder",
    "hierarchy",
    "keep_classes",
    "load",
    "normalise",
    "prepare",
    "resize",
    "resolve_folders",
    "sample_by_score",
    "sample_classes_in_turn",
    "sample_hierarchical",
    "sample_m_per_class",
    "sample_pairs",
    "sample_triplets",
    "sample_unique_labels",
    "shuffled",
    "split_name",
    "statistics",
]
